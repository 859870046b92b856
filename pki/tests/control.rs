//! TLS of the control port: which authorities it can be told to trust, who is let in, and whom a controller asks.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use jiff::SignedDuration;
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use securelink_pki::Leaf;
use securelink_pki::certificate::certificates_to_pem;
use securelink_pki::control::{ControlAuthority, ControlTlsError, client_config, server_config};
use securelink_pki::testing::{Organization, now};
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

/// Whether a controller and a relay come to terms.
fn asks(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), Error> {
    let name = ServerName::try_from("relay").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[test]
fn a_controller_asks_the_relays_of_its_link_and_a_relay_answers_its_controllers_only() {
    let (own, peer, other) =
        (Organization::new("a.example"), Organization::new("b.example"), Organization::new("c.example"));
    let authority = ControlAuthority::generate(now()).unwrap();
    let stranger = ControlAuthority::generate(now()).unwrap();
    let clock = Clock::new(now);
    let serve = |leaf: &Leaf| {
        let ours = Credentials::new(leaf, &own.transitions, None).unwrap();
        server_config(&ours, &[authority.certificate_pem()], &clock).unwrap()
    };
    let relay = serve(&own.leaf_to(&peer.domain));
    // A relay of ours on the link to `peer`: the audience is the peer, the owner we ourselves.
    let trust = peer.pins(&own.domain, vec![own.root.fingerprint()]);
    let ask =
        |authority: &ControlAuthority| client_config(&authority.controller(now()).unwrap().0, &trust, &clock).unwrap();
    asks(&ask(&authority), &relay).unwrap();
    let restored = ControlAuthority::from_pem(&authority.key().to_pem(), &authority.certificate_pem()).unwrap();
    asks(&ask(&restored), &relay).unwrap();
    asks(&ask(&stranger), &relay).unwrap_err();
    // The relay of another link of ours, and of somebody else's.
    asks(&ask(&authority), &serve(&own.leaf_to(&other.domain))).unwrap_err();
    asks(&ask(&authority), &serve(&other.leaf_to(&peer.domain))).unwrap_err();
}

#[test]
fn a_relay_whose_leaf_has_ended_can_still_be_asked_and_a_controller_whose_certificate_has_ended_asks_nothing() {
    let (own, peer) = (Organization::new("a.example"), Organization::new("b.example"));
    let authority = ControlAuthority::generate(now()).unwrap();
    let ours = Credentials::new(&own.leaf_to(&peer.domain), &own.transitions, None).unwrap();
    let later = Clock::new(|| now() + SignedDuration::from_hours(100));
    let relay = server_config(&ours, &[authority.certificate_pem()], &later).unwrap();
    let trust = peer.pins(&own.domain, vec![own.root.fingerprint()]);
    let (fresh, due) = authority.controller(later.now()).unwrap();
    assert!(due < later.now() + SignedDuration::from_hours(24));
    asks(&client_config(&fresh, &trust, &later).unwrap(), &relay).unwrap();
    let (old, _) = authority.controller(now()).unwrap();
    asks(&client_config(&old, &trust, &later).unwrap(), &relay).unwrap_err();
}

#[test]
fn a_control_ca_with_anothers_key_or_that_is_no_authority_is_not_one() {
    let (one, two) = (ControlAuthority::generate(now()).unwrap(), ControlAuthority::generate(now()).unwrap());
    ControlAuthority::from_pem(&one.key().to_pem(), &two.certificate_pem()).unwrap_err();
    let own = Organization::new("a.example");
    let leaf = own.leaf_to(&own.domain);
    ControlAuthority::from_pem(&leaf.key().to_pem(), &certificates_to_pem(&leaf.chain()[..1])).unwrap_err();
}
