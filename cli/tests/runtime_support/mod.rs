//! Two organizations, each with its own files and state folder. What tests of the runtime share.
#![allow(missing_docs, dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use securelink::runtime::{Clock, LinkStatus, Options, Runtime};
use securelink_crds::conditions::{self, ConditionType};
use securelink_relay_config::{LinkRef, RecordLayer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// For what has no promise of its own: a test that waits longer has found something.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The real clock, which can be stepped.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::new(move || this.now())
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }

    pub fn step(&self, by: SignedDuration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

/// An organization: its folder of files, its state folder, and its process, which is started and stopped.
pub struct Side {
    temp: TempDir,
    pub name: &'static str,
    pub clock: TestClock,
    pub runtime: Option<Runtime>,
    pub watch: bool,
}

impl Side {
    pub fn new(name: &'static str) -> Self {
        let side =
            Self { temp: TempDir::new().unwrap(), name, clock: TestClock::default(), runtime: None, watch: false };
        fs::create_dir(side.files()).unwrap();
        side.write(
            "identity.yaml",
            &format!(
                "apiVersion: securelink.dev/v1alpha1\nkind: LinkIdentity\nmetadata: {{name: default}}\nspec:\n  trustDomain: {name}.example\n  issuer: {{builtIn: {{}}}}\n"
            ),
        );
        side
    }

    pub fn files(&self) -> PathBuf {
        self.temp.path().join("files")
    }

    pub fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.files().join(file), text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.files().join(file)).unwrap()
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.files().join(file)).unwrap();
    }

    pub fn options(&self) -> Options {
        Options {
            files: vec![self.files()],
            state_dir: self.state(),
            init: true,
            listen: BTreeMap::from([("link".to_owned(), "127.0.0.1:0".parse().unwrap())]),
            allow_loopback_peers: true,
            records: RecordLayer::default(),
            local: None,
            watch: self.watch,
        }
    }

    pub async fn start(&mut self) {
        let started = Runtime::start_with(self.options(), self.clock.clock()).await;
        self.runtime = Some(started.unwrap_or_else(|error| panic!("{}: {error}", self.name)));
    }

    pub async fn stop(&mut self) {
        self.runtime.take().unwrap().shutdown(Duration::ZERO).await;
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub fn fingerprint(&self) -> String {
        let state = securelink::state::StateDir::open(&self.state(), false).unwrap();
        state.fingerprints().unwrap()[0].fingerprint.to_string()
    }

    pub fn status(&self) -> LinkStatus {
        self.runtime().status().into_iter().find(|status| status.link == link()).expect("the link")
    }

    pub fn reason(&self, kind: ConditionType) -> String {
        reason(&self.status(), kind)
    }

    /// Where the peer dials.
    pub fn listener(&self) -> SocketAddr {
        self.status().report.expect("a relay").listener.expect("a listener").address
    }

    /// Waits until the link's status is as wished.
    pub async fn until(&self, what: &str, wished: impl Fn(&LinkStatus) -> bool) {
        let mut changes = self.runtime().changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let links = self.runtime().status();
                if links.iter().any(|status| status.link == link() && wished(status)) {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{}: waited in vain for {what}: {:#?}", self.name, self.runtime().status());
    }

    pub async fn until_reason(&self, kind: ConditionType, wished: &str) {
        self.until(wished, |status| reason(status, kind) == wished).await;
    }
}

pub fn reason(status: &LinkStatus, kind: ConditionType) -> String {
    conditions::find(&status.status.conditions, kind).map(|found| found.reason.clone()).unwrap_or_default()
}

pub fn link() -> LinkRef {
    LinkRef { namespace: "default".to_owned(), name: "link".to_owned() }
}

/// What one half of the link says.
pub struct Half {
    pub peer: &'static str,
    pub pin: String,
    pub endpoint: Option<SocketAddr>,
    pub services: String,
}

impl Half {
    pub fn yaml(&self) -> String {
        let endpoints = match self.endpoint {
            Some(at) => format!("    endpoints: [{{host: {}, port: {}}}]\n", at.ip(), at.port()),
            None => String::new(),
        };
        let expose = if self.endpoint.is_none() { "  expose: {type: NodePort, port: 15443}\n" } else { "" };
        format!(
            "apiVersion: securelink.dev/v1alpha1\nkind: SecureLink\nmetadata: {{name: link}}\nspec:\n  identityRef: {{name: default}}\n  state: Active\n  maxStaleness: 8760h\n  peer:\n    trustDomain: {}.example\n    fingerprints: [\"{}\"]\n{endpoints}{expose}{}",
            self.peer, self.pin, self.services
        )
    }
}

/// Two linked organizations: `a` exports an echo and listens, `b` imports it and dials.
pub struct Pair {
    pub a: Side,
    pub b: Side,
    pub import: SocketAddr,
}

impl Pair {
    pub async fn new() -> Self {
        Self::prepare(false).await
    }

    /// The same, with files that are watched.
    pub async fn watched() -> Self {
        Self::prepare(true).await
    }

    async fn prepare(watch: bool) -> Self {
        let (mut a, mut b) = (Side::new("a"), Side::new("b"));
        (a.watch, b.watch) = (watch, watch);
        // Each starts alone: its first line for the annex is its fingerprint.
        a.start().await;
        b.start().await;
        let echo = echo().await;
        let services = format!(
            "  exports:\n  - {{name: echo, dataClass: strategic, target: {{host: 127.0.0.1, port: {}}}}}\n",
            echo.port()
        );
        a.write("link.yaml", &Half { peer: "b", pin: b.fingerprint(), endpoint: None, services }.yaml());
        let report = a.runtime().reload().await;
        assert_eq!((report.problems, report.refused), (vec![], vec![]));
        let import = free_port().await;
        let services = format!(
            "  imports:\n  - {{name: echo, dataClass: strategic, port: {}, clients: [{{podSelector: {{}}}}]}}\n",
            import.port()
        );
        let endpoint = Some(a.listener());
        b.write("link.yaml", &Half { peer: "a", pin: a.fingerprint(), endpoint, services }.yaml());
        let report = b.runtime().reload().await;
        assert_eq!((report.problems, report.refused), (vec![], vec![]));
        let pair = Self { a, b, import };
        pair.until_ready().await;
        pair
    }

    pub async fn until_ready(&self) {
        for side in [&self.a, &self.b] {
            side.until_reason(ConditionType::Ready, "Ready").await;
        }
    }

    /// A stream through both relays.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.import).await.expect("the import listens")
    }
}

/// Sends a text through a stream and expects it back.
pub async fn exchange(stream: &mut TcpStream, text: &str) {
    let going = async {
        stream.write_all(text.as_bytes()).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, text.as_bytes());
        Ok::<_, std::io::Error>(())
    };
    timeout(PATIENCE, going).await.expect("an answer in time").expect("the stream lives");
}

/// Expects that a stream has ended or ends, and carries nothing more.
pub async fn ended(mut stream: TcpStream) {
    let _ = stream.write_all(b"late").await;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the stream ends");
    assert_eq!(rest, b"", "not a byte passes");
}

/// A service that sends back what it is sent.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A port nobody has at the moment. Imports cannot ask for any port: clients must know it.
pub async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
