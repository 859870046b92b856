//! The heart of a relay: the view in force, what is known of the peer, and every connection and stream, so that each
//! change re-judges each of them. Opens no socket itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use securelink_pki::tls::{Clock, TlsError};
use securelink_pki::{PeerTrust, verify};
use securelink_relay_config::{
    Cut, CutBook, CutScope, Declaration, DeclarationError, ErrorReport, Head, Latch, LinkRef, Millis, ProbeReport,
    Snapshot, ended, successor,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Facts;
use crate::failure::Failure;
use crate::judge::{Denial, Direction, Judgment, PeerView, gate, judge};
use crate::limits::Buckets;
use crate::metrics::LinkMetrics;
use crate::peer::PeerState;
use crate::pool::Pool;
use crate::relay::Store;
use crate::reverse::Reverse;
use crate::streams::{Entry, Streams};
use crate::view::{Credentials, View};
use crate::wire::{Code, ReplicaId, Role};

/// Dials for streams in flight on a link.
const DIALS: usize = 64;

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
    peer: Mutex<PeerState>,
    latch: Mutex<Latch>,
    verdicts: Mutex<Verdicts>,
    connections: Mutex<BTreeMap<u64, Arc<Facts>>>,
    next_connection: AtomicU64,
    /// Control connections among them.
    controls: AtomicUsize,
    pub(crate) streams: Arc<Streams>,
    pub(crate) opened: AtomicU64,
    pub(crate) buckets: Buckets,
    pub(crate) pool: Pool,
    pub(crate) reverse: Reverse,
    pub(crate) probe: Mutex<ProbeReport>,
    /// The endpoint that last worked, by its place in the list.
    pub(crate) preferred: AtomicUsize,
    /// A permit for each dial for a stream.
    pub(crate) dials: Semaphore,
    /// A permit for each handshake a caller may be in.
    pub(crate) handshakes: Arc<Semaphore>,
    /// The last heartbeat's, in microseconds.
    pub(crate) rtt: AtomicU64,
    store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) metrics: LinkMetrics,
    pub(crate) replica: ReplicaId,
    pub(crate) epoch: u64,
    pub(crate) draining: AtomicBool,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What views are made from, beside the snapshot.
