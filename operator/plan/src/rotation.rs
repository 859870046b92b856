//! When a root of ours is followed by another: first announced, so that partners may pin it too, then switched to.
//!
//! Knows no keys and reads no clock: the caller says what there is, and carries out what is decided.

use jiff::{SignedDuration, Timestamp};
use securelink_id::Fingerprint;

/// How long a new root is shown before it signs, where nobody says otherwise: a month to change an annex. It fits many times
/// into the year that a root has left when it is to be followed.
pub const ANNOUNCED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is known of an identity's roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationFacts {
    /// The root that signs.
    pub current: Fingerprint,
    /// When its age alone asks for another.
    pub due: Timestamp,
    /// The root that was announced.
    pub next: Option<Announced>,
    /// `spec.expectedFingerprint`: a person's word on which root is used.
    pub expected: Option<Fingerprint>,
    /// The root that a person wants replaced, by the annotation `securelink.dev/replace-root`.
    pub replaced: Option<Fingerprint>,
}

/// A root that is shown and does not sign yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What partners may pin already.
    pub fingerprint: Fingerprint,
    /// When it was made.
    pub since: Timestamp,
}

/// What to do about an identity's roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing before that time; where there is none, a person has to say something first.
    Stay {
        /// When to ask again.
        until: Option<Timestamp>,
    },
    /// Make the next root, and show it.
    Announce,
    /// Sign the next root by the current one, and use it from now on.
    Switch,
}

/// What to do now. Naming the root that is to be replaced, instead of saying that one is, makes the order the same whoever
/// repeats it: once that root is gone, it asks for nothing.
pub fn rotation(facts: &RotationFacts, now: Timestamp) -> Rotation {
    let Some(next) = facts.next else {
        if facts.replaced == Some(facts.current) || facts.due <= now {
            return Rotation::Announce;
        }
        return Rotation::Stay { until: Some(facts.due) };
    };
    let switch = switch_at(next);
    match facts.expected {
        Some(expected) if expected == next.fingerprint => Rotation::Switch,
        Some(_) => Rotation::Stay { until: None },
        None if switch <= now => Rotation::Switch,
        None => Rotation::Stay { until: Some(switch) },
    }
}

/// When an announced root is used by itself, if no `expectedFingerprint` says otherwise.
pub fn switch_at(next: Announced) -> Timestamp {
    next.since.checked_add(ANNOUNCED).unwrap_or(Timestamp::MAX)
}
