//! Two organizations on loopback: real keys, real relays, real sockets. What tests of the relay share.
#![allow(missing_docs, dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod acceptor;
pub mod hosted;
pub mod intruder;
pub mod network;
pub mod partner;
pub mod process;
pub mod skipped;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::registry::Registry;
use securelink_id::TrustDomain;
use securelink_pki::testing::{Organization, now};
use securelink_pki::{Leaf, Transitions};
use securelink_relay::{Capacity, Clock, Credentials, Memory, Metrics, Relay, Setup, Store};
use securelink_relay_config::{
    Agreement, AgreementTerm, Agreements, Cut, CutBook, CutScope, DataClass, DialRules, Digest, Endpoint, Export,
    FORMAT, Import, Latch, Limits, LinkRef, LinkReport, LinkState, Millis, Peer, Protocol, RecordLayer, Snapshot,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// For what has no promise of its own: a test that waits longer has found something.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A clock that begins at the tests' moment and runs, and can be stepped.
#[derive(Clone)]
pub struct TestClock {
    start: std::time::Instant,
    offset_ms: Arc<AtomicI64>,
}

impl TestClock {
    pub fn new() -> Self {
        Self { start: std::time::Instant::now(), offset_ms: Arc::default() }
    }

    pub fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::new(move || this.now())
    }

    pub fn now(&self) -> jiff::Timestamp {
        let offset = jiff::SignedDuration::from_millis(self.offset_ms.load(Ordering::SeqCst));
        now() + jiff::SignedDuration::try_from(self.start.elapsed()).unwrap() + offset
    }

    pub fn millis(&self) -> Millis {
        Millis::from(self.now())
    }

    /// Steps it, backwards if negative.
    pub fn step(&self, milliseconds: i64) {
        self.offset_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

/// Keeps what a relay stores.
#[derive(Default)]
pub struct MemoryStore {
    pub latch: Mutex<Latch>,
    pub latch_saved: AtomicUsize,
    pub cuts: Mutex<CutBook>,
}

impl Store for MemoryStore {
    fn save_latch(&self, latch: &Latch) -> io::Result<()> {
        *self.latch.lock().unwrap() = latch.clone();
        self.latch_saved.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn save_cuts(&self, cuts: &CutBook) -> io::Result<()> {
        *self.cuts.lock().unwrap() = cuts.clone();
        Ok(())
    }
}

/// One organization's relay.
pub struct Side {
    pub relay: Relay,
    pub snapshot: Snapshot,
    pub clock: TestClock,
    pub store: Arc<MemoryStore>,
}

/// The agreement both sides name unless a test says otherwise.
pub fn agreement() -> Agreement {
    Agreement {
        reference: "MoU".to_owned(),
        term: AgreementTerm { digest: Digest::of(b"memorandum"), from: Millis(0), until: None },
    }
}

/// Who makes the records: rustls, unless all tests are to run with the relay's own (`make unit` does both).
pub fn records() -> RecordLayer {
    match std::env::var("SECURELINK_TEST_RECORDS").as_deref() {
        Err(_) | Ok("Rustls") => RecordLayer::Rustls,
        Ok("InPlace") => RecordLayer::InPlace,
        Ok(other) => panic!("no such record layer: {other}"),
    }
}

/// The snapshot of `own` for its link to `peer`: listens, dials nobody yet, carries nothing yet.
pub fn snapshot(own: &Organization, peer: &Organization) -> Snapshot {
    Snapshot {
        format: FORMAT,
        version: 1,
        requires: vec![],
        link: LinkRef { namespace: "test".to_owned(), name: peer.domain.as_str().replace('.', "-") },
        own: own.domain.clone(),
        peer: Peer {
            trust_domain: peer.domain.clone(),
            fingerprints: vec![peer.root.fingerprint()],
            endpoints: vec![],
            proxy: None,
            protocol: Protocol::SecureLink,
        },
        listen: Some("127.0.0.1:0".parse().unwrap()),
        state: LinkState::Active,
        agreements: Agreements { current: Some(agreement()), next: None },
        exports: vec![],
        imports: vec![],
        allow_classical_key_exchange: false,
        records: records(),
        max_staleness_seconds: 3600,
        dial: DialRules::default(),
        limits: Limits::default(),
        contacts: vec![],
        cuts_in_force: vec![],
        seen: std::collections::BTreeMap::default(),
        released: vec![],
        control_cas: vec![],
    }
}

pub fn export(name: &str, target: SocketAddr) -> Export {
    Export {
        name: name.to_owned(),
        target: endpoint(target),
        data_class: DataClass::Operational,
        limits: Limits::default(),
    }
}

pub fn import(name: &str, slot: u16) -> Import {
    Import { name: name.to_owned(), slot, listen: "127.0.0.1:0".parse().unwrap(), data_class: DataClass::Operational }
}

pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { host: address.ip().to_string(), port: address.port() }
}

pub fn link_cut(id: &str, revision: u64) -> Cut {
    Cut { id: id.to_owned(), revision, scope: CutScope::Link, reason: "incident 114".to_owned() }
}

pub fn credentials(leaf: Leaf, transitions: &Transitions) -> Credentials {
    Credentials { leaf: Arc::new(leaf), transitions: transitions.clone() }
}

/// Prints logs of a failing test: `RUST_LOG=securelink_relay=debug cargo test -- --nocapture`.
pub fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

impl Side {
    pub async fn start(own: &Organization, peer: &TrustDomain, snapshot: Snapshot) -> Self {
        Self::start_sharing(own, peer, snapshot, Capacity::of_process()).await
    }

    /// As [`Side::start`], with what other relays of this process have a share of.
    pub async fn start_sharing(own: &Organization, peer: &TrustDomain, snapshot: Snapshot, capacity: Capacity) -> Self {
        let credentials = credentials(own.leaf_to(peer), &own.transitions);
        let metrics = Metrics::register(&mut Registry::default());
        Self::set_up(credentials, snapshot, TestClock::new(), Memory::default(), metrics, capacity).await
    }

    pub async fn start_with(credentials: Credentials, snapshot: Snapshot, clock: TestClock, memory: Memory) -> Self {
        let metrics = Metrics::register(&mut Registry::default());
        Self::set_up(credentials, snapshot, clock, memory, metrics, Capacity::of_process()).await
    }

    /// As [`Side::start`], with its metrics in `registry`.
    pub async fn start_counted(
        own: &Organization,
        peer: &TrustDomain,
        snapshot: Snapshot,
        registry: &mut Registry,
    ) -> Self {
        let credentials = credentials(own.leaf_to(peer), &own.transitions);
        let metrics = Metrics::register(registry);
        Self::set_up(credentials, snapshot, TestClock::new(), Memory::default(), metrics, Capacity::of_process()).await
    }

    async fn set_up(
        credentials: Credentials,
        snapshot: Snapshot,
        clock: TestClock,
        memory: Memory,
        metrics: Metrics,
        capacity: Capacity,
    ) -> Self {
        logs();
        let store = Arc::new(MemoryStore::default());
        let setup = Setup {
            snapshot: snapshot.clone(),
            credentials,
            memory,
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: clock.clock(),
            metrics,
            capacity,
        };
        let relay = Relay::start(setup).await.expect("the relay starts");
        Self { relay, snapshot, clock, store }
    }

    /// Puts the next version in force, changed by `edit`.
    pub async fn adopt(&mut self, edit: impl FnOnce(&mut Snapshot)) {
        edit(&mut self.snapshot);
        self.snapshot.version += 1;
        self.relay.adopt(self.snapshot.clone()).await.expect("the snapshot is adopted");
    }

    pub fn listens_on(&self) -> SocketAddr {
        self.relay.report().listener.expect("a listener").address
    }

    /// Where clients of an import connect.
    pub fn import_address(&self, name: &str) -> SocketAddr {
        let imports = self.relay.report().imports;
        imports.iter().find(|entry| entry.name == name).and_then(|entry| entry.address).expect("a listening import")
    }

    /// Waits until the report says so.
    pub async fn until(&self, what: &str, holds: impl Fn(&LinkReport) -> bool) -> LinkReport {
        let mut changes = self.relay.changes();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                let report = self.relay.report();
                if holds(&report) {
                    return report;
                }
                // Counters of bytes and streams raise no change: look again after a moment as well.
                let _ = timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(report) => report,
            Err(late) => panic!("{late}, {PATIENCE:?}: {what}\n{:#?}", self.relay.report()),
        }
    }

    pub async fn until_ready(&self) -> LinkReport {
        self.until("the probe makes the round trip", |report| {
            report.peer.control_connections > 0
                && report.agreed.disagreement.is_none()
                && report.probe.last_success.is_some()
        })
        .await
    }

    /// Waits until there is one control connection with each of so many replicas of the peer.
    pub async fn until_met(&self, replicas: usize) -> LinkReport {
        self.until("a control connection with each replica", |report| {
            report.peer.replicas.len() == replicas
                && report.peer.control_connections as usize == replicas
                && report.agreed.disagreement.is_none()
        })
        .await
    }

    pub async fn until_disagreed(&self, reason: &str) -> LinkReport {
        self.until(reason, |report| report.agreed.disagreement.is_some_and(|why| why.reason() == reason)).await
    }

    /// Waits until the peer was refused for `reason`, here.
    pub async fn until_refused(&self, reason: &str) -> LinkReport {
        self.until(reason, |report| report.peer.refused.contains_key(reason)).await
    }
}

/// Two linked organizations. `a` exports `service` and `b` imports it, and the other way round.
pub struct Pair {
    pub org_a: Organization,
    pub org_b: Organization,
    pub a: Side,
    pub b: Side,
    /// The target of a's export `at-a` and of b's export `at-b`.
    pub at_a: TcpListener,
    pub at_b: TcpListener,
}

impl Pair {
    /// Both up, agreed, probed.
    pub async fn ready() -> Self {
        let pair = Self::dialing(|_, _| {}).await;
        pair.a.until_ready().await;
        pair.b.until_ready().await;
        pair
    }

    /// Both up and dialing each other, after `edit` of a's and b's snapshots; nothing is waited for.
    pub async fn dialing(edit: impl FnOnce(&mut Snapshot, &mut Snapshot)) -> Self {
        let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
        let at_a = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at_b = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut for_a, mut for_b) = (snapshot(&org_a, &org_b), snapshot(&org_b, &org_a));
        for_a.exports.push(export("at-a", at_a.local_addr().unwrap()));
        for_a.imports.push(import("at-b", 0));
        for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
        for_b.imports.push(import("at-a", 0));
        edit(&mut for_a, &mut for_b);
        let mut a = Side::start(&org_a, &org_b.domain, for_a).await;
        for_b.peer.endpoints = vec![endpoint(a.listens_on())];
        let b = Side::start(&org_b, &org_a.domain, for_b).await;
        let to_b = endpoint(b.listens_on());
        a.adopt(|snapshot| snapshot.peer.endpoints = vec![to_b]).await;
        Self { org_a, org_b, a, b, at_a, at_b }
    }

    /// A stream from a client at `a` to the service at `b`: the client's socket and the service's.
    pub async fn stream_to_b(&self) -> (TcpStream, TcpStream) {
        open(self.a.import_address("at-b"), &self.at_b).await
    }

    /// The other way round.
    pub async fn stream_to_a(&self) -> (TcpStream, TcpStream) {
        open(self.b.import_address("at-a"), &self.at_a).await
    }
}

