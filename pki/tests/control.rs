//! TLS of the control port: which authorities it can be told to trust. Who is let in is shown by the relay process's tests.
#![allow(missing_docs, clippy::unwrap_used)]

use securelink_pki::certificate::certificates_to_pem;
use securelink_pki::control::{ControlTlsError, server_config};
use securelink_pki::testing::Organization;
use securelink_pki::tls::{Clock, Credentials};

#[test]
fn only_authorities_can_be_trusted_and_somebody_has_to_be() {
    let (own, peer) = (Organization::new("a.example"), Organization::new("b.example"));
    let leaf = own.leaf_to(&peer.domain);
    let ours = Credentials::new(&leaf, &own.transitions, None).unwrap();
    let told = |cas: &[String]| server_config(&ours, cas, &Clock::system());
    let authority = peer.root.certificate_pem();
    told(std::slice::from_ref(&authority)).unwrap();
    told(&[authority.clone(), own.root.certificate_pem()]).unwrap();
    assert_eq!(told(&[]).unwrap_err(), ControlTlsError::NoCa);
    let end_entity = certificates_to_pem(&leaf.chain()[..1]);
    assert_eq!(told(&[authority.clone(), end_entity]).unwrap_err(), ControlTlsError::NotAnAuthority(2));
    for rubbish in ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = told(&[rubbish.to_owned()]).unwrap_err();
        assert!(matches!(error, ControlTlsError::Certificate { place: 1, .. }), "{rubbish}: {error}");
    }
    let two_in_one = format!("{authority}{authority}");
    assert!(matches!(told(&[two_in_one]).unwrap_err(), ControlTlsError::Certificate { place: 1, .. }));
}

#[test]
fn no_ticket_and_no_early_data_stand_for_a_certificate() {
    let (own, peer) = (Organization::new("a.example"), Organization::new("b.example"));
    let ours = Credentials::new(&own.leaf_to(&peer.domain), &own.transitions, None).unwrap();
    let config = server_config(&ours, &[own.root.certificate_pem()], &Clock::system()).unwrap();
    assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
    assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
}
