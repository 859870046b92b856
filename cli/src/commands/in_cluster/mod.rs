//! The verbs as they speak to a cluster. Their arguments and their help stand with the verbs.

#![allow(clippy::doc_markdown, reason = "a doc comment here is help on a terminal: names need no backticks")]

mod cut;
mod fingerprint;
pub mod grant;
mod request;
mod resume;
mod status;

use crate::args::{ClusterArgs, Command, LinkName};
use crate::cluster::Cluster;
use crate::output::{Failure, Out, Tone, clean};

/// How to see whether the operator runs.
const OPERATOR: &str = "see that it runs: `kubectl get deployments -A -l app.kubernetes.io/component=operator`";

/// Does what was asked of a cluster; nothing where none is meant or none is needed.
pub(super) fn run(command: &Command, args: &ClusterArgs, out: Out) -> Option<Result<(), Failure>> {
    if !args.meant() {
        return None;
    }
    let done = match command {
        Command::Status(asked) => checked(args).and_then(|()| status::run(asked, args, out)),
        Command::Doctor(asked) => checked(args).and_then(|()| request::doctor(asked, args, out)),
        Command::Greet(asked) => checked(args).and_then(|()| request::greet(asked, args, out)),
        Command::Cut(asked) => checked(args).and_then(|()| cut::run(asked, args, out)),
        Command::Resume(asked) => checked(args).and_then(|()| resume::run(asked, args, out)),
        Command::Fingerprint(asked) if asked.certificate.is_none() => {
            checked(args).and_then(|()| fingerprint::run(asked, args, out))
        }
        Command::Grant(_) => return None,
        _ if args.named() => {
            Err(Failure::usage("this command speaks to no cluster; leave --kubeconfig, --context and -n out"))
        }
        _ => return None,
    };
    Some(done)
}

fn checked(args: &ClusterArgs) -> Result<(), Failure> {
    if args.state_dir {
        let how = "for the process on this machine call `securelink`, without --kubeconfig, --context and -n";
        return Err(Failure::usage(format!("a cluster has no state folder, so --state-dir means nothing; {how}")));
    }
    Ok(())
}

/// The namespace of what `name` names.
fn namespace(name: &LinkName, args: &ClusterArgs, cluster: &Cluster) -> Result<String, Failure> {
    match (&name.namespace, &args.namespace) {
        (Some(here), Some(there)) if here != there => {
            Err(Failure::usage(format!("{name} is not in namespace {there}; leave -n out, or the name's namespace")))
        }
        (Some(here), _) => Ok(here.clone()),
        _ => Ok(cluster.namespace().to_owned()),
    }
}

/// Says which objects could not be read.
fn complain(unreadable: &[String], out: Out) {
    for problem in unreadable {
        out.complain("warning", Tone::Warn, &clean(problem));
    }
}
