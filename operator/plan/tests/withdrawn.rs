//! Cuts that relays hold and nobody orders any more, and what a relay may claim of itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use securelink_plan::{Orders, above, snapshot, unordered};
use securelink_relay_config::{Cut, CutBook, CutScope, Millis, Snapshot};

use support::{LINK, accept, file};

const NOW: Millis = Millis(1_800_000_000_000);
const DAY: u64 = 24 * 60 * 60 * 1000;

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn cut(id: &str, revision: u64) -> Cut {
    Cut { id: id.to_owned(), revision, scope: CutScope::Link, reason: "r".to_owned() }
}

/// The next snapshot after these cuts and objects were looked at, and what relays hold was released.
fn next(cuts: &[Cut], seen: &[(&str, u64)], withdrawn: &BTreeSet<String>, previous: Option<&Snapshot>) -> Snapshot {
    let cuts = cuts.iter().cloned().collect();
    let seen: BTreeMap<String, u64> = seen.iter().map(|(id, revision)| ((*id).to_owned(), *revision)).collect();
    let verdict = accept(&file(LINK));
    let orders = Orders { cuts: &cuts, seen: &seen, withdrawn };
    snapshot(verdict.validated().unwrap(), orders, previous, NOW)
}

/// A leader that begins after a `LinkCut` came and went knows of it by the relays alone.
#[test]
fn a_cut_withdrawn_before_any_snapshot_named_it_ends_with_the_next_one() {
    for id in ["LinkCut/1", "LinkPolicy/p", "LinkPolicy/p#exports/notices", "Service/s#exports/notices"] {
        let running = next(&[], &[("SecureLink/l", 4)], &BTreeSet::new(), None);
        let mut book = CutBook::default();
        assert!(book.admit(cut(id, 7), &running));
        let (cuts, seen) = (BTreeSet::new(), BTreeMap::from([("SecureLink/l".to_owned(), 4)]));
        let orders = Orders { cuts: &cuts, seen: &seen, withdrawn: &BTreeSet::new() };
        let held = unordered(orders, Some(&running), &ids(&[id]));
        assert_eq!(held, ids(&[id]));
        let after = next(&[], &[("SecureLink/l", 4)], &held, Some(&running));
        assert!(after.version > running.version);
        book.reconcile(&after);
        assert_eq!(book.effective(&after), BTreeSet::new(), "{id}");
        assert_eq!(next(&[], &[("SecureLink/l", 4)], &held, Some(&after)), after, "once is enough");
    }
}

#[test]
fn what_is_ordered_or_ends_by_its_revision_is_not_released() {
    let previous = next(&[cut("LinkCut/old", 1)], &[], &BTreeSet::new(), None);
    let cuts = BTreeSet::from([cut("LinkCut/now", 1)]);
    let seen = BTreeMap::from([("SecureLink/l".to_owned(), 4), ("LinkPolicy/p".to_owned(), 2)]);
    let orders = Orders { cuts: &cuts, seen: &seen, withdrawn: &BTreeSet::new() };
    let held = ["LinkCut/now", "LinkCut/old", "SecureLink/l", "SecureLink/l#exports/a", "LinkPolicy/p#exports/a"];
    assert_eq!(unordered(orders, Some(&previous), &ids(&held)), BTreeSet::new());
    assert_eq!(unordered(orders, None, &ids(&["LinkCut/old", "SecureLink/before"])).len(), 2);
}

#[test]
fn an_object_that_is_looked_at_again_orders_again() {
    let first = next(&[], &[], &ids(&["LinkPolicy/p#exports/a", "LinkCut/1"]), None);
    assert_eq!(first.released, ["LinkCut/1", "LinkPolicy/p#exports/a"]);
    let again = next(&[], &[("LinkPolicy/p", 3)], &BTreeSet::new(), Some(&first));
    assert_eq!(again.released, ["LinkCut/1"]);
    assert!(CutBook::default().admit(cut("LinkPolicy/p#exports/a", 4), &again));
}

#[test]
fn what_relays_claim_to_hold_is_bounded() {
    let many: BTreeSet<String> = (0..1000).map(|n| format!("LinkCut/{n}")).chain(["x".repeat(1000)]).collect();
    let (cuts, seen) = (BTreeSet::new(), BTreeMap::new());
    let orders = Orders { cuts: &cuts, seen: &seen, withdrawn: &BTreeSet::new() };
    let found = unordered(orders, None, &many);
    assert!(found.len() == 64 && found.iter().all(|id| id.starts_with("LinkCut/")));
}

#[test]
fn a_relay_that_runs_a_higher_version_is_jumped_over_unless_no_clock_could_have_given_it() {
    let plain = next(&[], &[], &BTreeSet::new(), None);
    let rows = [
        (vec![], NOW.0),
        (vec![3, NOW.0 - 1], NOW.0),
        (vec![NOW.0 + 5, 1], NOW.0 + 6),
        (vec![NOW.0 + DAY], NOW.0 + DAY + 1),
        (vec![NOW.0 + DAY + 1], NOW.0),
        (vec![u64::MAX, NOW.0 + 5], NOW.0 + 6),
    ];
    for (claimed, version) in rows {
        assert_eq!(above(plain.clone(), claimed.clone(), NOW).version, version, "{claimed:?}");
    }
}

#[test]
fn a_stored_revision_that_no_object_can_have_does_not_have_cuts_ignored() {
    let mut stored = next(&[], &[("LinkPolicy/p", 3)], &BTreeSet::new(), None);
    stored.seen.insert("LinkPolicy/p".to_owned(), u64::MAX);
    let after = next(&[], &[("LinkPolicy/p", 3)], &BTreeSet::new(), Some(&stored));
    assert_eq!(after.seen["LinkPolicy/p"], 3);
    assert!(CutBook::default().admit(cut("LinkPolicy/p", 4), &after));
    stored.seen.insert("LinkPolicy/p".to_owned(), 9);
    assert_eq!(next(&[], &[("LinkPolicy/p", 3)], &BTreeSet::new(), Some(&stored)).seen["LinkPolicy/p"], 9);
}
