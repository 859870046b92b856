//! Root transitions: an old pin keeps working, and nothing forged or foreign gets in that way (promise P5; F39, F75).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;

use jiff::SignedDuration;
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, TrustDomain};
use securelink_pki::certificate::{MAX_PRESENTED, MAX_PRESENTED_BYTES, validity_of};
use securelink_pki::refusal::{Refusal, Which};
use securelink_pki::testing::{CrossForge, LeafForge, Organization, now};
use securelink_pki::verify::MAX_HOPS;
use securelink_pki::{Leaf, PeerTrust, Root, Transitions, fingerprint_of, verify};

/// Europol's roots from the oldest to the newest: one hop more than may be walked.
static ROOTS: LazyLock<Vec<Root>> =
    LazyLock::new(|| (0..=MAX_HOPS + 1).map(|_| Root::generate(&europol(), now()).unwrap()).collect());

fn europol() -> TrustDomain {
    "europol.example".parse().unwrap()
}

fn interpol() -> TrustDomain {
    "interpol.example".parse().unwrap()
}

fn trust(pins: &[Fingerprint]) -> PeerTrust {
    PeerTrust { own: interpol(), peer: europol(), pins: pins.to_vec() }
}

/// A leaf under the root that lies `hops` after the oldest.
fn leaf(hops: usize) -> Leaf {
    let forge = LeafForge::new(&europol(), &interpol());
    forge.leaf(&ROOTS[hops].issue_intermediate(now()).unwrap()).unwrap()
}

fn transitions(hops: usize) -> Transitions {
    let mut transitions = Transitions::none();
    for pair in ROOTS[..=hops].windows(2) {
        transitions.append(&pair[0], &pair[1], now()).unwrap();
    }
    transitions
}

/// All of it by hand: leaf, intermediate, current root, oldest root, crosses.
fn everything(hops: usize) -> Vec<CertificateDer<'static>> {
    let mut presented = leaf(hops).chain().to_vec();
    presented.push(ROOTS[0].certificate().clone());
    presented.extend(ROOTS[..=hops].windows(2).map(|pair| CrossForge::new(&pair[0], &pair[1]).sign()));
    presented
}

/// Where the cross from root `from` to the next stands in [`everything`].
fn cross(from: usize) -> usize {
    4 + from
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn f75_any_pin_of_the_past_leads_to_the_newest_root(hops in 0..=MAX_HOPS, pinned in 0..=MAX_HOPS, told in any::<bool>()) {
        let pinned = pinned.min(hops);
        let pin = ROOTS[pinned].fingerprint();
        let presented = transitions(hops).presented(leaf(hops).chain(), told.then_some(&pin));
        let peer = verify(&presented, &trust(&[pin]), now()).unwrap();
        prop_assert_eq!((peer.hops, peer.pin, peer.root), (hops - pinned, pin, ROOTS[hops].fingerprint()));
        prop_assert!(presented.len() <= MAX_PRESENTED);
        prop_assert!(presented.iter().map(|der| der.len()).sum::<usize>() <= MAX_PRESENTED_BYTES);
    }

    #[test]
    fn f75_a_forged_hop_anywhere_is_refused(hops in 1..=MAX_HOPS, place in 0..MAX_HOPS) {
        let place = place % hops;
        let stranger = Organization::new("europol.example").root;
        let mut presented = everything(hops);
        let forge = CrossForge { signer: &stranger, ..CrossForge::new(&ROOTS[place], &ROOTS[place + 1]) };
        presented[cross(place)] = forge.sign();
        let refusal = verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()).unwrap_err();
        prop_assert_eq!(refusal, Refusal::ForgedTransition);
    }

    #[test]
    fn f75_a_missing_hop_anywhere_is_refused(hops in 1..=MAX_HOPS, place in 0..MAX_HOPS) {
        let mut presented = everything(hops);
        presented.remove(cross(place % hops));
        let refusal = verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()).unwrap_err();
        prop_assert_eq!(refusal.reason(), "WrongRoot");
    }

    #[test]
    fn the_order_of_hops_does_not_matter(hops in 1..=MAX_HOPS, turn in 0..MAX_HOPS) {
        let mut presented = everything(hops);
        presented[4..].rotate_left(turn % hops);
        prop_assert_eq!(verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()).unwrap().hops, hops);
    }
}

