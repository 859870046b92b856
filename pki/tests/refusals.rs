//! Every reason for which a peer is refused (promise P2; faults F42, F43, F48, F51, F57, F74).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;

use jiff::SignedDuration;
use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use securelink_id::TrustDomain;
use securelink_pki::certificate::{MAX_CA_CERTIFICATE, MAX_LEAF_CERTIFICATE, MAX_PRESENTED, MAX_PRESENTED_BYTES};
use securelink_pki::refusal::{Refusal, Which};
use securelink_pki::testing::{LeafForge, Organization, now};
use securelink_pki::{PeerTrust, PrivateKey, Root, VerifiedPeer, fingerprint_of, verify};

/// Interpol judges what Europol presents.
struct Link {
    interpol: Organization,
    europol: Organization,
}

impl Link {
    fn new() -> Self {
        Self { interpol: Organization::new("interpol.example"), europol: Organization::new("europol.example") }
    }

    fn trust(&self) -> PeerTrust {
        self.interpol.trusts(&self.europol)
    }

    fn forge(&self) -> LeafForge {
        LeafForge::new(&self.europol.domain, &self.interpol.domain)
    }

    fn refusal(&self, presented: &[CertificateDer<'_>]) -> Refusal {
        verify(presented, &self.trust(), now()).expect_err("must be refused")
    }

    /// Why Europol's issuer's leaf is refused after `spoil`.
    fn spoiled(&self, spoil: impl FnOnce(&mut LeafForge)) -> Refusal {
        let mut forge = self.forge();
        spoil(&mut forge);
        self.refusal(&forge.issue(&self.europol.intermediate))
    }
}

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

#[test]
fn the_right_peer_is_accepted_and_described() {
    let link = Link::new();
    let leaf = link.europol.leaf_to(&link.interpol.domain);
    let peer = verify(leaf.chain(), &link.trust(), now()).unwrap();
    assert_eq!(peer.trust_domain, link.europol.domain);
    assert_eq!((peer.root, peer.pin, peer.hops), (link.europol.root.fingerprint(), link.europol.root.fingerprint(), 0));
    assert_eq!((peer.serial.as_slice(), peer.not_after), (leaf.serial(), leaf.validity().not_after));
    assert_eq!(peer.leaf_key, leaf.key().public_key());
}

#[test]
fn an_unspoiled_forge_is_accepted_so_that_the_other_tests_mean_something() {
    let link = Link::new();
    verify(&link.forge().issue(&link.europol.intermediate), &link.trust(), now()).unwrap();
}

#[test]
fn dns_names_beside_the_identity_are_welcome() {
    let link = Link::new();
    let mut forge = link.forge();
    forge.dns = vec!["link.europol.example".into(), "other.europol.example".into()];
    verify(&forge.issue(&link.europol.intermediate), &link.trust(), now()).unwrap();
}

#[test]
fn f57_another_partners_valid_certificate_is_the_wrong_root() {
    let link = Link::new();
    let afripol = Organization::new("afripol.example");
    let refusal = link.refusal(&afripol.presents_to(&link.interpol.domain));
    let (presented, claimed) = (Some(afripol.root.fingerprint()), Some(afripol.domain.clone()));
    assert_eq!(refusal, Refusal::WrongRoot { presented, claimed });
    assert_eq!(refusal.reason(), "WrongRoot");
    assert!(refusal.to_string().contains(&afripol.root.fingerprint().to_string()));
}

#[test]
fn a_chain_without_its_own_root_as_public_cas_issue_it_is_the_wrong_root() {
    let link = Link::new();
    let presented = link.europol.presents_to(&link.interpol.domain);
    assert!(matches!(link.refusal(&presented[..2]), Refusal::WrongRoot { presented: None, .. }));
}

#[test]
fn a_pinned_root_shown_beside_a_strangers_leaf_is_the_wrong_root() {
    let link = Link::new();
    let stranger = Organization::new("europol.example");
    let mut presented = stranger.presents_to(&link.interpol.domain);
    *presented.last_mut().unwrap() = link.europol.root.certificate().clone();
    assert_eq!(link.refusal(&presented).reason(), "WrongRoot");
}

#[test]
fn a_leaf_whose_own_key_is_pinned_is_no_root() {
    let link = Link::new();
    let leaf = link.europol.leaf_to(&link.interpol.domain);
    let pins = vec![fingerprint_of(&leaf.chain()[0]).unwrap(), fingerprint_of(&leaf.chain()[1]).unwrap()];
    let trust = link.interpol.pins(&link.europol.domain, pins);
    assert_eq!(verify(leaf.chain(), &trust, now()).unwrap_err().reason(), "WrongRoot");
}

#[test]
fn no_pin_trusts_nobody_and_a_fifth_pin_is_not_looked_at() {
    let link = Link::new();
    let presented = link.europol.presents_to(&link.interpol.domain);
    let mut trust = link.trust();
    let right = trust.pins[0];
    trust.pins.clear();
    assert_eq!(verify(&presented, &trust, now()).unwrap_err().reason(), "WrongRoot");
    trust.pins = vec![link.interpol.root.fingerprint(); 4];
    trust.pins.push(right);
    assert_eq!(verify(&presented, &trust, now()).unwrap_err().reason(), "WrongRoot");
}

#[test]
fn f43_a_look_alike_trust_domain_under_the_right_root_is_refused() {
    let link = Link::new();
    let found = domain("europo1.example");
    let look_alike = LeafForge::new(&found, &link.interpol.domain);
    let refusal = link.refusal(&look_alike.issue(&link.europol.intermediate));
    assert_eq!(refusal, Refusal::WrongTrustDomain { found, expected: link.europol.domain.clone() });
}

#[test]
fn f43_a_peer_that_claims_our_own_trust_domain_is_refused() {
    let link = Link::new();
    let ours = LeafForge::new(&link.interpol.domain, &link.interpol.domain);
    assert_eq!(link.refusal(&ours.issue(&link.europol.intermediate)).reason(), "WrongTrustDomain");
}

#[test]
fn f43_a_peer_that_claims_another_peers_trust_domain_is_refused_under_either_root() {
    let link = Link::new();
    let afripol = Organization::new("afripol.example");
    let theirs = LeafForge::new(&afripol.domain, &link.interpol.domain);
    let found = afripol.domain.clone();
    let expected = link.europol.domain.clone();
    assert_eq!(link.refusal(&theirs.issue(&link.europol.intermediate)), Refusal::WrongTrustDomain { found, expected });
    // The other way round: Europol's name from Afripol's issuer.
    assert_eq!(link.refusal(&link.forge().issue(&afripol.intermediate)).reason(), "WrongRoot");
}

#[test]
fn f43_a_root_that_names_another_trust_domain_is_refused_even_if_pinned() {
    let link = Link::new();
    let other = Organization::new("other.example");
    let presented = link.forge().issue(&other.intermediate);
    let trust = link.interpol.pins(&link.europol.domain, vec![other.root.fingerprint()]);
    assert_eq!(verify(&presented, &trust, now()).unwrap_err().reason(), "WrongTrustDomain");
}

#[test]
fn f74_the_right_partners_certificate_for_another_audience_is_refused() {
    let link = Link::new();
    let found = domain("afripol.example");
    let refusal = link.refusal(&link.europol.presents_to(&found));
    assert_eq!(refusal, Refusal::WrongAudience { found, expected: link.interpol.domain.clone() });
}

#[test]
fn f48_two_uris_are_refused_even_if_the_first_is_right() {
    let link = Link::new();
    assert_eq!(link.spoiled(|forge| forge.uris.push(forge.uris[0].clone())), Refusal::ManyIdentities);
}

#[test]
fn a_name_that_is_neither_uri_nor_dns_is_refused() {
    let link = Link::new();
    let refusal = link.spoiled(|forge| forge.addresses.push([192, 0, 2, 1].into()));
    assert_eq!(refusal, Refusal::ManyIdentities);
}

#[test]
fn a_leaf_without_uri_is_refused() {
    let link = Link::new();
    let refusal = link.spoiled(|forge| {
        forge.uris.clear();
        forge.dns.push("europol.example".into());
    });
    assert_eq!(refusal, Refusal::NoIdentity);
}

#[test]
fn f48_wildcard_userinfo_port_percent_encoding_and_other_forms_of_uri_are_refused() {
    let link = Link::new();
    for uri in [
        "spiffe://*.example/securelink/v1/to/interpol.example",
        "spiffe://root@europol.example/securelink/v1/to/interpol.example",
        "spiffe://europol.example:443/securelink/v1/to/interpol.example",
        "spiffe://europol%2eexample/securelink/v1/to/interpol.example",
        "spiffe://europol.example/securelink/v1/to/%69nterpol.example",
        "spiffe://europol.example/securelink/v1/to/*",
        "spiffe://EUROPOL.example/securelink/v1/to/interpol.example",
        "spiffe://europol.example./securelink/v1/to/interpol.example",
        "spiffe://europol.example/securelink/v1/to/interpol.example/",
        "spiffe://europol.example/securelink/v1/to/interpol.example?x",
        "spiffe://europol.example/securelink/v2/to/interpol.example",
        "spiffe://europol.example",
        "https://europol.example/securelink/v1/to/interpol.example",
        "",
    ] {
        let refusal = link.spoiled(|forge| forge.uris = vec![uri.into()]);
        assert_eq!(refusal.reason(), "WrongIdentity", "{uri}");
    }
}

#[test]
fn f51_what_a_peer_writes_never_reaches_the_message_raw_or_unbounded() {
    let link = Link::new();
    for uri in [
        "spiffe://evil\nERROR root key leaked/securelink/v1/to/interpol.example".to_owned(),
        format!("spiffe://{}/securelink/v1/to/interpol.example", "\u{1b}[2J".repeat(5_000)),
        format!("spiffe://europol.example/{}", "x".repeat(20_000)),
    ] {
        let text = link.spoiled(|forge| forge.uris = vec![uri]).to_string();
        assert!(text.len() < 400 && text.chars().all(|c| !c.is_control()), "{text}");
    }
}

#[test]
fn an_expired_leaf_is_refused_with_its_end() {
    let link = Link::new();
    let not_after = now() - SignedDuration::from_secs(1);
    let refusal = link.spoiled(|forge| forge.not_after = not_after);
    assert_eq!(refusal, Refusal::CertificateExpired { which: Which::Leaf, not_after });
}

#[test]
fn a_leaf_from_the_future_is_refused_with_its_beginning() {
    let link = Link::new();
    let not_before = now() + SignedDuration::from_secs(1);
    let refusal = link.spoiled(|forge| forge.not_before = not_before);
    assert_eq!(refusal, Refusal::CertificateNotYetValid { which: Which::Leaf, not_before });
}

#[test]
fn a_leaf_holds_through_its_last_second() {
    let link = Link::new();
    let mut forge = link.forge();
    forge.not_after = now();
    verify(&forge.issue(&link.europol.intermediate), &link.trust(), now()).unwrap();
}

#[test]
fn an_expired_intermediate_and_an_expired_root_are_refused() {
    let link = Link::new();
    let mut forge = link.forge();
    forge.not_after = now() + SignedDuration::from_hours(24 * 20_000);
    let presented = forge.issue(&link.europol.intermediate);
    let after = |days: i64| verify(&presented, &link.trust(), now() + SignedDuration::from_hours(24 * days));
    assert!(matches!(after(91), Err(Refusal::CertificateExpired { which: Which::Some, .. })));
    assert!(matches!(after(3_653), Err(Refusal::CertificateExpired { which: Which::Root, .. })));
}

#[test]
fn a_leaf_must_list_both_purposes() {
    let link = Link::new();
    for ekus in [
        vec![],
        vec![ExtendedKeyUsagePurpose::ServerAuth],
        vec![ExtendedKeyUsagePurpose::ClientAuth],
        vec![ExtendedKeyUsagePurpose::Any],
        vec![ExtendedKeyUsagePurpose::CodeSigning],
    ] {
        assert_eq!(link.spoiled(|forge| forge.ekus.clone_from(&ekus)), Refusal::WrongKeyUsage, "{ekus:?}");
    }
}

#[test]
fn a_leaf_must_be_allowed_to_sign_handshakes() {
    let link = Link::new();
    let refusal = link.spoiled(|forge| forge.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert_eq!(refusal, Refusal::WrongKeyUsage);
}

#[test]
fn a_ca_certificate_as_leaf_is_refused() {
    let link = Link::new();
    assert_eq!(link.spoiled(|forge| forge.ca = true), Refusal::WrongKeyUsage);
}

#[test]
fn a_leaf_does_not_issue_leaves() {
    let link = Link::new();
    let key = PrivateKey::generate_p256().unwrap();
    let leaf = link.forge().issue_for(&key, &link.europol.intermediate);
    let deeper = LeafForge::new(&link.europol.domain, &link.interpol.domain);
    let certificate = deeper.sign(&public_half(&PrivateKey::generate_p256().unwrap()), &leaf[0], &key);
    let presented: Vec<_> = std::iter::once(certificate).chain(leaf).collect();
    assert_eq!(link.refusal(&presented), Refusal::WrongIssuer);
}

fn public_half(key: &PrivateKey) -> rcgen::SubjectPublicKeyInfo {
    rcgen::SubjectPublicKeyInfo::from_der(&key.public_key()).unwrap()
}

#[test]
fn a_leaf_with_a_p384_key_is_refused() {
    let link = Link::new();
    let key = PrivateKey::generate_p384().unwrap();
    let presented = link.forge().issue_for(&key, &link.europol.intermediate);
    assert_eq!(link.refusal(&presented), Refusal::WrongKeyType);
}

#[test]
fn a_leaf_with_an_rsa_key_is_refused() {
    let link = Link::new();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let key = PrivateKey::from_pem(&pair.serialize_pem()).unwrap();
    let presented = link.forge().issue_for(&key, &link.europol.intermediate);
    assert_eq!(link.refusal(&presented), Refusal::WrongKeyType);
}

#[test]
fn f42_an_unknown_critical_extension_is_refused() {
    let link = Link::new();
    assert_eq!(link.spoiled(|forge| forge.unknown_critical = true), Refusal::UnknownCriticalExtension);
}

#[test]
fn a_damaged_signature_is_refused_wherever_it_is() {
    let link = Link::new();
    let good = link.europol.presents_to(&link.interpol.domain);
    for damaged in 0..good.len() {
        let mut presented = good.clone();
        let mut der = presented[damaged].to_vec();
        *der.last_mut().unwrap() ^= 1;
        presented[damaged] = der.into();
        assert_eq!(link.refusal(&presented), Refusal::BadSignature, "certificate {damaged}");
    }
}

#[test]
fn a_signature_algorithm_that_is_not_accepted_is_refused() {
    // ecdsa-with-SHA384 becomes ecdsa-with-SHA224, inside and outside the signed part.
    let (accepted, weak) = ([0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1]);
    let link = Link::new();
    let mut presented = link.europol.presents_to(&link.interpol.domain);
    let mut der = presented[0].to_vec();
    for at in 0..der.len() - accepted.len() {
        if der[at..].starts_with(&accepted) {
            der[at..at + weak.len()].copy_from_slice(&weak);
        }
    }
    presented[0] = der.into();
    assert_eq!(link.refusal(&presented), Refusal::WrongKeyType);
}

/// A public key of 16 384 bits, to which nobody has the other half.
struct Rsa16k(Vec<u8>);

impl Rsa16k {
    fn new() -> Self {
        let mut modulus = vec![0xc5; 2048];
        modulus.insert(0, 0);
        let mut content = [&[0x02, 0x82, 0x08, 0x01][..], &modulus, &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        content.splice(0..0, [0x30, 0x82, length[0], length[1]]);
        Self(content)
    }
}

impl rcgen::PublicKeyData for Rsa16k {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

fn rsa_2048() -> PrivateKey {
    PrivateKey::from_pem(&rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem()).unwrap()
}

/// An authority of Europol's over any key.
fn authority(link: &Link, key: &impl rcgen::PublicKeyData) -> CertificateDer<'static> {
    let usages = vec![KeyUsagePurpose::KeyCertSign];
    let forge = LeafForge { ca: true, uris: vec![], ekus: vec![], key_usages: usages, ..link.forge() };
    forge.sign(key, link.europol.root.certificate(), link.europol.root.key())
}

#[test]
fn f42_an_rsa_key_of_16384_bits_is_refused_as_leaf_authority_and_root() {
    let link = Link::new();
    let (huge, rsa) = (Rsa16k::new(), rsa_2048());
    let chain = link.europol.intermediate.chain();
    let leaf = link.forge().sign(&huge, &chain[0], link.europol.intermediate.key());
    assert_eq!(link.refusal(&[&[leaf], chain].concat()), Refusal::WrongKeyType);

    // What it would have signed, another RSA key signs: the signature has the right form.
    let middle = authority(&link, &huge);
    let leaf = link.forge().sign(&public_half(&PrivateKey::generate_p256().unwrap()), &middle, &rsa);
    let root = link.europol.root.certificate().clone();
    assert_eq!(link.refusal(&[leaf, middle, root]), Refusal::BadSignature);

    let pair = rcgen::KeyPair::from_pem(&rsa.to_pem()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.signed_by(&huge, &rcgen::Issuer::from_params(&params, &pair)).unwrap().der().clone();
    let leaf = link.forge().sign(&public_half(&PrivateKey::generate_p256().unwrap()), &root, &rsa);
    let trust = link.interpol.pins(&link.europol.domain, vec![fingerprint_of(&root).unwrap()]);
    assert_eq!(verify(&[leaf, root], &trust, now()), Err(Refusal::BadSignature));
}

#[test]
fn f42_a_signature_over_md5_is_refused_and_over_sha_256_it_is_not() {
    let (sha256, md5) = ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11], [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4]);
    let link = Link::new();
    let rsa = rsa_2048();
    let middle = authority(&link, &public_half(&rsa));
    let leaf = link.forge().sign(&public_half(&PrivateKey::generate_p256().unwrap()), &middle, &rsa);
    let mut presented = vec![leaf, middle, link.europol.root.certificate().clone()];
    verify(&presented, &link.trust(), now()).unwrap();
    let mut der = presented[0].to_vec();
    let places: Vec<usize> = (0..der.len() - md5.len()).filter(|at| der[*at..].starts_with(&sha256)).collect();
    assert_eq!(places.len(), 2, "inside and outside the signed part");
    for at in places {
        der[at..at + md5.len()].copy_from_slice(&md5);
    }
    presented[0] = der.into();
    assert_eq!(link.refusal(&presented), Refusal::WrongKeyType);
}

proptest! {
    #[test]
    fn no_byte_of_a_chain_can_be_changed(place in 0..3_usize, at in any::<proptest::sample::Index>(), by in 1..=255_u8) {
        static CHAIN: LazyLock<(Link, Vec<CertificateDer<'static>>)> = LazyLock::new(|| {
            let link = Link::new();
            let presented = link.europol.presents_to(&link.interpol.domain);
            (link, presented)
        });
        let (link, mut presented) = (&CHAIN.0, CHAIN.1.clone());
        let mut der = presented[place].to_vec();
        let at = at.index(der.len());
        der[at] ^= by;
        presented[place] = der.into();
        prop_assert!(verify(&presented, &link.trust(), now()).is_err());
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic(chain in proptest::collection::vec(any::<Vec<u8>>(), 0..6)) {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let trust = PeerTrust { own: domain("a.example"), peer: domain("b.example"), pins: vec![] };
        prop_assert!(verify(&chain, &trust, now()).is_err());
    }
}

#[test]
fn f42_garbage_is_refused_as_malformed_wherever_it_is() {
    let link = Link::new();
    let good = link.europol.presents_to(&link.interpol.domain);
    for place in 0..good.len() {
        for garbage in [vec![], vec![0x30], vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], vec![0x41; 6_000]] {
            let mut presented = good.clone();
            presented[place] = garbage.into();
            assert_eq!(link.refusal(&presented), Refusal::Malformed);
        }
        let mut trailing = good.clone();
        trailing[place] = [good[place].as_ref(), &[0]].concat().into();
        assert_eq!(link.refusal(&trailing), Refusal::Malformed);
    }
}

#[test]
fn an_empty_chain_is_no_certificate() {
    assert_eq!(Link::new().refusal(&[]), Refusal::NoClientCertificate);
}

#[test]
fn f42_a_ten_megabyte_chain_is_refused_before_it_is_read() {
    let link = Link::new();
    let huge = CertificateDer::from(vec![0x30; 10 << 20]);
    assert_eq!(link.refusal(&[huge]), Refusal::TooLarge);
}

#[test]
fn f42_ten_thousand_certificates_are_refused_before_they_are_read() {
    let link = Link::new();
    let many = vec![CertificateDer::from(vec![0x30]); 10_000];
    assert_eq!(link.refusal(&many), Refusal::TooLarge);
    let mut barely = link.europol.presents_to(&link.interpol.domain);
    barely.resize(MAX_PRESENTED + 1, CertificateDer::from(vec![0x30]));
    assert_eq!(link.refusal(&barely), Refusal::TooLarge);
    barely.truncate(MAX_PRESENTED);
    assert_eq!(link.refusal(&barely), Refusal::Malformed);
}

#[test]
fn all_certificates_together_have_a_cap() {
    let link = Link::new();
    let of = |bytes: usize| [vec![CertificateDer::from(vec![0x30; 6_000]); 8], vec![vec![0x30; bytes].into()]].concat();
    assert_eq!(link.refusal(&of(MAX_PRESENTED_BYTES - 48_000)), Refusal::Malformed);
    assert_eq!(link.refusal(&of(MAX_PRESENTED_BYTES - 48_000 + 1)), Refusal::TooLarge);
}

#[test]
fn a_leaf_and_an_authority_have_caps_of_their_own() {
    let link = Link::new();
    let good = link.europol.presents_to(&link.interpol.domain);
    for (place, cap) in [(0, MAX_LEAF_CERTIFICATE), (1, MAX_CA_CERTIFICATE)] {
        let mut presented = good.clone();
        presented[place] = vec![0x30; cap + 1].into();
        assert_eq!(link.refusal(&presented), Refusal::TooLarge);
        presented[place] = vec![0x30; cap].into();
        assert_eq!(link.refusal(&presented), Refusal::Malformed);
    }
}

#[test]
fn a_big_leaf_within_its_cap_is_accepted() {
    let link = Link::new();
    let mut forge = link.forge();
    forge.padding = 30_000;
    verify(&forge.issue(&link.europol.intermediate), &link.trust(), now()).unwrap();
}

/// A root as somebody else's PKI makes it, after `spoil`, and how Interpol judges a chain under it.
fn under_foreign_root(spoil: impl FnOnce(&mut rcgen::CertificateParams)) -> Result<VerifiedPeer, Refusal> {
    let link = Link::new();
    let key = PrivateKey::generate_p384().unwrap();
    let pair = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let good = params.self_signed(&pair).unwrap();
    let issuer = securelink_pki::Intermediate::from_pem(&key.to_pem(), &good.pem()).unwrap();
    spoil(&mut params);
    let mut presented = link.forge().issue(&issuer);
    *presented.last_mut().unwrap() = params.self_signed(&pair).unwrap().der().clone();
    verify(&presented, &link.interpol.pins(&link.europol.domain, vec![issuer.root()]), now())
}

#[test]
fn a_root_made_by_somebody_elses_pki_is_trusted_by_its_pin_alone() {
    under_foreign_root(|_| ()).unwrap();
}

#[test]
fn a_pinned_root_that_may_not_sign_certificates_is_refused() {
    let not_ca = under_foreign_root(|root| root.is_ca = rcgen::IsCa::ExplicitNoCa);
    assert_eq!(not_ca, Err(Refusal::WrongIssuer));
    let no_signing = under_foreign_root(|root| root.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert_eq!(no_signing, Err(Refusal::WrongIssuer));
}

#[test]
fn a_pinned_root_with_an_unknown_critical_extension_is_refused() {
    let verdict = under_foreign_root(|root| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, 9], vec![5, 0]);
        extension.set_criticality(true);
        root.custom_extensions.push(extension);
    });
    assert_eq!(verdict, Err(Refusal::UnknownCriticalExtension));
}

