//! The six conditions in their order, Ready from the first that is false, and those present only while true.

use jiff::Timestamp;
use securelink_crds::conditions::{self, Condition, ConditionType, NewCondition, Reason};
use securelink_relay_config::LinkState;

use super::{Observed, is_connected, probe_ends, words};
use crate::validated::ValidatedLink;
use crate::verdict::{About, Base, Problem, Verdict};

/// Most problems spelled out in one message: a person mends a few and looks again.
const SPELLED_OUT: usize = 5;

/// One condition, before it is known since when.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) kind: ConditionType,
    /// `None` is Unknown.
    pub(super) holds: Option<bool>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Finding {
    fn new(kind: ConditionType, holds: impl Into<Option<bool>>, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: holds.into(), reason: reason.as_str(), message: message.into() }
    }

    fn is_true(&self) -> bool {
        self.holds == Some(true)
    }
}

/// All conditions that are present, in the order of the contract.
pub(super) fn findings(verdict: &Verdict, observed: Observed<'_>, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![
        accepted(verdict),
        certificate_ready(observed, now),
        relay_available(verdict, observed),
        peer_connected(verdict, observed, now),
        agreed(verdict, observed),
    ];
    findings.push(ready(&findings, verdict, observed, now));
    findings.extend(progress(&findings, observed));
    findings.extend(pin_outdated(observed));
    findings.extend(policy_widened(observed));
    if verdict.no_policy {
        findings.push(while_true(
            ConditionType::NoPolicy,
            "no LinkPolicy applies to this namespace, so everything is allowed; the platform's owner may write one",
        ));
    }
    findings
}

/// The list in status: times of transition from `previous`, which also keeps the conditions that others set.
pub(super) fn list(
    findings: &[Finding],
    generation: Option<i64>,
    previous: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let mut list = previous.to_vec();
    for kind in OURS_WHILE_TRUE {
        if findings.iter().all(|finding| finding.kind != kind) {
            conditions::clear(&mut list, kind);
        }
    }
    for finding in findings {
        let condition = NewCondition {
            kind: finding.kind,
            status: finding.holds,
            reason: finding.reason,
            message: finding.message.clone(),
            generation,
        };
        conditions::set(&mut list, condition, now);
    }
    list.sort_by_key(|condition| ConditionType::ALL.iter().position(|kind| kind.as_str() == condition.type_));
    list
}

/// Those present only while true that are set here; the others are the operator's.
const OURS_WHILE_TRUE: [ConditionType; 5] = [
    ConditionType::Reconciling,
    ConditionType::Stalled,
    ConditionType::PinOutdated,
    ConditionType::PolicyWidened,
    ConditionType::NoPolicy,
];

fn while_true(kind: ConditionType, message: impl Into<String>) -> Finding {
    Finding { kind, holds: Some(true), reason: kind.as_str(), message: message.into() }
}

fn accepted(verdict: &Verdict) -> Finding {
    let finding = |holds, reason, message| Finding::new(ConditionType::Accepted, holds, reason, message);
    let (whole, entries): (Vec<&Problem>, Vec<&Problem>) =
        verdict.problems.iter().partition(|problem| problem.about == About::Link);
    if let Some(first) = whole.first() {
        let message = spell_out(&whole);
        let effect = match (&verdict.base, verdict.whole_cut()) {
            // Relays of before go on, for all that is known.
            (Base::None, _) if verdict.is_denied() => "Until then nothing is made or changed here",
            (Base::None, _) => "Nothing runs",
            (_, Some(_)) => "Nothing flows",
            (Base::LastAccepted(_), None) => "What was accepted last goes on, less what this edit takes away",
            (Base::New(_), None) => "The rest of the link goes on",
        };
        return finding(false, first.reason, sentences([message, effect.to_owned()]));
    }
    match verdict.base {
        Base::None => finding(false, Reason::Invalid, "the SecureLink is deleted. Nothing runs".to_owned()),
        _ if entries.is_empty() => finding(true, Reason::Accepted, "valid and allowed".to_owned()),
        _ => finding(true, Reason::Accepted, format!("valid, but not all of it can be used: {}", spell_out(&entries))),
    }
}

