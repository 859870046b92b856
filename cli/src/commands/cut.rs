//! `cut`: the emergency brake.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::process::{Process, only_in_cluster, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, WaitArgs, teach};
use crate::output::{Failure, Out, Tone, plural, span};

/// Stop everything on a link at once, live connections included
///
/// Returns when not one stream is left. The order is written to the state folder first, so a restart does not undo it, and
/// no change of the YAML does; only `resume` takes it back. The peer stays connected and is told the reason. Without a
/// running process the order is written down and holds from the next start. In a cluster it creates a LinkCut and returns when
/// every relay has obeyed.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Cut a partner off:
    securelink cut europol --reason \"incident 2026-114, credentials on a lost laptop\"

  And back:
    securelink resume europol

  In a cluster, by a LinkCut; also every link of the namespace to one organization:
    kubectl securelink -n liaison cut europol --reason \"incident 2026-114\"
    kubectl securelink -n liaison cut --trust-domain europol.example --reason \"incident 2026-114\"",
    "  0  the link is cut; also if it was cut before
  1  there is no such link, or the order failed; in a cluster also: not every relay has obeyed in time
  2  the command line is wrong
  3  there is no state, so nothing to cut, or no cluster",
    "  {link, cut: true, running, ended, tookMicros}
  running is false where no process was there to obey at once; in a cluster
  {namespace, linkCut, fresh, reason, pending, relays: [{link, relay, obeyedAt}]}"
))]
pub struct CutArgs {
    /// The link, as NAME or NAMESPACE/NAME
    #[arg(required_unless_present = "trust_domain", conflicts_with = "trust_domain")]
    pub(super) link: Option<LinkName>,

    /// In a cluster: every link of the namespace to this organization, also one made later
    #[arg(long, value_name = "TRUST_DOMAIN")]
    pub(super) trust_domain: Option<String>,

    /// Why, in one line; the peer is told
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    link: String,
    cut: bool,
    /// Whether a process was there to obey at once.
    running: bool,
    ended: u64,
    took_micros: u64,
}

impl CutArgs {
    /// A cut without a reason helps nobody later.
    pub(super) fn reasoned(&self) -> Result<(), Failure> {
        if self.reason.trim().is_empty() {
            return Err(Failure::usage("the reason is empty; say in one line why, both sides will read it"));
        }
        Ok(())
    }
}

/// Cuts the link.
pub fn run(args: &CutArgs, out: Out) -> Result<(), Failure> {
    args.reasoned()?;
    only_in_cluster(args.wait.timeout.is_some(), "--timeout")?;
    let asked = args.link.as_ref();
    only_in_cluster(asked.is_none(), "--trust-domain")?;
    let answer = wait(async {
        let process = Process::find(&args.state).await?;
        let link = process.link(asked.ok_or_else(Failure::told)?).await?;
        let (running, ended, took) = match &process {
            Process::Running(client) => {
                let done = client.cut(&link, &args.reason).await?;
                (true, done.ended, done.took)
            }
            Process::None(state) => {
                state.write_cut(&link, &args.reason)?;
                (false, 0, Duration::ZERO)
            }
        };
        let took_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Ok(Answer { link: link.to_string(), cut: true, running, ended, took_micros })
    })?;
    if args.output.is_json() {
        return out.json(&answer);
    }
    let style = out.style();
    let told = if answer.running {
        let streams = plural(usize::try_from(answer.ended).unwrap_or(usize::MAX), "stream");
        format!("{streams} ended in {}", span(Duration::from_micros(answer.took_micros)))
    } else {
        "no process runs; the order holds from the next start".to_owned()
    };
    out.line(format!("{} {} is cut: {told}", style.paint(Tone::Good, "✓"), answer.link))?;
    out.line(style.paint(Tone::Dim, &format!("  take it back: securelink resume {}", answer.link)))
}
