//! A root is followed by another: announced, then switched to, as the planner decides; each step is kept before it is used.

use jiff::Timestamp;
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::REPLACE_ROOT;
use securelink_pki::Root;

use super::issue::{Issuer, found};
use super::planning::{Announced, Rotation, RotationFacts, failure, follows, rotation, switch_at};
use crate::state::{IdentityDir, StateError};

/// The root that signs from now on: this one, or the one that was announced.
pub(super) fn rotate(
    issuer: &mut Issuer,
    folder: &IdentityDir,
    identity: &LinkIdentity,
    current: Root,
    now: Timestamp,
) -> Result<Root, StateError> {
    let (next, damage) = found(folder.next())?;
    if let Some(damage) = damage {
        issuer.failure = Some(failure(Reason::IssuerFailed, damage.to_string()));
        return Ok(current);
    }
    let announced =
        next.as_ref().map(|next| Announced { fingerprint: next.fingerprint(), since: next.validity().not_before });
    let named = identity.metadata.annotations.as_ref().and_then(|all| all.get(REPLACE_ROOT)?.parse().ok());
    let facts = RotationFacts {
        current: current.fingerprint(),
        due: current.due(),
        next: announced,
        expected: identity.spec.expected_fingerprint.as_ref().and_then(|text| text.parse().ok()),
        replaced: named,
    };
    match (rotation(&facts, now), next) {
        (Rotation::Switch, Some(next)) => return switch(issuer, folder, current, next, now),
        (Rotation::Announce, None) => match Root::generate(current.trust_domain(), now) {
            Ok(next) => {
                folder.save_next(&next)?;
                let fingerprint = next.fingerprint();
                tracing::info!(%fingerprint, "announced a root; partners may pin it too");
                let announced = Announced { fingerprint, since: next.validity().not_before };
                issuer.tell_of(announced, facts.expected.is_none());
            }
            Err(error) => issuer.failure = Some(failure(Reason::IssuerFailed, error.to_string())),
        },
        _ => {
            if let Some(announced) = announced {
                issuer.tell_of(announced, facts.expected.is_none());
            }
        }
    }
    Ok(current)
}

impl Issuer {
    /// Says what follows and what to do about it.
    fn tell_of(&mut self, next: Announced, by_itself: bool) {
        let at = by_itself.then(|| switch_at(next));
        self.note = Some(follows(next.fingerprint, at));
        self.wake(at);
    }
}

fn switch(
    issuer: &mut Issuer,
    folder: &IdentityDir,
    current: Root,
    next: Root,
    now: Timestamp,
) -> Result<Root, StateError> {
    let mut transitions = issuer.transitions.clone();
    if let Err(error) = transitions.append(&current, &next, now) {
        let (old, new) = (current.fingerprint(), next.fingerprint());
        let why = format!("the root {new} cannot follow {old}: {error}; restore transitions.pem from a backup");
        issuer.failure = Some(failure(Reason::IssuerFailed, why));
        return Ok(current);
    }
    folder.switch(&transitions, &next)?;
    tracing::info!(fingerprint = %next.fingerprint(), "a root took over; the one before leads to it");
    issuer.transitions = transitions;
    Ok(next)
}