/// Connects to `address` and accepts at `target`; one byte each way proves that they are each other's end.
pub async fn open(address: SocketAddr, target: &TcpListener) -> (TcpStream, TcpStream) {
    let opening = async {
        let mut client = TcpStream::connect(address).await.expect("the import listens");
        client.write_all(b"?").await.expect("the import takes a byte");
        let (mut server, _) = target.accept().await.expect("the service is dialed");
        assert_eq!(server.read_u8().await.expect("a byte arrives"), b'?');
        server.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.expect("a byte comes back"), b'!');
        (client, server)
    };
    timeout(PATIENCE, opening).await.expect("a stream opens")
}

/// Reads until the end: the bytes, and whether the end was clean.
pub async fn read_to_end(socket: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the socket ends");
    (bytes, end.map(drop))
}

/// A client is turned away at `address`: a reset, maybe before the connection is seen to be up, and no byte.
pub async fn turned_away(address: SocketAddr) {
    let Ok(mut client) = TcpStream::connect(address).await else { return };
    // It only reads: a byte that it sent would be answered with a reset after a clean end too, and a write that meets the
    // reset leaves a clean end to the read behind it.
    let (bytes, end) = read_to_end(&mut client).await;
    assert!(bytes.is_empty() && end.is_err(), "a reset and no byte, not {bytes:?} {end:?}");
}

