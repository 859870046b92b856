//! What is issued, when it ends, and what is refused when it is read back (promise P6; F36, F37, F38, F40, F41, I5).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use securelink_id::{SpiffeId, TrustDomain};
use securelink_pki::certificate::{CertificateError, certificates_from_pem};
use securelink_pki::issue::IssueError;
use securelink_pki::key::{KeyError, MAX_KEY_PEM, sign_with_leaf, verify_leaf_signature};
use securelink_pki::leaf::leaf_request;
use securelink_pki::lifetimes::{BACKDATE, MARGIN, Role, SURVIVAL, Schedule, Validity, renew_at};
use securelink_pki::refusal::Refusal;
use securelink_pki::testing::{LeafForge, Organization, now};
use securelink_pki::{Intermediate, Leaf, PrivateKey, Root};

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

fn interpol() -> TrustDomain {
    "interpol.example".parse().unwrap()
}

fn leaf() -> Leaf {
    Organization::new("europol.example").leaf_to(&interpol())
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Leaf), Just(Role::Intermediate), Just(Role::Root)]
}

proptest! {
    #[test]
    fn a_day_and_a_margin_are_left_at_renewal_unless_the_issuer_clipped_and_said_so(
        role in roles(), now in 0_i64..4_000_000_000, left in 1_i64..400_000_000, jitter in -1.0..2.0_f64,
    ) {
        let now = Timestamp::from_second(now).unwrap();
        let end = now + SignedDuration::from_secs(left);
        let schedule = Schedule::new(role, now, end, jitter).unwrap();
        prop_assert!(schedule.survives_a_day() || schedule.clipped_to == Some(end));
        prop_assert!(schedule.renew_at > now || left < 3);
        prop_assert!(schedule.renew_at <= schedule.validity.not_after);
        prop_assert!(schedule.validity.not_after <= end);
        prop_assert_eq!(schedule.validity.not_before, now - BACKDATE);
        prop_assert_eq!(schedule.clipped_to.is_some(), now + role.lifetime() > end);
    }

    #[test]
    fn jitter_only_brings_a_renewal_forward(role in roles(), jitter in 0.0..=1.0_f64) {
        let at = |jitter| Schedule::new(role, now(), Timestamp::MAX, jitter).unwrap().renew_at;
        prop_assert!(at(jitter) <= at(0.0));
        prop_assert_eq!(at(0.0), now() + role.renewal());
        prop_assert!(at(0.0).duration_since(at(jitter)) <= role.renewal() / 10);
    }

    #[test]
    fn no_dates_make_a_renewal_overflow(from in any::<i64>(), until in any::<i64>(), jitter in any::<f64>()) {
        let time = |seconds: i64| Timestamp::from_second(seconds % 250_000_000_000).unwrap();
        let validity = Validity { not_before: time(from), not_after: time(until) };
        prop_assert!(renew_at(Role::Leaf, &validity, jitter) <= validity.not_after.max(validity.not_before + hours(25)));
    }

    #[test]
    fn a_signature_holds_for_its_context_and_message_only(
        context in "[a-z]{0,9}", message in any::<Vec<u8>>(), other in any::<Vec<u8>>(),
    ) {
        prop_assume!(message != other);
        let key = PrivateKey::generate_p256().unwrap();
        let public = key.public_key();
        let signature = sign_with_leaf(&key, &context, &message).unwrap();
        prop_assert_eq!(verify_leaf_signature(&public, &context, &message, &signature), Ok(()));
        for (context, message) in [(&*context, &other), ("another", &message)] {
            prop_assert_eq!(verify_leaf_signature(&public, context, message, &signature), Err(KeyError::BadSignature));
        }
    }
}

#[test]
fn a_thousand_leaves_issued_together_are_not_renewed_together() {
    let at = |n: u32| Schedule::new(Role::Leaf, now(), Timestamp::MAX, f64::from(n) / 1000.0).unwrap().renew_at;
    let mut moments: Vec<_> = (0..1000).map(at).collect();
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 900, "{}", moments.len());
    assert!(moments[moments.len() - 1].duration_since(moments[0]) > hours(2));
}

#[test]
fn an_issuer_that_ended_issues_nothing() {
    assert_eq!(Schedule::new(Role::Leaf, now(), now(), 0.0), None);
    let organization = Organization::new("europol.example");
    let identity = SpiffeId::link(organization.domain.clone(), interpol());
    let later = now() + hours(24 * 90);
    let refused = organization.intermediate.issue_leaf(&identity, &[], later).unwrap_err();
    assert!(matches!(refused, IssueError::IssuerExpired(_)));
}

