//! What is and is not a trust domain, a fingerprint, a relay's identity.
#![allow(missing_docs, clippy::unwrap_used)]

use proptest::prelude::*;
use securelink_id::{
    Fingerprint, FingerprintError, SpiffeId, SpiffeIdError, TrustDomain, TrustDomainError, TrustDomainPattern,
};

fn domain(text: &str) -> TrustDomain {
    text.parse().unwrap()
}

#[test]
fn f45_a_trust_domain_is_a_plain_lower_case_dns_name() {
    for good in ["europol.example", "a", "xn--e1afmkfd.example", "1.2.3"] {
        assert_eq!(good.parse::<TrustDomain>().unwrap().as_str(), good);
    }
    let long = ["a"; 128].join(".");
    let cases = [
        ("", TrustDomainError::Empty),
        ("Europol.example", TrustDomainError::Character('E')),
        ("eur\u{043e}pol.example", TrustDomainError::Character('\u{043e}')),
        ("user@europol.example", TrustDomainError::Character('@')),
        ("europol.example:443", TrustDomainError::Character(':')),
        ("europol%2eexample", TrustDomainError::Character('%')),
        ("*.example", TrustDomainError::Character('*')),
        ("europol_x.example", TrustDomainError::Character('_')),
        ("europol\n.example", TrustDomainError::Character('\n')),
        ("\u{202e}lopor\u{202c}.example", TrustDomainError::Character('\u{202e}')),
        ("europol\u{200b}.example", TrustDomainError::Character('\u{200b}')),
        ("europol\u{3002}example", TrustDomainError::Character('\u{3002}')),
        ("{{europol}}.example", TrustDomainError::Character('{')),
        ("${europol}.example", TrustDomainError::Character('$')),
        ("..", TrustDomainError::Label),
        ("../europol.example", TrustDomainError::NotBare),
        ("spiffe://europol.example", TrustDomainError::NotBare),
        ("europol..example", TrustDomainError::Label),
        ("europol.example.", TrustDomainError::Label),
        ("-europol.example", TrustDomainError::Label),
    ];
    for (bad, error) in cases {
        assert_eq!(bad.parse::<TrustDomain>().unwrap_err(), error, "{bad:?}");
    }
    assert_eq!("a".repeat(63).parse::<TrustDomain>().unwrap().as_str().len(), 63);
    assert_eq!("a".repeat(64).parse::<TrustDomain>().unwrap_err(), TrustDomainError::Label);
    assert_eq!(format!("{long}.a").parse::<TrustDomain>().unwrap_err(), TrustDomainError::TooLong(257));
    assert_eq!(long.parse::<TrustDomain>().unwrap().as_str().len(), 255);
}

#[test]
fn a_pattern_star_stands_for_one_or_more_labels() {
    let pattern: TrustDomainPattern = "*.example".parse().unwrap();
    assert!(pattern.matches(&domain("europol.example")));
    assert!(pattern.matches(&domain("a.b.example")));
    assert!(!pattern.matches(&domain("example")));
    assert!(!pattern.matches(&domain("notexample")));
    let exact: TrustDomainPattern = "europol.example".parse().unwrap();
    assert!(exact.matches(&domain("europol.example")) && !exact.matches(&domain("x.europol.example")));
    assert!("*".parse::<TrustDomainPattern>().is_err() && "a.*.example".parse::<TrustDomainPattern>().is_err());
}

#[test]
fn a_fingerprint_is_sha256_and_64_lower_case_digits() {
    let text = format!("sha256:{}", "0f".repeat(32));
    assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), text);
    let cases = [
        ("0f".repeat(32), FingerprintError::Prefix),
        (format!("SHA256:{}", "0f".repeat(32)), FingerprintError::Prefix),
        (format!("sha256:{}", "0F".repeat(32)), FingerprintError::Digit),
        (format!("sha256:{}", "0f".repeat(31)), FingerprintError::Length(62)),
        (format!("sha256:{}", "0f".repeat(33)), FingerprintError::Length(66)),
        (format!("sha256:{}", "é".repeat(32)), FingerprintError::Digit),
    ];
    for (bad, error) in cases {
        assert_eq!(bad.parse::<Fingerprint>().unwrap_err(), error, "{bad}");
    }
}

#[test]
fn a_relays_identity_names_owner_and_audience_and_nothing_else() {
    let id: SpiffeId = "spiffe://a.example/securelink/v1/to/b.example".parse().unwrap();
    assert_eq!((id.owner(), id.audience()), (&domain("a.example"), &domain("b.example")));
    let owner = |text: &str| matches!(text.parse::<SpiffeId>(), Err(SpiffeIdError::Owner(_)));
    assert!(owner("spiffe://user@a.example/securelink/v1/to/b.example"));
    assert!(owner("spiffe://a.example:443/securelink/v1/to/b.example"));
    assert!(owner("spiffe://%61.example/securelink/v1/to/b.example"));
    assert!(owner("spiffe://*.example/securelink/v1/to/b.example"));
    let cases = [
        ("https://a.example/securelink/v1/to/b.example", SpiffeIdError::Scheme),
        ("SPIFFE://a.example/securelink/v1/to/b.example", SpiffeIdError::Scheme),
        ("spiffe://a.example", SpiffeIdError::Path),
        ("spiffe://a.example/securelink/v2/to/b.example", SpiffeIdError::Path),
        ("spiffe://a.example//securelink/v1/to/b.example", SpiffeIdError::Path),
    ];
    for (bad, error) in cases {
        assert_eq!(bad.parse::<SpiffeId>().unwrap_err(), error, "{bad}");
    }
    for bad in ["b.example/", "b.example?x", "b.example#x", "", "b.example/../c"] {
        let text = format!("spiffe://a.example/securelink/v1/to/{bad}");
        assert!(matches!(text.parse::<SpiffeId>(), Err(SpiffeIdError::Audience(_))), "{text}");
    }
}

proptest! {
    #[test]
    fn what_parses_prints_itself(text in "\\PC{0,80}") {
        if let Ok(parsed) = text.parse::<TrustDomain>() { prop_assert_eq!(parsed.to_string(), text.clone()); }
        if let Ok(parsed) = text.parse::<Fingerprint>() { prop_assert_eq!(parsed.to_string(), text.clone()); }
        if let Ok(parsed) = text.parse::<SpiffeId>() { prop_assert_eq!(parsed.to_string(), text); }
    }

    #[test]
    fn identities_round_trip(a in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,3}", b in "[a-z0-9]{1,20}") {
        let id = SpiffeId::link(domain(&a), domain(&b));
        prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
    }

    #[test]
    fn fingerprints_round_trip_through_json(hash in any::<[u8; 32]>()) {
        let pin = Fingerprint::from_sha256(hash);
        let text = serde_json::to_string(&pin).unwrap();
        prop_assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), pin);
    }
}