#[test]
fn an_intermediate_made_for_clients_only_issues_no_relays() {
    let link = Link::new();
    let key = PrivateKey::generate_p384().unwrap();
    let middle = LeafForge {
        ca: true,
        uris: vec![],
        key_usages: vec![KeyUsagePurpose::KeyCertSign],
        ekus: vec![ExtendedKeyUsagePurpose::ClientAuth],
        ..link.forge()
    };
    let root = &link.europol.root;
    let middle = middle.sign(&public_half(&key), root.certificate(), root.key());
    let leaf = link.forge().sign(&public_half(&PrivateKey::generate_p256().unwrap()), &middle, &key);
    assert_eq!(link.refusal(&[leaf, middle, root.certificate().clone()]), Refusal::WrongKeyUsage);
}

#[test]
fn only_what_stands_before_the_root_is_taken_for_an_intermediate() {
    let link = Link::new();
    let mut presented = link.europol.presents_to(&link.interpol.domain);
    presented.swap(1, 2);
    assert_eq!(link.refusal(&presented).reason(), "WrongRoot");
}

#[test]
fn a_root_that_carries_the_pinned_key_but_not_its_signature_is_refused() {
    let link = Link::new();
    let impostor = Root::generate(&link.europol.domain, now()).unwrap();
    let mut presented = link.europol.presents_to(&link.interpol.domain);
    // The pinned key in a certificate of the same name, signed by another key.
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pair = rcgen::KeyPair::from_pem(&impostor.key().to_pem()).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &pair);
    let forged = params.signed_by(&public_half(link.europol.root.key()), &issuer).unwrap();
    *presented.last_mut().unwrap() = forged.der().clone();
    assert_eq!(link.refusal(&presented), Refusal::BadSignature);
}

#[test]
fn a_stored_chain_is_judged_anew_after_a_change_of_pins() {
    let link = Link::new();
    let presented = link.europol.presents_to(&link.interpol.domain);
    let before = verify(&presented, &link.trust(), now()).unwrap();
    let without = link.interpol.pins(&link.europol.domain, vec![link.interpol.root.fingerprint()]);
    assert_eq!(verify(&presented, &without, now()).unwrap_err().reason(), "WrongRoot");
    assert_eq!(verify(&presented, &link.trust(), now()).unwrap().chain_hash, before.chain_hash);
    let other = link.europol.presents_to(&link.interpol.domain);
    assert_ne!(verify(&other, &link.trust(), now()).unwrap().chain_hash, before.chain_hash);
}
