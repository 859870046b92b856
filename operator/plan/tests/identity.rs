//! The status of a `LinkIdentity`: what can be issued, the line to commit, and a record that nothing that failed changes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use jiff::{SignedDuration, Timestamp};
use securelink_crds::conditions::{ConditionType, Reason, find};
use securelink_crds::load::{Object, judge};
use securelink_crds::{LinkIdentity, LinkIdentityStatus, RootState};
use securelink_id::Fingerprint;
use securelink_plan::identity::{Root, Roots, identity_deadline, identity_status};
use serde_json::{Value, json};

use support::now;

fn identity(expected: Option<Fingerprint>) -> LinkIdentity {
    let mut written = json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
        "metadata": {"name": "default", "namespace": "liaison", "generation": 2},
        "spec": {"trustDomain": "interpol.example", "issuer": {"builtIn": {}}},
    });
    if let Some(expected) = expected {
        written["spec"]["expectedFingerprint"] = json!(expected.to_string());
    }
    let Object::LinkIdentity(identity) = judge(&written, None).unwrap() else { panic!() };
    *identity
}

fn pin(byte: u8) -> Fingerprint {
    Fingerprint::from_sha256([byte; 32])
}

fn years(years: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * 365 * years) + SignedDuration::from_millis(250)
}

fn root(byte: u8, state: RootState, not_after: Timestamp) -> Root {
    Root { fingerprint: pin(byte), not_after, state }
}

fn known(known: Vec<Root>) -> Roots {
    Roots { known, ..Roots::default() }
}

fn one() -> Roots {
    known(vec![root(1, RootState::Current, years(10))])
}

fn failed(reason: Reason, roots: Roots) -> Roots {
    Roots { failure: Some((reason, "the key is gone; restore the Secret".to_owned())), ..roots }
}

fn told(identity: &LinkIdentity, roots: &Roots) -> LinkIdentityStatus {
    let status = identity_status(identity, roots, &LinkIdentityStatus::default(), now());
    let again = identity_status(identity, roots, &status, now() + SignedDuration::from_secs(60));
    assert_eq!(again, status, "a quiet identity writes nothing");
    status
}

/// Each condition that is there: its type, its status, its reason.
fn shown(status: &LinkIdentityStatus) -> Vec<(&str, &str, &str)> {
    let shown = status.conditions.iter();
    shown.map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str())).collect()
}

#[test]
fn an_identity_that_can_issue_says_its_pin_and_the_line_to_commit() {
    let status = told(&identity(None), &one());
    assert_eq!(
        shown(&status),
        [
            ("CertificateReady", "True", "Issued"),
            ("Ready", "True", "Ready"),
            ("FingerprintNotPinned", "True", "FingerprintNotPinned")
        ]
    );
    assert_eq!((status.fingerprint, status.observed_generation), (Some(pin(1).to_string()), Some(2)));
    let line = find(&status.conditions, ConditionType::FingerprintNotPinned).unwrap();
    assert!(line.message.contains(&format!("put `expectedFingerprint: {}` into spec", pin(1))), "{}", line.message);
    let pinned = identity_status(&identity(Some(pin(1))), &one(), &told(&identity(None), &one()), now());
    assert!(find(&pinned.conditions, ConditionType::FingerprintNotPinned).is_none());
    let stored: Value = serde_json::to_value(&pinned).unwrap();
    assert!(!stored["roots"][0]["notAfter"].as_str().unwrap().contains('.'), "{stored}");
}

#[test]
fn what_keeps_from_issuing_is_said_and_stalls_where_a_person_must_act() {
    let expired = known(vec![root(1, RootState::Current, now())]);
    for (roots, reason, progress) in [
        (failed(Reason::IssuerFailed, one()), "IssuerFailed", None),
        (failed(Reason::RootMissing, Roots::default()), "RootMissing", Some("Stalled")),
        (failed(Reason::RootConflict, one()), "RootConflict", Some("Stalled")),
        (expired, "Expired", Some("Stalled")),
        (Roots::default(), "Issuing", Some("Reconciling")),
    ] {
        let status = told(&identity(Some(pin(1))), &roots);
        let mut expected = vec![("CertificateReady", "False", reason), ("Ready", "False", reason)];
        expected.extend(progress.map(|kind| (kind, "True", reason)));
        assert_eq!(shown(&status), expected);
        assert!(status.conditions.iter().all(|condition| condition.message.contains("; ")), "{status:?}");
        let mended = identity_status(&identity(Some(pin(1))), &one(), &status, now());
        assert_eq!(shown(&mended), [("CertificateReady", "True", "Issued"), ("Ready", "True", "Ready")]);
    }
}

