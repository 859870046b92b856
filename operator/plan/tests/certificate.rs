//! The certificate decision check by check, and the root's table.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use securelink_id::{Fingerprint, SpiffeId};
use securelink_plan::certificate::{
    Decision, Facts, IssueReason, RootDecision, RootFacts, RootKey, Stored, Wanted, decide, root,
};

const ROOT: Fingerprint = Fingerprint::from_sha256([1; 32]);
const OTHER: Fingerprint = Fingerprint::from_sha256([2; 32]);

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

fn identity(audience: &str) -> SpiffeId {
    SpiffeId::link("interpol.example".parse().unwrap(), audience.parse().unwrap())
}

fn names(name: &str) -> BTreeSet<String> {
    [name.to_owned()].into()
}

fn wanted() -> Wanted {
    Wanted { root: ROOT, identity: Some(identity("europol.example")), dns_names: names("link.interpol.example") }
}

fn good() -> Facts {
    Facts {
        key_matches: true,
        root: Some(ROOT),
        identity: Some(identity("europol.example")),
        dns_names: names("link.interpol.example"),
        not_before: hours(-1),
        not_after: hours(72),
        renew_at: hours(24),
        superseded: false,
    }
}

/// Makes one fact wrong.
type Spoil = fn(&mut Facts);

#[test]
fn each_check_has_its_reason_and_its_place() {
    let rows: [(IssueReason, Spoil); 8] = [
        (IssueReason::KeyMismatch, |facts| facts.key_matches = false),
        (IssueReason::WrongRoot, |facts| facts.root = Some(OTHER)),
        (IssueReason::IssuerReplaced, |facts| facts.superseded = true),
        (IssueReason::WrongIdentity, |facts| facts.identity = Some(identity("eurojust.example"))),
        (IssueReason::WrongDnsNames, |facts| facts.dns_names = names("old.interpol.example")),
        (IssueReason::Expired, |facts| facts.not_after = now()),
        (IssueReason::NotYetValid, |facts| facts.not_before = hours(1)),
        (IssueReason::DueForRenewal, |facts| facts.renew_at = now()),
    ];
    for (index, (reason, spoil)) in rows.iter().enumerate() {
        let mut facts = good();
        spoil(&mut facts);
        let decision = decide(&Stored::Present(facts), &wanted(), now());
        assert_eq!(decision, Decision::Issue { reason: *reason });
        // With everything after it wrong as well, it is still this one.
        let mut facts = good();
        rows[index..].iter().for_each(|(_, spoil)| spoil(&mut facts));
        let decision = decide(&Stored::Present(facts), &wanted(), now());
        assert_eq!(decision, Decision::Issue { reason: *reason });
    }
}

#[test]
fn nothing_and_rubbish_are_replaced() {
    assert_eq!(decide(&Stored::Missing, &wanted(), now()), Decision::Issue { reason: IssueReason::Missing });
    assert_eq!(decide(&Stored::Unreadable, &wanted(), now()), Decision::Issue { reason: IssueReason::Unreadable });
}

#[test]
fn a_good_one_is_kept_until_it_is_due() {
    assert_eq!(decide(&Stored::Present(good()), &wanted(), now()), Decision::Keep { until: hours(24) });
    let clipped = Facts { not_after: hours(2), ..good() };
    assert_eq!(decide(&Stored::Present(clipped), &wanted(), now()), Decision::Keep { until: hours(2) });
}

#[test]
fn a_chain_that_does_not_verify_is_of_no_root() {
    let facts = Facts { root: None, ..good() };
    let decision = decide(&Stored::Present(facts), &wanted(), now());
    assert_eq!(decision, Decision::Issue { reason: IssueReason::WrongRoot });
}

#[test]
fn a_clock_a_little_behind_issues_nothing() {
    let decision = decide(&Stored::Present(good()), &wanted(), hours(-1));
    assert_eq!(decision, Decision::Keep { until: hours(24) });
}

