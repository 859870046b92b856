//! What the runtime holds of one link between two looks, and the status made of it.

use jiff::Timestamp;
use securelink_crds::SecureLinkStatus;
use securelink_crds::conditions::Condition;
use securelink_pki::{Leaf, Transitions};
use securelink_relay_config::{LinkRef, Snapshot};
use tokio_util::sync::CancellationToken;

use super::engine::Relay;
use super::planning::{self, Certificate, Seen, Verdict};
use super::report::LinkStatus;
use crate::state::is_hidden;

/// One link.
pub(crate) struct Held {
    pub(crate) verdict: Verdict,
    pub(crate) certificate: Certificate,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) running: Option<Running>,
    /// What kept the runtime from doing what was decided, each as `what is wrong; what to do`.
    pub(crate) faults: Vec<String>,
    pub(crate) status: SecureLinkStatus,
}

/// A relay and what it was given.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) relay: Relay,
    pub(crate) installed: Installed,
    /// Ends what watches it.
    pub(crate) watched: CancellationToken,
}

/// Which credentials a relay has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    serial: Vec<u8>,
    transitions: Transitions,
}

impl Installed {
    pub(crate) fn new(leaf: &Leaf, transitions: &Transitions) -> Self {
        Self { serial: leaf.serial().to_vec(), transitions: transitions.clone() }
    }
}

impl Held {
    /// A link that was never started, because of `fault`.
    pub(crate) fn broken(link: &LinkRef, fault: &str, now: Timestamp) -> Self {
        let mut held = Self {
            verdict: planning::broken(link, fault),
            certificate: Certificate::default(),
            snapshot: None,
            running: None,
            faults: Vec::new(),
            status: SecureLinkStatus::default(),
        };
        held.refresh(now);
        held
    }

    /// Makes the status anew and logs what changed.
    pub(crate) fn refresh(&mut self, now: Timestamp) {
        let report = self.running.as_ref().map(|running| running.relay.report());
        let seen = Seen { certificate: &self.certificate, snapshot: self.snapshot.as_ref(), report: report.as_ref() };
        let status = planning::status(&self.verdict, seen, &self.status, now);
        log_transitions(&self.verdict.link, &self.status.conditions, &status.conditions);
        self.status = status;
    }

    /// When to look again.
    pub(crate) fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let report = self.running.as_ref().map(|running| running.relay.report());
        let seen = Seen { certificate: &self.certificate, snapshot: self.snapshot.as_ref(), report: report.as_ref() };
        let status = planning::next_deadline(&self.verdict, seen, now);
        let renewal = self.certificate.leaf.as_ref().map(|leaf| leaf.renew_at);
        [status, renewal].into_iter().flatten().min()
    }

    /// For people and programs.
    pub(crate) fn shown(&self) -> LinkStatus {
        let validated = self.verdict.validated();
        let problems = self.verdict.problems.iter().map(ToString::to_string);
        LinkStatus {
            link: self.verdict.link.clone(),
            trust_domain: validated.map(|link| link.own.to_string()),
            peer: validated.map(|link| link.peer.trust_domain.to_string()),
            status: self.status.clone(),
            problems: problems.chain(self.faults.iter().cloned()).collect(),
            report: self.running.as_ref().map(|running| running.relay.report()),
        }
    }

    /// Whether it can carry a stream.
    pub(crate) fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.relay.is_ready())
    }
}

/// A text as it may stand in a log: nothing in it ends the line, moves the cursor or turns the direction of reading.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if is_hidden(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
        line
    })
}

/// One line a condition that changed. A message may quote a peer: it is escaped.
fn log_transitions(link: &LinkRef, before: &[Condition], now: &[Condition]) {
    let same = |a: &Condition, b: &Condition| a.type_ == b.type_ && a.status == b.status && a.reason == b.reason;
    for new in now.iter().filter(|new| !before.iter().any(|old| same(old, new))) {
        let (condition, status, reason) = (&*new.type_, &*new.status, &*new.reason);
        let detail = one_line(&new.message);
        if status == "False" {
            tracing::warn!(%link, condition, status, reason, detail, "condition changed");
        } else {
            tracing::info!(%link, condition, status, reason, detail, "condition changed");
        }
    }
    for gone in before.iter().filter(|old| !now.iter().any(|new| new.type_ == old.type_)) {
        tracing::info!(%link, condition = &*gone.type_, "condition is over");
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_text_of_others_cannot_forge_a_line_of_a_log() {
        assert_eq!(one_line("the owner's café; say „no“"), "the owner's café; say „no“");
        for bad in ["a\nb", "a\r", "\u{1b}[2J", "x\u{202e}y", "\u{2066}", "\u{85}", "\u{2028}", "\0"] {
            let line = one_line(bad);
            assert!(line.is_ascii() && !line.chars().any(char::is_control) && line.contains("\\u{"), "{line}");
        }
    }
}
