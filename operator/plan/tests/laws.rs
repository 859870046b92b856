//! Laws of the planner, over edits, histories and clocks nobody thought of.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use securelink_crds::conditions::ConditionType;
use securelink_crds::load::judge;
use securelink_crds::{SecureLinkSpec, SecureLinkStatus};
use securelink_id::Fingerprint;
use securelink_plan::certificate::{Decision, Facts, Stored, Wanted, decide};
use securelink_plan::{
    Base, Certificate, Declared, Gathered, LeafInUse, Narrowing, Observed, Orders, ValidatedLink, Verdict,
    next_deadline, snapshot, status, validate,
};
use securelink_relay_config::{
    AgreedReport, Agreement, Cut, CutBook, CutScope, Digest, Disagreement, ErrorReport, LinkReport, LinkState, Millis,
    PeerReport, ProbeReport, SideReport, Snapshot, StreamReport,
};
use serde_json::{Value, json};

use support::{LINK, accept, file, gather, now};

static ACCEPTED: LazyLock<Verdict> = LazyLock::new(|| accept(&file(LINK)));
static GATHERED: LazyLock<Gathered> = LazyLock::new(|| gather(&file(LINK)));

fn written() -> Value {
    let Declared::Valid(link) = &GATHERED.declared else { panic!() };
    let mut value = serde_json::to_value(link.as_ref()).unwrap();
    // A mistake, so that no change of the rest makes the edit valid.
    value["spec"]["maxStaleness"] = json!("soon");
    value
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| places(field, &format!("{at}/{name}"), all)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| places(item, &format!("{at}/{i}"), all)),
        _ => {}
    }
}

fn junk() -> impl Strategy<Value = Value> {
    let pin = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    select(vec![
        Value::Null,
        json!(7),
        json!(70_000),
        json!(-1),
        json!(true),
        json!("Suspended"),
        json!("Active"),
        json!("eurojust.example"),
        json!("2026-12-01T00:00:00Z"),
        json!("2031-01-01T00:00:00Z"),
        json!("+999999-01-01T00:00:00Z"),
        json!("siena"),
        json!("notices"),
        json!(pin),
        json!([]),
        json!([pin]),
        json!({}),
        json!([null]),
        json!({"name": "new", "target": {"host": "new.example", "port": 1}, "dataClass": "strategic"}),
        json!([{"podSelector": {}}]),
    ])
}

/// One change to the spec: something else at a place, or nothing there any more, or one more entry in a list.
fn change() -> impl Strategy<Value = (prop::sample::Index, Option<Value>)> {
    (any::<prop::sample::Index>(), prop::option::of(junk()))
}

fn apply(value: &mut Value, (at, new): &(prop::sample::Index, Option<Value>)) {
    let mut all = Vec::new();
    places(&value["spec"], "/spec", &mut all);
    let place = at.get(&all).clone();
    let (parent, last) = place.rsplit_once('/').unwrap();
    match (new, value.pointer_mut(parent)) {
        (Some(new), _) => match value.pointer_mut(&place) {
            Some(Value::Array(items)) if !new.is_array() => items.push(new.clone()),
            Some(there) => *there = new.clone(),
            None => {}
        },
        (None, Some(Value::Object(fields))) => drop(fields.remove(last)),
        (None, Some(Value::Array(items))) => drop(items.remove(last.parse().unwrap())),
        (None, _) => {}
    }
}

fn invalid_edit() -> impl Strategy<Value = Value> {
    prop::collection::vec(change(), 1..6).prop_map(|changes| {
        let mut value = written();
        for change in &changes {
            apply(&mut value, change);
        }
        value["typo"] = json!(1);
        value
    })
}

fn judged(value: Value, before: &Verdict) -> Verdict {
    let problems = judge(&value, None).unwrap_err();
    let mut gathered = GATHERED.clone();
    gathered.declared = Declared::Invalid { value, problems };
    gathered.last_accepted.clone_from(&before.accepted);
    validate(&gathered)
}

