//! Whoever is not the peer is refused, each for its own reason, and the peer's streams do not notice (promises P2 and
//! P9, faults F42, F46, F57, F74 and F75).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use prometheus_client::registry::Registry;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::server::NoClientAuth;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use securelink_id::TrustDomain;
use securelink_pki::testing::{Anyone, CrossForge, LeafForge, Organization, now};
use securelink_pki::tls::{Credentials, Options, server_config};
use securelink_pki::{Leaf, PrivateKey, Root, Transitions};
use securelink_relay::wire::{ALPN, Bye, Code, EARLY_DATA, Header, Hello, Message, ReplicaId, Role};
use securelink_relay_config::{Digest, Endpoint, Head, LinkState, Snapshot};
use support::{PATIENCE, Pair, Side, TestClock, endpoint, export, import, snapshot};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn domain(text: &str) -> TrustDomain {
    text.parse().unwrap()
}

/// A certificate chain and its key, whatever they say.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn genuine(leaf: &Leaf) -> Identity {
    (leaf.chain().to_vec(), PrivateKeyDer::from_pem_slice(leaf.key().to_pem().as_bytes()).unwrap())
}

/// What `signer` would sign of a leaf of its own for its link to `audience`, spoiled by `edit`.
fn forged(signer: &Organization, audience: &str, edit: impl FnOnce(&mut LeafForge)) -> Identity {
    let mut forge = LeafForge::new(&signer.domain, &domain(audience));
    edit(&mut forge);
    let key = PrivateKey::generate_p256().unwrap();
    let chain = forge.issue_for(&key, &signer.intermediate);
    (chain, PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap())
}

/// What both tables have in common: certificates of `owner`, or of those who would be it, on its link to `audience`.
fn spoiled_identities(owner: &Organization, audience: &str) -> Vec<(&'static str, &'static str, Identity)> {
    let named = |name: &str| Organization::new(name).leaf_to(&domain(audience));
    let spiffe = format!("spiffe://{}/securelink/v1/to/{audience}", owner.domain);
    let spoil = |edit: &dyn Fn(&mut LeafForge)| forged(owner, audience, edit);
    vec![
        ("its name under a root of its own", "WrongRoot", genuine(&named(owner.domain.as_str()))),
        ("another partner of ours", "WrongRoot", genuine(&named("c.example"))),
        ("a hyphen for a dot", "WrongRoot", genuine(&named("a-example.example"))),
        ("a dot left out", "WrongRoot", genuine(&named("aexample"))),
        ("its name in front of another", "WrongRoot", genuine(&named("a.example.c.example"))),
        (
            "our own name, signed by its issuer",
            "WrongTrustDomain",
            spoil(&|forge| forge.uris = vec![format!("spiffe://{audience}/securelink/v1/to/{audience}")]),
        ),
        (
            "a look-alike signed by its issuer",
            "WrongTrustDomain",
            spoil(&|forge| forge.uris = vec![spiffe.replace("//a.example", "//a-example.example")]),
        ),
        (
            "a name below its own, signed by its issuer",
            "WrongTrustDomain",
            spoil(&|forge| forge.uris = vec![spiffe.replace("//a.example", "//relay.a.example")]),
        ),
        ("its link to somebody else", "WrongAudience", genuine(&owner.leaf_to(&domain("c.example")))),
        ("two identities", "ManyIdentities", spoil(&|forge| forge.uris.push("spiffe://c.example".to_owned()))),
        ("its identity twice", "ManyIdentities", spoil(&|forge| forge.uris.push(spiffe.clone()))),
        ("no identity", "NoIdentity", spoil(&|forge| forge.uris.clear())),
        (
            "a host name for an identity",
            "NoIdentity",
            spoil(&|forge| (forge.uris, forge.dns) = (vec![], vec!["a.example".to_owned()])),
        ),
        (
            "the identity of something else of its own",
            "WrongIdentity",
            spoil(&|forge| forge.uris = vec!["spiffe://a.example/ns/default/sa/shop".to_owned()]),
        ),
        (
            "a leaf that ended",
            "CertificateExpired",
            spoil(&|forge| forge.not_after = now() - SignedDuration::from_secs(1)),
        ),
        (
            "a leaf of tomorrow",
            "CertificateNotYetValid",
            spoil(&|forge| forge.not_before = now() + SignedDuration::from_hours(24)),
        ),
        (
            "a leaf for clients only",
            "WrongKeyUsage",
            spoil(&|forge| forge.ekus = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        (
            "a leaf for servers only",
            "WrongKeyUsage",
            spoil(&|forge| forge.ekus = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("a leaf for any purpose it may think of", "WrongKeyUsage", spoil(&|forge| forge.ekus.clear())),
    ]
}

/// The TLS of a stranger.
#[derive(Clone)]
struct Tls {
    alpn: Vec<Vec<u8>>,
    groups: Vec<&'static dyn SupportedKxGroup>,
    version: &'static SupportedProtocolVersion,
}

impl Tls {
    /// As a relay's.
    fn right() -> Self {
        Self {
            alpn: vec![ALPN.to_vec()],
            groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            version: &rustls::version::TLS13,
        }
    }

    fn classical() -> Self {
        Self { groups: vec![aws_lc_rs::kx_group::X25519], ..Self::right() }
    }

    fn old() -> Self {
        Self { version: &rustls::version::TLS12, ..Self::classical() }
    }

    fn speaking(alpn: &[&[u8]]) -> Self {
        Self { alpn: alpn.iter().map(|name| name.to_vec()).collect(), ..Self::right() }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider { kx_groups: self.groups.clone(), ..aws_lc_rs::default_provider() })
    }

    fn client(&self, presents: Option<Identity>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(self.provider());
        let builder = builder.with_protocol_versions(&[self.version]).unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone));
        let mut client = match presents {
            Some((chain, key)) => {
                // Whatever the chain is, and whether or not the key is its own.
                let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
                let identity = SingleCertAndKey::from(CertifiedKey::new(chain, key));
                builder.with_client_cert_resolver(Arc::new(identity))
            }
            None => builder.with_no_client_auth(),
        };
        client.alpn_protocols.clone_from(&self.alpn);
        Arc::new(client)
    }

    fn server(&self, (chain, key): Identity) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(self.provider());
        let builder = builder.with_protocol_versions(&[self.version]).unwrap();
        let builder = builder.with_client_cert_verifier(Arc::new(NoClientAuth));
        let mut server = builder.with_single_cert(chain, key).unwrap();
        server.alpn_protocols.clone_from(&self.alpn);
        Arc::new(server)
    }
}

