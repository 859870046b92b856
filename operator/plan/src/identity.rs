//! The status of a `LinkIdentity`, and of a `LinkCut`: what is true, whose fault it is and what to do.
//!
//! The recorded fingerprint is what keeps a second root from being minted: nothing that failed may change it.

use std::fmt::Write as _;

use jiff::Timestamp;
use securelink_crds::conditions::{self, Condition, ConditionType, NewCondition, Reason, Time};
use securelink_crds::{LinkIdentity, LinkIdentityStatus, RootState, RootStatus};
use securelink_id::Fingerprint;

use crate::status::{SENTENCE, seconds, words};

/// Most roots in status (its schema's bound).
const MAX_ROOTS: usize = 32;
/// The conditions that are there only while they are true.
const WHILE_TRUE: [ConditionType; 3] =
    [ConditionType::Reconciling, ConditionType::Stalled, ConditionType::FingerprintNotPinned];

/// A root of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// What peers pin.
    pub fingerprint: Fingerprint,
    /// When it expires.
    pub not_after: Timestamp,
    /// Its place in the rotation.
    pub state: RootState,
}

/// What was found of an identity's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// All that are known, in any order.
    pub known: Vec<Root>,
    /// The earliest end above the leaves, where a person has to renew what ends.
    pub ends: Option<Timestamp>,
    /// When the next root is used by itself.
    pub switch_at: Option<Timestamp>,
    /// What else a person may want to see to, though it issues.
    pub note: Option<String>,
    /// Why nothing can be issued, and for a person what to do: `IssuerFailed`, `RootMissing` or `RootConflict`.
    pub failure: Option<(Reason, String)>,
}

impl Roots {
    fn current(&self) -> Option<&Root> {
        self.known.iter().find(|root| root.state == RootState::Current)
    }

    fn next(&self) -> Option<&Root> {
        self.known.iter().find(|root| root.state == RootState::Next)
    }

    /// Whether what was found is not what is recorded: the record stays.
    fn are_in_doubt(&self) -> bool {
        matches!(self.failure, Some((Reason::RootMissing | Reason::RootConflict, _)))
    }
}