/// Whether `new` allows nothing that `old` does not, and differs in nothing else.
fn assert_narrower(old: &ValidatedLink, new: &ValidatedLink) {
    let ends = |agreement: &Option<Agreement>| agreement.as_ref().map(|it| it.term.until.unwrap());
    assert!(new.state >= old.state);
    assert!(ends(&new.agreements.current) <= ends(&old.agreements.current));
    assert!(ends(&new.agreements.next) <= ends(&old.agreements.next));
    assert!(new.peer.fingerprints.iter().all(|pin| old.peer.fingerprints.contains(pin)));
    assert!(new.exports.iter().all(|export| old.exports.contains(export)));
    for import in &new.imports {
        let before = old.imports.iter().find(|before| before.name == import.name).unwrap();
        assert!(!import.declared.clients.is_empty());
        assert!(import.declared.clients.iter().all(|client| before.declared.clients.contains(client)));
    }
    // Everything else is the same once what may differ is put back.
    let mut rest = new.clone();
    rest.state = old.state;
    rest.peer.fingerprints.clone_from(&old.peer.fingerprints);
    rest.exports.clone_from(&old.exports);
    for import in &mut rest.imports {
        let before = old.imports.iter().find(|before| before.name == import.name).unwrap();
        import.declared.clients.clone_from(&before.declared.clients);
        assert_eq!(import, before);
    }
    rest.imports.clone_from(&old.imports);
    for (rest, old) in
        [(&mut rest.agreements.current, &old.agreements.current), (&mut rest.agreements.next, &old.agreements.next)]
    {
        rest.as_mut().unwrap().term.until = old.as_ref().unwrap().term.until;
    }
    assert_eq!(&rest, old);
}

fn narrowing() -> impl Strategy<Value = Narrowing> {
    let Declared::Valid(link) = &GATHERED.declared else { panic!() };
    let spec = link.spec.clone();
    let agreement = spec.agreement.clone().unwrap();
    let digests = [agreement.digest, agreement.next.unwrap().digest];
    let names = |all: Vec<String>| subsequence(all.clone(), 0..=all.len()).prop_map(BTreeSet::from_iter);
    let client = serde_json::to_string(&spec.imports[0].clients[0]).unwrap();
    (
        any::<bool>(),
        prop::collection::btree_map(select(digests.to_vec()), (0..100_i64).prop_map(days), 0..2),
        names(spec.peer.fingerprints.clone()),
        names(spec.exports.iter().map(|export| export.name.clone()).collect()),
        names(spec.imports.iter().map(|import| import.name.clone()).collect()),
        prop::option::of(Just(client)),
    )
        .prop_map(move |(suspended, ends, pins, exports, imports, client)| {
            let clients = client.map(|client| ("siena".to_owned(), BTreeSet::from([client])));
            Narrowing { suspended, ends, pins, exports, imports, clients: clients.into_iter().collect() }
        })
}

