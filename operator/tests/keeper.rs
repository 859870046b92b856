//! The keeper of relays against control ports on real sockets, some of which misbehave.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use securelink_operator::relays::{Relays, Word};
use securelink_pki::testing::Organization;
use securelink_relay_config::control::{Push, path};
use serde_json::json;

use support::{Answer, Keeper, cut, link, nobody, status};

/// What the relay of this name says.
fn word(relays: &Relays, pod: &str) -> Option<Word> {
    relays.words(&link()).into_iter().find(|word| word.pod == pod)
}

/// What it obeyed, by identifier.
fn obeyed(relays: &Relays, pod: &str) -> Vec<String> {
    word(relays, pod).map(|word| word.obeyed.into_keys().map(|(id, _)| id).collect()).unwrap_or_default()
}

#[tokio::test]
async fn f72_a_cut_reaches_each_relay_those_that_start_later_and_those_that_come_back() {
    let keeper = Keeper::new();
    let (a, b) = (keeper.port("a").await, keeper.port("b").await);
    keeper.keep("1", &[&a]);
    keeper.cut(&["LinkCut/1"]);
    a.until_told(&["LinkCut/1"]).await;
    keeper.until("an acknowledgement", |relays| (obeyed(relays, "a") == ["LinkCut/1"]).then_some(())).await;
    keeper.keep("1", &[&a, &b]);
    b.until_told(&["LinkCut/1"]).await;
    keeper.until("a status", |relays| word(relays, "b")?.status).await;
    b.forget();
    b.hang_up();
    b.until("the cut again", |port| port.holds("LinkCut/1")).await;
}

#[tokio::test]
async fn a_cut_that_a_relay_refuses_or_breaks_off_over_holds_up_no_other() {
    let broken = |_: &str| Answer::HangUp;
    let refused = |_: &str| Answer::Refused;
    for bad in [broken as fn(&str) -> Answer, refused] {
        let keeper = Keeper::new();
        let a = keeper.port("a").await;
        a.answers(move |path, body| match body["cut"]["id"].as_str() {
            Some("LinkCut/1") => bad(path),
            _ => Answer::Plain,
        });
        keeper.keep("1", &[&a]);
        keeper.cut(&["LinkCut/1", "LinkCut/2"]);
        keeper.until("the second", |relays| (obeyed(relays, "a") == ["LinkCut/2"]).then_some(())).await;
        // It comes while the first one fails again and again.
        keeper.cut(&["LinkCut/1", "LinkCut/2", "LinkCut/3"]);
        keeper.until("the third", |relays| (obeyed(relays, "a").len() == 2).then_some(())).await;
        a.answers(|_, _| Answer::Plain);
        keeper.until("the first", |relays| (obeyed(relays, "a").len() == 3).then_some(())).await;
    }
}

#[tokio::test]
async fn a_cut_goes_over_the_connection_that_is_there_and_past_one_over_which_a_push_hangs() {
    let keeper = Keeper::new();
    let a = keeper.port("a").await;
    keeper.keep("1", &[&a]);
    keeper.until("a status", |relays| word(relays, "a")?.status).await;
    keeper.cut(&["LinkCut/1"]);
    keeper.until("an acknowledgement", |relays| (obeyed(relays, "a") == ["LinkCut/1"]).then_some(())).await;
    assert_eq!(a.connections(), 1);

    a.answers(|path, _| if path == path::SNAPSHOT { Answer::Nothing } else { Answer::Plain });
    keeper.relays.push(&link(), &Push { snapshot: Some(json!({})), leaf: None });
    a.until("a push", |port| port.count(path::SNAPSHOT) == 1).await;
    keeper.cut(&["LinkCut/1", "LinkCut/2"]);
    keeper.until("the second", |relays| (obeyed(relays, "a").len() == 2).then_some(())).await;
    assert_eq!(a.count(path::SNAPSHOT), 1, "it did not wait for the push to end");
}

#[tokio::test]
async fn a_cut_that_is_not_answered_over_the_connection_that_is_there_goes_over_another_as_well() {
    let keeper = Keeper::new();
    let a = keeper.port("a").await;
    let first = AtomicBool::new(true);
    a.answers(move |path, _| match path {
        path::CUT if first.swap(false, Ordering::Relaxed) => Answer::Nothing,
        _ => Answer::Plain,
    });
    keeper.keep("1", &[&a]);
    keeper.until("a status", |relays| word(relays, "a")?.status).await;
    keeper.cut(&["LinkCut/1"]);
    keeper.until("an acknowledgement", |relays| (obeyed(relays, "a") == ["LinkCut/1"]).then_some(())).await;
    assert_eq!((a.told().len(), a.connections()), (2, 2));
}

#[tokio::test]
async fn a_relay_whose_status_cannot_be_read_is_told_of_cuts_all_the_same() {
    let keeper = Keeper::new();
    let a = keeper.port("a").await;
    a.answers(|path, _| if path == path::STATUS { Answer::Garbage } else { Answer::Plain });
    keeper.keep("1", &[&a]);
    keeper.cut(&["LinkCut/1"]);
    a.until_told(&["LinkCut/1"]).await;
    let error = keeper.until("an error", |relays| word(relays, "a")?.error).await;
    assert!(error.contains("did not answer"), "{error}");
}