#[test]
fn the_margin_is_part_of_every_roles_plan() {
    for role in [Role::Leaf, Role::Intermediate, Role::Root] {
        assert!(role.lifetime() - role.renewal() >= SURVIVAL + MARGIN);
    }
}

#[test]
fn a_leaf_ends_with_its_issuer_and_says_so() {
    let organization = Organization::new("europol.example");
    let identity = SpiffeId::link(organization.domain.clone(), interpol());
    let end = organization.intermediate.end();
    let clipped = organization.intermediate.issue_leaf(&identity, &[], end - hours(1)).unwrap();
    assert_eq!((clipped.validity().not_after, clipped.clipped_to()), (end, Some(end)));
    assert_eq!(leaf().clipped_to(), None);
    assert_eq!(leaf().validity(), Validity { not_before: now() - BACKDATE, not_after: now() + hours(72) });
}

#[test]
fn a_leaf_is_what_the_contract_says() {
    let organization = Organization::new("europol.example");
    let identity = SpiffeId::link(organization.domain.clone(), interpol());
    let leaf = organization.intermediate.issue_leaf(&identity, &["link.europol.example"], now()).unwrap();
    assert_eq!(leaf.identity(), &identity);
    assert_eq!(leaf.dns_names(), ["link.europol.example"]);
    assert_eq!(leaf.root(), organization.root.fingerprint());
    assert_eq!(leaf.chain().len(), 3);
    assert_eq!(leaf.serial().len(), 20);
    assert!(leaf.serial()[0] < 0x80);
    leaf.check(now()).unwrap();
}

#[test]
fn no_two_serials_are_alike() {
    let organization = Organization::new("europol.example");
    let mut serials: Vec<_> = (0..50).map(|_| organization.leaf_to(&interpol()).serial().to_vec()).collect();
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 50);
}

#[test]
fn what_was_written_can_be_read() {
    let organization = Organization::new("europol.example");
    let root = Root::from_pem(&organization.root.key().to_pem(), &organization.root.certificate_pem()).unwrap();
    assert_eq!(root.fingerprint(), organization.root.fingerprint());
    assert_eq!((root.trust_domain(), root.validity()), (&organization.domain, organization.root.validity()));
    let (key, chain) = (organization.intermediate.key().to_pem(), organization.intermediate.chain_pem());
    assert_eq!(Intermediate::from_pem(&key, &chain).unwrap().root(), root.fingerprint());
    let leaf = organization.leaf_to(&interpol());
    let read = Leaf::from_pem(&leaf.key().to_pem(), &leaf.chain_pem()).unwrap();
    assert_eq!((read.serial(), read.chain()), (leaf.serial(), leaf.chain()));
}

#[test]
fn crlf_and_other_blocks_in_a_chain_do_no_harm() {
    let leaf = leaf();
    let text = format!("remark\n{}{}", *leaf.key().to_pem(), leaf.chain_pem()).replace('\n', "\r\n");
    assert_eq!(certificates_from_pem(&text, 3).unwrap(), leaf.chain());
}

#[test]
fn the_longest_trust_domain_still_gets_its_certificates() {
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "a".repeat(63));
    let organization = Organization::new(&name);
    organization.leaf_to(&organization.domain).check(now()).unwrap();
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let organization = Organization::new("europol.example");
    let other = PrivateKey::generate_p384().unwrap().to_pem();
    let refused = [
        Root::from_pem(&other, &organization.root.certificate_pem()).unwrap_err(),
        Intermediate::from_pem(&other, &organization.intermediate.chain_pem()).unwrap_err(),
        Leaf::from_pem(&other, &organization.leaf_to(&interpol()).chain_pem()).unwrap_err(),
    ];
    assert!(refused.iter().all(|error| *error == IssueError::KeyMismatch));
}

#[test]
fn an_issuer_without_its_root_or_without_the_right_to_sign_is_refused() {
    let organization = Organization::new("europol.example");
    let pem = organization.intermediate.chain_pem();
    let first = pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let key = organization.intermediate.key().to_pem();
    assert_eq!(Intermediate::from_pem(&key, first).unwrap_err(), IssueError::NoRoot);
    let leaf = organization.leaf_to(&interpol());
    let refused = Intermediate::from_pem(&leaf.key().to_pem(), &leaf.chain_pem()).unwrap_err();
    assert_eq!(refused, IssueError::NotAnAuthority);
}

