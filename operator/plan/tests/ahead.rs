//! Cuts ahead of the snapshot: nothing that the verdict allows, everything it takes away, and no longer than they must last.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::subsequence;
use securelink_crds::LinkPolicy;
use securelink_plan::{
    CutOrder, Declared, Denied, Gathered, Sight, Verdict, cut_of_deleted, cuts_ahead, cuts_in_sight, validate,
};
use securelink_relay_config::{Cut, CutBook, CutScope, Snapshot};
use serde_json::{Value, json};

use support::cluster::{Around, UID, read, settle};
use support::{LINK, after, file, gather, snapshot_of};

static PLAIN: LazyLock<Gathered> = LazyLock::new(|| settle(gather(&file(LINK)), Around::default()));

/// The link in a cluster as `edit` leaves it, at a generation.
fn gathered(generation: i64, edit: impl FnOnce(&mut Value)) -> Gathered {
    let mut gathered = PLAIN.clone();
    let Declared::Valid(link) = &mut gathered.declared else { panic!() };
    let mut spec = serde_json::to_value(&link.spec).unwrap();
    edit(&mut spec);
    link.spec = serde_json::from_value(spec).unwrap();
    link.metadata.uid = Some(UID.to_owned());
    link.metadata.generation = Some(generation);
    gathered
}

/// A change to a spec.
type Edit = fn(&mut Value);

/// What relays run after generation 4.
fn running() -> (Verdict, Snapshot) {
    let verdict = validate(&gathered(4, |_| ()));
    assert!(verdict.is_accepted(), "{:?}", verdict.problems);
    let snapshot = snapshot_of(&verdict, None).unwrap();
    (verdict, snapshot)
}

fn scopes(cuts: &BTreeSet<Cut>) -> BTreeSet<CutScope> {
    cuts.iter().map(|cut| cut.scope.clone()).collect()
}

fn export(name: &str) -> CutScope {
    CutScope::Export(name.to_owned())
}

#[test]
fn what_an_edit_takes_away_is_cut_by_the_link_itself_at_its_generation() {
    let (_, running) = running();
    let pin = running.peer.fingerprints[1];
    let uid = format!("SecureLink/{UID}");
    let rows: [(Edit, CutScope, &str); 7] = [
        (|spec| spec["state"] = json!("Suspended"), CutScope::Link, ""),
        (|spec| drop(spec["exports"].as_array_mut().unwrap().remove(0)), export("notices"), "#exports/notices"),
        (|spec| spec["exports"][0]["target"]["port"] = json!(1), export("notices"), "#exports/notices"),
        (|spec| spec["exports"][0]["target"]["host"] = json!("b.example"), export("notices"), "#exports/notices"),
        (|spec| spec["exports"][0]["name"] = json!("new"), export("notices"), "#exports/notices"),
        (
            |spec| drop(spec["imports"].as_array_mut().unwrap().remove(0)),
            CutScope::Import("siena".to_owned()),
            "#imports/siena",
        ),
        (
            |spec| drop(spec["peer"]["fingerprints"].as_array_mut().unwrap().remove(1)),
            CutScope::Pin(pin),
            "#pins/sha256:9f2c3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667",
        ),
    ];
    for (edit, scope, id) in rows {
        let cuts = cuts_ahead(&running, &validate(&gathered(5, edit)));
        let [cut] = &*cuts.iter().collect::<Vec<_>>() else { panic!("{cuts:?}") };
        assert_eq!((&cut.scope, cut.revision, &cut.id), (&scope, 5, &format!("{uid}{id}")));
        assert!(!cut.reason.is_empty());
    }
}

#[test]
fn what_widens_or_only_moves_limits_cuts_nothing() {
    let (_, running) = running();
    let edits: [Edit; 4] = [
        |_| (),
        |spec| {
            spec["exports"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "more", "target": {"host": "c.example", "port": 1}, "dataClass": "strategic"}));
        },
        |spec| spec["exports"][0]["limits"]["connections"] = json!(1),
        |spec| spec["maxStaleness"] = json!("2h"),
    ];
    for edit in edits {
        assert_eq!(cuts_ahead(&running, &validate(&gathered(5, edit))), BTreeSet::new());
    }
}

