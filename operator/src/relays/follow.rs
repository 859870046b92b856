//! What goes on with one relay: its status is read, it is given what it is to run, and it is told what to cut.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::Method;
use jiff::Timestamp;
use securelink_pki::PeerTrust;
use securelink_relay_config::control::{CutOrder, CutReply, PushReply, RelayStatus, path};
use securelink_relay_config::{Cut, LinkRef, Millis, ProbeReport, StreamReport};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{AskError, AskFailed, Connection, Heard, Relays};
use crate::hub::Change;

/// Between two looks at a relay's status.
const LOOK: Duration = Duration::from_secs(2);
/// A status, and a cut: milliseconds, but on a node that is out of breath.
const BRIEF: Duration = Duration::from_secs(5);
/// For an answer to a cut over the connection that is there: after it the cut goes over another one as well.
const SWIFT: Duration = Duration::from_millis(500);
/// A snapshot is written to the relay's disk before it is answered.
const PUSH: Duration = Duration::from_secs(10);
/// Between two attempts to connect, doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One relay, as it is followed.
pub(super) struct Followed {
    pub(super) relays: Arc<Relays>,
    pub(super) link: LinkRef,
    pub(super) address: SocketAddr,
    pub(super) trust: watch::Receiver<PeerTrust>,
    pub(super) heard: Arc<Mutex<Heard>>,
    /// The connection by which its status is read and its configuration given, while it lasts.
    pub(super) held: Arc<tokio::sync::Mutex<Option<Connection>>>,
    /// How often a connection came up: a relay that was restarted is told everything again.
    pub(super) connected: watch::Sender<u64>,
}

/// A cut by its identifier and revision.
type Key = (String, u64);

/// What a relay was told while one connection lasted.
#[derive(Default)]
struct Told {
    /// Which connection.
    connection: u64,
    answered: BTreeSet<Key>,
    /// To be told again, after a pause.
    failed: BTreeSet<Key>,
}

impl Told {
    /// What is still to be told, with what was never tried first: a cut that fails holds up no other.
    fn left(&mut self, ordered: &BTreeSet<Cut>, connection: u64) -> Vec<Cut> {
        if self.connection != connection {
            *self = Self { connection, ..Self::default() };
        }
        let keys: BTreeSet<Key> = ordered.iter().map(key).collect();
        // What is ordered again later is told again.
        self.answered.retain(|known| keys.contains(known));
        self.failed.retain(|known| keys.contains(known));
        let mut left: Vec<Cut> = ordered.iter().filter(|cut| !self.answered.contains(&key(cut))).cloned().collect();
        left.sort_by_key(|cut| self.failed.contains(&key(cut)));
        left
    }

    /// Whether it was tried.
    fn knows(&self, cut: &Cut) -> bool {
        self.answered.contains(&key(cut)) || self.failed.contains(&key(cut))
    }
}

/// How telling ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    Failed,
}

fn key(cut: &Cut) -> Key {
    (cut.id.clone(), cut.revision)
}

