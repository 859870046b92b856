//! When a root is followed by another.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::{SignedDuration, Timestamp};
use securelink_id::Fingerprint;
use securelink_plan::rotation::{ANNOUNCED, Announced, Rotation, RotationFacts, rotation, switch_at};

const CURRENT: Fingerprint = Fingerprint::from_sha256([1; 32]);
const NEXT: Fingerprint = Fingerprint::from_sha256([2; 32]);
const OLD: Fingerprint = Fingerprint::from_sha256([3; 32]);

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn facts() -> RotationFacts {
    let due = now() + SignedDuration::from_hours(1);
    RotationFacts { current: CURRENT, due, next: None, expected: None, replaced: None }
}

fn announced(ago: SignedDuration) -> RotationFacts {
    RotationFacts { next: Some(Announced { fingerprint: NEXT, since: now() - ago }), ..facts() }
}

#[test]
fn a_root_is_followed_when_its_age_asks_or_a_person_names_it() {
    assert_eq!(rotation(&facts(), now()), Rotation::Stay { until: Some(facts().due) });
    assert_eq!(rotation(&facts(), facts().due), Rotation::Announce);
    let named = |root| RotationFacts { replaced: Some(root), ..facts() };
    assert_eq!(rotation(&named(CURRENT), now()), Rotation::Announce);
    // The order is repeated for ever by whoever keeps it in a repository: it was carried out.
    assert_eq!(rotation(&named(OLD), now()), Rotation::Stay { until: Some(facts().due) });
    // An expectation keeps no root from being announced.
    let expected = RotationFacts { expected: Some(CURRENT), ..named(CURRENT) };
    assert_eq!(rotation(&expected, now()), Rotation::Announce);
}

#[test]
fn the_next_root_is_used_when_it_has_been_shown_for_long_or_a_person_expects_it() {
    let fresh = announced(SignedDuration::from_secs(1));
    let at = switch_at(fresh.next.unwrap());
    assert_eq!(at, now() - SignedDuration::from_secs(1) + ANNOUNCED);
    assert_eq!(rotation(&fresh, now()), Rotation::Stay { until: Some(at) });
    assert_eq!(rotation(&fresh, at), Rotation::Switch);
    let expects = |root, facts| RotationFacts { expected: Some(root), ..facts };
    assert_eq!(rotation(&expects(NEXT, fresh), now()), Rotation::Switch);
    for held in [CURRENT, OLD] {
        let kept = rotation(&expects(held, announced(ANNOUNCED * 2)), now());
        assert_eq!(kept, Rotation::Stay { until: None }, "a person's word holds it");
    }
    // Named again, or due, while the next one is shown: there is one next root.
    let again = RotationFacts { replaced: Some(CURRENT), due: now(), ..fresh };
    assert_eq!(rotation(&again, now()), Rotation::Stay { until: Some(at) });
}