#[test]
fn an_invalid_edit_cuts_what_it_narrows_and_no_more() {
    let (before, running) = running();
    let mut edit = after(&before, gathered(5, |_| ()));
    let Declared::Valid(link) = &edit.declared else { panic!() };
    let mut value = serde_json::to_value(link).unwrap();
    value["spec"]["exports"].as_array_mut().unwrap().remove(0);
    value["spec"]["maxStaleness"] = json!("soon");
    let problems = securelink_crds::load::judge(&value, None).unwrap_err();
    edit.declared = Declared::Invalid { value, problems };
    assert_eq!(scopes(&cuts_ahead(&running, &validate(&edit))), [export("notices")].into());
}

#[test]
fn f73_a_deleted_link_is_cut_by_an_order_that_relays_have_not_seen() {
    let (before, running) = running();
    let mut gone = after(&before, gathered(4, |_| ()));
    gone.declared = Declared::Deleted;
    let cuts = cuts_ahead(&running, &validate(&gone));
    assert_eq!(scopes(&cuts), [CutScope::Link].into());
    let mut book = CutBook::default();
    assert!(cuts.into_iter().all(|cut| book.admit(cut, &running)));
}

#[test]
fn where_nothing_is_accepted_nothing_is_carried() {
    let (_, running) = running();
    let mut duplicate = gathered(5, |_| ());
    duplicate.preferred = Some(support::link_ref());
    assert_eq!(scopes(&cuts_ahead(&running, &validate(&duplicate))), [CutScope::Link].into());
}

/// A right that is missing takes nothing away from a link that runs.
#[test]
fn f17_what_the_operator_may_not_see_it_does_not_cut() {
    let (_, running) = running();
    let mut denied = gathered(5, |_| ());
    denied.denied = Some(Denied { verb: "get".to_owned(), resource: "configmaps".to_owned() });
    assert_eq!(cuts_ahead(&running, &validate(&denied)), BTreeSet::new());
    denied.cuts = vec![CutOrder { id: "LinkCut/1".to_owned(), revision: 1, reason: "r".to_owned() }];
    assert_eq!(scopes(&cuts_ahead(&running, &validate(&denied))), [CutScope::Link].into());

    let foreign = |spec: &mut Value| {
        spec["exports"][0]["target"] = json!({"service": "notices", "namespace": "records", "port": 8443});
    };
    let service = "{metadata: {name: notices, namespace: records, uid: u1, resourceVersion: '7',
        annotations: {securelink.dev/export-to: liaison/europol}}, spec: {selector: {app: n}, ports: [{port: 8443}]}}";
    let services = BTreeMap::from([("notices".to_owned(), read(service))]);
    let readable = settle(gathered(5, foreign), Around { services, ..Around::default() });
    let running = snapshot_of(&validate(&readable), None).unwrap();
    assert_eq!(running.exports.len(), 2);
    let unreadable = BTreeMap::from([("records".to_owned(), "list services".to_owned())]);
    let unreadable = settle(gathered(6, foreign), Around { unreadable, ..Around::default() });
    assert_eq!(cuts_ahead(&running, &validate(&unreadable)), BTreeSet::new());
    let nowhere = settle(gathered(6, foreign), Around::default());
    assert_eq!(scopes(&cuts_ahead(&running, &validate(&nowhere))), [export("notices")].into());
}

