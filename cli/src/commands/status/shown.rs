//! Status as a person reads it in five seconds: a table, and under it what is wrong, whose fault it is and what to do.

use jiff::Timestamp;
use securelink_crds::SecureLinkStatus;
use securelink_crds::conditions::{Condition, ConditionType, find, is_true};

use crate::output::{Cell, Out, Table, Tone, clean, span};
use crate::runtime::LinkStatus;

/// Aspects of a link in the order in which one needs the other; each is false for its own reason.
const ASPECTS: [ConditionType; 6] = [
    ConditionType::Accepted,
    ConditionType::CertificateReady,
    ConditionType::RelayAvailable,
    ConditionType::PeerConnected,
    ConditionType::Agreed,
    ConditionType::Ready,
];
/// Present only while true, and worth a person's time.
const WARNINGS: [ConditionType; 4] =
    [ConditionType::Stalled, ConditionType::PinOutdated, ConditionType::PolicyWidened, ConditionType::InternalError];

/// Who told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum View {
    /// The process on this machine: it knows its streams.
    Process,
    /// The objects of a cluster: they say since when.
    Cluster,
}

/// The whole answer.
pub(super) fn shown(links: &[LinkStatus], view: View, out: Out, now: Timestamp) -> String {
    let style = out.style();
    if links.is_empty() {
        let where_to = match view {
            View::Process => "no links are declared; add a SecureLink to the files that `securelink run -f` reads\n",
            View::Cluster => "no links are declared here; apply a SecureLink, or look into all namespaces with -A\n",
        };
        return where_to.to_owned();
    }
    let moving = if view == View::Cluster { "SINCE" } else { "STREAMS" };
    let mut table = Table::new(&["LINK", "PEER", "READY", "REASON", moving, "AGREEMENT", "CERTIFICATE"]);
    for link in links {
        table.row(row(link, view, now));
    }
    let mut text = table.render(style);
    for link in links {
        text.push_str(&wrong(link, view, out));
    }
    text
}

fn row(link: &LinkStatus, view: View, now: Timestamp) -> [Cell; 7] {
    let status = &link.status;
    let ready = find(&status.conditions, ConditionType::Ready);
    let (word, tone) = match ready.map(|ready| ready.status.as_str()) {
        Some("True") => ("True", Tone::Good),
        Some("False") => ("False", Tone::Bad),
        _ => ("Unknown", Tone::Warn),
    };
    let moving = match view {
        View::Process => link.report.as_ref().map(|report| report.streams.live.to_string()),
        View::Cluster => ready.map(|ready| span(now.duration_since(ready.last_transition_time.0).unsigned_abs())),
    };
    [
        Cell::new(Tone::Strong, clean(&link.link.to_string())),
        clean(link.peer.as_deref().unwrap_or("-")).into(),
        Cell::new(tone, word),
        Cell::new(tone, ready.map_or("-".to_owned(), |ready| clean(&ready.reason))),
        moving.unwrap_or_else(|| "-".to_owned()).into(),
        agreement(status),
        certificate(status, now),
    ]
}

fn agreement(status: &SecureLinkStatus) -> Cell {
    let agreed = find(&status.conditions, ConditionType::Agreed);
    match (&status.agreement, agreed) {
        (Some(agreement), Some(agreed)) if agreed.status == "True" => {
            let end = agreement.expires.0.strftime("%Y-%m-%d");
            format!("{} until {end}", clean(&agreement.reference)).into()
        }
        (None, Some(agreed)) if agreed.status == "True" => Cell::new(Tone::Dim, "none"),
        (_, Some(agreed)) => Cell::new(Tone::Bad, clean(&agreed.reason)),
        (_, None) => "-".into(),
    }
}

fn certificate(status: &SecureLinkStatus, now: Timestamp) -> Cell {
    match &status.certificate {
        Some(leaf) if leaf.not_after.0 > now => {
            format!("{} left", span(leaf.not_after.0.duration_since(now).unsigned_abs())).into()
        }
        Some(_) => Cell::new(Tone::Bad, "expired"),
        None => {
            let ready = find(&status.conditions, ConditionType::CertificateReady);
            ready.map_or_else(|| "-".into(), |ready| Cell::new(Tone::Bad, clean(&ready.reason)))
        }
    }
}

/// What is false, first cause first.
fn wrong(link: &LinkStatus, view: View, out: Out) -> String {
    let conditions = &link.status.conditions;
    let mut table = Table::new(&[]).indented(2).within(out.width());
    let mut told: Vec<&str> = Vec::new();
    let mut any = false;
    for kind in ASPECTS {
        let Some(condition) = find(conditions, kind).filter(|condition| condition.status != "True") else { continue };
        // Ready repeats the first cause.
        if kind == ConditionType::Ready && told.contains(&condition.reason.as_str()) {
            continue;
        }
        told.push(&condition.reason);
        any = true;
        let (mark, tone) = if condition.status == "False" { ("✗", Tone::Bad) } else { ("?", Tone::Warn) };
        tell(&mut table, (mark, tone), &head(condition), &condition.message);
    }
    for condition in
        WARNINGS.into_iter().filter(|kind| is_true(conditions, *kind)).filter_map(|kind| find(conditions, kind))
    {
        any = true;
        tell(&mut table, ("!", Tone::Warn), &head(condition), &condition.message);
    }
    for problem in &link.problems {
        if !conditions.iter().any(|condition| condition.message.contains(parts(problem).0)) {
            any = true;
            let whose = if view == View::Cluster { "Operator" } else { "Declared" };
            tell(&mut table, ("✗", Tone::Bad), whose, problem);
        }
    }
    if !any {
        return String::new();
    }
    format!("\n{}\n{}", out.style().paint(Tone::Strong, &clean(&link.link.to_string())), table.render(out.style()))
}

fn head(condition: &Condition) -> String {
    format!("{}: {}", condition.type_, clean(&condition.reason))
}

fn tell(table: &mut Table, (mark, tone): (&str, Tone), head: &str, message: &str) {
    let (what, remedy) = parts(message);
    table.row([Cell::new(tone, mark), Cell::new(Tone::Strong, head), clean(what).into()]);
    if !remedy.is_empty() {
        table.row(["".into(), "".into(), Cell::new(Tone::Value, format!("do: {}", clean(remedy)))]);
    }
}

/// Our messages read `what is wrong; what to do`.
fn parts(message: &str) -> (&str, &str) {
    message.split_once("; ").unwrap_or((message, ""))
}
