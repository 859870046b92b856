//! `status`: what is true about every link of the running process.

mod shown;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use securelink_crds::conditions::{ConditionType, is_true};
use serde::Serialize;

use super::process::{choose, only_in_cluster, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, teach};
use crate::control::Client;
use crate::output::{Failure, Out};
use crate::runtime::LinkStatus;
pub(super) use shown::View;

/// Between two looks of `-w`.
const PACE: Duration = Duration::from_secs(1);
/// Clears a terminal from its first line on.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show whether links work, and if not, whose fault it is and what to do
///
/// READY is True only while bytes make the round trip. Under the table stands every condition that is false.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  All links of the process that runs on the default state folder:
    securelink status

  One link, as it changes:
    securelink status europol -w --state-dir ./state

  In a script:
    securelink status europol > /dev/null && echo \"Europol can be reached\"

  All links of a cluster:
    kubectl securelink status -A

  For a program:
    securelink status -o json | jq '.links[] | {link, peer, ready: (.status.conditions[] | select(.type == \"Ready\").status)}'",
    "  0  every link shown is Ready
  1  some link is not Ready, or there is no such link
  2  the command line is wrong
  3  there is no running process, or no cluster",
    "  {links: [{link: {namespace, name}, trustDomain, peer, status, problems: [TEXT], report}]}
  status is a SecureLink's status as in a cluster; report is what the relay says; with -w one line a change"
))]
pub struct StatusArgs {
    /// Only this link, as NAME or NAMESPACE/NAME
    pub(super) link: Option<LinkName>,

    /// Go on showing it as it changes
    #[arg(short, long)]
    pub(super) watch: bool,

    /// In a cluster: the links of all namespaces
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Serialize, PartialEq)]
pub(super) struct Answer {
    pub(super) links: Vec<LinkStatus>,
}

/// Shows the links.
pub fn run(args: &StatusArgs, out: Out) -> Result<(), Failure> {
    only_in_cluster(args.all_namespaces, "--all-namespaces")?;
    wait(async {
        let client = Client::connect(&args.state.dir()?).await?;
        if args.watch {
            return tokio::select! {
                ended = watch(args, &client, out) => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
            };
        }
        let answer = ask(args, &client).await?;
        answer.tell(args, View::Process, out)
    })
}

impl Answer {
    /// Shows it. Links that are not Ready are a failure.
    pub(super) fn tell(&self, args: &StatusArgs, view: View, out: Out) -> Result<(), Failure> {
        if args.output.is_json() {
            out.json(self)?;
        } else {
            out.raw(&shown::shown(&self.links, view, out, Timestamp::now()))?;
        }
        let ready = self.links.iter().all(|link| is_true(&link.status.conditions, ConditionType::Ready));
        if ready { Ok(()) } else { Err(Failure::told()) }
    }

    /// Shows it in place of what was `before`: a terminal is drawn anew; a pipe gets another block, a program another line,
    /// when something changed.
    pub(super) fn redraw(&self, before: Option<&Self>, args: &StatusArgs, view: View, out: Out) -> Result<(), Failure> {
        let changed = before != Some(self);
        if args.output.is_json() {
            return if changed { out.line(serde_json::to_string(self).unwrap_or_default()) } else { Ok(()) };
        }
        let text = shown::shown(&self.links, view, out, Timestamp::now());
        if out.is_terminal() {
            return out.raw(&format!("{CLEAR}{text}"));
        }
        if changed { out.raw(&format!("{text}\n")) } else { Ok(()) }
    }
}

async fn ask(args: &StatusArgs, client: &Client) -> Result<Answer, Failure> {
    let mut links = client.status().await?;
    if let Some(name) = &args.link {
        let known: Vec<_> = links.iter().map(|link| link.link.clone()).collect();
        let meant = choose(&known, name)?;
        links.retain(|link| link.link == meant);
    }
    Ok(Answer { links })
}

async fn watch(args: &StatusArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let mut before = None;
    loop {
        let answer = ask(args, client).await?;
        answer.redraw(before.as_ref(), args, View::Process, out)?;
        before = Some(answer);
        tokio::time::sleep(PACE).await;
    }
}
