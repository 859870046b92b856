//! Relay processes as they run in pods: the real binary, volumes that are swapped as the kubelet does, and a controller with a
//! certificate under a control CA. What tests of the relay process share.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

pub mod controller;
pub mod pod;
pub mod volume;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use securelink_id::{SpiffeId, TrustDomain};
use securelink_pki::{Intermediate, Leaf, Root};
use securelink_relay_config::{
    Agreement, AgreementTerm, Agreements, DataClass, DialRules, Digest, Endpoint, Export, FORMAT, Import, Limits,
    LinkRef, LinkState, Millis, Peer, Protocol, RecordLayer, Snapshot,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// For what has no promise of its own: a busy machine gets its time, what never comes is noticed.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at something that tells of no change.
const PACE: Duration = Duration::from_millis(25);

/// An organization, whose certificates are good today.
pub struct Organization {
    pub domain: TrustDomain,
    pub root: Root,
    intermediate: Intermediate,
}

impl Organization {
    pub fn new(name: &str) -> Self {
        let domain: TrustDomain = name.parse().unwrap();
        let since = Timestamp::now() - SignedDuration::from_hours(24 * 30);
        let root = Root::generate(&domain, since).unwrap();
        let intermediate = root.issue_intermediate(since).unwrap();
        Self { domain, root, intermediate }
    }

    /// A leaf for its link to `peer`, issued so many hours ago; it lives 72.
    pub fn leaf(&self, peer: &Self, hours_ago: i64) -> Leaf {
        let identity = SpiffeId::link(self.domain.clone(), peer.domain.clone());
        let issued = Timestamp::now() - SignedDuration::from_hours(hours_ago);
        self.intermediate.issue_leaf(&identity, &[], issued).unwrap()
    }
}

pub fn serial(leaf: &Leaf) -> String {
    leaf.serial().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

pub fn link() -> LinkRef {
    LinkRef { namespace: "liaison".to_owned(), name: "partner".to_owned() }
}

/// The first configuration of `own` for its link to `peer`: listens, dials nobody yet, carries nothing yet.
pub fn snapshot(own: &Organization, peer: &Organization, cas: &[&controller::ControlCa]) -> Snapshot {
    let term = AgreementTerm { digest: Digest::of(b"memorandum"), from: Millis(0), until: None };
    Snapshot {
        format: FORMAT,
        version: 1,
        requires: vec![],
        link: link(),
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
        agreements: Agreements { current: Some(Agreement { reference: "MoU".to_owned(), term }), next: None },
        exports: vec![],
        imports: vec![],
        allow_classical_key_exchange: false,
        records: RecordLayer::default(),
        max_staleness_seconds: 3600,
        dial: DialRules::default(),
        limits: Limits::default(),
        contacts: vec![],
        cuts_in_force: vec![],
        seen: std::collections::BTreeMap::default(),
        released: vec![],
        control_cas: cas.iter().map(|ca| ca.pem.clone()).collect(),
    }
}

/// The same, as the next version.
pub fn next(snapshot: &Snapshot, edit: impl FnOnce(&mut Snapshot)) -> Snapshot {
    let mut next = Snapshot { version: snapshot.version + 1, ..snapshot.clone() };
    edit(&mut next);
    next
}

pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { host: address.ip().to_string(), port: address.port() }
}

pub fn export(name: &str, target: SocketAddr) -> Export {
    let (name, target) = (name.to_owned(), endpoint(target));
    Export { name, target, data_class: DataClass::Operational, limits: Limits::default() }
}

pub fn import(name: &str) -> Import {
    let listen = "127.0.0.1:0".parse().unwrap();
    Import { name: name.to_owned(), slot: 0, listen, data_class: DataClass::Operational }
}

/// Asks until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waiting = async {
        loop {
            pace.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
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

/// Sends a text through a stream and expects it back.
pub async fn exchange(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let going = async {
        stream.write_all(text.as_bytes()).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, text.as_bytes());
        Ok(())
    };
    timeout(PATIENCE, going).await.expect("an answer in time")
}
