//! The heart of a relay: the view in force, what is known of the peer, and every connection and stream, so that each
//! change re-judges each of them. Opens no socket itself.

mod changes;
mod connections;
mod judging;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use securelink_pki::PeerTrust;
use securelink_pki::tls::Clock;
use securelink_relay_config::{CutBook, ErrorReport, Latch, LinkRef, Millis, ProbeReport};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callers::Callers;
use crate::capacity::Shares;
use crate::chains::Chains;
use crate::connection::Facts;
use crate::limits::{Bucket, Buckets, MAX_STREAMS};
use crate::metrics::LinkMetrics;
use crate::peer::PeerState;
use crate::places::Places;
use crate::pool::Pool;
use crate::relay::Store;
use crate::replicas::Replicas;
use crate::reverse::Reverse;
use crate::streams::Streams;
use crate::view::{Credentials, View};
use crate::ways::Names;
use crate::wire::ReplicaId;

/// Dials for streams in flight on a link.
const DIALS: usize = 64;
/// Rounds of judgments a second that the peer can cause: each looks at every stream. More are one, a twentieth of a second
/// later; far below the second that promises P3 and P4 give.
const ROUNDS_PER_SECOND: u32 = 20;
/// News a second that failures and strangers can cause; more are one, likewise.
const NEWS_PER_SECOND: u32 = 20;
/// Between two writings of the ends of agreements: the peer may name a later end, that has passed, in every head.
const KEEP_LATCH_EVERY: Duration = Duration::from_secs(1);
/// Lines a second that the peer, and as many that strangers can put into the log at its usual level. The rest is counted
/// only.
const LINES_PER_SECOND: u32 = 10;

/// See the module.
pub(crate) struct Link {
    pub(crate) name: LinkRef,
    view: ArcSwap<View>,
    /// Whoever makes a new view holds it.
    writing: Mutex<Written>,
    /// Raised by everything that may change a judgment.
    generation: watch::Sender<u64>,
    /// Raised by everything people care about.
    pub(crate) changes: watch::Sender<u64>,
    /// What the peer may still cause at once, and whether a round is due later.
    rounds: Bucket,
    unsettled: Notify,
    /// The same for what only people care about.
    news: Bucket,
    untold: Notify,
    lines: Bucket,
    /// Apart, so that who is nobody silences nothing of the peer's.
    strangers_lines: Bucket,
    peer: Mutex<PeerState>,
    latch: Mutex<Latch>,
    /// The latch holds more than is stored.
    unkept: Notify,
    verdicts: Mutex<Verdicts>,
    pub(crate) chains: Chains,
    connections: Mutex<BTreeMap<u64, Arc<Facts>>>,
    next_connection: AtomicU64,
    /// Control connections among them.
    controls: AtomicUsize,
    pub(crate) streams: Arc<Streams>,
    /// Streams of reserved services: ended and waited for like the others, not counted as anybody's.
    pub(crate) reserved: Arc<Streams>,
    pub(crate) opened: AtomicU64,
    pub(crate) buckets: Buckets,
    pub(crate) pool: Pool,
    pub(crate) reverse: Reverse,
    pub(crate) probe: Mutex<ProbeReport>,
    /// The endpoint that last worked, by its place in the list.
    pub(crate) preferred: AtomicUsize,
    /// A permit for each dial for a stream.
    pub(crate) dials: Semaphore,
    pub(crate) places: Places,
    /// Those in a handshake.
    pub(crate) callers: Arc<Callers>,
    /// A permit for each client of an import.
    pub(crate) clients: Arc<Semaphore>,
    /// The peer's replicas, and what its endpoints' names resolve to.
    pub(crate) replicas: Replicas,
    pub(crate) names: Names,
    /// Our siblings, as PEERS tells them.
    pub(crate) siblings: ArcSwap<Vec<ReplicaId>>,
    store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) metrics: LinkMetrics,
    pub(crate) replica: ReplicaId,
    pub(crate) epoch: u64,
    /// Set once.
    pub(crate) drain: OnceLock<Drain>,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// The relay's end, announced.
pub(crate) struct Drain {
    /// No stream is taken any more.
    pub(crate) closing: AtomicBool,
    /// What lives then is reset.
    pub(crate) until: Instant,
}

/// What views are made from, beside the snapshot.
struct Written {
    credentials: Credentials,
    book: CutBook,
    /// What the store holds: beside the book what the snapshot acknowledges, until that is kept itself.
    stored: CutBook,
    rejected: Option<ErrorReport>,
}

/// Whether chains are still trusted, under one trust: each distinct one is judged once (relay, "Inside").
struct Verdicts {
    trust: Arc<PeerTrust>,
    known: HashMap<[u8; 32], bool>,
}