/// A HELLO as the peer would say it, but for `trust_domain` and `versions`.
fn hello(role: Role, trust_domain: &str, versions: (u16, u16)) -> Vec<u8> {
    let head =
        Head { sequence: 1, current: None, next: None, state: LinkState::Active, hash: Digest::of(b"declaration") };
    encoded(&Message::Hello(Hello {
        versions,
        role,
        trust_domain: domain(trust_domain),
        replica: ReplicaId([7; 16]),
        epoch: 1,
        early_data: u32::try_from(EARLY_DATA).unwrap(),
        head,
        pin: None,
    }))
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// Somebody who connects to the listener.
enum Caller {
    /// Without TLS.
    Plain(&'static [u8]),
    /// With TLS, and maybe first frames.
    Tls { tls: Tls, presents: Option<Identity>, says: Vec<u8> },
}

impl Caller {
    fn presenting(identity: Identity) -> Self {
        Self::with(Tls::right(), identity)
    }

    fn with(tls: Tls, identity: Identity) -> Self {
        Self::Tls { tls, presents: Some(identity), says: hello(Role::Forward, "a.example", (1, 1)) }
    }

    /// Calls, and returns the frames that come back before the end.
    async fn call(self, address: SocketAddr) -> Vec<u8> {
        let mut socket = TcpStream::connect(address).await.expect("the listener listens");
        let (tls, presents, says) = match self {
            Self::Plain(bytes) => {
                socket.write_all(bytes).await.unwrap();
                let answer = until_end(&mut socket).await;
                assert!(answer.is_empty() || answer[0] == 21, "no more than a TLS alert: {answer:?}");
                return Vec::new();
            }
            Self::Tls { tls, presents, says } => (tls, presents, says),
        };
        let name = ServerName::try_from("b.example").unwrap();
        let Ok(mut stream) = TlsConnector::from(tls.client(presents)).connect(name, socket).await else {
            return Vec::new();
        };
        // A caller that is refused may find the socket closed.
        let _ = stream.write_all(&says).await;
        until_end(&mut stream).await
    }
}

/// What comes until the end or an error.
async fn until_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _: io::Result<usize> = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the relay hangs up");
    bytes
}

/// `a` dials `b`, whose listener is called by strangers and whose metrics are read.
async fn besieged(pins_too: &Organization) -> (Pair, Registry) {
    let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
    let at_a = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at_b = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut for_b = snapshot(&org_b, &org_a);
    for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
    for_b.peer.fingerprints.push(pins_too.root.fingerprint());
    let mut registry = Registry::default();
    let b = Side::start_counted(&org_b, &org_a.domain, for_b, &mut registry).await;
    let mut for_a = snapshot(&org_a, &org_b);
    for_a.imports.push(import("at-b", 0));
    for_a.peer.endpoints = vec![endpoint(b.listens_on())];
    let a = Side::start(&org_a, &org_b.domain, for_a).await;
    a.until_ready().await;
    (Pair { org_a, org_b, a, b, at_a, at_b }, registry)
}

/// The metric `securelink_refused_total` by reason.
fn refused_by_metrics(registry: &Registry) -> BTreeMap<String, u64> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("securelink_refused_total{"));
    lines
        .map(|line| {
            let (labels, count) = line.split_once("} ").unwrap();
            let reason = labels.split(',').find_map(|label| label.strip_prefix("reason=\"")).unwrap();
            (reason.trim_end_matches('"').to_owned(), count.parse().unwrap())
        })
        .collect()
}

