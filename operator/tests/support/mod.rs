//! A relay's control port as the operator finds it: a real socket, real TLS under a control CA, answers as a test wants them.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use securelink_operator::control::Controller;
use securelink_operator::hub::{Hub, Listener};
use securelink_operator::metrics::Metrics;
use securelink_operator::relays::{Basis, RelayPod, Relays};
use securelink_pki::Transitions;
use securelink_pki::control::{ControlAuthority, server_config};
use securelink_pki::testing::Organization;
use securelink_pki::tls::{Clock, Credentials};
use securelink_relay_config::control::{CutOrder, CutReply, PushReply, RelayStatus, path};
use securelink_relay_config::{
    AgreedReport, Cut, CutScope, Digest, LinkRef, LinkReport, Millis, PeerReport, ProbeReport, SideReport, StreamReport,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// For what comes in milliseconds, but on a machine that is out of breath.
const PATIENCE: Duration = Duration::from_mins(2);

/// How a control port answers.
pub enum Answer {
    /// As a relay would.
    Plain,
    /// With this, and status 200.
    Ok(Value),
    /// With a refusal.
    Refused,
    /// With bytes that are no answer.
    Garbage,
    /// Not at all: the connection ends.
    HangUp,
    /// Not at all: the connection stays.
    Nothing,
}

type Answers = dyn Fn(&str, &Value) -> Answer + Send + Sync;

/// What a control port was asked, and what it holds.
#[derive(Default)]
struct Inside {
    asked: Vec<(String, Value)>,
    cuts: BTreeSet<Cut>,
    connections: usize,
}

/// A control port.
pub struct ControlPort {
    pub pod: RelayPod,
    inside: Arc<Mutex<Inside>>,
    answers: Arc<Mutex<Arc<Answers>>>,
    news: watch::Sender<u64>,
    /// Ends the connections there are.
    epoch: Arc<Mutex<CancellationToken>>,
}

impl ControlPort {
    /// What to ask from now on is answered like this; the connections so far end.
    pub fn answers(&self, answers: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
        self.hang_up();
    }

    /// Ends all connections, as a restart does.
    pub fn hang_up(&self) {
        std::mem::take(&mut *self.epoch.lock().unwrap()).cancel();
    }

    /// Forgets its cuts.
    pub fn forget(&self) {
        self.inside.lock().unwrap().cuts.clear();
    }

    pub fn holds(&self, id: &str) -> bool {
        self.inside.lock().unwrap().cuts.iter().any(|cut| cut.id == id)
    }

    /// Identifiers and revisions of the cuts it was told, in their order.
    pub fn told(&self) -> Vec<(String, u64)> {
        let of = |(path, body): &(String, Value)| {
            let order: CutOrder = (path == path::CUT).then(|| serde_json::from_value(body.clone()).unwrap())?;
            Some((order.cut.id, order.cut.revision))
        };
        self.inside.lock().unwrap().asked.iter().filter_map(of).collect()
    }

    /// How often it was asked this.
    pub fn count(&self, path: &str) -> usize {
        self.inside.lock().unwrap().asked.iter().filter(|(asked, _)| asked == path).count()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.inside.lock().unwrap().connections
    }

    /// Waits for what it was asked.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut news = self.news.subscribe();
        let wait = async {
            while !holds(self) {
                news.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.told()));
    }

    /// Waits until it was told these cuts, in whatever order.
    pub async fn until_told(&self, ids: &[&str]) {
        self.until("cuts", |port| ids.iter().all(|id| port.told().iter().any(|(told, _)| told == id))).await;
    }
}

/// An operator's keeper of relays, and two organizations: whose relays they are, and the peer.
pub struct Keeper {
    pub relays: Arc<Relays>,
    pub metrics: Metrics,
    pub own: Organization,
    pub peer: Organization,
    hub: Hub,
    ca: String,
    stop: CancellationToken,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Keeper {
    pub fn new() -> Self {
        let authority = ControlAuthority::generate(Timestamp::now()).unwrap();
        let (ca, controller) = (authority.certificate_pem(), Arc::new(Controller::new(authority)));
        let (hub, (metrics, _), stop) = (Hub::default(), Metrics::new(), CancellationToken::new());
        let relays = Arc::new(Relays::new(controller, hub.clone(), metrics.clone(), stop.clone()));
        let (own, peer) = (Organization::new("interpol.example"), Organization::new("europol.example"));
        Self { relays, metrics, own, peer, hub, ca, stop }
    }

    /// What the relays of `own` are known by.
    pub fn basis(&self, uid: &str) -> Basis {
        Basis { uid: uid.to_owned(), trust: self.peer.trusts(&self.own), running: None }
    }

    pub fn keep(&self, uid: &str, ports: &[&ControlPort]) {
        self.relays.keep(&link(), &self.basis(uid), &ports.iter().map(|port| port.pod.clone()).collect());
    }

    pub fn cut(&self, ids: &[&str]) {
        self.relays.cut(&link(), &ids.iter().map(|id| cut(id, 1)).collect());
    }

    /// A relay of ours.
    pub async fn port(&self, name: &str) -> ControlPort {
        self.port_of(&self.own, name).await
    }

    /// Somebody's relay that has the address of one of ours.
    pub async fn port_of(&self, owner: &Organization, name: &str) -> ControlPort {
        let leaf = Credentials::new(&owner.leaf_to(&self.peer.domain), &Transitions::none(), None).unwrap();
        let tls = server_config(&leaf, std::slice::from_ref(&self.ca), &Clock::system()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = ControlPort {
            pod: RelayPod { uid: format!("uid-{name}"), name: name.to_owned(), address },
            inside: Arc::default(),
            answers: Arc::new(Mutex::new(Arc::new(|_: &str, _: &Value| Answer::Plain))),
            news: watch::Sender::default(),
            epoch: Arc::default(),
        };
        let serving = Serving {
            inside: Arc::clone(&port.inside),
            answers: Arc::clone(&port.answers),
            news: port.news.clone(),
            epoch: Arc::clone(&port.epoch),
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serving.run(listener, TlsAcceptor::from(tls)) => {}
            }
        });
        port
    }

