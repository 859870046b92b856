//! A root of the operator's own is followed by another, and nobody who pinned the old one has to do anything.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::REPLACE_ROOT;
use securelink_crds::load::{Object, judge};
use securelink_crds::{LinkIdentity, RootState};
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};
use securelink_operator::issue::{Asked, Hands, Issuer, built_in};
use securelink_operator::keys::{self, Kept, Parts};
use securelink_operator::traces::Traces;
use securelink_pki::testing::now;
use securelink_pki::{PeerTrust, verify};
use securelink_plan::rotation::ANNOUNCED;
use securelink_relay_config::LinkRef;
use serde_json::json;

/// An identity and its Secret, as they go from look to look.
struct Kit {
    identity: LinkIdentity,
    recorded: Option<Fingerprint>,
    secret: Option<Secret>,
    now: Timestamp,
}

impl Kit {
    fn new() -> Self {
        let written = json!({
            "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
            "metadata": {"name": "default", "namespace": "liaison", "uid": "u-1"},
            "spec": {"trustDomain": "interpol.example", "issuer": {"builtIn": {}}},
        });
        let Object::LinkIdentity(identity) = judge(&written, None).unwrap() else { panic!() };
        let mut kit = Self { identity: *identity, recorded: None, secret: None, now: now() };
        kit.reconcile();
        kit
    }

    fn look(&self, hands: Hands) -> Issuer {
        let traces = Traces::default().or(self.recorded, false);
        let asked = Asked { identity: &self.identity, traces, place: "securelink-system/keys" };
        built_in::issuer(asked, Kept::read(self.secret.as_ref()), hands, self.now)
    }

    /// As the operator does: look, keep, record.
    fn reconcile(&mut self) -> Issuer {
        let issuer = self.look(Hands::Making);
        if issuer.made.is_any() {
            self.keep(&issuer);
        }
        self.recorded = issuer.root;
        issuer
    }

    fn keep(&mut self, issuer: &Issuer) {
        let at = LinkRef { namespace: "liaison".to_owned(), name: "default".to_owned() };
        let made = &issuer.made;
        let parts = Parts {
            root: made.root.as_ref(),
            intermediate: issuer.intermediate.as_ref().filter(|_| made.intermediate),
            next: made.next.as_ref(),
            transitions: Some(&issuer.transitions).filter(|_| made.switched),
        };
        self.secret = Some(keys::secret(&at, "u-1", self.secret.as_ref(), &parts));
    }

    fn replace(&mut self, root: Fingerprint) {
        let annotations = self.identity.metadata.annotations.get_or_insert_default();
        annotations.insert(REPLACE_ROOT.to_owned(), root.to_string());
    }

    /// Replaces the root, by a person's word on both steps.
    fn rotate(&mut self) -> Fingerprint {
        self.replace(self.recorded.unwrap());
        let next = self.reconcile().made.next.unwrap().fingerprint();
        self.identity.spec.expected_fingerprint = Some(next.to_string());
        let switched = self.reconcile();
        assert!(switched.failure.is_none() && switched.made.switched, "{:?}", switched.failure);
        next
    }

    fn file(&self, name: &str) -> Option<String> {
        let bytes = self.secret.as_ref()?.data.as_ref()?.get(name)?;
        Some(String::from_utf8(bytes.0.clone()).unwrap())
    }
}

fn states(issuer: &Issuer) -> Vec<RootState> {
    issuer.roots.iter().map(|root| root.state).collect()
}

/// What a peer that pinned `pin` says of the link's certificates now: how many hops it walks.
fn hops(issuer: &Issuer, pin: Fingerprint, now: Timestamp) -> usize {
    let (own, peer): (TrustDomain, TrustDomain) =
        ("europol.example".parse().unwrap(), "interpol.example".parse().unwrap());
    let identity = SpiffeId::link(peer.clone(), own.clone());
    let leaf = issuer.intermediate.as_ref().unwrap().issue_leaf(&identity, &[], now).unwrap();
    let presented = issuer.transitions.presented(leaf.chain(), None);
    verify(&presented, &PeerTrust { own, peer, pins: vec![pin] }, now).unwrap().hops
}

#[test]
fn f39_a_root_is_replaced_twenty_four_times_and_the_first_pin_still_works() {
    let mut kit = Kit::new();
    let first = kit.recorded.unwrap();
    for turn in 1..=24 {
        let (old, key) = (kit.recorded.unwrap(), kit.file("root.key"));
        let new = kit.rotate();
        assert_eq!(kit.recorded, Some(new));
        assert_ne!(kit.file("root.key"), key, "the old key is gone");
        let issuer = kit.look(Hands::Looking);
        assert_eq!((issuer.root, issuer.made.is_any()), (Some(new), false));
        assert_eq!([first, old, new].map(|pin| hops(&issuer, pin, kit.now)), [turn, 1, 0]);
        assert_eq!(states(&issuer).len(), turn + 1, "{:?}", issuer.roots);
        // A day of renewals in between changes no root.
        kit.now += SignedDuration::from_hours(24);
        assert!(!kit.reconcile().made.is_any());
    }
}