/// What somebody is, the reason for which he is refused, and how he calls.
type Row = (&'static str, &'static str, Caller);

/// Each is refused for its own reason, told no more than that, and the peer's stream does not notice.
async fn all_are_refused(pair: &Pair, registry: &Registry, callers: Vec<Row>) {
    let (mut client, mut server) = pair.stream_to_b().await;
    let address = pair.b.listens_on();
    let mut expected = pair.b.relay.report().peer.refused;
    assert!(expected.is_empty(), "the peer itself is not refused: {expected:?}");
    for (what, reason, caller) in callers {
        let heard = caller.call(address).await;
        *expected.entry(reason.to_owned()).or_default() += 1;
        let refusals = expected.values().sum::<u64>();
        let report = pair.b.until(what, |report| report.peer.refused.values().sum::<u64>() >= refusals).await;
        assert_eq!(report.peer.refused, expected, "{what}");
        assert_eq!(refused_by_metrics(registry), expected, "{what}");
        assert_eq!(report.peer.last_refused.map(|error| error.reason).as_deref(), Some(reason), "{what}");
        // Nobody learns more than that it is refused.
        match reason {
            "VersionMismatch" => assert_eq!(said_goodbye(&heard), Some(Code::Version), "{what}: {heard:?}"),
            "ProtocolError" => assert_eq!(said_goodbye(&heard), Some(Code::Protocol), "{what}: {heard:?}"),
            _ => assert!(heard.is_empty(), "{what}: {heard:?}"),
        }

        client.write_all(what.as_bytes()).await.unwrap();
        let mut echo = vec![0; what.len()];
        timeout(PATIENCE, server.read_exact(&mut echo)).await.expect("the stream goes on").unwrap();
        server.write_all(&echo).await.unwrap();
        timeout(PATIENCE, client.read_exact(&mut echo)).await.expect("the stream goes on").unwrap();
        assert_eq!(echo, what.as_bytes());
    }
    let report = pair.a.relay.report();
    assert_eq!((report.peer.control_connections, report.peer.last_error, report.streams.live), (1, None, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f57_whoever_calls_and_is_not_the_peer_is_refused_for_its_own_reason_and_the_peer_does_not_notice() {
    // Its root is pinned here by mistake.
    let look_alike = Organization::new("a-example.example");
    let (pair, registry) = besieged(&look_alike).await;
    let genuine_a = || genuine(&pair.org_a.leaf_to(&pair.org_b.domain));
    let mut callers: Vec<Row> = spoiled_identities(&pair.org_a, "b.example")
        .into_iter()
        .map(|(what, reason, identity)| (what, reason, Caller::presenting(identity)))
        .collect();
    let pinned_look_alike = genuine(&look_alike.leaf_to(&pair.org_b.domain));
    let speaking = |alpn: &[&[u8]]| Caller::with(Tls::speaking(alpn), genuine_a());
    let saying = |says| Caller::Tls { tls: Tls::right(), presents: Some(genuine_a()), says };
    callers.extend([
        ("a look-alike with a pinned root", "WrongTrustDomain", Caller::presenting(pinned_look_alike)),
        ("X25519 only", "ClassicalKeyExchange", Caller::with(Tls::classical(), genuine_a())),
        ("TLS 1.2", "Tls12", Caller::with(Tls::old(), genuine_a())),
        (
            "no certificate",
            "NoClientCertificate",
            Caller::Tls { tls: Tls::right(), presents: None, says: hello(Role::Forward, "a.example", (1, 1)) },
        ),
        ("HTTP without TLS", "BrokenTls", Caller::Plain(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")),
        ("noise", "BrokenTls", Caller::Plain(&[0xff; 512])),
        ("another protocol", "NoCommonProtocol", speaking(&[b"h2", b"http/1.1"])),
        ("a later protocol", "NoCommonProtocol", speaking(&[b"securelink/2"])),
        ("no protocol", "NoCommonProtocol", speaking(&[])),
        ("HELLO of another", "WrongTrustDomain", saying(hello(Role::Forward, "c.example", (1, 1)))),
        ("HELLO of later versions", "VersionMismatch", saying(hello(Role::Forward, "a.example", (2, 3)))),
        ("FIN before HELLO", "ProtocolError", saying(encoded(&Message::Fin))),
        ("no frame", "ProtocolError", saying(b"GET / HTTP/1.1\r\n\r\n".to_vec())),
    ]);
    all_are_refused(&pair, &registry, callers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f42_a_chain_that_is_none_or_too_much_costs_only_its_caller() {
    let (pair, registry) = besieged(&Organization::new("a-example.example")).await;
    let (chain, key) = genuine(&pair.org_a.leaf_to(&pair.org_b.domain));
    let presenting = |chain: Vec<CertificateDer<'static>>| Caller::presenting((chain, key.clone_key()));
    let garbage = |length| CertificateDer::from(vec![0x30; length]);
    let critical = forged(&pair.org_a, "b.example", |forge| forge.unknown_critical = true);
    let big = forged(&pair.org_a, "b.example", |forge| forge.padding = 40_000);
    all_are_refused(
        &pair,
        &registry,
        vec![
            ("ten megabytes", "TooLarge", presenting(vec![garbage(10 << 20)])),
            ("ten megabytes behind a good chain", "TooLarge", presenting([&chain[..], &[garbage(10 << 20)]].concat())),
            ("ten thousand certificates", "TooLarge", presenting(vec![garbage(1); 10_000])),
            ("forty-one certificates", "TooLarge", presenting([&chain[..], &vec![garbage(9); 38]].concat())),
            ("a leaf over its cap", "TooLarge", Caller::presenting(big)),
            ("garbage", "Malformed", presenting(vec![garbage(600)])),
            ("garbage behind the leaf", "Malformed", presenting(vec![chain[0].clone(), garbage(600)])),
            ("half a certificate", "Malformed", presenting(vec![chain[0][..chain[0].len() / 2].to_vec().into()])),
            ("an unknown critical extension", "UnknownCriticalExtension", Caller::presenting(critical)),
        ],
    )
    .await;
}

/// An organization that has left eight roots behind, and those roots.
fn rotated(name: &str) -> (Organization, Vec<Root>) {
    let domain = domain(name);
    let roots: Vec<Root> = (0..9).map(|_| Root::generate(&domain, now()).unwrap()).collect();
    let mut transitions = Transitions::none();
    for pair in roots.windows(2) {
        transitions.append(&pair[0], &pair[1], now()).unwrap();
    }
    let intermediate = roots[8].issue_intermediate(now()).unwrap();
    let root = Root::from_pem(&roots[8].key().to_pem(), &roots[8].certificate_pem()).unwrap();
    (Organization { domain, root, intermediate, transitions }, roots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f75_eight_root_transitions_lead_from_an_old_pin_to_the_peer_and_no_forged_or_foreign_hop_does() {
    let ((org_a, roots), org_b) = (rotated("a.example"), Organization::new("b.example"));
    let (at_a, at_b) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut for_b = snapshot(&org_b, &org_a);
    for_b.peer.fingerprints = vec![roots[0].fingerprint()];
    for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
    let mut registry = Registry::default();
    let b = Side::start_counted(&org_b, &org_a.domain, for_b, &mut registry).await;
    let mut for_a = snapshot(&org_a, &org_b);
    for_a.imports.push(import("at-b", 0));
    for_a.peer.endpoints = vec![endpoint(b.listens_on())];
    let a = Side::start(&org_a, &org_b.domain, for_a).await;
    a.until_ready().await;
    let report = b.relay.report();
    assert_eq!(report.peer.pin_used, Some(roots[0].fingerprint().to_string()));
    assert_eq!(report.peer.root, Some(roots[8].fingerprint().to_string()));

    let leaf = org_a.leaf_to(&org_b.domain);
    let (genuine, key) = (org_a.transitions.presented(leaf.chain(), None), genuine(&leaf).1);
    let stranger = Root::generate(&org_a.domain, now()).unwrap();
    // Leaf, intermediate, newest root, oldest root, and the hops.
    let with_hop = |hop: usize, forge: CrossForge<'_>| {
        let mut chain = genuine.clone();
        chain[4 + hop] = forge.sign();
        Caller::presenting((chain, key.clone_key()))
    };
    let honest = |hop: usize| CrossForge::new(&roots[hop], &roots[hop + 1]);
    let mut missing = genuine.clone();
    missing.remove(4 + 5);
    let callers = vec![
        ("a forged first hop", "ForgedTransition", with_hop(0, CrossForge { signer: &stranger, ..honest(0) })),
        ("a forged last hop", "ForgedTransition", with_hop(7, CrossForge { signer: &stranger, ..honest(7) })),
        ("no authority", "ForgedTransition", with_hop(3, CrossForge { ca: false, ..honest(3) })),
        (
            "a hop for another trust domain",
            "WrongTrustDomain",
            with_hop(4, CrossForge { uri: "spiffe://c.example".to_owned(), ..honest(4) }),
        ),
        ("a hop left out", "WrongRoot", Caller::presenting((missing, key.clone_key()))),
        ("no hop", "WrongRoot", Caller::presenting((leaf.chain().to_vec(), key.clone_key()))),
    ];
    let pair = Pair { org_a, org_b, a, b, at_a, at_b };
    all_are_refused(&pair, &registry, callers).await;
}

/// The code of the BYE that `frames` consist of.
fn said_goodbye(frames: &[u8]) -> Option<Code> {
    let header = Header::parse(*frames.first_chunk()?).ok()?;
    match Message::decode(header.kind, frames.get(Header::LEN..)?).ok()? {
        Message::Bye(bye) => Some(bye.code),
        _ => None,
    }
}

/// Somebody who listens where the peer should.
enum Server {
    /// Answers everybody with bytes, without TLS.
    Plain(&'static [u8]),
    /// Takes connections and says nothing.
    Silent,
    /// TLS, and then frames.
    Tls(Arc<ServerConfig>, Vec<u8>),
}

impl Server {
    /// Serves until the end of the test.
    async fn start(self, servers: &mut JoinSet<()>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Arc::new(self);
        servers.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let this = Arc::clone(&this);
                served.spawn(async move { this.serve(socket).await });
            }
        });
        endpoint(address)
    }

    async fn serve(&self, mut socket: TcpStream) {
        match self {
            Self::Plain(bytes) => {
                // The relay may hang up at any moment, here and below.
                let _ = socket.write_all(bytes).await;
                let _ = socket.read_to_end(&mut Vec::new()).await;
            }
            Self::Silent => {
                let _ = socket.read_to_end(&mut Vec::new()).await;
            }
            Self::Tls(config, says) => {
                let Ok(mut stream) = TlsAcceptor::from(Arc::clone(config)).accept(socket).await else { return };
                let _ = stream.write_all(says).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    }
}

/// An acceptor that trusts somebody else by our name.
fn mistrusting(owner: &Organization, audience: &TrustDomain) -> Arc<ServerConfig> {
    let leaf = owner.leaf_to(audience);
    let trust = owner.pins(audience, vec![owner.root.fingerprint()]);
    let clock = TestClock::new().clock();
    let options = Options { alpn: vec![ALPN.to_vec()], allow_classical: false, extract_secrets: false, clock };
    server_config(&Credentials::new(&leaf, &Transitions::none(), None).unwrap(), &trust, &options).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_dials_whoever_is_not_the_peer_says_why_it_hung_up() {
    let (a, b) = (Organization::new("a.example"), Organization::new("b.example"));
    let genuine_a = || genuine(&a.leaf_to(&b.domain));
    let right = |identity| Server::Tls(Tls::right().server(identity), hello(Role::Control, "a.example", (1, 1)));
    let as_tls = |tls: &Tls| Server::Tls(tls.server(genuine_a()), hello(Role::Control, "a.example", (1, 1)));
    let saying = |says| Server::Tls(Tls::right().server(genuine_a()), says);
    let bye = |code| encoded(&Message::Bye(Bye { code, text: "no\u{1b}[31m".to_owned() }));

    let mut rows: Vec<(&str, &str, Server)> = spoiled_identities(&a, "b.example")
        .into_iter()
        .map(|(what, reason, identity)| (what, reason, right(identity)))
        .collect();
    rows.extend([
        ("X25519 only", "ClassicalKeyExchange", as_tls(&Tls::classical())),
        ("TLS 1.2", "Tls12", as_tls(&Tls::old())),
        ("another protocol", "NoCommonProtocol", as_tls(&Tls::speaking(&[b"h2"]))),
        ("no protocol", "NoCommonProtocol", as_tls(&Tls::speaking(&[]))),
        ("no TLS", "BrokenTls", Server::Plain(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        ("does not trust us", "RefusedByPeer", Server::Tls(mistrusting(&a, &b.domain), Vec::new())),
        ("BYE DENIED", "RefusedByPeer", saying(bye(Code::Denied))),
        ("BYE VERSION", "VersionMismatch", saying(bye(Code::Version))),
        ("HELLO of later versions", "VersionMismatch", saying(hello(Role::Control, "a.example", (2, 3)))),
        ("HELLO of another", "WrongTrustDomain", saying(hello(Role::Control, "c.example", (1, 1)))),
        ("no HELLO", "TimedOut", saying(Vec::new())),
        ("silence", "TimedOut", Server::Silent),
    ]);

    let mut servers = JoinSet::new();
    let mut dialers = Vec::new();
    for (what, reason, server) in rows {
        let dialed = server.start(&mut servers).await;
        dialers.push((what, reason, dialer(&a, &b, dialed, |_| {}).await));
    }
    let to = |host: &str, port| Endpoint { host: host.to_owned(), port };
    // Held, so that nobody else listens there, and not listened on.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let unused = held.local_addr().unwrap();
    dialers.extend([
        ("a port nobody listens on", "Refused", dialer(&a, &b, endpoint(unused), |_| {}).await),
        ("a name that is none", "DnsFailed", dialer(&a, &b, to("nobody.invalid", 443), |_| {}).await),
    ]);
    all_say_why(&dialers).await;
}

/// What is dialed, the reason for which nothing comes of it, and who dials.
type Dialer = (&'static str, &'static str, Side);

async fn all_say_why(dialers: &[Dialer]) {
    for (what, reason, dialer) in dialers {
        let report = dialer.until(what, |report| report.peer.last_error.is_some()).await;
        let error = report.peer.last_error.unwrap();
        assert_eq!(&error.reason, reason, "{what}: {}", error.message);
        assert!(report.peer.refused.contains_key(*reason), "{what}: {:?}", report.peer.refused);
        assert_eq!(report.peer.control_connections, 0, "{what}");
        assert!(!error.message.contains('\u{1b}'), "{what}: the peer's text is escaped: {:?}", error.message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f46_loopback_metadata_the_api_server_and_ourselves_are_no_endpoints() {
    let (a, b) = (Organization::new("a.example"), Organization::new("b.example"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // As a cluster's controller writes them (contracts 4).
    let nets = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "10.96.0.1/32"];
    let nets: Vec<ipnet::IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
    let to = |host: &str| Endpoint { host: host.to_owned(), port };
    let denied = |snapshot: &mut Snapshot| snapshot.dial.denied.clone_from(&nets);
    let denied_to_peers = |snapshot: &mut Snapshot| snapshot.dial.denied_endpoints.clone_from(&nets);
    let mut dialers = Vec::new();
    for (what, host) in [
        ("loopback", "127.0.0.1"),
        ("all of loopback", "127.9.8.7"),
        ("loopback by name", "localhost"),
        ("loopback mapped into IPv6", "::ffff:127.0.0.1"),
        ("loopback of IPv6", "::1"),
        ("loopback in short", "127.1"),
        ("loopback as a number", "2130706433"),
        ("metadata", "169.254.169.254"),
        ("metadata mapped into IPv6", "::ffff:169.254.169.254"),
        ("link-local", "fe80::1"),
        ("the API server", "10.96.0.1"),
    ] {
        dialers.push((what, "AddressDenied", dialer(&a, &b, to(host), denied).await));
    }
    dialers.push((
        "an address denied to peers",
        "AddressDenied",
        dialer(&a, &b, to("127.0.0.1"), denied_to_peers).await,
    ));
    all_say_why(&dialers).await;
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none(), "nothing was dialed");

    // Our own listener proves to be somebody whom nobody pinned: ourselves.
    let mut own = Side::start(&b, &a.domain, snapshot(&b, &a)).await;
    let to_itself = endpoint(own.listens_on());
    own.adopt(|snapshot| snapshot.peer.endpoints = vec![to_itself]).await;
    let report = own.until("it has dialed itself", |report| report.peer.last_error.is_some()).await;
    let error = report.peer.last_error.unwrap();
    assert_eq!(error.reason, "WrongRoot");
    assert!(error.message.contains("claims to be b.example"), "{}", error.message);
    assert_eq!(report.peer.control_connections, 0);
}

/// A relay of `own` that dials `endpoint` to find `peer`.
async fn dialer(peer: &Organization, own: &Organization, endpoint: Endpoint, edit: impl FnOnce(&mut Snapshot)) -> Side {
    let mut snapshot = snapshot(own, peer);
    snapshot.peer.endpoints = vec![endpoint];
    edit(&mut snapshot);
    Side::start(own, &peer.domain, snapshot).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_relay_refuses_the_other_both_sides_say_why() {
    let stranger = Organization::new("b.example");
    let pin = stranger.root.fingerprint();
    let pair = Pair::dialing(|for_a, _| for_a.peer.fingerprints = vec![pin]).await;
    pair.a.until_refused("WrongRoot").await;
    let report = pair.b.until("its own attempt is refused", |report| report.peer.last_error.is_some()).await;
    let refused: Vec<&String> = report.peer.refused.keys().collect();
    assert_eq!(refused, ["RefusedByPeer"]);
    let error = report.peer.last_error.unwrap();
    assert!(error.message.contains("pin our fingerprint"), "{}", error.message);
    assert!(!pair.a.relay.is_ready() && !pair.b.relay.is_ready());
}

/// Anybody can knock: what a person sees must be why the peer is not reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_at_the_door_does_not_hide_why_the_peer_is_not_reached() {
    let (own, other) = (Organization::new("a.example"), Organization::new("b.example"));
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut dialing = support::snapshot(&own, &other);
    dialing.peer.endpoints = vec![endpoint(closed.local_addr().unwrap())];
    drop(closed);
    let side = Side::start(&own, &other.domain, dialing).await;
    side.until_refused("Refused").await;
    let mut stranger = TcpStream::connect(side.listens_on()).await.unwrap();
    stranger.write_all(&[0xff; 64]).await.unwrap();
    let report = side.until_refused("BrokenTls").await;
    assert_eq!(report.peer.last_refused.unwrap().reason, "BrokenTls");
    assert_eq!(report.peer.last_error.unwrap().reason, "Refused");
}
