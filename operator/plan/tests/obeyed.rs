//! The status of a `LinkCut`: which relay obeyed when, and how many have not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use jiff::{SignedDuration, Timestamp};
use securelink_crds::load::{Object, judge};
use securelink_crds::{LinkCut, LinkCutStatus};
use securelink_plan::{CutHits, CutRelay, cut_status};
use serde_json::json;

use support::now;

fn cut() -> LinkCut {
    let written = json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkCut",
        "metadata": {"name": "stop", "namespace": "liaison", "generation": 1},
        "spec": {"trustDomain": "europol.example", "reason": "incident 2026-114"},
    });
    let Object::LinkCut(cut) = judge(&written, None).unwrap() else { panic!() };
    *cut
}

fn relay(pod: &str, obeyed_at: Option<Timestamp>) -> CutRelay {
    CutRelay { link: "europol".to_owned(), relay: pod.to_owned(), obeyed_at }
}

fn hits(relays: &[CutRelay]) -> CutHits {
    CutHits { relays: relays.to_vec(), unlisted: Vec::new() }
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// Each relay on record, and when it obeyed.
fn record(status: &LinkCutStatus) -> Vec<(&str, Timestamp)> {
    status.relays.iter().map(|relay| (relay.relay.as_str(), relay.obeyed_at.0)).collect()
}

#[test]
fn a_cut_counts_who_has_not_obeyed_and_says_when_the_others_did() {
    let fraction = later(1) + SignedDuration::from_millis(900);
    let relays = [relay("b", Some(fraction)), relay("c", None), relay("a", Some(later(2)))];
    let status = cut_status(&cut(), &hits(&relays), &LinkCutStatus::default());
    assert_eq!((status.pending, status.observed_generation), (Some(1), Some(1)));
    assert_eq!(record(&status), [("a", later(2)), ("b", later(1))]);
    let mut shuffled = relays.clone();
    shuffled.reverse();
    assert_eq!(cut_status(&cut(), &hits(&shuffled), &status), status);
    assert_eq!(cut_status(&cut(), &hits(&[]), &LinkCutStatus::default()).pending, Some(0));
}

#[test]
fn the_first_acknowledgement_stays_and_a_relay_that_holds_the_cut_no_longer_is_pending_again() {
    let first = cut_status(&cut(), &hits(&[relay("a", Some(later(1)))]), &LinkCutStatus::default());
    assert_eq!(cut_status(&cut(), &hits(&[relay("a", Some(later(9)))]), &first), first);
    let lost = cut_status(&cut(), &hits(&[relay("a", None)]), &first);
    assert_eq!((lost.pending, record(&lost)), (Some(1), vec![]));
}

#[test]
fn a_relay_that_is_gone_stays_on_record_while_there_is_room() {
    let old: Vec<CutRelay> = (0..256).map(|n| relay(&format!("old-{n:03}"), Some(later(n)))).collect();
    let before = cut_status(&cut(), &hits(&old), &LinkCutStatus::default());
    assert_eq!(before.relays.len(), 256);
    let status = cut_status(&cut(), &hits(&[relay("new", Some(later(300)))]), &before);
    assert_eq!((status.pending, status.relays.len()), (Some(0), 256));
    let names: Vec<&str> = record(&status).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"new") && names.contains(&"old-255") && !names.contains(&"old-000"));
}

#[test]
fn f17_where_relays_cannot_be_listed_there_is_no_number_and_it_says_why() {
    let mut hits = hits(&[relay("a", Some(later(1)))]);
    hits.unlisted = vec!["interpol".to_owned(), "europol".to_owned()];
    let status = cut_status(&cut(), &hits, &LinkCutStatus::default());
    assert_eq!((status.pending, record(&status).len()), (None, 1));
    let why = status.unknown.clone().unwrap();
    assert!(why.starts_with("the relays of europol and of one other link cannot be listed"), "{why}");
    hits.unlisted.clear();
    let status = cut_status(&cut(), &hits, &status);
    assert_eq!((status.pending, status.unknown), (Some(0), None));
}