fn spell_out(problems: &[&Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(SPELLED_OUT).map(ToString::to_string).collect();
    if problems.len() > SPELLED_OUT {
        lines.push(format!("{} more", problems.len() - SPELLED_OUT));
    }
    sentences(lines)
}

/// One line of sentences; a remedy may end with a question mark of its own.
fn sentences(all: impl IntoIterator<Item = String>) -> String {
    let join = |line: String, next: String| format!("{line}{} {next}", if line.ends_with('?') { "" } else { "." });
    all.into_iter().reduce(join).unwrap_or_default()
}

fn certificate_ready(observed: Observed<'_>, now: Timestamp) -> Finding {
    let certificate = observed.certificate;
    let finding = |holds, reason, message| Finding::new(ConditionType::CertificateReady, holds, reason, message);
    match (&certificate.leaf, &certificate.failure) {
        (Some(leaf), failure) if leaf.not_after <= now => {
            let why = failure.as_ref().map_or("it is being renewed; wait", |(_, why)| why.as_str());
            finding(false, Reason::Expired, format!("our certificate expired at {}: {why}", leaf.not_after))
        }
        (Some(leaf), Some((_, why))) => {
            let end = leaf.not_after;
            finding(true, Reason::Issued, format!("valid until {end}, but it cannot be renewed: {why}"))
        }
        (Some(leaf), None) => finding(true, Reason::Issued, format!("valid until {}", leaf.not_after)),
        (None, Some((reason, why))) => finding(false, *reason, why.clone()),
        (None, None) => {
            finding(false, Reason::Issuing, "our certificate is being issued; nothing to do, wait".to_owned())
        }
    }
}

fn relay_available(verdict: &Verdict, observed: Observed<'_>) -> Finding {
    let finding = |holds, reason, message| Finding::new(ConditionType::RelayAvailable, holds, reason, message);
    let Some(report) = observed.report else {
        let (reason, why) = match (&verdict.base, observed.hindrance) {
            (Base::None, _) if verdict.is_denied() => {
                (Reason::Pending, "relays cannot be looked for; see Accepted".to_owned())
            }
            (Base::None, _) => (Reason::Pending, "no relay runs: nothing is accepted; see Accepted".to_owned()),
            (_, Some((reason, why))) => (*reason, words::clean(why, super::SENTENCE)),
            (_, None) => (Reason::Pending, "no relay answers yet; it is being started here, wait".to_owned()),
        };
        return finding(false, reason, why);
    };
    // That a relay sent a paused controller's word away is as it should be.
    let rejected = report.rejected.as_ref().filter(|rejected| rejected.reason != "OlderSnapshot");
    if let Some(rejected) = rejected {
        let known = Reason::from_word(&rejected.reason).filter(|reason| *reason == Reason::UnsupportedSnapshot);
        let why = words::clean(&rejected.message, super::SENTENCE);
        let message = format!("the relay goes on with version {}: it refused a newer one: {why}", report.version);
        return finding(false, known.unwrap_or(Reason::Updating), message);
    }
    match observed.snapshot {
        Some(wanted) if report.version < wanted.version => {
            let message = "the relay still runs an older version; it is being updated here, wait";
            finding(false, Reason::Updating, message.to_owned())
        }
        _ => finding(true, Reason::Running, "a relay answers and runs this version".to_owned()),
    }
}

/// The reasons a relay may give for not being connected.
const UNREACHABLE: [Reason; 12] = [
    Reason::NeverConnected,
    Reason::DnsFailed,
    Reason::Refused,
    Reason::TimedOut,
    Reason::WrongRoot,
    Reason::WrongTrustDomain,
    Reason::WrongAudience,
    Reason::CertificateExpired,
    Reason::CertificateNotYetValid,
    Reason::ClassicalKeyExchange,
    Reason::RefusedByPeer,
    Reason::VersionMismatch,
];

fn peer_connected(verdict: &Verdict, observed: Observed<'_>, now: Timestamp) -> Finding {
    let finding =
        |holds: Option<bool>, reason, message| Finding::new(ConditionType::PeerConnected, holds, reason, message);
    let (Some(link), Some(report)) = (verdict.validated(), observed.report) else {
        let message = "no relay of ours to ask; see RelayAvailable";
        return finding(None, Reason::NeverConnected, message.to_owned());
    };
    if is_connected(link, report, now) {
        let peer = &link.peer.trust_domain;
        let message = if link.is_connect() {
            // The same while it comes and goes: a status that says so would be written twice a call.
            format!("{peer} has a tunnel open, or had one within maxStaleness")
        } else {
            format!("a control connection to {peer} is up")
        };
        return finding(Some(true), Reason::Connected, message);
    }
    if link.peer.fingerprints.is_empty() {
        let message = format!("{}: no pin of it is trusted any more; see Accepted", link.peer.trust_domain);
        return finding(Some(false), Reason::WrongRoot, message);
    }
    let error = report.peer.last_error.as_ref();
    let reason = error.and_then(|error| Reason::from_word(&error.reason)).filter(|reason| UNREACHABLE.contains(reason));
    let reason =
        reason.unwrap_or(if report.peer.last_seen.is_some() { Reason::TimedOut } else { Reason::NeverConnected });
    let message = words::unreachable(reason, error.map(|error| error.message.as_str()), link);
    finding(Some(false), reason, message)
}

fn agreed(verdict: &Verdict, observed: Observed<'_>) -> Finding {
    let finding =
        |holds: Option<bool>, reason, message: String| Finding::new(ConditionType::Agreed, holds, reason, message);
    let Some(link) = verdict.validated() else {
        return finding(None, Reason::AwaitingDeclaration, "nothing is declared; see Accepted".to_owned());
    };
    if let Some(cut) = verdict.whole_cut() {
        return finding(Some(false), Reason::CutHere, cut_here(&cut.id, &cut.reason));
    }
    if link.state == LinkState::Suspended {
        let message = "the link is suspended here; set state: Active to resume";
        return finding(Some(false), Reason::SuspendedHere, message.to_owned());
    }
    let Some(report) = observed.report else {
        let message = "no relay of ours to ask; see RelayAvailable";
        return finding(None, Reason::AwaitingDeclaration, message.to_owned());
    };
    if let Some(why) = report.agreed.disagreement {
        let reason = Reason::from_word(why.reason()).unwrap_or(Reason::AwaitingDeclaration);
        return finding(Some(false), reason, words::disagreement(why, report, link));
    }
    if link.is_connect() {
        let message = format!("{} named our agreement", link.peer.trust_domain);
        return finding(Some(true), Reason::PeerAsserted, message);
    }
    finding(Some(true), Reason::Matched, "both declarations match and are in force".to_owned())
}

fn cut_here(id: &str, reason: &str) -> String {
    let reason = words::quoted(reason, super::SENTENCE);
    match id.split_once('/') {
        Some(("LinkCut", _)) => format!("cut here: {reason}; delete the LinkCut to resume ({id})"),
        Some(("LinkPolicy", _)) => format!("cut here: {reason}; see Accepted"),
        _ => format!("cut here: {reason}; `securelink resume` resumes ({id})"),
    }
}

/// The first that is not true, or the round trip.
fn ready(others: &[Finding], verdict: &Verdict, observed: Observed<'_>, now: Timestamp) -> Finding {
    if let Some(first) = others.iter().find(|finding| !finding.is_true()) {
        let message = format!("{}: {}", first.kind, first.message);
        return Finding { kind: ConditionType::Ready, holds: Some(false), reason: first.reason, message };
    }
    let finding = |holds, reason, message: &str| Finding::new(ConditionType::Ready, holds, reason, message);
    if verdict.validated().is_some_and(ValidatedLink::is_connect) {
        return finding(true, Reason::Ready, "agreed and connected; a Connect partner answers no round trip");
    }
    if observed.report.and_then(probe_ends).is_some_and(|end| now < end) {
        return finding(true, Reason::Ready, "bytes make the round trip");
    }
    let error = observed.report.and_then(|report| report.probe.error.as_deref());
    let error =
        error.map_or_else(|| "none has come back lately".to_owned(), |error| words::quoted(error, super::SENTENCE));
    let message = format!(
        "no round trip over the data path in the last 30 s: {error}; ask the peer whether its relay is overloaded"
    );
    finding(false, Reason::ProbeFailed, &message)
}

/// kstatus: whether somebody is at work, or nothing will change without a person.
fn progress(findings: &[Finding], observed: Observed<'_>) -> Option<Finding> {
    let failed =
        |reason: Reason| findings.iter().find(|finding| !finding.is_true() && finding.reason == reason.as_str());
    let for_a_person =
        [Reason::Invalid, Reason::Forbidden, Reason::DuplicatePeer, Reason::NamespaceNotGranted, Reason::NameTaken];
    if let Some(finding) = for_a_person.into_iter().find_map(failed) {
        return Some(Finding { kind: ConditionType::Stalled, holds: Some(true), ..finding.clone() });
    }
    // A valid certificate does not help for long where the root's key is gone.
    if let Some((reason @ (Reason::RootMissing | Reason::RootConflict), why)) = &observed.certificate.failure {
        return Some(Finding::new(ConditionType::Stalled, true, *reason, why.clone()));
    }
    let at_work = [Reason::IdentityNotReady, Reason::Issuing, Reason::Pending, Reason::Updating];
    let finding = at_work.into_iter().find_map(failed)?;
    Some(Finding { kind: ConditionType::Reconciling, holds: Some(true), ..finding.clone() })
}

fn pin_outdated(observed: Observed<'_>) -> Option<Finding> {
    let peer = &observed.report?.peer;
    let (pin, root) = (peer.pin_used.as_deref()?, peer.root.as_deref()?);
    (pin != root).then(|| {
        let (pin, root) = (words::clean(pin, 71), words::clean(root, 71));
        let message = format!("the peer's root has changed, proved by {pin}, which still works; put `{root}` into peer.fingerprints in its place");
        while_true(ConditionType::PinOutdated, message)
    })
}

fn policy_widened(observed: Observed<'_>) -> Option<Finding> {
    let mut names: Vec<String> = observed.widened.iter().map(|name| words::clean(name, super::NAME)).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(SPELLED_OUT);
    names.truncate(SPELLED_OUT);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        let message = format!(
            "NetworkPolicies of others select our relays and allow more than the link does: {names}{more}; let their owners exclude the relays' labels"
        );
        while_true(ConditionType::PolicyWidened, message)
    })
}