/// A relay that has seen a policy takes its order for an old one, although it is the link that changed.
#[test]
fn an_edit_that_a_known_policy_forbids_is_cut_by_an_order_that_counts() {
    let policy: LinkPolicy = serde_json::from_value(json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkPolicy",
        "metadata": {"name": "p", "uid": "p1", "generation": 3},
        "spec": {"requireAgreement": true, "allowHostTargets": true},
    }))
    .unwrap();
    let mut first = gathered(4, |_| ());
    first.policies = vec![policy.clone()];
    let running = snapshot_of(&validate(&first), None).unwrap();
    let mut edit = gathered(5, |spec| drop(spec.as_object_mut().unwrap().remove("agreement")));
    edit.policies = vec![policy];
    let mut book = CutBook::default();
    for cut in cuts_ahead(&running, &validate(&edit)) {
        book.admit(cut, &running);
    }
    assert!(book.stored().any(|cut| cut.scope == CutScope::Link));
}

/// Removed and given back before any snapshot said so: the order must not outlive the edit.
#[test]
fn a_cut_that_no_snapshot_ever_showed_ends_with_the_next_one() {
    let (_, running) = running();
    let remove = |spec: &mut Value| drop(spec["exports"].as_array_mut().unwrap().remove(0));
    let mut book = CutBook::default();
    for cut in cuts_ahead(&running, &validate(&gathered(5, remove))) {
        assert!(book.admit(cut, &running));
    }
    let back = validate(&gathered(6, |_| ()));
    let next = snapshot_of(&back, Some(&running)).unwrap();
    book.reconcile(&next);
    assert_eq!(book.effective(&next), BTreeSet::new());
}

fn brake(id: &str) -> CutOrder {
    CutOrder { id: id.to_owned(), revision: 1, reason: "r".to_owned() }
}