#[test]
fn an_intermediate_has_no_identity() {
    let facts = Facts { identity: None, dns_names: BTreeSet::new(), ..good() };
    let wanted = Wanted::intermediate(ROOT);
    assert_eq!(decide(&Stored::Present(facts), &wanted, now()), Decision::Keep { until: hours(24) });
    let leaf = decide(&Stored::Present(good()), &wanted, now());
    assert_eq!(leaf, Decision::Issue { reason: IssueReason::WrongIdentity });
}

/// Every combination of what is there, what was recorded and what is expected.
#[test]
fn a_root_is_minted_only_where_none_was_ever_known() {
    let present = |fingerprint, made_for_this| RootKey::Present { fingerprint, made_for_this };
    let missing = |wanted| RootDecision::RootMissing { wanted };
    let conflict = |wanted| RootDecision::RootConflict { found: ROOT, wanted };
    let rows = [
        (RootKey::Absent, None, None, RootDecision::Mint),
        (RootKey::Absent, Some(ROOT), None, missing(Some(ROOT))),
        (RootKey::Absent, None, Some(ROOT), missing(Some(ROOT))),
        (RootKey::Absent, Some(OTHER), Some(ROOT), missing(Some(ROOT))),
        (RootKey::Unreadable, None, None, missing(None)),
        (RootKey::Unreadable, Some(ROOT), None, missing(Some(ROOT))),
        (RootKey::Unreadable, None, Some(ROOT), missing(Some(ROOT))),
        (present(ROOT, true), None, None, RootDecision::Use(ROOT)),
        (present(ROOT, false), None, None, conflict(None)),
        (present(ROOT, false), None, Some(ROOT), RootDecision::Use(ROOT)),
        (present(ROOT, false), Some(ROOT), None, RootDecision::Use(ROOT)),
        (present(ROOT, true), Some(OTHER), None, conflict(Some(OTHER))),
        (present(ROOT, true), None, Some(OTHER), conflict(Some(OTHER))),
        (present(ROOT, true), Some(ROOT), Some(OTHER), conflict(Some(OTHER))),
        (present(ROOT, true), Some(OTHER), Some(ROOT), RootDecision::Use(ROOT)),
    ];
    for (key, recorded, expected, decision) in rows {
        let facts = RootFacts { key, recorded, expected, traces: false, older: &[], next: None };
        assert_eq!(root(&facts), decision, "{facts:?}");
        // A trace that names no root changes nothing but that none is minted.
        let decision = if decision == RootDecision::Mint { missing(None) } else { decision };
        assert_eq!(root(&RootFacts { traces: true, ..facts }), decision, "{facts:?}");
    }
}

/// While one root follows another, keys, record and a person's word may be of either.
#[test]
fn a_root_that_follows_another_or_is_followed_is_no_conflict() {
    let present = |fingerprint| RootKey::Present { fingerprint, made_for_this: true };
    let base = RootFacts { key: present(ROOT), recorded: None, expected: None, traces: true, older: &[], next: None };
    let conflict = RootDecision::RootConflict { found: ROOT, wanted: Some(OTHER) };
    let recorded = RootFacts { recorded: Some(OTHER), ..base };
    assert_eq!(root(&recorded), conflict);
    assert_eq!(root(&RootFacts { older: &[OTHER], ..recorded }), RootDecision::Use(ROOT), "the keys are ahead");
    assert_eq!(root(&RootFacts { next: Some(OTHER), ..recorded }), RootDecision::Use(ROOT), "the record is ahead");
    let expected = RootFacts { expected: Some(OTHER), ..base };
    assert_eq!(root(&RootFacts { next: Some(OTHER), ..expected }), RootDecision::Use(ROOT), "to be switched to");
    assert_eq!(root(&RootFacts { older: &[OTHER], ..expected }), conflict, "a person's word against the one in use");
}
