//! `greet` and `doctor` through the operator: a relay of the link does it, the answer comes in the link's status.

use jiff::Timestamp;
use securelink_crds::{LastRequest, RequestState, SecureLink};
use serde::Serialize;

use super::super::doctor::DoctorArgs;
use super::super::greet::GreetArgs;
use super::super::process::wait;
use super::{OPERATOR, complain, namespace};
use crate::args::{ClusterArgs, WaitArgs};
use crate::cluster::{Cluster, Scope};
use crate::output::{Cell, Failure, Out, Table, Tone, clean};

/// How long an answer is waited for: a doctor's probes have 10 s each at most, and several relays may be asked.
const PATIENCE: u16 = 60;

#[derive(Serialize)]
struct Answers {
    links: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    link: String,
    /// Absent: nobody has taken the request up.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<RequestState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(rename = "answer")]
    said: String,
}

impl Answer {
    fn of(link: String, last: Option<LastRequest>, seconds: u64) -> Self {
        let late = |how: String| format!("there is no answer within {seconds} s; {how}");
        let (state, time) = (last.as_ref().map(|last| last.state), last.as_ref().map(|last| last.time.0));
        let said = match last {
            Some(LastRequest { state: RequestState::Running, .. }) => {
                late("a relay is at it, so ask again with a longer --timeout".to_owned())
            }
            Some(last) => last.answer.unwrap_or_default(),
            None => late(format!("the operator has not taken the request up, {OPERATOR}")),
        };
        Self { link, state, time, said }
    }

    fn is_good(&self) -> bool {
        self.state == Some(RequestState::Succeeded)
    }
}

pub(super) fn greet(args: &GreetArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    if args.text.is_some() {
        let why = "in a cluster the operator chooses the message, since an annotation is no place for it; leave it out";
        return Err(Failure::usage(why));
    }
    let answer = wait(async {
        let cluster = Cluster::connect(place).await?;
        let namespace = namespace(&args.link, place, &cluster)?;
        ask(&cluster, (&namespace, &args.link.name), "greet", args.wait).await
    })?;
    let good = answer.is_good();
    if args.output.is_json() {
        out.json(&Answers { links: vec![answer] })?;
    } else if good {
        out.line(format!("{} {}: {}", out.style().paint(Tone::Good, "✓"), answer.link, clean(&answer.said)))?;
    } else {
        return Err(Failure::failed(format!("{}: {}", answer.link, answer.said)));
    }
    if good { Ok(()) } else { Err(Failure::told()) }
}

pub(super) fn doctor(args: &DoctorArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    let answers = wait(async {
        let cluster = Cluster::connect(place).await?;
        let (namespace, links) = match &args.link {
            Some(link) => (namespace(link, place, &cluster)?, vec![link.name.clone()]),
            None => (cluster.namespace().to_owned(), all(&cluster, out).await?),
        };
        let mut answers = Vec::new();
        for link in links {
            answers.push(ask(&cluster, (&namespace, &link), "doctor", args.wait).await?);
        }
        Ok(answers)
    })?;
    let good = answers.iter().all(Answer::is_good);
    if args.output.is_json() {
        out.json(&Answers { links: answers })?;
    } else {
        for (place, answer) in answers.iter().enumerate() {
            if place > 0 {
                out.line("")?;
            }
            out.line(out.style().paint(Tone::Strong, &clean(&answer.link)))?;
            out.table(&table(answer, out))?;
        }
    }
    if good { Ok(()) } else { Err(Failure::told()) }
}

/// The links of the namespace.
async fn all(cluster: &Cluster, out: Out) -> Result<Vec<String>, Failure> {
    let seen = cluster.list::<SecureLink>(Scope::namespace(cluster.namespace())).await?;
    complain(&seen.unreadable, out);
    let mut names: Vec<_> = seen.items.into_iter().filter_map(|link| link.metadata.name).collect();
    names.sort();
    if names.is_empty() {
        let namespace = cluster.namespace();
        return Err(Failure::failed(format!("there is no SecureLink in namespace {namespace}; name another by -n")));
    }
    Ok(names)
}

async fn ask(cluster: &Cluster, link: (&str, &str), verb: &str, wait: WaitArgs) -> Result<Answer, Failure> {
    let limit = wait.limit(PATIENCE);
    let last = cluster.request(link.0, link.1, verb, limit).await?;
    Ok(Answer::of(format!("{}/{}", link.0, link.1), last, limit.as_secs()))
}

/// The operator's lines read `PROBE SUBJECT OUTCOME: message; remedy`.
fn table(answer: &Answer, out: Out) -> Table {
    let mut table = Table::new(&[]).indented(2).within(out.width());
    for line in answer.said.lines() {
        let (head, text) = line.split_once(": ").unwrap_or(("", line));
        let (what, outcome) = head.rsplit_once(' ').unwrap_or((head, ""));
        let (mark, tone) = match outcome {
            "ok" => ("✓", Tone::Good),
            "skipped" => ("-", Tone::Dim),
            _ => ("✗", Tone::Bad),
        };
        let (found, remedy) = text.split_once("; ").unwrap_or((text, ""));
        table.row([Cell::new(tone, mark), clean(what).into(), clean(found).into()]);
        if !remedy.is_empty() {
            table.row(["".into(), "".into(), Cell::new(Tone::Value, format!("do: {}", clean(remedy)))]);
        }
    }
    table
}