/// Connects to `address` and accepts at whichever of `targets` is dialed, which speaks first: which one, the client's socket
/// and the service's.
pub async fn served(address: SocketAddr, targets: &[TcpListener]) -> (usize, TcpStream, TcpStream) {
    let serving = async {
        let mut client = TcpStream::connect(address).await.expect("the import listens");
        let accepting = targets.iter().map(|target| Box::pin(target.accept()));
        let (accepted, which, _) = futures_util::future::select_all(accepting).await;
        let (mut service, _) = accepted.expect("the service is dialed");
        service.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.expect("a byte comes back"), b'!');
        (which, client, service)
    };
    timeout(PATIENCE, serving).await.expect("a stream opens")
}

/// Relays of one organization that dial the relays of another, which do not dial: services work both ways.
pub struct Replicas {
    pub org_a: Organization,
    pub org_b: Organization,
    /// Dial.
    pub a: Vec<Side>,
    /// Are dialed.
    pub b: Vec<Side>,
    /// The target of the export `at-a` of each of a's.
    pub at_a: Vec<TcpListener>,
    pub at_b: Vec<TcpListener>,
}

impl Replicas {
    /// As many of each; every one has met every other.
    pub async fn linked(dialing: usize, dialed: usize) -> Self {
        let mut all = Self::apart(dialed).await;
        let endpoints = all.b.iter().map(|side| endpoint(side.listens_on())).collect::<Vec<_>>();
        for _ in 0..dialing {
            all.add_dialer(|snapshot| snapshot.peer.endpoints.clone_from(&endpoints)).await;
        }
        all.until_met().await;
        all
    }

