//! The relays of all links, as pods: what each reports, what it is to run, and which cuts it has to obey.
//!
//! Every replica of the operator keeps up with every relay. Cuts have a way of their own, so that a slow push delays none.

mod connection;
mod follow;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use securelink_pki::PeerTrust;
use securelink_pki::control::client_config;
use securelink_pki::tls::Clock;
use securelink_relay_config::control::{DoctorRequest, GreetRequest, Push, RelayStatus, path};
use securelink_relay_config::{Cut, DoctorReport, GreetReply, LinkRef};
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control::{Controller, CredentialsError};
use crate::hub::Hub;
use crate::metrics::{ByState, Metrics};

pub use connection::{AskError, Connection};

/// The control port in a pod (contracts 4).
const CONTROL_PORT: u16 = 15_444;
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

/// The relays of one link.
struct Link {
    trust: watch::Sender<PeerTrust>,
    cuts: watch::Sender<Arc<BTreeSet<Cut>>>,
    push: watch::Sender<Option<Arc<Push>>>,
    relays: BTreeMap<String, Relay>,
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
    /// Its address.
    pub address: IpAddr,
}

impl RelayPod {
    /// A pod that has an address and has not ended. One that is being deleted still carries streams.
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        Some(Self { uid: pod.uid()?, name: pod.name_any(), address: status.pod_ip.as_ref()?.parse().ok()? })
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

impl Relays {
    /// None yet.
    pub fn new(controller: Arc<Controller>, hub: Hub, metrics: Metrics, stop: CancellationToken) -> Self {
        Self { controller, hub, metrics, stop, links: Mutex::default() }
    }

    /// Keeps up with exactly these relays of a link.
    pub fn keep(self: &Arc<Self>, link: &LinkRef, trust: &PeerTrust, pods: &BTreeSet<RelayPod>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let of = links.entry(link.clone()).or_insert_with(|| Link {
            trust: watch::Sender::new(trust.clone()),
            cuts: watch::Sender::default(),
            push: watch::Sender::default(),
            relays: BTreeMap::new(),
        });
        of.trust.send_if_modified(|old| std::mem::replace(old, trust.clone()) != *trust);
        of.relays.retain(|uid, relay| pods.iter().any(|pod| pod.uid == *uid && pod.address == relay.address.ip()));
        for pod in pods {
            if !of.relays.contains_key(&pod.uid) {
                let relay = self.start(link, of, pod);
                of.relays.insert(pod.uid.clone(), relay);
            }
        }
        self.count(&links);
    }

    fn start(self: &Arc<Self>, link: &LinkRef, of: &Link, pod: &RelayPod) -> Relay {
        let (end, heard) = (self.stop.child_token(), Arc::new(Mutex::new(Heard::default())));
        let address = SocketAddr::new(pod.address, CONTROL_PORT);
        let followed = follow::Followed {
            relays: Arc::clone(self),
            link: link.clone(),
            address,
            trust: of.trust.subscribe(),
            heard: Arc::clone(&heard),
            connected: watch::Sender::new(0),
        };
        followed.start(of.push.subscribe(), of.cuts.subscribe(), &end);
        Relay { address, pod: pod.name.clone(), heard, _end: end.drop_guard() }
    }

    /// Forgets a link that is gone.
    pub fn forget(&self, link: &LinkRef) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.remove(link);
        self.count(&links);
    }

    /// Orders exactly these cuts of a link's relays, those that start later too.
    pub fn cut(&self, link: &LinkRef, cuts: &BTreeSet<Cut>) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = links.get(link) {
            of.cuts.send_if_modified(|old| {
                let news = **old != *cuts;
                if news {
                    *old = Arc::new(cuts.clone());
                }
                news
            });
        }
    }

    /// Gives a link's relays a configuration and a leaf, those that start later too.
    pub fn push(&self, link: &LinkRef, push: Push) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = links.get(link) {
            of.push.send_if_modified(|old| {
                let news = old.as_deref() != Some(&push);
                if news {
                    *old = Some(Arc::new(push));
                }
                news
            });
        }
    }

    /// Gives nothing any more: another replica leads.
    pub fn stop_pushing(&self) {
        for of in self.links.lock().unwrap_or_else(PoisonError::into_inner).values() {
            of.push.send_replace(None);
        }
    }

    /// What the relays of a link say.
    pub fn words(&self, link: &LinkRef) -> Vec<Word> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let word = |relay: &Relay| {
            let heard = relay.heard.lock().unwrap_or_else(PoisonError::into_inner);
            Word {
                pod: relay.pod.clone(),
                status: heard.status.clone(),
                error: heard.error.clone(),
                obeyed: heard.obeyed.clone(),
            }
        };
        links.get(link).map(|of| of.relays.values().map(word).collect()).unwrap_or_default()
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
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn count(&self, links: &HashMap<LinkRef, Link>) {
        let (mut answering, mut silent) = (0, 0);
        for relay in links.values().flat_map(|of| of.relays.values()) {
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