/// Ids of what is told where this is known.
fn told(sight: &Sight<'_>) -> BTreeSet<String> {
    cuts_in_sight(sight).into_iter().map(|cut| cut.id).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn f17_a_brake_needs_neither_a_verdict_nor_a_configuration_and_keeps_what_else_was_ordered() {
    let (verdict, running) = running();
    let orders = [brake("LinkCut/1")];
    let cut = |id: &str| Cut { id: id.to_owned(), revision: 3, scope: CutScope::Link, reason: "r".to_owned() };
    let before = BTreeSet::from([cut("LinkCut/0"), cut("LinkPolicy/p"), cut("SecureLink/u#exports/a")]);
    let nothing = BTreeSet::new();
    let blind = Sight { orders: &orders, verdict: None, running: None, before: &nothing, deleted: None };
    assert_eq!(told(&blind), set(&["LinkCut/1"]));
    let kept = Sight { before: &before, ..blind };
    assert_eq!(told(&kept), set(&["LinkCut/1", "LinkPolicy/p", "SecureLink/u#exports/a"]));
    assert_eq!(told(&Sight { running: Some(&running), ..kept }), told(&kept));
    // With a verdict it is the verdict that says what else is cut.
    assert_eq!(told(&Sight { verdict: Some(&verdict), ..kept }), set(&["LinkCut/1"]));
    let suspended = validate(&gathered(5, |spec| spec["state"] = json!("Suspended")));
    let seen = Sight { verdict: Some(&suspended), running: Some(&running), ..kept };
    assert_eq!(told(&seen), set(&["LinkCut/1", &format!("SecureLink/{UID}")]));
}

#[test]
fn f73_a_link_that_is_being_deleted_is_cut_at_a_revision_that_no_later_snapshot_outdoes() {
    let (_, running) = running();
    let edit = validate(&gathered(5, |spec| spec["state"] = json!("Suspended")));
    let nothing = BTreeSet::new();
    for verdict in [None, Some(&edit)] {
        let sight = Sight { orders: &[], verdict, running: Some(&running), before: &nothing, deleted: Some(UID) };
        assert_eq!(cuts_in_sight(&sight), BTreeSet::from([cut_of_deleted(UID)]));
    }
    let mut book = CutBook::default();
    assert!(book.admit(cut_of_deleted(UID), &running));
    let mut next = running.clone();
    for generation in 6..9 {
        next = snapshot_of(&validate(&gathered(generation, |_| ())), Some(&next)).unwrap();
        assert!(!book.reconcile(&next));
    }
    assert_eq!(scopes(&book.effective(&next)), [CutScope::Link].into());
}

/// What an edit keeps, by index, and what else stands in its way.
type Kept = (Vec<usize>, Vec<usize>, Vec<usize>, bool, bool);

fn kept() -> impl Strategy<Value = Kept> {
    let two = || subsequence(vec![0_usize, 1], 0..=2);
    (two(), two(), subsequence(vec![0_usize, 1], 1..=2), any::<bool>(), any::<bool>())
}

fn keep(list: &mut Value, kept: &[usize]) {
    let items = list.as_array().unwrap().clone();
    *list = kept.iter().map(|at| items[*at].clone()).collect();
}

fn edited(generation: i64, (exports, imports, pins, suspended, cut): &Kept) -> Verdict {
    let mut gathered = gathered(generation, |spec| {
        keep(&mut spec["exports"], exports);
        keep(&mut spec["imports"], imports);
        keep(&mut spec["peer"]["fingerprints"], pins);
        spec["state"] = json!(if *suspended { "Suspended" } else { "Active" });
    });
    if *cut {
        gathered.cuts = vec![CutOrder { id: "LinkCut/1".to_owned(), revision: 1, reason: "r".to_owned() }];
    }
    validate(&gathered)
}

/// Whether a cut takes away something that the verdict allows.
fn allows(verdict: &Verdict, cut: &Cut, running: &Snapshot) -> bool {
    let link = verdict.validated().unwrap();
    match &cut.scope {
        CutScope::Link => link.state == securelink_relay_config::LinkState::Active && verdict.whole_cut().is_none(),
        CutScope::Export(name) => {
            let old = running.exports.iter().find(|export| export.name == *name);
            link.exports
                .iter()
                .any(|new| new.name == *name && old.is_none_or(|old| *new.target.endpoint() == old.target))
        }
        CutScope::Import(name) => link.imports.iter().any(|new| new.name == *name),
        CutScope::Pin(pin) => link.peer.fingerprints.contains(pin),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn cuts_ahead_take_away_all_that_is_not_allowed_and_nothing_else_and_end_with_the_snapshot(
        edits in prop::collection::vec((kept(), any::<bool>()), 1..6),
    ) {
        let (_, mut running) = running();
        let mut book = CutBook::default();
        for (generation, (kept, adopted)) in (5..).zip(&edits) {
            let verdict = edited(generation, kept);
            let link = verdict.validated().unwrap();
            let cuts = cuts_ahead(&running, &verdict);
            prop_assert!(cuts.is_superset(&verdict.cuts));
            let scopes = scopes(&cuts);
            for cut in cuts.difference(&verdict.cuts) {
                prop_assert!(!allows(&verdict, cut, &running), "{cut:?}");
                book.admit(cut.clone(), &running);
            }
            if !scopes.contains(&CutScope::Link) {
                let gone = running.exports.iter().filter(|old| link.exports.iter().all(|new| new.name != old.name));
                prop_assert!(gone.map(|old| CutScope::Export(old.name.clone())).all(|scope| scopes.contains(&scope)));
                let gone = running.imports.iter().filter(|old| link.imports.iter().all(|new| new.name != old.name));
                prop_assert!(gone.map(|old| CutScope::Import(old.name.clone())).all(|scope| scopes.contains(&scope)));
                let gone = running.peer.fingerprints.iter().filter(|pin| !link.peer.fingerprints.contains(pin));
                prop_assert!(gone.map(|pin| CutScope::Pin(*pin)).all(|scope| scopes.contains(&scope)));
            }
            // A relay may miss any number of versions.
            if *adopted {
                running = snapshot_of(&verdict, Some(&running)).unwrap();
                book.reconcile(&running);
                prop_assert_eq!(book.effective(&running), verdict.cuts.clone());
            }
        }
    }
}
