//! `cut`: the emergency brake.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::process::{Process, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, teach};
use crate::output::{Failure, Out, Tone, plural, span};

/// Stop everything on a link at once, live connections included
///
/// Returns when not one stream is left. The order is written to the state folder first, so a restart does not undo it, and
/// no change of the YAML does; only `resume` takes it back. The peer stays connected and is told the reason. Without a
/// running process the order is written down and holds from the next start.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Cut a partner off:
    securelink cut europol --reason \"incident 2026-114, credentials on a lost laptop\"

  And back:
    securelink resume europol

  In a cluster, create a LinkCut instead:
    kubectl apply -f cut.yaml",
    "  0  the link is cut; also if it was cut before
  1  there is no such link, or the order failed
  2  the command line is wrong
  3  there is no state, so nothing to cut",
    "  {link, cut: true, running, ended, tookMicros}
  running is false where no process was there to obey at once"
))]
pub struct CutArgs {
    /// The link, as NAME or NAMESPACE/NAME
    link: LinkName,

    /// Why, in one line; the peer is told
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    output: OutputArgs,
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

/// Cuts the link.
pub fn run(args: &CutArgs, out: Out) -> Result<(), Failure> {
    if args.reason.trim().is_empty() {
        return Err(Failure::usage("the reason is empty; say in one line why, both sides will read it"));
    }
    let answer = wait(async {
        let process = Process::find(&args.state).await?;
        let link = process.link(&args.link).await?;
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