#[test]
fn f75_eight_root_transitions_behind_an_old_pin_are_walked() {
    let peer = verify(&everything(8), &trust(&[ROOTS[0].fingerprint()]), now()).unwrap();
    assert_eq!((peer.hops, peer.pin, peer.root), (8, ROOTS[0].fingerprint(), ROOTS[8].fingerprint()));
}

#[test]
fn thirty_three_hops_are_refused_and_thirty_two_are_not() {
    let presented = everything(MAX_HOPS + 1);
    let verdict = |pin: usize| verify(&presented, &trust(&[ROOTS[pin].fingerprint()]), now());
    assert_eq!(verdict(0), Err(Refusal::TooManyTransitions));
    assert_eq!(verdict(1).unwrap().hops, MAX_HOPS);
}

#[test]
fn of_several_pins_the_newest_is_the_one_used() {
    let pins = [ROOTS[0].fingerprint(), ROOTS[5].fingerprint(), ROOTS[2].fingerprint()];
    let peer = verify(&everything(8), &trust(&pins), now()).unwrap();
    assert_eq!((peer.pin, peer.hops), (ROOTS[5].fingerprint(), 3));
}

#[test]
fn f75_a_hop_to_another_trust_domain_is_refused() {
    for place in 0..3 {
        let mut presented = everything(3);
        let uri = "spiffe://other.example".to_owned();
        presented[cross(place)] = CrossForge { uri, ..CrossForge::new(&ROOTS[place], &ROOTS[place + 1]) }.sign();
        let refusal = verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()).unwrap_err();
        assert_eq!(refusal.reason(), "WrongTrustDomain");
    }
}

#[test]
fn f75_a_hop_that_names_no_trust_domain_is_refused() {
    let mut presented = everything(3);
    let uri = "https://europol.example".to_owned();
    presented[cross(1)] = CrossForge { uri, ..CrossForge::new(&ROOTS[1], &ROOTS[2]) }.sign();
    assert_eq!(verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()), Err(Refusal::ForgedTransition));
}

#[test]
fn a_hop_that_is_no_authority_is_refused() {
    let mut presented = everything(3);
    presented[cross(1)] = CrossForge { ca: false, ..CrossForge::new(&ROOTS[1], &ROOTS[2]) }.sign();
    assert_eq!(verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()), Err(Refusal::ForgedTransition));
}

#[test]
fn a_hop_with_an_unknown_critical_extension_is_refused() {
    let mut presented = everything(3);
    presented[cross(1)] = CrossForge { unknown_critical: true, ..CrossForge::new(&ROOTS[1], &ROOTS[2]) }.sign();
    assert_eq!(verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()), Err(Refusal::UnknownCriticalExtension));
}

#[test]
fn an_expired_hop_is_refused_behind_the_pin_and_not_looked_at_before_it() {
    let mut presented = everything(3);
    let not_after = now() - SignedDuration::from_secs(1);
    presented[cross(1)] = CrossForge { not_after, ..CrossForge::new(&ROOTS[1], &ROOTS[2]) }.sign();
    let verdict = |pin: usize| verify(&presented, &trust(&[ROOTS[pin].fingerprint()]), now());
    assert_eq!(verdict(0), Err(Refusal::CertificateExpired { which: Which::Transition, not_after }));
    assert_eq!(verdict(2).unwrap().hops, 1);
}

#[test]
fn an_intermediate_of_the_old_root_is_no_hop() {
    // Signed by the pinned root and a CA, but made to issue leaves: it must not become a root.
    let pinned = Organization::new("europol.example");
    let forge = LeafForge { ca: true, ..LeafForge::new(&europol(), &interpol()) };
    let middle = &pinned.intermediate;
    let issued = forge.leaf(middle);
    let mut presented = everything(0);
    presented.push(middle.chain()[0].clone());
    presented.extend(issued.into_iter().flat_map(|leaf| leaf.chain().to_vec()));
    assert_eq!(verify(&presented, &trust(&[pinned.root.fingerprint()]), now()).unwrap_err().reason(), "WrongRoot");
}

