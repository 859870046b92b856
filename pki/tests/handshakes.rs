//! Whole handshakes in memory: what each side says when it refuses, and what never happens (promises P2, P9).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::server::NoClientAuth;
use rustls::{ClientConfig, ClientConnection, Connection, Error, HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _};
use securelink_pki::refusal::{Alert, Refusal, Which};
use securelink_pki::testing::{Anyone, LeafForge, Organization, now};
use securelink_pki::tls::{
    Clock, Credentials, Options, client_config, peer_from_connection, refusal_of, refusal_of_io, server_config,
};
use securelink_pki::{Leaf, Transitions};

fn options() -> Options {
    Options {
        alpn: vec![b"securelink/1".to_vec()],
        allow_classical: false,
        extract_secrets: false,
        clock: Clock::new(now),
    }
}

fn classical() -> Options {
    Options { allow_classical: true, ..options() }
}

fn credentials(leaf: &Leaf) -> Credentials {
    Credentials::new(leaf, &Transitions::none(), None).unwrap()
}

/// Europol dials Interpol.
struct Link {
    interpol: Organization,
    europol: Organization,
}

impl Link {
    fn new() -> Self {
        Self { interpol: Organization::new("interpol.example"), europol: Organization::new("europol.example") }
    }

    fn server(&self, options: &Options) -> Arc<ServerConfig> {
        let leaf = self.interpol.leaf_to(&self.europol.domain);
        server_config(&credentials(&leaf), &self.interpol.trusts(&self.europol), options).unwrap()
    }

    fn client(&self, options: &Options) -> Arc<ClientConfig> {
        self.client_with(&self.europol.leaf_to(&self.interpol.domain), options)
    }

    fn client_with(&self, leaf: &Leaf, options: &Options) -> Arc<ClientConfig> {
        client_config(&credentials(leaf), &self.europol.trusts(&self.interpol), options).unwrap()
    }
}

/// What a finished handshake, or the failure of each side, looks like.
struct Outcome {
    client: Result<ClientConnection, Error>,
    server: Result<ServerConnection, Error>,
}

impl Outcome {
    fn refusals(self) -> (Refusal, Refusal) {
        (refusal_of(&self.client.unwrap_err()), refusal_of(&self.server.unwrap_err()))
    }

    fn pair(self) -> (ClientConnection, ServerConnection) {
        (self.client.unwrap(), self.server.unwrap())
    }
}

/// Moves bytes between the two until both are silent; each side stops at its first error, but still sends its alert.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let name = ServerName::try_from("link.interpol.example").unwrap();
    let mut client = Connection::from(ClientConnection::new(client, name).unwrap());
    let mut server = Connection::from(ServerConnection::new(server).unwrap());
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let moved =
            pass(&mut client, &mut server, &mut server_error) + pass(&mut server, &mut client, &mut client_error);
        if moved == 0 {
            break;
        }
    }
    let Connection::Client(client) = client else { unreachable!() };
    let Connection::Server(server) = server else { unreachable!() };
    Outcome { client: client_error.map_or(Ok(client), Err), server: server_error.map_or(Ok(server), Err) }
}

fn pass(from: &mut Connection, to: &mut Connection, error: &mut Option<Error>) -> usize {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        *error = to.process_new_packets().err();
    }
    wire.len()
}

#[test]
fn two_relays_meet_and_know_each_other_over_a_post_quantum_exchange() {
    let link = Link::new();
    let (client, server) = handshake(link.client(&options()), link.server(&options())).pair();
    let at_server = peer_from_connection(&server, &link.interpol.trusts(&link.europol), now()).unwrap();
    let at_client = peer_from_connection(&client, &link.europol.trusts(&link.interpol), now()).unwrap();
    assert_eq!((at_server.trust_domain, at_client.trust_domain), (link.europol.domain, link.interpol.domain));
    for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
        assert_eq!(group.unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    }
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(&b"securelink/1"[..]));
    assert!(format!("{:?}", client.negotiated_cipher_suite().unwrap().suite()).contains("AES_256_GCM"));
}

#[test]
fn relays_meet_across_thirty_two_root_rotations() {
    let mut link = Link::new();
    let trust = link.interpol.trusts(&link.europol);
    (0..32).for_each(|_| link.europol.rotate_root());
    let leaf = link.europol.leaf_to(&link.interpol.domain);
    let ours = Credentials::new(&leaf, &link.europol.transitions, None).unwrap();
    let client = client_config(&ours, &link.europol.trusts(&link.interpol), &options()).unwrap();
    let own = credentials(&link.interpol.leaf_to(&link.europol.domain));
    let (_, server) = handshake(client, server_config(&own, &trust, &options()).unwrap()).pair();
    assert_eq!(peer_from_connection(&server, &trust, now()).unwrap().hops, 32);
}

