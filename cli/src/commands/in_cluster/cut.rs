//! `cut` by a `LinkCut`: made first, whatever else is known; what it hits is looked at afterwards.

use securelink_crds::{LinkCut, RelayCut, SecureLink};
use serde::Serialize;

use super::super::cut::CutArgs;
use super::super::process::wait;
use super::{OPERATOR, namespace};
use crate::args::{ClusterArgs, LinkName};
use crate::cluster::{Aim, Cluster, ClusterError, Pulled};
use crate::output::{Cell, Failure, Out, Table, Tone, clean, plural};

/// How long relays are waited for: ten times what a cut may take (P4).
const PATIENCE: u16 = 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    link_cut: String,
    fresh: bool,
    reason: String,
    /// Relays that have not obeyed; absent: the operator has not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<u32>,
    relays: Vec<RelayCut>,
}

pub(super) fn run(args: &CutArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    args.reasoned()?;
    wait(async {
        let cluster = Cluster::connect(place).await?;
        let (namespace, aim) = aim(args, place, &cluster)?;
        let Pulled { cut, fresh } = cluster.cut(&namespace, &aim, &args.reason).await?;
        let name = cut.metadata.name.clone().unwrap_or_default();
        let Some(seen) = cluster.obeyed(&cut, args.wait.limit(PATIENCE)).await? else {
            return Err(Failure::failed(format!("LinkCut {name} was deleted meanwhile; cut again, or ask who did it")));
        };
        let answer = answer(namespace, seen, fresh);
        if args.output.is_json() {
            out.json(&answer)?;
        } else {
            show(&answer, &aim, out)?;
        }
        hit(&answer, &aim, &cluster, args.wait.limit(PATIENCE).as_secs()).await
    })
}

fn aim(args: &CutArgs, place: &ClusterArgs, cluster: &Cluster) -> Result<(String, Aim), Failure> {
    match (&args.link, &args.trust_domain) {
        (Some(link), _) => Ok((namespace(link, place, cluster)?, Aim::Link(link.name.clone()))),
        (None, Some(domain)) => Ok((cluster.namespace().to_owned(), Aim::TrustDomain(domain.clone()))),
        (None, None) => Err(Failure::usage("nothing says what to cut; name a link, or --trust-domain")),
    }
}

fn answer(namespace: String, cut: LinkCut, fresh: bool) -> Answer {
    let status = cut.status.unwrap_or_default();
    Answer {
        namespace,
        link_cut: cut.metadata.name.unwrap_or_default(),
        fresh,
        reason: cut.spec.reason,
        pending: status.pending,
        relays: status.relays,
    }
}

fn show(answer: &Answer, aim: &Aim, out: Out) -> Result<(), Failure> {
    let (style, namespace, name) = (out.style(), &answer.namespace, &answer.link_cut);
    let what = match aim {
        Aim::Link(link) => format!("{namespace}/{link}"),
        Aim::TrustDomain(domain) => format!("every link to {} in {namespace}", clean(domain)),
    };
    let since = if answer.fresh {
        format!("by LinkCut {name}")
    } else {
        format!("already, by LinkCut {name}, which says \"{}\"", clean(&answer.reason))
    };
    let mark = if answer.pending == Some(0) { style.paint(Tone::Good, "✓") } else { style.paint(Tone::Warn, "!") };
    out.line(format!("{mark} {what} is cut {since}"))?;
    let mut table = Table::new(&["LINK", "RELAY", "OBEYED AT"]).indented(2);
    for relay in &answer.relays {
        let at = Cell::new(Tone::Value, relay.obeyed_at.0.to_string());
        table.row([clean(&relay.link).into(), clean(&relay.relay).into(), at]);
    }
    if !answer.relays.is_empty() {
        out.table(&table)?;
    }
    let back = match aim {
        Aim::Link(link) => format!("kubectl securelink -n {namespace} resume {link}"),
        Aim::TrustDomain(_) => format!("kubectl -n {namespace} delete linkcut {name}"),
    };
    out.line(style.paint(Tone::Dim, &format!("  take it back: {back}")))
}

/// Whether it hit anything, and all of it. Who may only cut cannot read links, and is believed.
async fn hit(answer: &Answer, aim: &Aim, cluster: &Cluster, seconds: u64) -> Result<(), Failure> {
    let name = &answer.link_cut;
    match answer.pending {
        None => Err(Failure::failed(format!(
            "LinkCut {name} is made, and within {seconds} s the operator has not said that relays obey; {OPERATOR}"
        ))),
        Some(0) => {
            let Aim::Link(link) = aim else { return Ok(()) };
            if !answer.relays.is_empty() {
                return Ok(());
            }
            match cluster.get::<SecureLink>(&answer.namespace, link).await {
                Ok(None) => Err(Failure::failed(format!(
                    "there is no SecureLink {} now, so LinkCut {name} cuts only one made later; check the name and -n, and resume this one",
                    LinkName { namespace: Some(answer.namespace.clone()), name: link.clone() }
                ))),
                Ok(Some(_)) | Err(ClusterError::Forbidden { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Some(pending) => Err(Failure::failed(format!(
            "{} did not obey within {seconds} s; LinkCut {name} holds, look again with `kubectl -n {} get linkcut {name}`",
            plural(usize::try_from(pending).unwrap_or(usize::MAX), "relay"),
            answer.namespace
        ))),
    }
}
