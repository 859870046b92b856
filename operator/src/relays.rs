//! The relays of all links, as pods: what each reports, what it is to run, and which cuts it has to obey.
//!
//! Every replica of the operator keeps up with every relay. Cuts go over the connection that is there while it is idle, else over
//! one of their own, so that a slow push delays none.

mod connection;
mod follow;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use securelink_pki::PeerTrust;
use securelink_pki::control::client_config;
use securelink_pki::tls::Clock;
use securelink_plan::cut_of_deleted;
use securelink_relay_config::control::{DoctorRequest, GreetRequest, Push, RelayStatus, path};
use securelink_relay_config::{Cut, DoctorReport, GreetReply, LinkRef, Snapshot};
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use crate::control::{Controller, CredentialsError};
use crate::hub::{Change, Hub};
use crate::metrics::{ByState, Metrics};

pub use connection::{AskError, Connection};

/// The control port in a pod (contracts 4).
const CONTROL_PORT: u16 = 15_444;
/// Bytes that hold most configurations with their leaf: text that grew would leave pieces of the key behind.
const LARGE_PUSH: usize = 256 * 1024;
/// The longest that the relay's own check walks.
const DOCTOR: Duration = Duration::from_mins(1);
/// A greeting's round trip, and the wait for a connection to the peer.
const GREET: Duration = Duration::from_secs(30);

/// All relays.
pub struct Relays {
    controller: Arc<Controller>,
    hub: Hub,
    metrics: Metrics,
    stop: CancellationToken,
    links: Mutex<HashMap<LinkRef, Link>>,
}

/// What has to be known of a link to speak to its relays. The last that was known is kept: what is damaged or removed in the
/// cluster must not keep a cut from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    /// The `SecureLink`'s uid.
    pub uid: String,
    /// By what its relays prove themselves.
    pub trust: PeerTrust,
    /// The configuration that they run, as it was last read.
    pub running: Option<Running>,
}

/// A configuration that is kept, in JSON: as a value it would take three times the memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Running(Arc<[u8]>);

impl Running {
    /// Keeps a configuration; what is kept `already` once, if it is the same.
    pub fn keep(snapshot: &Snapshot, already: Option<&Self>) -> Self {
        // Plain values: they always serialize.
        let text = serde_json::to_vec(snapshot).unwrap_or_default();
        already.filter(|already| *already.0 == *text).cloned().unwrap_or_else(|| Self(text.into()))
    }

    /// The configuration. What was written here can be read here: nothing comes of a fault of ours only.
    pub fn read(&self) -> Option<Snapshot> {
        Snapshot::from_bytes(&self.0).ok()
    }
}

/// The relays of one link.
struct Link {
    basis: Basis,
    trust: watch::Sender<PeerTrust>,
    cuts: watch::Sender<Arc<BTreeSet<Cut>>>,
    /// What they are given, as it goes to them: as a value it would take three times the memory. Nothing while there are none.
    push: watch::Sender<Option<Bytes>>,
    relays: BTreeMap<String, Relay>,
    /// Relays of `SecureLink`s that had this name before, until they are gone.
    parted: Vec<Link>,
}

/// One relay.
struct Relay {
    address: SocketAddr,
    pod: String,
    heard: Arc<Mutex<Heard>>,
    _end: DropGuard,
}

/// What was heard of a relay.
#[derive(Debug, Default)]
struct Heard {
    status: Option<RelayStatus>,
    error: Option<String>,
    /// Cuts that it obeyed, by id and revision, and when.
    obeyed: BTreeMap<(String, u64), Timestamp>,
}

/// A relay's pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayPod {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its control port.
    pub address: SocketAddr,
}

impl RelayPod {
    /// A pod that has an address and has not ended. One that is being deleted still carries streams; one without an address
    /// has never run.
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let address: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
        Some(Self { uid: pod.uid()?, name: pod.name_any(), address: (address, CONTROL_PORT).into() })
    }
}

/// What one relay of a link says, or why it says nothing.
#[derive(Clone, Debug)]
pub struct Word {
    /// The relay's pod.
    pub pod: String,
    /// Its report.
    pub status: Option<RelayStatus>,
    /// Why there is none.
    pub error: Option<String>,
    /// Cuts that it obeyed, by id and revision.
    pub obeyed: BTreeMap<(String, u64), Timestamp>,
}

impl Link {
    fn new(basis: &Basis) -> Self {
        Self {
            basis: basis.clone(),
            trust: watch::Sender::new(basis.trust.clone()),
            cuts: watch::Sender::default(),
            push: watch::Sender::default(),
            relays: BTreeMap::new(),
            parted: Vec::new(),
        }
    }

    /// Another `SecureLink` has the name now: the relays so far are given nothing any more, and are cut.
    fn part(&mut self, basis: &Basis) {
        let mut old = std::mem::replace(self, Self::new(basis));
        self.parted = std::mem::take(&mut old.parted);
        old.push.send_replace(None);
        old.order(&BTreeSet::new(), true);
        self.parted.push(old);
    }