struct Written {
    credentials: Credentials,
    book: CutBook,
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
    pub(crate) latch: Latch,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) metrics: LinkMetrics,
    pub(crate) replica: ReplicaId,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let trust = Arc::clone(&parts.view.trust);
        let now = Millis::from(parts.clock.now());
        parts.metrics.version.set(i64::try_from(parts.view.snapshot.version).unwrap_or(i64::MAX));
        Arc::new(Self {
            name: parts.view.snapshot.link.clone(),
            view: ArcSwap::from_pointee(parts.view),
            writing: Mutex::new(Written { credentials: parts.credentials, book: parts.book, rejected: None }),
            generation: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            peer: Mutex::default(),
            latch: Mutex::new(parts.latch),
            verdicts: Mutex::new(Verdicts { trust, known: HashMap::new() }),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            controls: AtomicUsize::new(0),
            streams: Arc::default(),
            opened: AtomicU64::new(0),
            buckets: Buckets::default(),
            pool: Pool::default(),
            reverse: Reverse::default(),
            probe: Mutex::default(),
            preferred: AtomicUsize::new(0),
            dials: Semaphore::new(DIALS),
            handshakes: crate::listeners::handshakes(),
            rtt: AtomicU64::new(0),
            store: parts.store,
            clock: parts.clock,
            metrics: parts.metrics,
            replica: parts.replica,
            epoch: now.0,
            draining: AtomicBool::new(false),
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

    /// The last heartbeat's.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.rtt.load(Ordering::Relaxed))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Tells every stream and connection to look again.
    pub(crate) fn bump(&self) {
        self.generation.send_modify(|generation| *generation += 1);
        self.changed();
    }

    /// Tells those who report.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    /// For a stream or connection: whatever is bumped after this call is seen.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// Changes of the view.
impl Link {
    /// Takes a snapshot in; the caller has checked its version and bound its listeners.
    pub(crate) fn replace(&self, snapshot: Snapshot) -> Result<(), TlsError> {
        let mut written = locked(&self.writing);
        let snapshot = Arc::new(snapshot);
        if written.book.reconcile(&snapshot) {
            self.save_cuts(&written.book);
        }
        self.metrics.version.set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        written.rejected = None;
        self.publish(&written, snapshot)
    }

    /// Takes another leaf in.
    pub(crate) fn install(&self, credentials: Credentials) -> Result<(), TlsError> {
        let mut written = locked(&self.writing);
        written.credentials = credentials;
        let snapshot = Arc::clone(&self.view().snapshot);
        self.publish(&written, snapshot)
    }

    /// Records why a snapshot or a leaf was not taken in.
    pub(crate) fn reject(&self, reason: &str, message: String) {
        let at = self.now();
        locked(&self.writing).rejected = Some(ErrorReport { reason: reason.to_owned(), message, at });
        self.changed();
    }

    /// Cuts, stores the cut, and returns once no stream it forbids is left: whether it was news, and how many ended.
    pub(crate) async fn cut(&self, cut: Cut) -> (bool, u64) {
        let scope = cut.scope.clone();
        let forbidden = move |entry: &Entry| match &scope {
            CutScope::Link => true,
            CutScope::Export(name) => entry.direction == Direction::Incoming && *entry.service == **name,
            CutScope::Import(name) => entry.direction == Direction::Outgoing && *entry.service == **name,
            CutScope::Pin(pin) => entry.pin == *pin,
        };
        let ended = self.streams.count(&forbidden);
        let fresh = {
            let mut written = locked(&self.writing);
            let snapshot = Arc::clone(&self.view().snapshot);
            let fresh = written.book.admit(cut, &snapshot);
            if fresh {
                self.save_cuts(&written.book);
                if let Err(error) = self.publish(&written, snapshot) {
                    tracing::error!(link = %self.name, %error, "the cut could not be put in force");
                }
            }
            fresh
        };
        if fresh {
            self.streams.none(forbidden).await;
        }
        (fresh, u64::try_from(ended).unwrap_or(u64::MAX))
    }

    fn publish(&self, written: &Written, snapshot: Arc<Snapshot>) -> Result<(), TlsError> {
        let cuts = written.book.effective(&snapshot);
        let view = View::new(snapshot, cuts, &written.credentials, &self.clock, Some(&self.view()))?;
        self.view.store(Arc::new(view));
        self.bump();
        Ok(())
    }

    fn save_cuts(&self, book: &CutBook) {
        if let Err(error) = self.store.save_cuts(book) {
            tracing::error!(link = %self.name, %error, "cuts could not be stored; they hold until this process ends");
        }
    }
}

/// Connections and what they say.
impl Link {
    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Lists a connection and hears its HELLO.
    pub(crate) fn admit(&self, facts: &Arc<Facts>) {
        locked(&self.connections).insert(facts.id, Arc::clone(facts));
        let head = facts.head().clone();
        let now = self.now();
        let control = facts.role == Role::Control;
        let mut peer = self.peer();
        let news = peer.heads.observe(&head);
        if control {
            self.controls.fetch_add(1, Ordering::AcqRel);
            peer.last_heard = Some(now);
            peer.ever_connected = true;
            peer.connected_since.get_or_insert(now);
            peer.last_error = None;
        }
        drop(peer);
        // A connection like all others changes no judgment: thousands of streams are not to look again for each.
        if news || control {
            self.bump();
        }
    }

    pub(crate) fn forget(&self, id: u64) {
        let gone = locked(&self.connections).remove(&id);
        if gone.is_some_and(|facts| facts.role == Role::Control) {
            self.controls.fetch_sub(1, Ordering::AcqRel);
            if !self.is_connected() {
                self.peer().connected_since = None;
            }
            self.bump();
        }
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Facts>> {
        locked(&self.connections).values().cloned().collect()
    }

    /// Whether we know where to dial the peer.
    pub(crate) fn dials(&self) -> bool {
        !self.view.load().snapshot.peer.endpoints.is_empty()
    }

    /// Whether a control connection is up, in either direction.
    pub(crate) fn is_connected(&self) -> bool {
        self.controls.load(Ordering::Acquire) > 0
    }

    /// A head came on a connection.
    pub(crate) fn heard_head(&self, facts: &Facts, head: &Head) {
        {
            let mut last = facts.head();
            *last = successor(&last, head);
        }
        self.peer().heads.observe(head);
        self.bump();
    }

    /// A declaration came.
    pub(crate) fn heard_declaration(&self, bytes: &[u8]) -> Result<(), DeclarationError> {
        let declaration = Declaration::from_bytes(bytes)?;
        if self.peer().remember(bytes, declaration) {
            self.bump();
        }
        Ok(())
    }

    /// An attempt of ours failed.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.count(failure, |peer| &mut peer.last_error);
    }

    /// A caller was refused. A stranger's knock must not hide why we do not reach the peer.
    pub(crate) fn refused(&self, failure: &Failure) {
        self.count(failure, |peer| &mut peer.last_refused);
    }

    fn count(&self, failure: &Failure, place: impl FnOnce(&mut PeerState) -> &mut Option<ErrorReport>) {
        self.metrics.refused(failure.reason());
        let now = self.now();
        let mut peer = self.peer();
        let error = peer.count(failure, now);
        *place(&mut peer) = Some(error);
        drop(peer);
        self.changed();
    }
}

/// Judgments.
impl Link {
    /// Whether a connection's peer is still the one this link trusts.
    pub(crate) fn trusts(&self, facts: &Facts) -> bool {
        let view = self.view();
        if Arc::ptr_eq(&facts.trust, &view.trust) {
            return true;
        }
        let mut verdicts = locked(&self.verdicts);
        if !Arc::ptr_eq(&verdicts.trust, &view.trust) {
            *verdicts = Verdicts { trust: Arc::clone(&view.trust), known: HashMap::new() };
        }
        // A leaf that has run out since is another rule's business (fault F86).
        let now = self.clock.now().min(facts.peer.not_after);
        *verdicts.known.entry(facts.peer.chain_hash).or_insert_with(|| verify(&facts.chain, &view.trust, now).is_ok())
    }

    fn with_peer<T>(&self, head: &Head, use_it: impl FnOnce(&PeerView<'_>, Millis) -> T) -> T {
        let (connected, allowed) = (self.is_connected(), self.view().snapshot.max_staleness_seconds);
        let now = self.now();
        let peer = self.peer();
        let view = PeerView {
            connection: head,
            highest: peer.heads.highest(),
            declaration: &|hash| peer.declaration(hash),
            stale: peer.is_stale(connected, Duration::from_secs(allowed), now),
        };
        use_it(&view, now)
    }

    /// Judges a stream on a connection.
    pub(crate) fn judge(&self, facts: &Facts, direction: Direction, service: &str) -> Judgment {
        if !self.trusts(facts) {
            return Judgment::Deny(Denial::new(Code::TrustChanged, "this side no longer trusts that key"));
        }
        let view = self.view();
        let head = facts.head().clone();
        self.with_peer(&head, |peer, now| judge(&view, peer, (direction, service), &self.latch(), now))
    }

    /// The gate as people see it: by the highest head.
    pub(crate) fn gate(&self) -> Option<securelink_relay_config::GateOpinion> {
        let head = self.peer().heads.highest().cloned()?;
        let view = self.view();
        Some(self.with_peer(&head, |peer, now| gate(&view.head, peer, &self.latch(), now)))
    }

    /// Looks whether time alone changed a judgment, and remembers agreements that ended. `before` is what the last call
    /// returned.
    pub(crate) fn tick(&self, before: &[bool]) -> Vec<bool> {
        let view = self.view();
        let highest = self.peer().heads.highest().cloned();
        let mut heads: Vec<Head> = highest.iter().cloned().collect();
        for facts in locked(&self.connections).values() {
            let head = facts.head();
            if !heads.contains(&head) {
                heads.push(head.clone());
            }
        }
        let now = self.now();
        for (digest, end) in heads.iter().flat_map(|head| ended(&view.head, head, now)) {
            let mut latch = self.latch();
            if latch.record(digest, end)
                && let Err(error) = self.store.save_latch(&latch)
            {
                tracing::error!(link = %self.name, %error, "the agreement's end could not be stored");
            }
        }
        let open: Vec<bool> = heads
            .iter()
            .map(|head| self.with_peer(head, |peer, now| gate(&view.head, peer, &self.latch(), now).verdict.is_ok()))
            .collect();
        self.metrics.agreed.set(i64::from(open.first() == Some(&true)));
        if open != before {
            self.bump();
        }
        open
    }
}
