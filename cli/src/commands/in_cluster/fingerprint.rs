//! `fingerprint`: our lines for the annex, from the status of identities and links.

use securelink_crds::conditions::{ConditionType, find};
use securelink_crds::{LinkIdentity, SecureLink};

use super::super::fingerprint::{Annex, FingerprintArgs, Line, tell};
use super::super::process::wait;
use super::{OPERATOR, complain, namespace};
use crate::args::ClusterArgs;
use crate::cluster::{Cluster, ClusterError, Scope};
use crate::output::{Failure, Out, Tone, clean};

pub(super) fn run(args: &FingerprintArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    let (handed, missing) = wait(gather(args, place, out))?;
    if !handed.is_empty() || missing.is_empty() {
        tell(&handed, args, out)?;
    }
    let Some((last, others)) = missing.split_last() else { return Ok(()) };
    for other in others {
        out.complain("error", Tone::Bad, other);
    }
    Err(Failure::absent(last))
}

/// What can be handed over, and what is not there yet.
async fn gather(args: &FingerprintArgs, place: &ClusterArgs, out: Out) -> Result<(Vec<Annex>, Vec<String>), Failure> {
    let cluster = Cluster::connect(place).await?;
    let within = match &args.identity {
        Some(identity) => namespace(identity, place, &cluster)?,
        None => cluster.namespace().to_owned(),
    };
    let name = args.identity.as_ref().map(|identity| identity.name.as_str());
    let scope = Scope { namespace: Some(&within), name, labels: None };
    let identities = cluster.list::<LinkIdentity>(scope).await?;
    let links = cluster.list::<SecureLink>(Scope::namespace(&within)).await?;
    complain(&identities.unreadable, out);
    complain(&links.unreadable, out);
    match (identities.items.is_empty(), name) {
        (true, Some(name)) => return Err(ClusterError::missing::<LinkIdentity>(&within, name).into()),
        (true, None) => {
            let what = format!("there is no LinkIdentity in namespace {within}; apply one, or name another by -n");
            return Err(Failure::absent(what));
        }
        (false, _) => {}
    }
    let (mut handed, mut missing) = (Vec::new(), Vec::new());
    for identity in identities.items {
        let name = identity.metadata.name.clone().unwrap_or_default();
        let used = links.items.iter().filter(|link| link.spec.identity_ref.name == name);
        let endpoints = used.filter_map(|link| line(link, &within, &mut missing)).collect();
        match identity.status.as_ref().and_then(|status| status.fingerprint.clone()) {
            Some(fingerprint) => handed.push(Annex {
                namespace: Some(within.clone()),
                name: Some(name),
                trust_domain: Some(identity.spec.trust_domain),
                fingerprint: clean(&fingerprint),
                links: endpoints,
            }),
            None => missing.insert(0, no_root(&identity, &within, &name)),
        }
    }
    Ok((handed, missing))
}

fn line(link: &SecureLink, namespace: &str, missing: &mut Vec<String>) -> Option<Line> {
    let name = link.metadata.name.as_deref().unwrap_or_default();
    let endpoint = link.status.as_ref().and_then(|status| status.endpoint.clone());
    if link.spec.expose.is_some() && endpoint.is_none() {
        let unseen = link.status.as_ref().is_none_or(|status| status.conditions.is_empty());
        let how = match link.spec.expose.as_ref().and_then(|expose| expose.hostname.as_ref()) {
            _ if unseen => format!("the operator has not looked at it yet, {OPERATOR}"),
            Some(_) => format!("see why: `kubectl securelink -n {namespace} status {name}`"),
            None => "set spec.expose.hostname, or wait until its Service has an address".to_owned(),
        };
        missing.push(format!("SecureLink {namespace}/{name} has no endpoint yet; {how}"));
        return None;
    }
    Some(Line { link: format!("{namespace}/{name}"), peer: link.spec.peer.trust_domain.clone(), endpoint })
}

fn no_root(identity: &LinkIdentity, namespace: &str, name: &str) -> String {
    let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let why = find(conditions, ConditionType::CertificateReady).filter(|condition| condition.status != "True");
    let why = why.map_or_else(
        || format!("the operator has not looked at it yet; {OPERATOR}"),
        |why| format!("{}: {}", clean(&why.reason), clean(&why.message)),
    );
    let wait = format!("`kubectl -n {namespace} wait --for=condition=Ready linkidentity/{name}`");
    format!("LinkIdentity {namespace}/{name} has no fingerprint yet ({why}); wait for it: {wait}")
}