fn days(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

fn joined(a: &Narrowing, b: &Narrowing) -> Narrowing {
    let mut both = a.clone();
    both.join(b.clone());
    both
}

fn spec() -> SecureLinkSpec {
    let Declared::Valid(link) = &GATHERED.declared else { panic!() };
    link.spec.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_invalid_edit_widens_and_neither_does_a_row_of_them(
        edits in prop::collection::vec(invalid_edit(), 1..4)
    ) {
        let mut before = ACCEPTED.clone();
        for edit in edits {
            let verdict = judged(edit, &before);
            prop_assert!(matches!(verdict.base, Base::LastAccepted(_)) && !verdict.is_accepted());
            assert_narrower(before.validated().unwrap(), verdict.validated().unwrap());
            before = verdict;
        }
    }

    #[test]
    fn an_invalid_edit_without_anything_accepted_runs_nothing(edit in invalid_edit()) {
        let nothing = validate(&Gathered { declared: Declared::Deleted, ..GATHERED.clone() });
        let verdict = judged(edit, &nothing);
        prop_assert_eq!(&verdict.base, &Base::None);
        prop_assert!(verdict.accepted.is_none());
    }
}

proptest! {
    #[test]
    fn narrowings_combine_to_the_narrowest(a in narrowing(), b in narrowing(), c in narrowing()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(joined(&a, &b).apply(&spec()), a.apply(&b.apply(&spec())));
        prop_assert_eq!(Narrowing::default().apply(&spec()), spec());
    }
}

/// A moment of a link: which imports it has, what is cut, which objects were looked at, and the clock.
type Moment = (Vec<&'static str>, BTreeSet<u8>, Option<u64>, u64);

fn moment() -> impl Strategy<Value = Moment> {
    let imports = subsequence(vec!["a", "b", "c", "d"], 0..=4);
    (imports, prop::collection::btree_set(0..3_u8, 0..3), prop::option::of(1..5_u64), 1_000..2_000_u64)
}

fn link(imports: &[&str]) -> ValidatedLink {
    let mut link = ACCEPTED.validated().unwrap().clone();
    let one = link.imports[0].clone();
    let import = |name: &&str| {
        let mut import = one.clone();
        (*name).clone_into(&mut import.name);
        import.listen = None;
        import
    };
    link.imports = imports.iter().map(import).collect();
    link
}

fn cuts(ids: &BTreeSet<u8>) -> BTreeSet<Cut> {
    let cut = |id: &u8| Cut { id: cut_id(*id), revision: 1, scope: CutScope::Link, reason: "r".to_owned() };
    ids.iter().map(cut).collect()
}

fn cut_id(id: u8) -> String {
    format!("LinkCut/{id}")
}

fn take(moment: &Moment, previous: Option<&Snapshot>) -> Snapshot {
    let (imports, ids, revision, clock) = moment;
    let seen: BTreeMap<String, u64> = revision.iter().map(|it| ("SecureLink/1".to_owned(), *it)).collect();
    let orders = Orders { cuts: &cuts(ids), seen: &seen, withdrawn: &BTreeSet::new() };
    snapshot(&link(imports), orders, previous, Millis(*clock))
}

proptest! {
    #[test]
    fn a_snapshot_of_the_same_is_the_same(moments in prop::collection::vec(moment(), 1..8), later in 0..5_000_u64) {
        let mut previous: Option<Snapshot> = None;
        for moment in &moments {
            let next = take(moment, previous.as_ref());
            let again = take(&(moment.0.clone(), moment.1.clone(), moment.2, later), Some(&next));
            prop_assert_eq!(&again, &next);
            previous = Some(next);
        }
    }

    #[test]
    fn versions_only_rise_and_never_cover_two_contents(moments in prop::collection::vec(moment(), 2..8)) {
        let mut previous = take(&moments[0], None);
        for moment in &moments[1..] {
            let next = take(moment, Some(&previous));
            if next == previous {
                continue;
            }
            prop_assert_eq!(next.version, (previous.version + 1).max(moment.3));
            previous = next;
        }
    }

    #[test]
    fn a_slot_stays_with_its_import_and_rests_one_version(moments in prop::collection::vec(moment(), 2..8)) {
        let mut previous = take(&moments[0], None);
        for moment in &moments[1..] {
            let next = take(moment, Some(&previous));
            let slots: BTreeSet<u16> = next.imports.iter().map(|import| import.slot).collect();
            prop_assert_eq!(slots.len(), next.imports.len());
            for import in &next.imports {
                prop_assert_eq!(import.listen.port(), 20_000 + import.slot);
                let holder = previous.imports.iter().find(|before| before.slot == import.slot);
                prop_assert!(holder.is_none_or(|before| before.name == import.name));
                let before = previous.imports.iter().find(|before| before.name == import.name);
                prop_assert!(before.is_none_or(|before| before.slot == import.slot));
            }
            previous = next;
        }
    }

    /// A relay that was told of a cut beside its snapshot obeys it until a snapshot takes over, and no longer than the order.
    #[test]
    fn relays_obey_exactly_the_cuts_in_force(moments in prop::collection::vec(moment(), 2..8), told in 0..3_u8) {
        let mut previous = take(&moments[0], None);
        let mut book = CutBook::default();
        for cut in cuts(&BTreeSet::from([told])) {
            book.admit(cut, &previous);
        }
        let mut known = previous.seen.contains_key(&cut_id(told));
        for moment in &moments[1..] {
            let next = take(moment, Some(&previous));
            book.reconcile(&next);
            known |= next.seen.contains_key(&cut_id(told));
            let mut expected = moment.1.clone();
            if !known {
                expected.insert(told);
            }
            let obeyed: BTreeSet<String> = book.effective(&next).into_iter().map(|cut| cut.id).collect();
            prop_assert_eq!(obeyed, expected.into_iter().map(cut_id).collect::<BTreeSet<_>>());
            prop_assert!(next.released.iter().all(|id| !next.seen.contains_key(id)));
            let before = previous.seen.get("SecureLink/1").copied();
            prop_assert!(next.seen.get("SecureLink/1").copied().or(before) >= before);
            previous = next;
        }
    }
}

#[test]
fn the_list_of_released_cuts_is_bounded() {
    let mut previous = take(&(vec![], BTreeSet::new(), None, 1), None);
    for id in 0..400_u32 {
        let cut = Cut { id: format!("LinkCut/{id}"), revision: 1, scope: CutScope::Link, reason: String::new() };
        let orders = Orders { cuts: &BTreeSet::from([cut]), seen: &BTreeMap::new(), withdrawn: &BTreeSet::new() };
        previous = snapshot(&link(&[]), orders, Some(&previous), Millis(1));
    }
    assert_eq!((previous.released.len(), previous.seen.len()), (256, 1));
    assert_eq!(previous.released.last().unwrap(), "LinkCut/398");
}

#[test]
fn limits_are_shared_by_the_replicas_and_never_become_zero() {
    let mut link = link(&[]);
    link.replicas = 3;
    link.limits.connections = Some(1);
    link.limits.bytes_per_second = Some(3_001);
    let shared = snapshot(&link, ACCEPTED.orders(), None, Millis(1)).limits;
    assert_eq!((shared.connections, shared.bytes_per_second), (Some(1), Some(1_001)));
}

fn instant() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        (-100..100_i64).prop_map(|hours| now() + SignedDuration::from_hours(hours)),
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
    ]
}

