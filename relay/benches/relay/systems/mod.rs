//! The systems that are compared: started, found ready, and asked what they cost. Another relay to compare with becomes
//! one more kind here, and its configurations files of `relay/benches/peers`.

pub mod install;
mod organization;
pub mod ours;
mod peers;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Process;
use crate::traffic;
use ours::Pair;
use peers::Configured;

/// Where free ports are looked for: below those that the kernel gives to whoever connects.
const FIRST_PORT: u16 = 5_000;
/// A relay that does not carry a byte by then never will.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between looks whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours,
    Again,
    InPlace,
    HaProxy,
    Nginx,
    Stunnel,
    EnvoyTls,
    EnvoyHttp2,
    Copy,
    Direct,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Ours,
        Self::Again,
        Self::InPlace,
        Self::HaProxy,
        Self::Nginx,
        Self::Stunnel,
        Self::EnvoyTls,
        Self::EnvoyHttp2,
        Self::Copy,
        Self::Direct,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Again => "again",
            Self::InPlace => "in-place",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Stunnel => "stunnel",
            Self::EnvoyTls => "envoy-tls",
            Self::EnvoyHttp2 => "envoy-h2",
            Self::Copy => "copy",
            Self::Direct => "direct",
        }
    }

    pub const fn about(self) -> &'static str {
        match self {
            Self::Ours => "this relay, a pair",
            Self::Again => "the same once more: what differs between the two is noise",
            Self::InPlace => "the same pair with the relay's own record layer",
            Self::HaProxy => "HAProxy of Debian, TCP mode, 256 KiB buffers, one thread",
            Self::Nginx => "nginx of Debian, stream module, 256 KiB buffers, one worker",
            Self::Stunnel => "stunnel of Debian, a thread a connection",
            Self::EnvoyTls => "Envoy of PyPI, a TLS connection for each stream, one worker",
            Self::EnvoyHttp2 => "the same, all streams in one HTTP/2 connection by CONNECT",
            Self::Copy => "a limit: two hops of plain copy, no TLS",
            Self::Direct => "a limit: no hop",
        }
    }

    /// Whether others made it.
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::HaProxy | Self::Nginx | Self::Stunnel | Self::EnvoyTls | Self::EnvoyHttp2)
    }

    /// Whether it is this relay.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::Again | Self::InPlace)
    }

    /// By what name its relays speak to each other; none where TLS is not told.
    pub const fn alpn(self) -> &'static str {
        if self.is_ours() { "securelink/1" } else { "" }
    }

    /// What it says of its version.
    pub fn version(self) -> Option<String> {
        self.is_peer().then(|| format!("{}: {}", self.name(), peers::version(self)))
    }
}

/// A way from the client to the service.
pub struct System {
    pub kind: Kind,
    /// Where the client connects.
    pub address: SocketAddr,
    /// Where the client's relay comes to the other one, by TLS.
    pub listener: Option<SocketAddr>,
    /// The client's side first.
    relays: Vec<Process>,
    side: Side,
}

/// What a system needs kept.
enum Side {
    Plain,
    Ours(Box<Pair>),
    Peer(Vec<Configured>),
}

/// The service all systems lead to.
pub struct Service {
    pub address: SocketAddr,
    _process: Process,
}

impl Service {
    pub fn start() -> Self {
        let mut process = Process::play("service", &[]);
        Self { address: process.line().parse().unwrap(), _process: process }
    }
}

impl System {
    /// Ready when a byte went there and back.
    pub async fn start(kind: Kind, service: SocketAddr) -> Self {
        let system = match kind {
            Kind::Ours | Kind::Again | Kind::InPlace => ours::start(kind, service).await,
            Kind::Direct => Self { kind, address: service, listener: None, relays: vec![], side: Side::Plain },
            Kind::Copy => copy(service),
            _ => peers::start(kind, service),
        };
        let start = Instant::now();
        while let Err(error) = traffic::opened(system.address).await {
            assert!(start.elapsed() < START_TIMEOUT, "{} carries nothing: {error}", kind.name());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        system
    }

    /// Seconds of CPU the relays have used so far.
    pub fn cpu(&self) -> f64 {
        self.relays.iter().map(Process::cpu).sum()
    }

    /// Resident KiB of each relay.
    pub fn resident(&self) -> Vec<f64> {
        self.relays.iter().map(Process::resident).collect()
    }

    /// Gives both relays another certificate for another key, while they run; false where there is none to give.
    pub async fn renew(&mut self) -> bool {
        match &self.side {
            Side::Plain => return false,
            Side::Ours(pair) => pair.renew(&mut self.relays),
            Side::Peer(configured) => {
                for (configured, relay) in configured.iter().zip(&mut self.relays) {
                    peers::renew(self.kind, configured, relay).await;
                }
            }
        }
        true
    }

    /// Orders the exporting relay to cut the link: what it says when it has.
    pub fn cut(&mut self) -> Value {
        ours::cut(self.relays.last_mut().unwrap())
    }
}

fn copy(service: SocketAddr) -> System {
    let mut there = Process::play("copy", &[&service.to_string()]);
    let mut here = Process::play("copy", &[&there.line()]);
    let address = here.line().parse().unwrap();
    System { kind: Kind::Copy, address, listener: None, relays: vec![here, there], side: Side::Plain }
}

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