impl Followed {
    pub(super) fn start(
        self,
        push: watch::Receiver<Option<Bytes>>,
        cuts: watch::Receiver<Arc<BTreeSet<Cut>>>,
        end: &CancellationToken,
    ) {
        let followed = Arc::new(self);
        let look = {
            let followed = Arc::clone(&followed);
            move || Box::pin(Arc::clone(&followed).look(push.clone())) as Work
        };
        let order = {
            let followed = Arc::clone(&followed);
            move || Box::pin(Arc::clone(&followed).order(cuts.clone())) as Work
        };
        for work in [Box::new(look) as Box<dyn Fn() -> Work + Send>, Box::new(order)] {
            let (end, followed) = (end.clone(), Arc::clone(&followed));
            tokio::spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = followed.again_after_faults(work) => {}
                }
            });
        }
    }

    /// A fault of ours must not end the way of cuts to a relay for good.
    async fn again_after_faults(&self, work: Box<dyn Fn() -> Work + Send>) {
        while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            self.relays.metrics.panics.inc();
            tracing::error!(link = %self.link, "a fault of the operator itself; report it with the log");
            tokio::time::sleep(PAUSES.1).await;
        }
    }

    /// Reads the status again and again, and gives what is to be run.
    async fn look(self: Arc<Self>, mut push: watch::Receiver<Option<Bytes>>) {
        let mut pause = PAUSES.0;
        loop {
            match self.open().await {
                Ok(connection) => {
                    pause = PAUSES.0;
                    *self.held.lock().await = Some(connection);
                    self.connected.send_modify(|count| *count += 1);
                    let why = self.converse(&mut push).await;
                    *self.held.lock().await = None;
                    self.hear_nothing(&why);
                }
                Err(why) => self.hear_nothing(&why.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Until the connection breaks; why it did.
    async fn converse(&self, push: &mut watch::Receiver<Option<Bytes>>) -> String {
        let mut given: Option<Bytes> = None;
        loop {
            let mut held = self.held.lock().await;
            let Some(connection) = held.as_mut() else { return "it broke over a cut".to_owned() };
            let wanted = push.borrow_and_update().clone();
            if let Some(wanted) = wanted.filter(|wanted| given.as_ref() != Some(wanted)) {
                match connection.ask::<PushReply>(Method::PUT, path::SNAPSHOT, wanted.clone(), PUSH).await {
                    Ok(_) => given = Some(wanted),
                    // What it refuses it would refuse again; its status says so too.
                    Err(error) if error.is_refusal() => {
                        tracing::warn!(link = %self.link, %error, "a relay refused what it was given");
                        given = Some(wanted);
                    }
                    Err(error) => return error.to_string(),
                }
            }
            let asked = Timestamp::now();
            match connection.get::<RelayStatus>(path::STATUS, BRIEF).await {
                Ok(status) => self.hear(status, asked),
                Err(error) => return error.to_string(),
            }
            drop(held);
            tokio::select! {
                changed = push.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Tells what to cut, at once and until it is obeyed; again whenever the relay may have been restarted.
    async fn order(self: Arc<Self>, mut cuts: watch::Receiver<Arc<BTreeSet<Cut>>>) {
        let (mut connected, mut connection) = (self.connected.subscribe(), None);
        let (mut told, mut pause, mut due) = (Told::default(), PAUSES.0, Instant::now());
        loop {
            let (ordered, count) = (cuts.borrow_and_update().clone(), *connected.borrow_and_update());
            let left = told.left(&ordered, count);
            self.forget_all_but(&ordered);
            if ordered.is_empty() {
                connection = None;
            }
            if self.tell_all(left, &mut told, (&mut connection, &mut cuts), due).await == Ended::Failed {
                due = Instant::now() + pause;
                pause = (pause * 2).min(PAUSES.1);
            }
            if told.failed.is_empty() {
                pause = PAUSES.0;
            }
            tokio::select! {
                changed = cuts.changed() => if changed.is_err() { return },
                _ = connected.changed() => {}
                () = tokio::time::sleep_until(due), if !told.failed.is_empty() => {}
            }
        }
    }

    /// Tells each of `left`, and those that failed once not before they are `due`.
    async fn tell_all(
        self: &Arc<Self>,
        left: Vec<Cut>,
        told: &mut Told,
        (connection, cuts): (&mut Option<Connection>, &mut watch::Receiver<Arc<BTreeSet<Cut>>>),
        due: Instant,
    ) -> Ended {
        let (mut ended, mut is_reached) = (Ended::Well, true);
        for cut in left {
            let again = told.failed.contains(&key(&cut));
            if again && Instant::now() < due {
                break;
            }
            let result = if !is_reached {
                None
            } else if again {
                // A new order does not wait for one that hangs.
                tokio::select! {
                    biased;
                    () = async { drop(cuts.wait_for(|now| !now.iter().all(|cut| told.knows(cut))).await) } => {
                        *connection = None;
                        return ended;
                    }
                    result = self.tell(connection, &cut) => Some(result),
                }
            } else {
                Some(self.tell(connection, &cut).await)
            };
            match result {
                Some(Ok(())) => {
                    told.failed.remove(&key(&cut));
                    told.answered.insert(key(&cut));
                    continue;
                }
                Some(Err(error)) => {
                    is_reached = matches!(&error, AskFailed::Ask(error) if !error.is_unreached());
                    tracing::warn!(link = %self.link, cut = cut.id, %error, "a relay could not be told of a cut yet");
                }
                None => {}
            }
            told.failed.insert(key(&cut));
            ended = Ended::Failed;
        }
        ended
    }

    async fn tell(self: &Arc<Self>, connection: &mut Option<Connection>, cut: &Cut) -> Result<(), AskFailed> {
        let order = CutOrder { link: self.link.clone(), cut: cut.clone() };
        let at_once = if connection.is_none() { self.tell_at_once(&order).await } else { None };
        let answer = match (at_once, &mut *connection) {
            (Some(answer), _) => answer,
            (None, Some(open)) => self.tell_over(open, &order).await,
            (None, none) => self.tell_over(none.insert(self.open().await?), &order).await,
        };
        if answer.as_ref().is_err_and(|error| !error.is_refusal()) {
            *connection = None;
        }
        Ok(answer?)
    }

    async fn tell_over(&self, connection: &mut Connection, order: &CutOrder) -> Result<(), AskError> {
        let reply: CutReply = connection.send(Method::POST, path::CUT, order, BRIEF).await?;
        // Else it holds it already, as its status says, or takes it for an old one: then it does not obey.
        if reply.fresh {
            self.lock().obeyed.insert(key(&order.cut), Timestamp::now());
            self.relays.hub.tell(Change::Cut(self.link.clone()));
        }
        Ok(())
    }

    /// Tells over the connection that is there, if nothing else goes over it now: of a cut of many relays, new connections
    /// would take most of the time. Nothing where there is none that answers.
    async fn tell_at_once(self: &Arc<Self>, order: &CutOrder) -> Option<Result<(), AskError>> {
        let mut held = Arc::clone(&self.held).try_lock_owned().ok()?;
        let (followed, order) = (Arc::clone(self), order.clone());
        // What is only slow is not broken off: a new connection would cost a relay that is out of breath more.
        let told = tokio::spawn(async move {
            let answer = followed.tell_over(held.as_mut()?, &order).await;
            if answer.as_ref().is_err_and(|error| !error.is_refusal()) {
                *held = None;
                return None;
            }
            Some(answer)
        });
        timeout(SWIFT, told).await.ok()?.ok()?
    }

    fn forget_all_but(&self, ordered: &BTreeSet<Cut>) {
        self.lock().obeyed.retain(|known, _| ordered.iter().any(|cut| key(cut) == *known));
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Connection, AskFailed> {
        let trust = self.trust.borrow().clone();
        Ok(Connection::open(self.address, self.relays.tls(&trust)?).await?)
    }

    /// A cut that is not among those in force, although it was obeyed before the relay was `asked`, is obeyed no longer.
    fn hear(&self, status: RelayStatus, asked: Timestamp) {
        let mut heard = self.lock();
        heard.obeyed.retain(|(id, _), at| *at >= asked || status.report.cuts.contains(id));
        let news = heard.status.as_ref().map(coarse) != Some(coarse(&status));
        heard.status = Some(status);
        heard.error = None;
        drop(heard);
        if news {
            self.relays.hub.tell(Change::Link(self.link.clone()));
        }
    }

    fn hear_nothing(&self, why: &str) {
        let mut heard = self.lock();
        let news = heard.status.take().is_some() || heard.error.is_none();
        heard.error = Some(why.to_owned());
        drop(heard);
        if news {
            self.relays.hub.tell(Change::Link(self.link.clone()));
        }
    }
}

/// A status without what moves by itself: only another one of these is worth a look.
fn coarse(status: &RelayStatus) -> RelayStatus {
    let mut status = status.clone();
    let report = &mut status.report;
    report.streams = StreamReport::default();
    report.probe = ProbeReport {
        last_success: report.probe.last_success.map(|_| Millis::default()),
        round_trip_micros: None,
        ..report.probe.clone()
    };
    report.peer.refused.clear();
    report.peer.last_refused = None;
    report.peer.last_seen = report.peer.last_seen.map(|_| Millis::default());
    if let Some(error) = &mut report.peer.last_error {
        error.at = Millis::default();
    }
    status
}