#[test]
fn a_client_with_x25519_only_is_refused_and_both_sides_know_why() {
    let link = Link::new();
    let refusals = handshake(only_x25519(&link.client(&options())), link.server(&options())).refusals();
    assert_eq!(refusals, (Refusal::ClassicalKeyExchange, Refusal::ClassicalKeyExchange));
}

fn only_x25519(ours: &ClientConfig) -> Arc<ClientConfig> {
    let mut provider = (**ours.crypto_provider()).clone();
    provider.kx_groups = vec![kx_group::X25519];
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_cert_resolver(Arc::clone(&ours.client_auth_cert_resolver));
    client.alpn_protocols.clone_from(&ours.alpn_protocols);
    Arc::new(client)
}

#[test]
fn a_server_with_x25519_only_is_refused_and_both_sides_know_why() {
    let link = Link::new();
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    let server = stranger(provider, &[&rustls::version::TLS13], &link);
    let refusals = handshake(link.client(&options()), server).refusals();
    assert_eq!(refusals, (Refusal::ClassicalKeyExchange, Refusal::ClassicalKeyExchange));
}

/// A TLS server that is no relay: asks for no certificate.
fn stranger(
    provider: rustls::crypto::CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
    link: &Link,
) -> Arc<ServerConfig> {
    let leaf = link.interpol.leaf_to(&link.europol.domain);
    let key = PrivateKeyDer::from_pem_slice(leaf.key().to_pem().as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    Arc::new(
        server.with_client_cert_verifier(Arc::new(NoClientAuth)).with_single_cert(leaf.chain().to_vec(), key).unwrap(),
    )
}

#[test]
fn one_side_that_opts_out_still_meets_the_other_over_the_post_quantum_exchange() {
    let link = Link::new();
    for (client, server) in [(options(), classical()), (classical(), options()), (classical(), classical())] {
        let (client, _) = handshake(link.client(&client), link.server(&server)).pair();
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    }
}

#[test]
fn a_classical_client_is_served_where_both_sides_opted_out() {
    let link = Link::new();
    let (_, server) = handshake(only_x25519(&link.client(&classical())), link.server(&classical())).pair();
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519);
}

#[test]
fn a_tls_1_2_client_is_refused() {
    let link = Link::new();
    let client = plain_client(&[&rustls::version::TLS12]);
    let refusals = handshake(client, link.server(&options())).refusals();
    assert_eq!(refusals, (Refusal::Tls12, Refusal::Tls12));
}

#[test]
fn a_tls_1_2_server_is_refused() {
    let link = Link::new();
    let server = stranger(aws_lc_rs::default_provider(), &[&rustls::version::TLS12], &link);
    let refusals = handshake(link.client(&options()), server).refusals();
    assert_eq!(refusals, (Refusal::Tls12, Refusal::Tls12));
}

/// A TLS client that is no relay: trusts anyone, has no certificate.
fn plain_client(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut client = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    client.alpn_protocols = options().alpn;
    Arc::new(client)
}

#[test]
fn a_client_without_certificate_is_refused_and_told_so() {
    let link = Link::new();
    let (client, server) = handshake(plain_client(&[&rustls::version::TLS13]), link.server(&options())).refusals();
    assert_eq!(server, Refusal::NoClientCertificate);
    assert_eq!(client, Refusal::RefusedByPeer(Alert(116))); // certificate_required
}

#[test]
fn a_wrong_audience_is_named_at_the_server_and_an_alert_at_the_client() {
    let link = Link::new();
    let elsewhere = link.europol.leaf_to(&"afripol.example".parse().unwrap());
    let (client, server) = handshake(link.client_with(&elsewhere, &options()), link.server(&options())).refusals();
    assert_eq!(server.reason(), "WrongAudience");
    assert_eq!(client, Refusal::RefusedByPeer(Alert(46))); // certificate_unknown
    assert!(client.to_string().contains("pin our fingerprint"));
}

#[test]
fn a_wrong_server_is_named_at_the_client_and_an_alert_at_the_server() {
    let link = Link::new();
    let impostor =
        Link { interpol: Organization::new("interpol.example"), europol: Organization::new("europol.example") };
    let (client, server) = handshake(link.client(&options()), impostor.server(&options())).refusals();
    let presented = Some(impostor.interpol.root.fingerprint());
    assert_eq!(client, Refusal::WrongRoot { presented, claimed: Some(link.interpol.domain.clone()) });
    assert_eq!(server, Refusal::RefusedByPeer(Alert(46)));
}

#[test]
fn an_expired_leaf_is_refused_with_an_alert_that_says_so() {
    let link = Link::new();
    let not_after = now() - SignedDuration::from_secs(1);
    let forge = LeafForge { not_after, ..LeafForge::new(&link.europol.domain, &link.interpol.domain) };
    let leaf = forge.leaf(&link.europol.intermediate).unwrap();
    let (client, server) = handshake(link.client_with(&leaf, &options()), link.server(&options())).refusals();
    assert_eq!(server, Refusal::CertificateExpired { which: Which::Some, not_after });
    assert_eq!(client, Refusal::RefusedByPeer(Alert(45))); // certificate_expired
}