    /// Waits for what the relays are known to say. What is said is a change.
    pub async fn until<T>(&self, what: &str, said: impl Fn(&Relays) -> Option<T>) -> T {
        let mut changes: Listener = self.hub.listen();
        let wait = async {
            loop {
                if let Some(found) = said(&self.relays) {
                    return found;
                }
                changes.next().await.unwrap();
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.relays.words(&link())))
    }
}

#[derive(Clone)]
struct Serving {
    inside: Arc<Mutex<Inside>>,
    answers: Arc<Mutex<Arc<Answers>>>,
    news: watch::Sender<u64>,
    epoch: Arc<Mutex<CancellationToken>>,
}

impl Serving {
    async fn run(self, listener: TcpListener, tls: TlsAcceptor) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, serving, epoch) = (tls.clone(), self.clone(), self.epoch.lock().unwrap().clone());
            tokio::spawn(async move {
                // Who is not let in, or leaves, is no fault of the port.
                let Ok(stream) = tls.accept(stream).await else { return };
                serving.inside.lock().unwrap().connections += 1;
                let hang_up = epoch.clone();
                let service = service_fn(move |request| serving.clone().answer(request, hang_up.clone()));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = epoch.cancelled() => {}
                    _ = connection => {}
                }
            });
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        hang_up: CancellationToken,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answers = Arc::clone(&self.answers.lock().unwrap());
        let (status, text) = match answers(&path, &body) {
            Answer::Plain => (200, self.plain(&path, &body).to_string()),
            Answer::Ok(value) => (200, value.to_string()),
            Answer::Refused => (409, json!({"reason": "NotRunning", "error": "not now; later"}).to_string()),
            Answer::Garbage => (200, "{\"link\":".to_owned()),
            Answer::HangUp => {
                hang_up.cancel();
                return std::future::pending().await;
            }
            Answer::Nothing => {
                self.asked(path, body);
                return std::future::pending().await;
            }
        };
        self.asked(path, body);
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status.try_into().unwrap();
        Ok(response)
    }

    fn asked(&self, path: String, body: Value) {
        self.inside.lock().unwrap().asked.push((path, body));
        self.news.send_modify(|count| *count += 1);
    }

    fn plain(&self, path: &str, body: &Value) -> Value {
        let mut inside = self.inside.lock().unwrap();
        let answer = match path {
            path::STATUS => serde_json::to_value(status(inside.cuts.iter().map(|cut| cut.id.clone()).collect())),
            path::CUT => {
                let order: CutOrder = serde_json::from_value(body.clone()).unwrap();
                serde_json::to_value(CutReply { fresh: inside.cuts.insert(order.cut), ended: 0, stored: true })
            }
            _ => serde_json::to_value(PushReply {
                version: 1,
                hash: Digest::of(b"x"),
                serial: "01".to_owned(),
                not_after: Millis(1),
            }),
        };
        answer.unwrap()
    }
}

pub fn link() -> LinkRef {
    LinkRef { namespace: "liaison".to_owned(), name: "europol".to_owned() }
}

pub fn cut(id: &str, revision: u64) -> Cut {
    Cut { id: id.to_owned(), revision, scope: CutScope::Link, reason: "r".to_owned() }
}

/// The status of a relay that holds these cuts.
pub fn status(cuts: Vec<String>) -> RelayStatus {
    RelayStatus {
        report: LinkReport {
            link: link(),
            version: 1,
            hash: Digest::of(b"x"),
            formats: vec![1],
            listener: None,
            certificate: None,
            peer: PeerReport::default(),
            agreed: AgreedReport {
                disagreement: None,
                peer_reason: None,
                digest: None,
                recheck: None,
                own: SideReport::default(),
                peer: None,
            },
            probe: ProbeReport::default(),
            exports: Vec::new(),
            imports: Vec::new(),
            streams: StreamReport::default(),
            cuts,
            rejected: None,
        },
        ready: true,
        faults: Vec::new(),
    }
}

/// A pod nobody listens for.
pub async fn nobody(name: &str) -> RelayPod {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    RelayPod { uid: format!("uid-{name}"), name: name.to_owned(), address }
}