fn root() -> impl Strategy<Value = Fingerprint> {
    (0..2_u8).prop_map(|byte| Fingerprint::from_sha256([byte; 32]))
}

proptest! {
    #[test]
    fn a_certificate_is_kept_only_while_it_is_right_and_not_due(
        key_matches in any::<bool>(),
        superseded in any::<bool>(),
        roots in (prop::option::of(root()), root()),
        dates in (instant(), instant(), instant()),
        now in instant(),
    ) {
        let link = ACCEPTED.validated().unwrap();
        let wanted = Wanted::leaf(roots.1, link);
        let facts = Facts {
            key_matches,
            root: roots.0,
            identity: wanted.identity.clone(),
            dns_names: wanted.dns_names.clone(),
            not_before: dates.0,
            not_after: dates.1,
            renew_at: dates.2,
            superseded,
        };
        let right = key_matches && !superseded && roots.0 == Some(roots.1);
        let fresh = dates.0 <= now && now < dates.1 && now < dates.2;
        match decide(&Stored::Present(facts), &wanted, now) {
            Decision::Keep { until } => {
                prop_assert!(right && fresh && until > now && until == dates.1.min(dates.2));
            }
            Decision::Issue { .. } => prop_assert!(!(right && fresh)),
        }
    }
}

const DIRECTION_MARK: char = '\u{202e}';

