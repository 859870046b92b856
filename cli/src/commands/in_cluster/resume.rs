//! `resume` by deleting the `LinkCut`s over a link.

use std::io;

use securelink_crds::{LinkCut, SecureLink};
use serde::Serialize;

use super::super::process::wait;
use super::super::resume::ResumeArgs;
use super::{complain, namespace};
use crate::args::ClusterArgs;
use crate::cluster::{Aim, Cluster, ClusterError, Scope};
use crate::output::{Failure, Out, Tone, clean, in_words};

#[derive(Serialize)]
struct Answer {
    link: String,
    namespace: String,
    released: Vec<String>,
}

pub(super) fn run(args: &ResumeArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    let answer = wait(async {
        let cluster = Cluster::connect(place).await?;
        let namespace = namespace(&args.link, place, &cluster)?;
        let link = args.link.name.clone();
        let cuts = over(&cluster, &namespace, &link, out).await?;
        if !cuts.is_empty() && !args.yes {
            confirm(&cuts, &namespace, out)?;
        }
        let mut released = Vec::new();
        for cut in &cuts {
            cluster.release(cut).await?;
            released.push(name(cut));
        }
        Ok(Answer { link, namespace, released })
    })?;
    if args.output.is_json() {
        return out.json(&answer);
    }
    let (namespace, link) = (&answer.namespace, &answer.link);
    let told = if answer.released.is_empty() {
        "was not cut by a LinkCut".to_owned()
    } else {
        format!("is resumed: deleted LinkCut {}", in_words(&answer.released))
    };
    out.line(format!("{} {namespace}/{link} {told}", out.style().paint(Tone::Good, "✓")))
}

/// The cuts over a link: aimed at it, or at the organization on its other side.
async fn over(cluster: &Cluster, namespace: &str, link: &str, out: Out) -> Result<Vec<LinkCut>, Failure> {
    let seen = cluster.list::<LinkCut>(Scope::namespace(namespace)).await?;
    complain(&seen.unreadable, out);
    let mut aims = vec![Aim::Link(link.to_owned())];
    match cluster.get::<SecureLink>(namespace, link).await {
        Ok(Some(found)) => aims.push(Aim::TrustDomain(found.spec.peer.trust_domain)),
        Ok(None) if seen.items.iter().any(|cut| aims[0].is_of(cut)) => {}
        Ok(None) => return Err(ClusterError::missing::<SecureLink>(namespace, link).into()),
        // Who may only cut and resume cannot read whom a link is to.
        Err(ClusterError::Forbidden { .. }) => {
            let others: Vec<_> = seen.items.iter().filter(|cut| cut.spec.trust_domain.is_some()).map(name).collect();
            if !others.is_empty() {
                let text = format!(
                    "you may not read {namespace}/{link}, so whether LinkCut {} cuts it too is not known; bind securelink-view",
                    in_words(&others)
                );
                out.complain("warning", Tone::Warn, &text);
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(seen.items.into_iter().filter(|cut| aims.iter().any(|aim| aim.is_of(cut))).collect())
}

/// Asks, on standard error: standard output is the answer.
fn confirm(cuts: &[LinkCut], namespace: &str, out: Out) -> Result<(), Failure> {
    for cut in cuts {
        let whole = cut.spec.trust_domain.as_ref();
        let reach = whole.map(|domain| format!("every link to {} in {namespace}, ", clean(domain))).unwrap_or_default();
        let text = format!("LinkCut {} cuts: {reach}\"{}\"", name(cut), clean(&cut.spec.reason));
        out.complain("delete", Tone::Warn, &text);
    }
    out.complain("resume", Tone::Strong, "the peer may use the link again at once; write yes to go on");
    let mut said = String::new();
    let read = io::stdin().read_line(&mut said);
    if read.is_ok() && matches!(said.trim(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was deleted; answer yes, or call it with --yes"))
}

fn name(cut: &LinkCut) -> String {
    clean(cut.metadata.name.as_deref().unwrap_or_default())
}
