//! Names: what parses is written back the same, nothing but the exact identity is accepted in a leaf that is signed as
//! it should be, and no fault beside it is overlooked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, SpiffeId, TrustDomain, TrustDomainPattern};
use securelink_pki::testing::{LeafForge, Organization, now};
use securelink_pki::verify;
use securelink_relay_config::Digest;

use super::script::Script;

/// Parses a text in every way, or puts it into a leaf.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let settings = script.byte();
    if settings & 1 == 0 {
        names(&String::from_utf8_lossy(script.0));
    } else {
        leaf(settings >> 1, &mut script);
    }
}

fn names(text: &str) {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= 2048 && !text.contains(['%', '@', '?', '#', '*']));
        assert_eq!(SpiffeId::link(id.owner().clone(), id.audience().clone()), id);
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.as_str(), text);
        assert!(text.len() <= 255 && text.split('.').all(|label| (1..=63).contains(&label.len())));
        assert!(text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')));
        let suffix = format!("*.{text}").parse::<TrustDomainPattern>().expect("a pattern of it");
        assert!(!suffix.matches(&domain), "`*.x` is not x");
        assert!(text.parse::<TrustDomainPattern>().expect("itself").matches(&domain));
    }
    if let Ok(pattern) = text.parse::<TrustDomainPattern>() {
        assert_eq!(pattern.to_string(), text);
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    for error in [
        text.parse::<SpiffeId>().err().map(|error| error.to_string()),
        text.parse::<TrustDomain>().err().map(|error| error.to_string()),
    ] {
        assert!(error.is_none_or(|words| words.len() < 512 && !words.contains(char::is_control)));
    }
}

/// `own.example` and `peer.example`, made when the process starts: what is accepted does not depend on their keys.
fn organizations() -> &'static (Organization, Organization) {
    static ORGANIZATIONS: OnceLock<(Organization, Organization)> = OnceLock::new();
    ORGANIZATIONS.get_or_init(|| (Organization::new("own.example"), Organization::new("peer.example")))
}

fn leaf(faults: u8, script: &mut Script<'_>) {
    let (own, peer) = organizations();
    let mut forge = LeafForge::new(&peer.domain, &own.domain);
    let expected = forge.uris.clone();
    let fault = |bit: u8| faults >> bit & 1 == 1;
    if fault(0) {
        let text = String::from_utf8_lossy(script.take(4096));
        forge.uris = text.lines().take(4).filter(|line| line.is_ascii()).map(str::to_owned).collect();
    }
    if fault(1) {
        forge.dns.push("relay.peer.example".to_owned());
    }
    if fault(2) {
        forge.addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    forge.ca = fault(3);
    forge.unknown_critical = fault(4);
    if fault(5) {
        forge.ekus.pop();
    }
    let moment: Timestamp = if fault(6) { forge.not_after + SignedDuration::from_secs(1) } else { now() };
    // DNS names say nothing about identity: they are for partners without our software.
    let faultless = forge.uris == expected && !(fault(2) || fault(3) || fault(4) || fault(5) || fault(6));
    let presented: Vec<CertificateDer<'_>> = forge.issue(&peer.intermediate);
    let verdict = verify(&presented, &own.trusts(peer), moment);
    assert_eq!(verdict.is_ok(), faultless, "{forge:?} {verdict:?}");
}