/// The record is all that keeps a second root from being minted after a restore.
#[test]
fn f76_a_root_that_is_gone_or_another_one_changes_no_record() {
    let recorded = told(&identity(None), &one());
    let other = known(vec![root(2, RootState::Current, years(9))]);
    for roots in [
        failed(Reason::RootMissing, Roots::default()),
        failed(Reason::RootConflict, other.clone()),
        failed(Reason::IssuerFailed, Roots::default()),
        Roots::default(),
    ] {
        let status = identity_status(&identity(None), &roots, &recorded, now());
        assert_eq!((&status.fingerprint, &status.roots), (&recorded.fingerprint, &recorded.roots), "{roots:?}");
        assert!(find(&status.conditions, ConditionType::FingerprintNotPinned).is_none());
    }
    let refused = told(&identity(Some(pin(1))), &failed(Reason::RootConflict, other));
    assert_eq!((refused.fingerprint, refused.roots.len()), (None, 0), "another root is none of ours");
}

#[test]
fn roots_are_listed_newest_first_in_whatever_order_they_were_found_and_are_bounded() {
    let mut known: Vec<Root> = (0..40).map(|n| root(n, RootState::Retired, years(i64::from(n)))).collect();
    assert!(known[0].not_after > now(), "it has not ended");
    known.push(root(50, RootState::Current, years(50)));
    known.push(root(51, RootState::Next, years(51)));
    let status = told(&identity(None), &Roots { known: known.clone(), ..Roots::default() });
    assert_eq!(status.roots.len(), 32);
    assert_eq!((status.roots[0].state, status.roots[1].state), (RootState::Next, RootState::Current));
    known.reverse();
    let again = told(&identity(None), &Roots { known, ..Roots::default() });
    assert_eq!(again, status);
}

#[test]
fn the_next_look_is_when_the_root_ends() {
    assert_eq!(identity_deadline(&one(), now()), Some(years(10)));
    assert_eq!(identity_deadline(&one(), years(10)), None);
    assert_eq!(identity_deadline(&Roots::default(), now()), None);
}

#[test]
fn a_root_that_is_to_follow_is_told_with_what_to_do_about_it() {
    let both = vec![root(1, RootState::Current, years(1)), root(2, RootState::Next, years(10))];
    let at = now() + SignedDuration::from_hours(24);
    let roots = Roots { switch_at: Some(at), ..known(both.clone()) };
    let status = told(&identity(None), &roots);
    let message = |status: &LinkIdentityStatus, kind| find(&status.conditions, kind).unwrap().message.clone();
    let ready = message(&status, ConditionType::CertificateReady);
    let line = format!("`expectedFingerprint: {}`", pin(2));
    assert!(ready.contains(&line) && ready.contains(&format!("by itself at {at}")), "{ready}");
    let line_to_commit = message(&status, ConditionType::FingerprintNotPinned);
    assert!(line_to_commit.contains(&line), "the current one there would hold the next one back: {line_to_commit}");
    assert_eq!(status.fingerprint, Some(pin(1).to_string()), "partners pin what signs");
    // Held by a person.
    let held = message(&told(&identity(Some(pin(1))), &known(both)), ConditionType::CertificateReady);
    assert!(held.contains(&line) && !held.contains("by itself"), "{held}");
}

#[test]
fn a_root_that_was_current_stays_listed_until_its_end() {
    let before = told(&identity(None), &known(vec![root(1, RootState::Current, years(1))]));
    let after = known(vec![root(2, RootState::Current, years(10))]);
    let status = identity_status(&identity(Some(pin(2))), &after, &before, now());
    let shown: Vec<_> = status.roots.iter().map(|root| (root.fingerprint.parse().unwrap(), root.state)).collect();
    assert_eq!(shown, [(pin(2), RootState::Current), (pin(1), RootState::Retired)]);
    let later = identity_status(&identity(Some(pin(2))), &after, &status, years(2));
    assert_eq!(later.roots.len(), 1);
    // What was only announced was nobody's.
    let withdrawn = vec![root(1, RootState::Current, years(1)), root(3, RootState::Next, years(9))];
    let status = identity_status(&identity(None), &one(), &told(&identity(None), &known(withdrawn)), now());
    assert_eq!(status.roots.len(), 1);
}

#[test]
fn an_issuer_that_ends_before_its_root_is_told_of() {
    let ends = now() + SignedDuration::from_hours(1);
    let status = told(&identity(Some(pin(1))), &Roots { ends: Some(ends), ..one() });
    let message = &find(&status.conditions, ConditionType::CertificateReady).unwrap().message;
    assert!(message.contains(&format!("ends at {ends}, renew it in time")), "{message}");
}

#[test]
fn what_a_person_may_want_to_see_to_stands_behind_what_is_true() {
    let note = Some("look at its dates".to_owned());
    let status = told(&identity(Some(pin(1))), &Roots { note, ..one() });
    let ready = find(&status.conditions, ConditionType::CertificateReady).unwrap();
    assert!(ready.status == "True" && ready.message.ends_with("; look at its dates"), "{}", ready.message);
}