#[test]
fn a_root_whose_time_has_come_is_announced_for_a_month_and_then_takes_over_by_itself() {
    let mut kit = Kit::new();
    let first = kit.recorded.unwrap();
    kit.now += SignedDuration::from_hours(24 * 365 * 9);
    let announcing = kit.reconcile();
    assert_eq!((announcing.root, states(&announcing)), (Some(first), vec![RootState::Next, RootState::Current]));
    assert!(announcing.made.root.is_none() && kit.file("next.key").is_some());
    let next = announcing.made.next.unwrap().fingerprint();

    let waiting = kit.reconcile();
    let at = waiting.switch_at.unwrap();
    assert!(waiting.due.unwrap() <= at && !waiting.made.is_any());
    assert_eq!(hops(&waiting, first, kit.now), 0, "the old one signs on");
    assert!(at.duration_since(kit.now) <= ANNOUNCED);

    kit.now = at;
    assert!(!kit.look(Hands::Looking).made.is_any(), "who only looks switches nothing");
    let switched = kit.reconcile();
    assert_eq!((switched.root, states(&switched)), (Some(next), vec![RootState::Current, RootState::Retired]));
    assert_eq!(hops(&switched, first, kit.now), 1);
    assert_eq!((kit.file("next.key"), kit.file("next.pem")), (None, None));
}

#[test]
fn a_persons_word_holds_the_next_root_back_and_lets_it_take_over() {
    let mut kit = Kit::new();
    let first = kit.recorded.unwrap();
    kit.identity.spec.expected_fingerprint = Some(first.to_string());
    kit.replace(first);
    let next = kit.reconcile().made.next.unwrap().fingerprint();
    kit.now += ANNOUNCED * 2;
    kit.reconcile(); // the intermediate's renewal
    let held = kit.reconcile();
    assert_eq!((held.root, held.switch_at, held.made.is_any()), (Some(first), None, false));
    kit.identity.spec.expected_fingerprint = Some(next.to_string());
    assert_eq!(kit.reconcile().root, Some(next));
    // The order to replace the first one stays in the repository, and asks for nothing any more.
    assert!(!kit.reconcile().made.is_any());
}

/// Secret and status are written one after the other, and seen in any order; a leader may die between them.
#[test]
fn keys_and_record_of_different_ages_are_no_conflict() {
    let mut kit = Kit::new();
    let (old, before) = (kit.recorded, kit.secret.clone());
    kit.replace(old.unwrap());
    kit.reconcile();
    let announced = kit.secret.clone();
    let next = kit.look(Hands::Looking).roots[0].fingerprint;
    kit.identity.spec.expected_fingerprint = Some(next.to_string());
    kit.reconcile();
    kit.identity.spec.expected_fingerprint = None;

    kit.recorded = old;
    let ahead = kit.reconcile();
    assert_eq!((ahead.root, ahead.failure.is_none(), ahead.made.is_any()), (Some(next), true, false));

    kit.secret = announced;
    let behind = kit.look(Hands::Looking);
    assert_eq!((behind.root, behind.failure.is_none()), (old, true), "as the keys that are seen say");

    // Older than the announcement is a restored backup: that is for a person.
    kit.secret = before;
    let restored = kit.look(Hands::Making);
    assert_eq!(restored.failure.map(|(reason, _)| reason), Some(Reason::RootConflict));
    assert!(!restored.made.is_any());
}

#[test]
fn a_damaged_next_root_or_way_keeps_the_current_one_signing_and_is_said() {
    let mut kit = Kit::new();
    let first = kit.recorded.unwrap();
    kit.replace(first);
    kit.reconcile();
    for file in ["next.pem", "transitions.pem"] {
        let mut damaged = kit.secret.clone().unwrap();
        damaged.data.as_mut().unwrap().insert(file.to_owned(), ByteString(b"rubbish".to_vec()));
        let whole = kit.secret.replace(damaged);
        kit.now += ANNOUNCED * 2;
        let found = kit.look(Hands::Making);
        assert_eq!((found.root, found.made.switched, found.made.next.is_none()), (Some(first), false, true), "{file}");
        assert!(found.intermediate.is_some());
        let (reason, why) = found.failure.unwrap();
        assert!(reason == Reason::IssuerFailed && why.contains("; restore"), "{why}");
        kit.secret = whole;
    }
}