fn report() -> impl Strategy<Value = LinkReport> {
    let ms = (-100..100_i64).prop_map(|seconds| Millis::from(now() + SignedDuration::from_secs(seconds)));
    let disagreement = prop::option::of(select(vec![
        Disagreement::CutHere,
        Disagreement::CutByPeer,
        Disagreement::SuspendedByPeer,
        Disagreement::Stale,
        Disagreement::DigestDiffers,
        Disagreement::Expired { at: Millis(u64::MAX) },
        Disagreement::NotYetEffective { at: Millis(0) },
    ]));
    let word = select(vec!["WrongRoot", "DnsFailed", "Ready", "Invalid", "no word", ""]);
    let error = prop::option::of((word, ".{0,40}\n\u{202e}x", ms.clone()));
    (0..3_u32, disagreement, error, prop::option::of(ms.clone()), prop::option::of(ms), 0..3_u64).prop_map(
        |(control_connections, disagreement, error, probe, recheck, version)| {
            let error = error.map(|(reason, message, at)| ErrorReport { reason: reason.to_owned(), message, at });
            let digest = "sha256:77ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667".parse().ok();
            LinkReport {
                link: support::link_ref(),
                version,
                hash: Digest([0; 32]),
                formats: vec![1],
                listener: None,
                certificate: None,
                peer: PeerReport { control_connections, last_error: error.clone(), ..PeerReport::default() },
                agreed: AgreedReport {
                    disagreement,
                    peer_reason: error.map(|error| error.message),
                    digest,
                    recheck,
                    own: SideReport::default(),
                    peer: None,
                },
                probe: ProbeReport { last_success: probe, ..ProbeReport::default() },
                exports: Vec::new(),
                imports: Vec::new(),
                streams: StreamReport::default(),
                cuts: Vec::new(),
                rejected: None,
            }
        },
    )
}

fn certificate() -> impl Strategy<Value = Certificate> {
    let failure = (securelink_crds::conditions::Reason::RootMissing, "restore it".to_owned());
    (any::<bool>(), prop::option::of((instant(), instant())), any::<bool>()).prop_map(move |(root, leaf, failed)| {
        Certificate {
            root: root.then(|| Fingerprint::from_sha256([1; 32])),
            leaf: leaf.map(|(not_after, renew_at)| LeafInUse { serial: "5e".to_owned(), not_after, renew_at }),
            failure: failed.then(|| failure.clone()),
        }
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(runs, cut, suspended)| {
        let mut verdict = ACCEPTED.clone();
        if cut {
            verdict.cuts = cuts(&BTreeSet::from([1]));
        }
        if let (true, Base::New(link)) = (suspended, &mut verdict.base) {
            link.state = LinkState::Suspended;
        }
        if !runs {
            verdict.base = Base::None;
        }
        verdict
    })
}

proptest! {
    #[test]
    fn the_same_facts_give_the_same_status_and_ready_means_all_of_it(
        verdict in verdict(),
        certificate in certificate(),
        report in prop::option::of(report()),
        later in 0..1_000_i64,
    ) {
        let observed = Observed { certificate: &certificate, snapshot: None, report: report.as_ref(), hindrance: None, widened: &[] };
        let first = status(&verdict, observed, &SecureLinkStatus::default(), now());
        prop_assert_eq!(&status(&verdict, observed, &first, now()), &first);

        // Nothing moves before the deadline.
        let deadline = next_deadline(&verdict, observed, now());
        prop_assert!(deadline.is_none_or(|at| at > now()));
        let before = now() + SignedDuration::from_secs(later);
        if deadline.is_none_or(|at| before < at) {
            prop_assert_eq!(&status(&verdict, observed, &first, before), &first);
        }

        let six = &ConditionType::ALL[..6];
        let found: Vec<&str> = first.conditions.iter().take(6).map(|condition| condition.type_.as_str()).collect();
        prop_assert_eq!(found, six.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
        let (ready, others) = (&first.conditions[5], &first.conditions[..5]);
        if let Some(untrue) = others.iter().find(|condition| condition.status != "True") {
            prop_assert_eq!((ready.status.as_str(), &ready.reason), ("False", &untrue.reason));
        }
        for condition in &first.conditions {
            let plain = !condition.message.contains(['\n', DIRECTION_MARK]);
            prop_assert!(plain && !condition.message.is_empty());
        }
        if ready.status == "True" {
            prop_assert!(!certificate.leaf.as_ref().unwrap().not_after.le(&now()) && verdict.cuts.is_empty());
        }
    }
}