    /// Only those that are dialed.
    pub async fn apart(dialed: usize) -> Self {
        let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
        let mut all = Self { org_a, org_b, a: vec![], b: vec![], at_a: vec![], at_b: vec![] };
        for _ in 0..dialed {
            let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let snapshot = all.exporting(target.local_addr().unwrap());
            all.b.push(Side::start(&all.org_b, &all.org_a.domain, snapshot).await);
            all.at_b.push(target);
        }
        all
    }

    /// What one that is dialed runs.
    pub fn exporting(&self, target: SocketAddr) -> Snapshot {
        let mut snapshot = snapshot(&self.org_b, &self.org_a);
        snapshot.exports.push(export("at-b", target));
        snapshot.imports.push(import("at-a", 0));
        snapshot
    }

    /// One more that dials.
    pub async fn add_dialer(&mut self, edit: impl FnOnce(&mut Snapshot)) {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut snapshot = snapshot(&self.org_a, &self.org_b);
        snapshot.listen = None;
        snapshot.exports.push(export("at-a", target.local_addr().unwrap()));
        snapshot.imports.push(import("at-b", 0));
        edit(&mut snapshot);
        self.a.push(Side::start(&self.org_a, &self.org_b.domain, snapshot).await);
        self.at_a.push(target);
    }

    /// Every one holds one control connection with every other, and they agree.
    pub async fn until_met(&self) {
        for (side, others) in self.a.iter().map(|a| (a, self.b.len())).chain(self.b.iter().map(|b| (b, self.a.len()))) {
            side.until_met(others).await;
        }
    }
}