/// What a link starts with; see [`crate::Setup`].
pub(crate) struct Parts {
    pub(crate) view: View,
    pub(crate) credentials: Credentials,
    pub(crate) book: CutBook,
    /// What the store holds.
    pub(crate) stored: CutBook,
    pub(crate) latch: Latch,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) metrics: LinkMetrics,
    pub(crate) shares: Shares,
    pub(crate) replica: ReplicaId,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let trust = Arc::clone(&parts.view.trust);
        let now = Millis::from(parts.clock.now());
        let Shares { handshakes, proved, strangers, controls } = parts.shares;
        parts.metrics.version.set(i64::try_from(parts.view.snapshot.version).unwrap_or(i64::MAX));
        Arc::new(Self {
            name: parts.view.snapshot.link.clone(),
            view: ArcSwap::from_pointee(parts.view),
            writing: Mutex::new(Written {
                credentials: parts.credentials,
                book: parts.book,
                stored: parts.stored,
                rejected: None,
            }),
            generation: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            rounds: Bucket::default(),
            unsettled: Notify::new(),
            news: Bucket::default(),
            untold: Notify::new(),
            lines: Bucket::default(),
            strangers_lines: Bucket::default(),
            peer: Mutex::default(),
            latch: Mutex::new(parts.latch),
            unkept: Notify::new(),
            verdicts: Mutex::new(Verdicts { trust, known: HashMap::new() }),
            chains: Chains::default(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            controls: AtomicUsize::new(0),
            streams: Arc::default(),
            reserved: Arc::default(),
            opened: AtomicU64::new(0),
            buckets: Buckets::default(),
            pool: Pool::default(),
            reverse: Reverse::default(),
            probe: Mutex::default(),
            preferred: AtomicUsize::new(0),
            dials: Semaphore::new(DIALS),
            places: Places::new(controls),
            callers: Callers::new(handshakes, proved, strangers),
            clients: Arc::new(Semaphore::new(MAX_STREAMS as usize)),
            replicas: Replicas::default(),
            names: Names::default(),
            siblings: ArcSwap::default(),
            store: parts.store,
            clock: parts.clock,
            metrics: parts.metrics,
            replica: parts.replica,
            epoch: now.0,
            drain: OnceLock::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    pub(crate) fn now(&self) -> Millis {
        Millis::from(self.clock.now())
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(crate) fn peer(&self) -> MutexGuard<'_, PeerState> {
        locked(&self.peer)
    }

    pub(crate) fn latch(&self) -> MutexGuard<'_, Latch> {
        locked(&self.latch)
    }

    pub(crate) fn rejected(&self) -> Option<ErrorReport> {
        locked(&self.writing).rejected.clone()
    }

    /// The owner wants it to end: it says so and is not Ready.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// It takes no stream any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.drain.get().is_some_and(|drain| drain.closing.load(Ordering::Acquire))
    }

    /// How long streams have that live now.
    pub(crate) fn drain_left(&self) -> Duration {
        self.drain.get().map(|drain| drain.until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// Whether it can carry a stream (product, "In the cluster").
    pub(crate) fn is_ready(&self) -> bool {
        let live = self.view().snapshot.imports.is_empty() || self.is_connected();
        live && !self.stop.is_cancelled() && !self.is_draining()
    }

    /// Tells every stream and connection to look again.
    pub(crate) fn bump(&self) {
        self.generation.send_modify(|generation| *generation += 1);
        self.changed();
    }

    /// The same for what the peer causes: at once, unless it does so again and again.
    pub(crate) fn bump_soon(&self) {
        if self.rounds.admit(ROUNDS_PER_SECOND, Instant::now()) {
            self.bump();
        } else {
            self.unsettled.notify_one();
        }
    }

    /// Makes up for what [`Link::bump_soon`] and [`Link::changed_soon`] put off, until the relay stops.
    pub(crate) async fn settle(self: Arc<Self>) {
        let settling = async {
            loop {
                self.unsettled.notified().await;
                sleep(Duration::from_secs(1) / ROUNDS_PER_SECOND).await;
                self.bump();
            }
        };
        let telling = async {
            loop {
                self.untold.notified().await;
                // Out of the same bucket as what is told at once: both together keep to the rate.
                while !self.news.admit(NEWS_PER_SECOND, Instant::now()) {
                    sleep(Duration::from_secs(1) / NEWS_PER_SECOND).await;
                }
                self.changed();
            }
        };
        self.unless_stopped(async { tokio::join!(settling, telling) }).await;
    }

    /// Whether a line that the peer causes may be said aloud.
    pub(crate) fn may_say(&self) -> bool {
        self.lines.admit(LINES_PER_SECOND, Instant::now())
    }

    /// Whether a line that anybody can cause may be said aloud.
    pub(crate) fn may_say_of_strangers(&self) -> bool {
        self.strangers_lines.admit(LINES_PER_SECOND, Instant::now())
    }

    /// What `future` brings, unless the relay stops before.
    pub(crate) async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            done = future => Some(done),
        }
    }

    /// Tells those who report.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    /// The same for what anybody can cause: at once, unless it happens again and again.
    pub(crate) fn changed_soon(&self) {
        if self.news.admit(NEWS_PER_SECOND, Instant::now()) {
            self.changed();
        } else {
            self.untold.notify_one();
        }
    }

    /// For a stream or connection: whatever is bumped after this call is seen.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
