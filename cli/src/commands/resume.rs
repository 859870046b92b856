//! `resume`: takes back what `cut` ordered.

use clap::Args;
use serde::Serialize;

use super::process::{Process, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, teach};
use crate::output::{Failure, Out, Tone, clean, in_words};
use crate::state::{CutOrigin, StoredCut};

/// Take back what `cut` ordered
///
/// A LinkCut among the files goes on cutting until it is removed there; in a cluster the LinkCuts over the link are shown and
/// deleted. Streams that were cut stay cut; clients connect anew.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Let a partner back in:
    securelink resume europol

  In a cluster: delete the LinkCuts over a link, without being asked:
    kubectl securelink -n liaison resume europol --yes

  Whether anything still holds it:
    securelink status",
    "  0  no cut is left; also if there was none
  1  a LinkCut among the files still cuts, or there is no such link; in a cluster also: the answer was no
  2  the command line is wrong
  3  there is no state, so nothing to resume, or no cluster",
    "  {link, cut, running, released: [ID], stillCutBy: [NAME]}
  in a cluster {link, namespace, released: [LINKCUT]}"
))]
pub struct ResumeArgs {
    /// The link, as NAME or NAMESPACE/NAME
    pub(super) link: LinkName,

    /// In a cluster: delete without asking
    #[arg(short, long)]
    pub(super) yes: bool,

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
    running: bool,
    released: Vec<String>,
    still_cut_by: Vec<String>,
}

/// Resumes the link.
pub fn run(args: &ResumeArgs, out: Out) -> Result<(), Failure> {
    let answer = wait(async {
        let process = Process::find(&args.state).await?;
        let link = process.link(&args.link).await?;
        let (running, released, still_cut_by) = match &process {
            Process::Running(client) => {
                let done = client.resume(&link).await?;
                (true, done.released, done.still_cut_by)
            }
            Process::None(state) => {
                let released = state.remove_cut(&link)?;
                let left = state.link(&link)?.cuts()?.into_iter();
                let name = |cut: StoredCut| match cut.origin {
                    CutOrigin::Object(name) => Some(name),
                    CutOrigin::Command => None,
                };
                (false, released, left.filter_map(name).collect())
            }
        };
        Ok(Answer { link: link.to_string(), cut: !still_cut_by.is_empty(), running, released, still_cut_by })
    })?;
    if args.output.is_json() {
        out.json(&answer)?;
    } else if !answer.cut {
        let told = match (answer.released.is_empty(), answer.running) {
            (true, _) => "was not cut by this command",
            (false, true) => "is resumed",
            (false, false) => "is resumed from the next start",
        };
        out.line(format!("{} {} {told}", out.style().paint(Tone::Good, "✓"), answer.link))?;
    }
    if answer.cut {
        let cuts: Vec<_> = answer.still_cut_by.iter().map(|name| clean(name)).collect();
        return Err(Failure::failed(format!(
            "{} is still cut by LinkCut {}; remove it from the files",
            answer.link,
            in_words(&cuts)
        )));
    }
    Ok(())
}
