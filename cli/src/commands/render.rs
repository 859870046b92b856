//! `render`: what `run` would run, one relay.json a link. The runtime's own way to it, without state and without effect.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use securelink_relay_config::{LinkRef, Snapshot};
use serde::Serialize;

use crate::args::{FilesArgs, MachineArgs, teach};
use crate::output::{Failure, Out, Tone, clean};
use crate::runtime::declared::Declarations;
use crate::runtime::files;
use crate::runtime::planning::{Declared, Earlier, Known, Site, declared, judge, orders, snapshot};

/// Show what `run` would run: relay.json of every link, as YAML or JSON
///
/// Deterministic: the same files give the same bytes, so a difference in review is a difference in what runs. Versions
/// start at 1; a running process has its own. What was accepted before, and cuts by command, are not known here.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Look at it:
    securelink render -f link/

  What a change will do:
    diff <(git show HEAD:link.yaml | securelink render -f /dev/stdin) <(securelink render -f link.yaml)

  Addresses only:
    securelink render -f link/ -o json | jq '.links[].relay | {listen, imports}'",
    "  0  everything can run as it is declared
  1  something has to be mended; what can run is shown
  2  the command line is wrong",
    "  {links: [{link, relay, problems: [TEXT], notes: [TEXT]}], problems: [TEXT]}
  relay is what relay.json holds, null where nothing can run"
))]
pub struct RenderArgs {
    #[command(flatten)]
    files: FilesArgs,

    #[command(flatten)]
    machine: MachineArgs,

    /// How to answer: YAML documents, or one JSON object
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Form,
}

/// How to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// One document a link.
    #[default]
    Yaml,
    /// One object.
    Json,
}

#[derive(Serialize)]
struct Answer {
    links: Vec<Rendered>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Rendered {
    link: String,
    /// Absent where nothing can run.
    relay: Option<Snapshot>,
    problems: Vec<String>,
    notes: Vec<String>,
}

/// Shows the configurations.
pub fn run(args: &RenderArgs, out: Out) -> Result<(), Failure> {
    let answer = render(&args.files.files, &args.machine)?;
    match args.output {
        Form::Json => out.json(&answer)?,
        Form::Yaml => yaml(&answer, out)?,
    }
    let about = |link: &Rendered, text: &str| format!("{}: {}", clean(&link.link), clean(text));
    let mut wrong = answer.problems.iter().map(|text| clean(text)).collect::<Vec<_>>();
    for link in &answer.links {
        for note in &link.notes {
            out.complain("warning", Tone::Warn, &about(link, note));
        }
        wrong.extend(link.problems.iter().map(|problem| about(link, problem)));
    }
    if answer.links.is_empty() && wrong.is_empty() {
        wrong.push("no SecureLink was found; give files that declare one".to_owned());
    }
    for problem in &wrong {
        out.complain("error", Tone::Bad, problem);
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::told()) }
}

fn yaml(answer: &Answer, out: Out) -> Result<(), Failure> {
    for (index, link) in answer.links.iter().enumerate() {
        let text = match &link.relay {
            Some(relay) => serde_saphyr::to_string(relay).map_err(|error| {
                Failure::failed(format!("relay.json cannot be written as YAML: {error}; use -o json"))
            })?,
            None => "# nothing can run\n".to_owned(),
        };
        let divider = if index > 0 { "---\n" } else { "" };
        out.raw(&format!("{divider}# relay.json of {}\n{}\n", clean(&link.link), text.trim_end()))?;
    }
    Ok(())
}

fn render(paths: &[PathBuf], machine: &MachineArgs) -> Result<Answer, Failure> {
    files::check(paths)?;
    let declarations = Declarations::new(files::read(paths, |_| None), None);
    let listen: BTreeMap<_, _> = machine.listen.iter().cloned().collect();
    let mut earlier = Vec::new();
    let mut links = Vec::new();
    for (link, _) in &declarations.links {
        let at = listen.get(&link.to_string()).or_else(|| listen.get(&link.name)).copied();
        let allow_loopback_peers = machine.allow_loopback_peers;
        let site = Site { listen: at, allow_loopback_peers, records: machine.records.into(), earlier: &earlier };
        let (rendered, claimed) = one(&declarations, link, &site);
        links.push(rendered);
        earlier.extend(claimed);
    }
    // Problems of a link stand with the link.
    let of_no_link = |problem: &&securelink_crds::load::Problem| {
        problem.object.as_ref().is_none_or(|object| object.kind != "SecureLink")
    };
    let problems = declarations.problems.iter().filter(of_no_link).map(ToString::to_string).collect();
    Ok(Answer { links, problems })
}

fn one(declarations: &Declarations, link: &LinkRef, site: &Site<'_>) -> (Rendered, Option<Earlier>) {
    let new: Declared = declared(declarations, link, None);
    let stored = orders(declarations, link, &new, None).into_iter().map(|(_, order)| order).collect();
    let verdict = judge(declarations, new, Known { link, accepted: None, stored }, site);
    // A fixed clock gives the first version: 1.
    let relay = snapshot(&verdict, None, Timestamp::UNIX_EPOCH);
    let claimed = verdict.validated().zip(relay.as_ref()).map(|(link, relay)| Earlier::new(link, relay));
    let problems = verdict.problems.iter().map(ToString::to_string).collect();
    (Rendered { link: link.to_string(), relay, problems, notes: verdict.notes }, claimed)
}