    fn order(&self, cuts: &BTreeSet<Cut>, is_gone: bool) {
        let mut cuts = cuts.clone();
        if is_gone {
            cuts.insert(cut_of_deleted(&self.basis.uid));
        }
        self.cuts.send_if_modified(|old| {
            let news = **old != cuts;
            if news {
                *old = Arc::new(cuts);
            }
            news
        });
    }

    fn words(&self) -> impl Iterator<Item = Word> {
        self.relays.values().map(|relay| {
            let heard = relay.heard.lock().unwrap_or_else(PoisonError::into_inner);
            Word {
                pod: relay.pod.clone(),
                status: heard.status.clone(),
                error: heard.error.clone(),
                obeyed: heard.obeyed.clone(),
            }
        })
    }
}

impl Relays {
    /// None yet.
    pub fn new(controller: Arc<Controller>, hub: Hub, metrics: Metrics, stop: CancellationToken) -> Self {
        Self { controller, hub, metrics, stop, links: Mutex::default() }
    }

    /// Keeps up with exactly these relays of a link. Those of a link of another uid that had its name are cut.
    pub fn keep(self: &Arc<Self>, link: &LinkRef, basis: &Basis, pods: &BTreeSet<RelayPod>) {
        let mut links = self.lock();
        let of = links.entry(link.clone()).or_insert_with(|| Link::new(basis));
        if of.basis.uid != basis.uid {
            of.part(basis);
        }
        of.basis.clone_from(basis);
        of.trust.send_if_modified(|old| std::mem::replace(old, basis.trust.clone()) != basis.trust);
        for old in &mut of.parted {
            old.relays.retain(|uid, relay| pods.iter().any(|pod| pod.uid == *uid && pod.address == relay.address));
        }
        of.parted.retain(|old| !old.relays.is_empty());
        let were_there = !of.relays.is_empty();
        of.relays.retain(|uid, relay| pods.iter().any(|pod| pod.uid == *uid && pod.address == relay.address));
        for pod in pods {
            let known = of.parted.iter().any(|old| old.relays.contains_key(&pod.uid));
            if !known && !of.relays.contains_key(&pod.uid) {
                let relay = self.start(link, of, pod);
                of.relays.insert(pod.uid.clone(), relay);
            }
        }
        if of.relays.is_empty() {
            of.push.send_replace(None);
        } else if !were_there {
            // Whoever gives them what they are to run kept nothing for them.
            self.hub.tell(Change::Link(link.clone()));
        }
    }

    fn start(self: &Arc<Self>, link: &LinkRef, of: &Link, pod: &RelayPod) -> Relay {
        let (end, heard) = (self.stop.child_token(), Arc::new(Mutex::new(Heard::default())));
        let followed = follow::Followed {
            relays: Arc::clone(self),
            link: link.clone(),
            address: pod.address,
            trust: of.trust.subscribe(),
            heard: Arc::clone(&heard),
            held: Arc::default(),
            connected: watch::Sender::new(0),
        };
        followed.start(of.push.subscribe(), of.cuts.subscribe(), &end);
        Relay { address: pod.address, pod: pod.name.clone(), heard, _end: end.drop_guard() }
    }

    /// What is kept of a link.
    pub fn basis(&self, link: &LinkRef) -> Option<Basis> {
        Some(self.lock().get(link)?.basis.clone())
    }

    /// All links with relays that are followed.
    pub fn links(&self) -> Vec<LinkRef> {
        self.lock().keys().cloned().collect()
    }

    /// Forgets a link that is gone.
    pub fn forget(&self, link: &LinkRef) {
        self.lock().remove(link);
    }

    /// Orders exactly these cuts of a link's relays, those that start later too.
    pub fn cut(&self, link: &LinkRef, cuts: &BTreeSet<Cut>) {
        if let Some(of) = self.lock().get(link) {
            of.order(cuts, false);
            for old in &of.parted {
                old.order(cuts, true);
            }
        }
    }

    /// What is ordered of a link's relays.
    pub fn ordered(&self, link: &LinkRef) -> BTreeSet<Cut> {
        self.lock().get(link).map(|of| of.cuts.borrow().as_ref().clone()).unwrap_or_default()
    }

    /// Gives a link's relays a configuration and a leaf, those that start later too. Where there are none nothing is kept:
    /// of the first that starts it is told that the link is to be looked at.
    pub fn push(&self, link: &LinkRef, push: &Push) {
        if self.lock().get(link).is_none_or(|of| of.relays.is_empty()) {
            return;
        }
        // There is a key in it, which is wiped with it.
        let mut text = Zeroizing::new(Vec::with_capacity(LARGE_PUSH));
        // Plain values: they always serialize.
        if serde_json::to_writer(&mut *text, push).is_err() {
            return;
        }
        let push = Bytes::from_owner(Zeroizing::new(text.to_vec()));
        if let Some(of) = self.lock().get(link).filter(|of| !of.relays.is_empty()) {
            of.push.send_if_modified(|old| {
                let news = old.as_ref() != Some(&push);
                if news {
                    *old = Some(push);
                }
                news
            });
        }
    }