/// One condition, before it is known since when.
struct Finding {
    kind: ConditionType,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The status at `now`. Times of transition, and what conditions others set, are kept from `previous`; so are fingerprint and
/// roots while a root is missing or is another one than recorded, and while none is known. A root that was current stays listed
/// until its end.
pub fn identity_status(
    identity: &LinkIdentity,
    roots: &Roots,
    previous: &LinkIdentityStatus,
    now: Timestamp,
) -> LinkIdentityStatus {
    let generation = identity.metadata.generation;
    let found = roots.current().filter(|_| !roots.are_in_doubt());
    let (fingerprint, listed) = match found {
        Some(root) => (Some(root.fingerprint.to_string()), list(&roots.known, &previous.roots, now)),
        None => (previous.fingerprint.clone(), previous.roots.clone()),
    };
    let findings = findings(identity, roots, now);
    let mut list = previous.conditions.clone();
    for kind in WHILE_TRUE {
        if findings.iter().all(|finding| finding.kind != kind) {
            conditions::clear(&mut list, kind);
        }
    }
    for Finding { kind, holds, reason, message } in findings {
        conditions::set(&mut list, NewCondition { kind, status: Some(holds), reason, message, generation }, now);
    }
    list.sort_by_key(place);
    LinkIdentityStatus { observed_generation: generation, fingerprint, roots: listed, conditions: list }
}

/// When the status can change without an event: the end of the root in use.
pub fn identity_deadline(roots: &Roots, now: Timestamp) -> Option<Timestamp> {
    roots.current().map(|root| root.not_after).filter(|end| *end > now)
}

fn place(condition: &Condition) -> Option<usize> {
    ConditionType::ALL.iter().position(|kind| kind.as_str() == condition.type_)
}

fn findings(identity: &LinkIdentity, roots: &Roots, now: Timestamp) -> Vec<Finding> {
    let finding = |kind, holds, reason: Reason, message: &str| Finding {
        kind,
        holds,
        reason: reason.as_str(),
        message: message.to_owned(),
    };
    let (holds, reason, message) = certificate_ready(identity, roots, now);
    let ready = if holds { Reason::Ready } else { reason };
    let mut findings = vec![
        finding(ConditionType::CertificateReady, holds, reason, &message),
        finding(ConditionType::Ready, holds, ready, &message),
    ];
    match reason {
        Reason::RootMissing | Reason::RootConflict | Reason::Expired => {
            findings.push(finding(ConditionType::Stalled, true, reason, &message));
        }
        Reason::Issuing => findings.push(finding(ConditionType::Reconciling, true, reason, &message)),
        _ => {}
    }
    findings.extend(not_pinned(identity, roots));
    findings
}

/// Whether certificates can be issued.
fn certificate_ready(identity: &LinkIdentity, roots: &Roots, now: Timestamp) -> (bool, Reason, String) {
    match (&roots.failure, roots.current()) {
        (Some((reason, why)), _) => (false, *reason, words::clean(why, SENTENCE)),
        (None, Some(root)) if root.not_after <= now => {
            let end = root.not_after;
            let why = format!("our root expired at {end}; make a new one, and send its fingerprint to every partner");
            (false, Reason::Expired, why)
        }
        (None, Some(root)) => {
            let domain = words::clean(&identity.spec.trust_domain, SENTENCE);
            let (pin, end) = (root.fingerprint, seconds(root.not_after));
            let mut message = format!("certificates of {domain} are issued below {pin}, valid until {end}");
            if let Some(ends) = roots.ends.filter(|ends| *ends < root.not_after) {
                let _ = write!(message, "; the issuer's own certificate ends at {}, renew it in time", seconds(ends));
            }
            if let Some(next) = roots.next() {
                let _ = write!(message, "; {}", follows(next.fingerprint, roots.switch_at));
            }
            if let Some(note) = &roots.note {
                let _ = write!(message, "; {}", words::clean(note, SENTENCE));
            }
            (true, Reason::Issued, message)
        }
        (None, None) => (false, Reason::Issuing, "our root is being made or looked up; nothing to do, wait".to_owned()),
    }
}

/// What a person has to know of a root that was announced, and may do about it.
pub fn follows(pin: Fingerprint, switch_at: Option<Timestamp>) -> String {
    let by_itself = switch_at.map(|at| format!(", which happens by itself at {}", seconds(at))).unwrap_or_default();
    format!(
        "{pin} is to follow: partners that know only our root need it now, put `expectedFingerprint: {pin}` into spec to switch to it{by_itself}"
    )
}

/// The line to commit, so that a restore from YAML alone can never mint another root.
fn not_pinned(identity: &LinkIdentity, roots: &Roots) -> Option<Finding> {
    let root = roots.current().filter(|_| identity.spec.expected_fingerprint.is_none() && !roots.are_in_doubt())?;
    let kind = ConditionType::FingerprintNotPinned;
    let message = match roots.next() {
        // The current one in this place would hold the next one back.
        Some(next) => format!(
            "a restore from YAML alone could not tell our root from another; put `expectedFingerprint: {}` into spec, which switches to that root",
            next.fingerprint
        ),
        None => format!(
            "a restore from YAML alone could not tell our root from another; put `expectedFingerprint: {}` into spec",
            root.fingerprint
        ),
    };
    Some(Finding { kind, holds: true, reason: kind.as_str(), message })
}

/// As status lists them: newest first, which is the one that ends last, those that are no more in use after the others.
fn list(known: &[Root], previous: &[RootStatus], now: Timestamp) -> Vec<RootStatus> {
    let mut roots = known.to_vec();
    let left = previous.iter().filter(|root| root.state != RootState::Next).filter_map(|root| {
        let fingerprint = root.fingerprint.parse().ok()?;
        Some(Root { fingerprint, not_after: root.not_after.0, state: RootState::Retired })
    });
    roots.extend(left.filter(|root| known.iter().all(|it| it.fingerprint != root.fingerprint)));
    roots.retain(|root| root.state != RootState::Retired || root.not_after > now);
    let is_retired = |root: &Root| root.state == RootState::Retired;
    roots.sort_by_key(|root| (is_retired(root), std::cmp::Reverse(root.not_after), root.fingerprint));
    roots.dedup_by_key(|root| root.fingerprint);
    let status = |root: Root| RootStatus {
        fingerprint: root.fingerprint.to_string(),
        not_after: Time(seconds(root.not_after)),
        state: root.state,
    };
    roots.into_iter().take(MAX_ROOTS).map(status).collect()
}
