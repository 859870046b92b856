//! `doctor`: what keeps a link from working, and what to do.

use clap::Args;
use securelink_relay_config::{DoctorReport, Finding, LinkRef, Outcome};
use serde::Serialize;

use super::process::{choose, only_in_cluster, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, WaitArgs, teach};
use crate::control::Client;
use crate::output::{Cell, Failure, Out, Table, Tone, clean};

/// Find what keeps a link from working, and what to do
///
/// The running process looks at everything a stream needs, one thing after the other: names, connections, TLS, who the peer
/// is, the agreement, a round trip, and every export and import. It dials the targets of exports and sends them nothing.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  All links:
    securelink doctor

  One link:
    securelink doctor liaison/europol

  A link in a cluster, by one of its relays:
    kubectl securelink -n liaison doctor europol

  For a program:
    securelink doctor europol -o json | jq '.links[].findings[] | select(.outcome == \"failed\")'",
    "  0  nothing that was looked at has failed
  1  something has, or there is no such link
  2  the command line is wrong
  3  there is no running process, or no cluster",
    "  {links: [{link: {namespace, name}, at, findings: [{probe, subject, outcome, reason, message, remedy}]}], unseen: [{link, error}]}
  outcome is ok, failed or skipped; unseen are links that have no relay to look; in a cluster
  {links: [{link, state, time, answer}]}"
))]
pub struct DoctorArgs {
    /// Only this link, as NAME or NAMESPACE/NAME
    pub(super) link: Option<LinkName>,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Default, Serialize)]
struct Answer {
    links: Vec<DoctorReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unseen: Vec<Unseen>,
}

/// A link that has no relay to look.
#[derive(Serialize)]
struct Unseen {
    link: LinkRef,
    error: String,
}

/// Looks, and says what it found.
pub fn run(args: &DoctorArgs, out: Out) -> Result<(), Failure> {
    only_in_cluster(args.wait.timeout.is_some(), "--timeout")?;
    let answer = wait(ask(args))?;
    if args.output.is_json() {
        out.json(&answer)?;
    } else {
        show(&answer, out)?;
    }
    let well = answer.unseen.is_empty() && answer.links.iter().all(DoctorReport::is_well);
    if well { Ok(()) } else { Err(Failure::told()) }
}

async fn ask(args: &DoctorArgs) -> Result<Answer, Failure> {
    let client = Client::connect(&args.state.dir()?).await?;
    let mut known: Vec<LinkRef> = client.status().await?.into_iter().map(|link| link.link).collect();
    if let Some(name) = &args.link {
        known = vec![choose(&known, name)?];
    }
    let mut answer = Answer::default();
    for link in known {
        match client.doctor(&link).await {
            Ok(report) => answer.links.push(report),
            Err(error) => answer.unseen.push(Unseen { link, error: error.to_string() }),
        }
    }
    Ok(answer)
}

fn show(answer: &Answer, out: Out) -> Result<(), Failure> {
    let blocks = answer.links.iter().map(|report| (&report.link, table(&report.findings, out)));
    let unseen = answer.unseen.iter().map(|unseen| {
        let mut table = Table::new(&[]).indented(2).within(out.width());
        tell(&mut table, Outcome::Failed, ("relay", "", ""), &unseen.error);
        (&unseen.link, table)
    });
    for (place, (link, table)) in blocks.chain(unseen).enumerate() {
        if place > 0 {
            out.line("")?;
        }
        out.line(out.style().paint(Tone::Strong, &clean(&link.to_string())))?;
        out.table(&table)?;
    }
    Ok(())
}

fn table(findings: &[Finding], out: Out) -> Table {
    let mut table = Table::new(&["", "PROBE", "OF", "REASON", "FOUND"]).indented(2).within(out.width());
    for finding in findings {
        let (probe, reason) = (finding.probe.to_string(), finding.reason.as_deref().unwrap_or_default());
        let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        let text = format!("{}{remedy}", finding.message.replace("; ", ", "));
        tell(&mut table, finding.outcome, (&probe, &finding.subject, reason), &text);
    }
    table
}

/// One line, and below it what to do.
fn tell(table: &mut Table, outcome: Outcome, (probe, subject, reason): (&str, &str, &str), text: &str) {
    let (mark, tone) = match outcome {
        Outcome::Ok => ("✓", Tone::Good),
        Outcome::Failed => ("✗", Tone::Bad),
        Outcome::Skipped => ("-", Tone::Dim),
    };
    let (found, remedy) = text.split_once("; ").unwrap_or((text, ""));
    let start = [Cell::new(tone, mark), probe.into(), clean(subject).into(), Cell::new(tone, clean(reason))];
    table.row(start.into_iter().chain([clean(found).into()]));
    if !remedy.is_empty() {
        let remedy = Cell::new(Tone::Value, format!("do: {}", clean(remedy)));
        table.row(["".into(), "".into(), "".into(), "".into(), remedy]);
    }
}