#[test]
fn certificates_are_judged_by_the_clock_of_the_options() {
    let link = Link::new();
    let hours = Arc::new(AtomicI64::new(0));
    let stepped = Arc::clone(&hours);
    let clock = Clock::new(move || now() + SignedDuration::from_hours(stepped.load(Ordering::Relaxed)));
    let (client, server) = (link.client(&options()), link.server(&Options { clock, ..options() }));
    handshake(Arc::clone(&client), Arc::clone(&server)).pair();
    hours.store(73, Ordering::Relaxed);
    let (_, refusal) = handshake(Arc::clone(&client), Arc::clone(&server)).refusals();
    assert_eq!(refusal.reason(), "CertificateExpired");
    hours.store(-1, Ordering::Relaxed);
    let (_, refusal) = handshake(client, server).refusals();
    assert_eq!(refusal.reason(), "CertificateNotYetValid");
}

#[test]
fn a_server_without_our_protocol_is_refused() {
    let link = Link::new();
    let server = link.server(&Options { alpn: vec![b"securelink/9".to_vec()], ..options() });
    let refusals = handshake(link.client(&options()), server).refusals();
    assert_eq!(refusals, (Refusal::NoCommonProtocol, Refusal::NoCommonProtocol));
}

#[test]
fn no_ticket_is_ever_sent_and_every_handshake_is_a_full_one() {
    let link = Link::new();
    let (client, server) = (link.client(&options()), link.server(&options()));
    // A client that would resume if it could.
    let mut eager = ClientConfig::clone(&client);
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let eager = Arc::new(eager);
    for _ in 0..3 {
        let (client, server) = handshake(Arc::clone(&eager), Arc::clone(&server)).pair();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!((client.handshake_kind(), server.handshake_kind()), (Some(FULL), Some(FULL)));
    }
    // Either alone would do; both are asked for.
    assert!(server.send_tls13_tickets == 0 && !server.session_storage.can_cache());
    assert!(!client.enable_early_data && server.max_early_data_size == 0);
}

const FULL: HandshakeKind = HandshakeKind::Full;

#[test]
fn our_client_does_not_resume_with_a_server_that_would() {
    let link = Link::new();
    let mut generous = ServerConfig::clone(&link.server(&options()));
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    generous.send_tls13_tickets = 2;
    let (client, generous) = (link.client(&options()), Arc::new(generous));
    for _ in 0..3 {
        let (client, _) = handshake(Arc::clone(&client), Arc::clone(&generous)).pair();
        assert_eq!(client.handshake_kind(), Some(FULL));
    }
}

#[test]
fn too_many_certificates_in_a_handshake_are_refused() {
    let link = Link::new();
    let mut client = ClientConfig::clone(&link.client(&options()));
    let leaf = link.europol.leaf_to(&link.interpol.domain);
    let key = PrivateKeyDer::from_pem_slice(leaf.key().to_pem().as_bytes()).unwrap();
    let signer = aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    for extra in [41, 200] {
        let mut chain = leaf.chain().to_vec();
        chain.resize(extra, leaf.chain()[1].clone());
        let certified = rustls::sign::CertifiedKey::new(chain, Arc::clone(&signer));
        client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let server = handshake(Arc::new(client.clone()), link.server(&options())).server;
        assert_eq!(refusal_of(&server.unwrap_err()), Refusal::TooLarge, "{extra} certificates");
    }
}

#[test]
fn bytes_that_are_no_tls_are_named_as_such() {
    let link = Link::new();
    let mut server = ServerConnection::new(link.server(&options())).unwrap();
    server.read_tls(&mut &b"GET / HTTP/1.1\r\nHost: link.interpol.example\r\n\r\n"[..]).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert_eq!(refusal_of(&error).reason(), "BrokenTls");
    let io = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    assert_eq!(refusal_of_io(&io).unwrap().reason(), "BrokenTls");
    assert_eq!(refusal_of_io(&std::io::ErrorKind::ConnectionReset.into()), None);
}

#[test]
fn a_removed_pin_is_noticed_on_a_live_connection() {
    let link = Link::new();
    let (_, server) = handshake(link.client(&options()), link.server(&options())).pair();
    let other = link.interpol.pins(&link.europol.domain, vec![link.interpol.root.fingerprint()]);
    assert_eq!(peer_from_connection(&server, &other, now()).unwrap_err().reason(), "WrongRoot");
    let late: Timestamp = now() + SignedDuration::from_hours(73);
    let expired = peer_from_connection(&server, &link.interpol.trusts(&link.europol), late).unwrap_err();
    assert_eq!(expired.reason(), "CertificateExpired");
}