    /// Gives nothing any more: another replica leads.
    pub fn stop_pushing(&self) {
        for of in self.lock().values() {
            of.push.send_replace(None);
        }
    }

    /// What the relays of a link say.
    pub fn words(&self, link: &LinkRef) -> Vec<Word> {
        self.lock().get(link).map(|of| of.words().collect()).unwrap_or_default()
    }

    /// What relays of links say that had this name before and are gone.
    pub fn parted(&self, link: &LinkRef) -> Vec<Word> {
        let links = self.lock();
        links.get(link).map(|of| of.parted.iter().flat_map(Link::words).collect()).unwrap_or_default()
    }

    /// Has a relay of a link greet the peer.
    pub async fn greet(&self, link: &LinkRef, text: &str) -> Result<GreetReply, AskFailed> {
        let request = GreetRequest { link: link.clone(), text: text.to_owned() };
        let mut connection = self.any(link).await?;
        Ok(connection.send(Method::POST, path::GREET, &request, GREET).await?)
    }

    /// Has a relay of a link walk the way to the peer.
    pub async fn doctor(&self, link: &LinkRef) -> Result<DoctorReport, AskFailed> {
        let mut connection = self.any(link).await?;
        let request = DoctorRequest { link: link.clone() };
        Ok(connection.send(Method::POST, path::DOCTOR, &request, DOCTOR).await?)
    }

    /// A connection to a relay that answers.
    async fn any(&self, link: &LinkRef) -> Result<Connection, AskFailed> {
        let (address, trust) = {
            let links = self.lock();
            let of = links.get(link).ok_or(AskFailed::NoRelay)?;
            let answers = |relay: &&Relay| relay.heard.lock().unwrap_or_else(PoisonError::into_inner).status.is_some();
            let relay = of.relays.values().find(answers).ok_or(AskFailed::NoRelay)?;
            (relay.address, of.trust.borrow().clone())
        };
        Ok(Connection::open(address, self.tls(&trust)?).await?)
    }

    fn tls(&self, trust: &PeerTrust) -> Result<Arc<ClientConfig>, CredentialsError> {
        let credentials = self.controller.credentials(Timestamp::now())?;
        Ok(client_config(&credentials, trust, &Clock::system())?)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LinkRef, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows how many relays answer; at every scrape.
    pub fn count(&self) {
        let (mut answering, mut silent) = (0, 0);
        for relay in self.lock().values().flat_map(|of| of.relays.values()) {
            match relay.heard.lock().unwrap_or_else(PoisonError::into_inner).status {
                Some(_) => answering += 1,
                None => silent += 1,
            }
        }
        self.metrics.relays.get_or_create(&ByState { state: "answering" }).set(answering);
        self.metrics.relays.get_or_create(&ByState { state: "silent" }).set(silent);
    }
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskFailed {
    /// None is there.
    #[error("no relay of this link answers; see the condition RelayAvailable")]
    NoRelay,
    /// The relay.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// This side.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;

    fn relays(hub: &Hub) -> Arc<Relays> {
        let authority = securelink_pki::control::ControlAuthority::generate(Timestamp::now()).unwrap();
        let controller = Arc::new(Controller::new(authority));
        Arc::new(Relays::new(controller, hub.clone(), Metrics::new().0, CancellationToken::new()))
    }

    fn basis() -> Basis {
        let trust = PeerTrust {
            own: "europol.example".parse().unwrap(),
            peer: "interpol.example".parse().unwrap(),
            pins: Vec::new(),
        };
        Basis { uid: "1".to_owned(), trust, running: None }
    }

    #[tokio::test]
    async fn what_relays_are_given_is_kept_only_while_there_are_any_and_of_the_first_it_is_told() {
        let (hub, link) = (Hub::default(), LinkRef { namespace: "n".to_owned(), name: "l".to_owned() });
        let (relays, mut changes) = (relays(&hub), hub.listen());
        // Nobody listens there.
        let pod =
            |uid: &str| RelayPod { uid: uid.to_owned(), name: uid.to_owned(), address: ([127, 0, 0, 1], 1).into() };
        let keeps = || relays.lock().get(&link).is_some_and(|of| of.push.borrow().is_some());
        let push = || relays.push(&link, &Push { snapshot: Some(json!({})), leaf: None });
        push();
        relays.keep(&link, &basis(), &BTreeSet::new());
        push();
        assert_eq!((keeps(), changes.waiting()), (false, None));
        relays.keep(&link, &basis(), &BTreeSet::from([pod("a")]));
        assert_eq!(changes.waiting(), Some(Change::Link(link.clone())));
        push();
        assert!(keeps());
        relays.keep(&link, &basis(), &BTreeSet::from([pod("a"), pod("b")]));
        assert_eq!((keeps(), changes.waiting()), (true, None), "the next finds what is kept");
        relays.keep(&link, &basis(), &BTreeSet::new());
        assert!(!keeps());
    }
}