#[test]
fn damaged_truncated_and_oversize_texts_are_refused() {
    let leaf = leaf();
    let pem = leaf.chain_pem();
    assert_eq!(certificates_from_pem("", 3), Err(CertificateError::NoPem));
    assert_eq!(certificates_from_pem(&pem[..pem.len() - 40], 3), Err(CertificateError::NoPem));
    assert_eq!(certificates_from_pem(&pem, 2), Err(CertificateError::TooMany(2)));
    assert!(matches!(certificates_from_pem(&"A".repeat(10 << 20), 10), Err(CertificateError::TooLarge(..))));
    let scrambled = pem.replacen("MII", "AAA", 1);
    assert_eq!(certificates_from_pem(&scrambled, 3), Err(CertificateError::Malformed));
    let key = leaf.key().to_pem();
    assert_eq!(PrivateKey::from_pem(&key[..key.len() / 2]).unwrap_err(), KeyError::Unreadable);
    assert_eq!(PrivateKey::from_pem(&pem).unwrap_err(), KeyError::Unreadable);
    let long = "A".repeat(MAX_KEY_PEM + 1);
    assert_eq!(PrivateKey::from_pem(&long).unwrap_err(), KeyError::TooLarge(MAX_KEY_PEM + 1));
}

#[test]
fn what_a_foreign_issuer_got_wrong_is_found_before_it_is_presented() {
    let organization = Organization::new("europol.example");
    let forge = LeafForge::new(&organization.domain, &interpol());
    let reason = |forge: &LeafForge| match forge.leaf(&organization.intermediate) {
        Ok(leaf) => leaf.check(now()).unwrap_err().reason(),
        Err(IssueError::NoIdentity(refusal)) => refusal.reason(),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(reason(&LeafForge { not_after: now() - hours(1), ..forge.clone() }), "CertificateExpired");
    assert_eq!(reason(&LeafForge { ca: true, ..forge.clone() }), "WrongKeyUsage");
    assert_eq!(reason(&LeafForge { ekus: vec![], ..forge.clone() }), "WrongKeyUsage");
    assert_eq!(reason(&LeafForge { uris: vec![], ..forge.clone() }), "NoIdentity");
    assert_eq!(reason(&LeafForge { uris: vec!["https://x.example".into()], ..forge }), "WrongIdentity");
}

#[test]
fn a_host_name_that_cannot_stand_in_a_certificate_is_refused_readably() {
    let organization = Organization::new("europol.example");
    let identity = SpiffeId::link(organization.domain.clone(), interpol());
    let error = organization.intermediate.issue_leaf(&identity, &["b\u{fc}ro\n.example"], now()).unwrap_err();
    assert!(error.to_string().contains("expose.hostname") && !error.to_string().contains('\n'));
}

#[test]
fn a_request_carries_the_identity_and_not_the_key() {
    let key = PrivateKey::generate_p256().unwrap();
    let identity = SpiffeId::link("europol.example".parse().unwrap(), interpol());
    let request = leaf_request(&key, &identity, &["link.europol.example"]).unwrap();
    assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    let parsed = rcgen::CertificateSigningRequestParams::from_pem(&request).unwrap();
    let uri = rcgen::SanType::URI(identity.to_string().as_str().try_into().unwrap());
    assert!(parsed.params.subject_alt_names.contains(&uri));
}

#[test]
fn keys_are_read_from_sec1_and_pkcs1_and_written_as_pkcs8() {
    let block = |label: &str, der: &[u8]| pem::encode(&pem::Pem::new(label, der));
    let same = |text: &str, public: Vec<u8>| {
        let key = PrivateKey::from_pem(text).unwrap();
        assert_eq!(key.public_key(), public);
        assert_eq!(PrivateKey::from_pem(&key.to_pem()).unwrap().public_key(), public);
    };
    for key in [PrivateKey::generate_p256().unwrap(), PrivateKey::generate_p384().unwrap()] {
        let pkcs8 = pem::parse(key.to_pem().as_bytes()).unwrap();
        let algorithm = if pkcs8.contents().len() < 160 {
            &ECDSA_P256_SHA256_ASN1_SIGNING
        } else {
            &ECDSA_P384_SHA384_ASN1_SIGNING
        };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.contents()).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        same(&block("EC PRIVATE KEY", sec1.as_ref()), key.public_key());
    }
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let pkcs8 = rsa.serialized_der();
    let public = PrivateKey::from_pem(&rsa.serialize_pem()).unwrap().public_key();
    same(&block("RSA PRIVATE KEY", &pkcs8[26..]), public); // 26: the PKCS#8 wrapping of a 2048-bit key
}

