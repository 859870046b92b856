//! `status`: what is true about every link of the running process.

mod shown;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use securelink_crds::conditions::{ConditionType, is_true};
use serde::Serialize;

use super::process::{choose, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, teach};
use crate::control::Client;
use crate::output::{Failure, Out};
use crate::runtime::LinkStatus;

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

  For a program:
    securelink status -o json | jq '.links[] | {link, peer, ready: (.status.conditions[] | select(.type == \"Ready\").status)}'",
    "  0  every link shown is Ready
  1  some link is not Ready, or there is no such link
  2  the command line is wrong
  3  there is no running process",
    "  {links: [{link: {namespace, name}, trustDomain, peer, status, problems: [TEXT], report}]}
  status is a SecureLink's status as in a cluster; report is what the relay says; with -w one line a change"
))]
pub struct StatusArgs {
    /// Only this link, as NAME or NAMESPACE/NAME
    link: Option<LinkName>,

    /// Go on showing it as it changes
    #[arg(short, long)]
    watch: bool,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize, PartialEq)]
struct Answer {
    links: Vec<LinkStatus>,
}

/// Shows the links.
pub fn run(args: &StatusArgs, out: Out) -> Result<(), Failure> {
    wait(async {
        let client = Client::connect(&args.state.dir()?).await?;
        if args.watch {
            return tokio::select! {
                ended = watch(args, &client, out) => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
            };
        }
        let answer = ask(args, &client).await?;
        if args.output.is_json() {
            out.json(&answer)?;
        } else {
            out.raw(&shown::shown(&answer.links, out, Timestamp::now()))?;
        }
        let ready = answer.links.iter().all(|link| is_true(&link.status.conditions, ConditionType::Ready));
        if ready { Ok(()) } else { Err(Failure::told()) }
    })
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

/// A terminal is drawn anew; a pipe gets another block, a program another line, when something changed.
async fn watch(args: &StatusArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let mut before = None;
    loop {
        let answer = ask(args, client).await?;
        if args.output.is_json() {
            if before.as_ref() != Some(&answer) {
                out.line(serde_json::to_string(&answer).unwrap_or_default())?;
            }
        } else {
            let text = shown::shown(&answer.links, out, Timestamp::now());
            if out.is_terminal() {
                out.raw(&format!("{CLEAR}{text}"))?;
            } else if before.as_ref() != Some(&answer) {
                out.raw(&format!("{text}\n"))?;
            }
        }
        before = Some(answer);
        tokio::time::sleep(PACE).await;
    }
}