#[tokio::test]
async fn f83_who_has_the_address_of_a_relay_and_not_its_leaf_is_told_nothing() {
    let keeper = Keeper::new();
    let stranger = keeper.port_of(&Organization::new("interpol.example"), "a").await;
    keeper.keep("1", &[&stranger]);
    keeper.cut(&["LinkCut/1"]);
    let pod = nobody("b").await;
    keeper.relays.keep(&link(), &keeper.basis("1"), &BTreeSet::from([stranger.pod.clone(), pod]));
    keeper.relays.push(&link(), &Push { snapshot: Some(json!({})), leaf: None });
    for name in ["a", "b"] {
        let error = keeper.until("an error", |relays| word(relays, name)?.error).await;
        assert!(error.contains("cannot connect"), "{error}");
    }
    assert_eq!((stranger.told().len(), stranger.count(path::SNAPSHOT), stranger.count(path::STATUS)), (0, 0, 0));
}

/// A link deleted and made again under its name: the relays so far are another link's.
#[tokio::test]
async fn f73_relays_of_a_link_that_was_made_anew_are_cut_for_good_and_given_nothing() {
    let keeper = Keeper::new();
    let (old, new) = (keeper.port("old").await, keeper.port("new").await);
    keeper.keep("1", &[&old]);
    keeper.relays.push(&link(), &Push { snapshot: Some(json!({"version": 1})), leaf: None });
    old.until("a configuration", |port| port.count(path::SNAPSHOT) == 1).await;
    keeper.keep("2", &[&old, &new]);
    keeper.cut(&[]);
    keeper.relays.push(&link(), &Push { snapshot: Some(json!({"version": 2})), leaf: None });
    old.until_told(&["SecureLink/1"]).await;
    assert_eq!(old.told(), [("SecureLink/1".to_owned(), u64::MAX)]);
    new.until("its configuration", |port| port.count(path::SNAPSHOT) == 1).await;
    // A brake over the name reaches both.
    keeper.cut(&["LinkCut/1"]);
    old.until_told(&["LinkCut/1"]).await;
    new.until_told(&["LinkCut/1"]).await;
    assert_eq!((old.count(path::SNAPSHOT), new.told().len()), (1, 1));
    let names = |words: Vec<Word>| words.into_iter().map(|word| word.pod).collect::<Vec<_>>();
    assert_eq!(
        (names(keeper.relays.words(&link())), names(keeper.relays.parted(&link()))),
        (vec!["new".to_owned()], vec!["old".to_owned()])
    );
    keeper.keep("2", &[&new]);
    assert_eq!(keeper.relays.parted(&link()).len(), 0);
}

#[tokio::test]
async fn an_order_that_is_news_to_nobody_and_one_that_is_held_no_longer_are_not_obeyed() {
    let keeper = Keeper::new();
    let a = keeper.port("a").await;
    a.answers(|path, _| match path {
        path::CUT => Answer::Ok(json!({"fresh": false, "ended": 0, "stored": true})),
        _ => Answer::Plain,
    });
    keeper.keep("1", &[&a]);
    keeper.cut(&["LinkCut/1"]);
    a.until_told(&["LinkCut/1"]).await;
    assert_eq!(obeyed(&keeper.relays, "a"), Vec::<String>::new());

    // It obeyed; then a snapshot that did not know of the cut came after it.
    a.answers(|path, _| match path {
        path::STATUS => Answer::Ok(serde_json::to_value(status(vec!["LinkCut/2".to_owned()])).unwrap()),
        _ => Answer::Plain,
    });
    keeper.cut(&["LinkCut/2"]);
    keeper.until("an acknowledgement", |relays| (obeyed(relays, "a") == ["LinkCut/2"]).then_some(())).await;
    a.answers(|path, _| match path {
        path::STATUS => Answer::Ok(serde_json::to_value(status(Vec::new())).unwrap()),
        path::CUT => Answer::Ok(json!({"fresh": false, "ended": 0, "stored": true})),
        _ => Answer::Plain,
    });
    keeper.until("its end", |relays| obeyed(relays, "a").is_empty().then_some(())).await;
}

#[tokio::test]
async fn what_is_ordered_no_more_is_forgotten_and_told_again_when_it_is_ordered_again() {
    let keeper = Keeper::new();
    let a = keeper.port("a").await;
    keeper.keep("1", &[&a]);
    keeper.cut(&["LinkPolicy/p", "LinkCut/1"]);
    a.until_told(&["LinkPolicy/p", "LinkCut/1"]).await;
    keeper.cut(&["LinkCut/2"]);
    a.until_told(&["LinkCut/2"]).await;
    keeper.until("one", |relays| (obeyed(relays, "a") == ["LinkCut/2"]).then_some(())).await;
    keeper.cut(&["LinkCut/2", "LinkPolicy/p"]);
    let twice = |told: &[(String, u64)]| told.iter().filter(|(id, _)| id == "LinkPolicy/p").count() == 2;
    a.until("the policy's again", |port| twice(&port.told())).await;
}

#[tokio::test]
async fn a_basis_is_kept_until_the_link_is_forgotten() {
    let keeper = Keeper::new();
    let a = keeper.port("a").await;
    assert_eq!(keeper.relays.basis(&link()), None);
    keeper.keep("1", &[&a]);
    keeper.relays.cut(&link(), &BTreeSet::from([cut("LinkCut/1", 1)]));
    assert_eq!(keeper.relays.basis(&link()), Some(keeper.basis("1")));
    assert_eq!((keeper.relays.links(), keeper.relays.ordered(&link()).len()), (vec![link()], 1));
    keeper.relays.forget(&link());
    assert_eq!((keeper.relays.basis(&link()), keeper.relays.links()), (None, vec![]));
    assert_eq!(keeper.metrics.panics.get(), 0);
}