#[test]
fn no_key_shows_in_debug_or_errors() {
    let organization = Organization::new("europol.example");
    let leaf = organization.leaf_to(&interpol());
    let pem = leaf.key().to_pem();
    let secret = pem.lines().nth(1).unwrap();
    assert_eq!(format!("{:?}", leaf.key()), "PrivateKey(..)");
    assert!(format!("{leaf:?} {organization:?}").contains("PrivateKey(..)"));
    assert!(!format!("{leaf:?}").contains(secret));
    let broken = pem.replace("-----END PRIVATE KEY-----", "");
    assert!(!format!("{:?}", PrivateKey::from_pem(&broken).unwrap_err()).contains(secret));
}

#[test]
fn every_refusal_has_its_own_reason_and_a_message() {
    let refusals = [
        Refusal::NoIdentity,
        Refusal::ManyIdentities,
        Refusal::ClassicalKeyExchange,
        Refusal::NoClientCertificate,
        Refusal::WrongKeyUsage,
        Refusal::WrongKeyType,
        Refusal::WrongIssuer,
        Refusal::BadSignature,
        Refusal::ForgedTransition,
        Refusal::TooManyTransitions,
        Refusal::Malformed,
        Refusal::UnknownCriticalExtension,
        Refusal::TooLarge,
        Refusal::Tls12,
        Refusal::NoCommonProtocol,
    ];
    let mut reasons: Vec<_> = refusals.iter().map(Refusal::reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), refusals.len());
    assert!(refusals.iter().all(|refusal| refusal.to_string().len() > 30));
}

#[test]
fn an_issuer_is_tried_before_it_is_used() {
    let organization = Organization::new("europol.example");
    let issuer = &organization.intermediate;
    assert_eq!(issuer.check(&organization.domain, now()), Ok(()));
    let ended = issuer.check(&organization.domain, issuer.end()).unwrap_err();
    assert_eq!(ended, IssueError::Ended { place: 1, at: issuer.end() });
    let begins = issuer.validity().not_before;
    let early = issuer.check(&organization.domain, begins - hours(1)).unwrap_err();
    assert_eq!(early, IssueError::NotYetValid { place: 1, at: begins });
    assert!(matches!(issuer.check(&interpol(), now()), Err(IssueError::Refused(_))), "another's root");
}

#[test]
fn a_given_issuer_may_have_any_key_that_peers_can_check() {
    let domain: securelink_id::TrustDomain = "europol.example".parse().unwrap();
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256]
    {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody's own PKI");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Intermediate::from_given(&key.serialize_pem(), &root, &root).unwrap();
        assert_eq!(issuer.chain().len(), 1, "the root is not named twice");
        assert_eq!(issuer.check(&domain, now()), Ok(()), "{algorithm:?}");
    }
}

#[test]
fn a_request_for_an_intermediate_is_known_by_the_key_that_wrote_it() {
    let (key, other) = (PrivateKey::generate_p384().unwrap(), PrivateKey::generate_p384().unwrap());
    let request = Intermediate::request(&interpol(), &key).unwrap();
    assert!(Intermediate::is_request_of(&request, &key) && !Intermediate::is_request_of(&request, &other));
    let mut der = pem::parse(&request).unwrap().contents().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    let renamed = request.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    for wrong in [forged.as_str(), renamed.as_str(), "", "rubbish"] {
        assert!(!Intermediate::is_request_of(wrong, &key), "{wrong}");
    }
}

#[test]
fn an_intermediate_is_renewed_in_time_before_those_above_it_end() {
    let (of, key) = (Organization::new("europol.example"), PrivateKey::generate_p384().unwrap());
    let until = |end: SignedDuration| Validity { not_before: now() - BACKDATE, not_after: now() + end };
    let days = |count: i64| hours(24 * count);
    let alone = of.signs(&key, until(days(90)), None);
    assert_eq!((alone.end(), alone.end_above()), (now() + days(90), of.root.validity().not_after));
    let clipped = of.signs(&key, until(days(90)), Some(until(days(10))));
    assert_eq!((clipped.end(), clipped.end_above()), (now() + days(10), now() + days(10)));
    assert_eq!(clipped.due(), now() + days(10) - SURVIVAL - MARGIN);
    assert!(alone.due() > now() + days(20), "its own end is far");
    let of_its_own = of.signs(&key, until(days(10)), Some(until(days(90))));
    assert_eq!((of_its_own.due(), of_its_own.end_above()), (clipped.due(), now() + days(90)));
}
