//! `status` of the links of a cluster, from their objects.

use std::time::Duration;

use securelink_crds::SecureLink;
use securelink_relay_config::LinkRef;

use super::super::process::wait;
use super::super::status::{Answer, StatusArgs, View};
use super::{OPERATOR, complain, namespace};
use crate::args::ClusterArgs;
use crate::cluster::{Cluster, ClusterError, Listed, Scope};
use crate::output::{Failure, Out};
use crate::runtime::LinkStatus;

/// How long `-w` goes on at most: a terminal that was forgotten.
const WATCH: Duration = Duration::from_hours(24 * 7);

pub(super) fn run(args: &StatusArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    if args.all_namespaces && (place.namespace.is_some() || args.link.is_some()) {
        return Err(Failure::usage("-A shows all links of all namespaces; leave the link and -n out"));
    }
    wait(async {
        let cluster = Cluster::connect(place).await?;
        let within = match &args.link {
            Some(link) => Some(namespace(link, place, &cluster)?),
            None => Some(cluster.namespace().to_owned()).filter(|_| !args.all_namespaces),
        };
        let name = args.link.as_ref().map(|link| link.name.as_str());
        let scope = Scope { namespace: within.as_deref(), name, labels: None };
        if args.watch {
            return tokio::select! {
                ended = watch(args, &cluster, scope, out) => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
            };
        }
        let seen = cluster.list::<SecureLink>(scope).await?;
        let unreadable = !seen.unreadable.is_empty();
        answer(seen, scope, out)?.tell(args, View::Cluster, out)?;
        if unreadable { Err(Failure::told()) } else { Ok(()) }
    })
}

async fn watch(args: &StatusArgs, cluster: &Cluster, scope: Scope<'_>, out: Out) -> Result<(), Failure> {
    let mut before = None;
    let ended = cluster.follow::<SecureLink, Failure>(scope, WATCH, |seen| {
        let shown = answer(seen, scope, out).and_then(|now| {
            now.redraw(before.as_ref(), args, View::Cluster, out)?;
            before = Some(now);
            Ok(())
        });
        shown.err()
    });
    ended.await?.map_or(Ok(()), Err)
}

fn answer(seen: Listed<SecureLink>, scope: Scope<'_>, out: Out) -> Result<Answer, Failure> {
    complain(&seen.unreadable, out);
    if let (Some(name), Some(namespace), true) =
        (scope.name, scope.namespace, seen.items.is_empty() && seen.unreadable.is_empty())
    {
        return Err(ClusterError::missing::<SecureLink>(namespace, name).into());
    }
    let mut links: Vec<_> = seen.items.into_iter().map(link).collect();
    links.sort_by(|one, other| one.link.cmp(&other.link));
    Ok(Answer { links })
}

fn link(object: SecureLink) -> LinkStatus {
    let meta = object.metadata;
    let status = object.status.unwrap_or_default();
    let problem = match (status.observed_generation, meta.generation) {
        _ if status.conditions.is_empty() => Some(format!("the operator has not looked at it yet; {OPERATOR}")),
        (Some(seen), Some(now)) if seen < now => {
            Some(format!("the operator has not looked at its last change yet; wait, or {OPERATOR}"))
        }
        _ => None,
    };
    LinkStatus {
        link: LinkRef { namespace: meta.namespace.unwrap_or_default(), name: meta.name.unwrap_or_default() },
        trust_domain: None,
        peer: Some(object.spec.peer.trust_domain),
        status,
        problems: problem.into_iter().collect(),
        report: None,
    }
}