#[test]
fn a_leaf_under_a_hop_instead_of_the_newest_root_is_refused() {
    // The current root shown is the third; the leaf comes from the first, which the pin and the hops would vouch for.
    let mut presented = everything(2);
    let old = leaf(0);
    presented[0] = old.chain()[0].clone();
    presented[1] = old.chain()[1].clone();
    let refusal = verify(&presented, &trust(&[ROOTS[0].fingerprint()]), now()).unwrap_err();
    assert_eq!(refusal.reason(), "WrongRoot");
}

#[test]
fn a_hop_ends_with_the_earlier_of_its_roots() {
    let early = Root::generate(&europol(), now() - SignedDuration::from_hours(24 * 3_000)).unwrap();
    let late = Root::generate(&europol(), now()).unwrap();
    for (old, new) in [(&early, &late), (&late, &early)] {
        let hop = securelink_pki::transitions::cross_sign(old, new, now()).unwrap();
        assert_eq!(validity_of(&hop).unwrap().not_after, early.validity().not_after);
        assert_eq!(fingerprint_of(&hop).unwrap(), new.fingerprint());
    }
}

#[test]
fn a_peer_that_told_its_pin_is_spared_the_hops_before_it() {
    let (leaf, transitions) = (leaf(8), transitions(8));
    let presented = |pin: usize| transitions.presented(leaf.chain(), Some(&ROOTS[pin].fingerprint())).len() - 3;
    assert_eq!(presented(8), 0);
    assert_eq!(presented(7), 2); // the cross that carries the pinned key, and the one after it
    assert_eq!(presented(0), 9);
    assert_eq!(transitions.presented(leaf.chain(), Some(&interpol_pin())).len() - 3, 9);
}

fn interpol_pin() -> Fingerprint {
    Fingerprint::from_sha256([7; 32])
}

#[test]
fn before_the_first_rotation_the_chain_is_presented_as_it_is() {
    let leaf = leaf(0);
    assert_eq!(Transitions::none().presented(leaf.chain(), None), leaf.chain());
}

#[test]
fn after_more_rotations_than_may_be_walked_the_oldest_is_forgotten() {
    let transitions = transitions(MAX_HOPS + 1);
    assert_eq!(transitions.hops(), MAX_HOPS);
    let presented = transitions.presented(leaf(MAX_HOPS + 1).chain(), None);
    assert_eq!(verify(&presented, &trust(&[ROOTS[1].fingerprint()]), now()).unwrap().hops, MAX_HOPS);
}

#[test]
fn transitions_survive_being_written_and_read() {
    for hops in [0, 1, 8, MAX_HOPS] {
        let transitions = transitions(hops);
        assert_eq!(Transitions::from_pem(&transitions.to_pem()).unwrap(), transitions);
    }
}

#[test]
fn transitions_with_a_hop_cut_out_of_the_file_are_refused() {
    let pem = transitions(3).to_pem();
    let blocks: Vec<_> = pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert!(Transitions::from_pem(&[blocks[0], blocks[1], blocks[3]].concat()).is_err());
}

#[test]
fn a_transition_from_a_root_that_is_not_the_current_one_is_refused() {
    assert!(transitions(2).append(&ROOTS[0], &ROOTS[3], now()).is_err());
}

#[test]
fn transitions_tell_where_they_lead_and_what_they_left() {
    assert_eq!((Transitions::none().leads_to(), Transitions::none().left_behind()), (None, vec![]));
    let three = transitions(3);
    assert_eq!(three.leads_to(), Some(ROOTS[3].fingerprint()));
    let left: Vec<_> = three.left_behind().into_iter().map(|(root, _)| root).collect();
    assert_eq!(left, ROOTS[..3].iter().map(Root::fingerprint).collect::<Vec<_>>());
}
