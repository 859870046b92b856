//! Whether a certificate is kept or issued anew: an ordered list of checks over plain facts, with the clock as argument.
//!
//! Knows no X.509: the caller parses and verifies, and says what it found.

use std::collections::BTreeSet;

use jiff::Timestamp;
use securelink_id::{Fingerprint, SpiffeId};

use crate::validated::ValidatedLink;

/// A stored certificate with its key, as the caller found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// There is none.
    Missing,
    /// There is something, but not a certificate with its key and chain.
    Unreadable,
    /// There is one.
    Present(Facts),
}

/// What is known of a stored certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the stored key is the certificate's.
    pub key_matches: bool,
    /// The root its chain verifies to; absent where it does not.
    pub root: Option<Fingerprint>,
    /// The identity in a leaf; an intermediate has none.
    pub identity: Option<SpiffeId>,
    /// The DNS names in a leaf.
    pub dns_names: BTreeSet<String>,
    /// First instant of its validity.
    pub not_before: Timestamp,
    /// Last instant of its validity.
    pub not_after: Timestamp,
    /// When to renew it, by the law of lifetimes.
    pub renew_at: Timestamp,
    /// Whether the issuer was replaced by a person since: who does that may have a reason that cannot wait.
    pub superseded: bool,
}

/// What a certificate must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Our current root.
    pub root: Fingerprint,
    /// The identity of a leaf; an intermediate has none.
    pub identity: Option<SpiffeId>,
    /// The DNS names of a leaf.
    pub dns_names: BTreeSet<String>,
}

impl Wanted {
    /// The leaf of our relays on `link`.
    pub fn leaf(root: Fingerprint, link: &ValidatedLink) -> Self {
        Self { root, identity: Some(link.identity()), dns_names: link.dns_names() }
    }

    /// The intermediate that signs leaves.
    pub fn intermediate(root: Fingerprint) -> Self {
        Self { root, identity: None, dns_names: BTreeSet::new() }
    }
}

/// What to do with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is good until then; ask again at that time.
    Keep {
        /// When it is due.
        until: Timestamp,
    },
    /// Issue a new one now.
    Issue {
        /// Why.
        reason: IssueReason,
    },
}

/// Why a certificate is issued. The order is the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IssueReason {
    /// There is none.
    Missing,
    /// What is there does not parse.
    Unreadable,
    /// The key is another certificate's.
    KeyMismatch,
    /// It does not chain to our current root.
    WrongRoot,
    /// A person gave us another issuer.
    IssuerReplaced,
    /// It names another organization or another partner.
    WrongIdentity,
    /// The annex names another host.
    WrongDnsNames,
    /// Its end has passed.
    Expired,
    /// Its beginning lies ahead: the clock has stepped back by more than certificates are back-dated.
    NotYetValid,
    /// A day and a margin before its end would otherwise be at risk.
    DueForRenewal,
}

impl IssueReason {
    /// The word for logs, metrics and Events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::Unreadable => "Unreadable",
            Self::KeyMismatch => "KeyMismatch",
            Self::WrongRoot => "WrongRoot",
            Self::IssuerReplaced => "IssuerReplaced",
            Self::WrongIdentity => "WrongIdentity",
            Self::WrongDnsNames => "WrongDnsNames",
            Self::Expired => "Expired",
            Self::NotYetValid => "NotYetValid",
            Self::DueForRenewal => "DueForRenewal",
        }
    }
}

/// One check: whether it is a reason to issue.
type Check = fn(&Facts, &Wanted, Timestamp) -> bool;

/// In this order, so that the reason given is the first cause and not its consequence.
const CHECKS: [(IssueReason, Check); 8] = [
    (IssueReason::KeyMismatch, |facts, _, _| !facts.key_matches),
    (IssueReason::WrongRoot, |facts, wanted, _| facts.root != Some(wanted.root)),
    (IssueReason::IssuerReplaced, |facts, _, _| facts.superseded),
    (IssueReason::WrongIdentity, |facts, wanted, _| facts.identity != wanted.identity),
    (IssueReason::WrongDnsNames, |facts, wanted, _| facts.dns_names != wanted.dns_names),
    (IssueReason::Expired, |facts, _, now| facts.not_after <= now),
    (IssueReason::NotYetValid, |facts, _, now| now < facts.not_before),
    (IssueReason::DueForRenewal, |facts, _, now| facts.renew_at <= now),
];

/// Whether the stored certificate, a leaf or an intermediate, is what is wanted at `now`.
pub fn decide(stored: &Stored, wanted: &Wanted, now: Timestamp) -> Decision {
    let facts = match stored {
        Stored::Missing => return Decision::Issue { reason: IssueReason::Missing },
        Stored::Unreadable => return Decision::Issue { reason: IssueReason::Unreadable },
        Stored::Present(facts) => facts,
    };
    match CHECKS.iter().find(|(_, fails)| fails(facts, wanted, now)) {
        Some((reason, _)) => Decision::Issue { reason: *reason },
        None => Decision::Keep { until: facts.renew_at.min(facts.not_after) },
    }
}

/// The root key of an identity, as the caller found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKey {
    /// There is none.
    Absent,
    /// There is something, but not a root with its key.
    Unreadable,
    /// There is one.
    Present {
        /// Of its public key.
        fingerprint: Fingerprint,
        /// It was made for this very identity object (its uid, or the same state folder), not for one of the same name.
        made_for_this: bool,
    },
}

/// What is known of an identity's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootFacts<'a> {
    /// The stored key.
    pub key: RootKey,
    /// `status.fingerprint`: the root that was in use.
    pub recorded: Option<Fingerprint>,
    /// `spec.expectedFingerprint`: the only root a person allows.
    pub expected: Option<Fingerprint>,
    /// Something tells that there was a root, though not which: what cannot be read is never taken for nothing.
    pub traces: bool,
    /// The roots from which a way leads to the stored one: what was recorded before it took over.
    pub older: &'a [Fingerprint],
    /// The root that was announced to follow the stored one.
    pub next: Option<Fingerprint>,
}

/// What to do about an identity's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootDecision {
    /// Sign with it.
    Use(Fingerprint),
    /// The first start: make one. Only where nothing tells of an earlier one.
    Mint,
    /// A root is known, or something lies in its place, but there is no usable key. Nothing is minted.
    RootMissing {
        /// Which one to restore, where known.
        wanted: Option<Fingerprint>,
    },
    /// There is a root, but not the one that is known. It is not used.
    RootConflict {
        /// The one there is.
        found: Fingerprint,
        /// The one expected; absent where nobody vouches for the one there is.
        wanted: Option<Fingerprint>,
    },
}

/// What to do about an identity's root. A person's word (`expected`) counts before what was recorded.
pub fn root(facts: &RootFacts<'_>) -> RootDecision {
    let wanted = facts.expected.or(facts.recorded);
    let RootKey::Present { fingerprint, made_for_this } = facts.key else {
        let mint = facts.key == RootKey::Absent && wanted.is_none() && !facts.traces;
        return if mint { RootDecision::Mint } else { RootDecision::RootMissing { wanted } };
    };
    let is_next = |root| facts.next == Some(root);
    let fits = match (facts.expected, facts.recorded) {
        (Some(expected), _) => expected == fingerprint || is_next(expected),
        // Keys and record are written one after the other, and seen in any order.
        (None, Some(recorded)) => recorded == fingerprint || is_next(recorded) || facts.older.contains(&recorded),
        (None, None) => made_for_this,
    };
    if fits { RootDecision::Use(fingerprint) } else { RootDecision::RootConflict { found: fingerprint, wanted } }
}
