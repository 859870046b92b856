//! A relay as its owner holds it: started, given snapshots, leaves and cuts, asked for reports, drained.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use securelink_pki::tls::{Clock, TlsError};
use securelink_relay_config::{
    Cut, CutBook, Digest, DoctorReport, GreetReply, Latch, LinkReport, Snapshot, SnapshotError,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::capacity::Capacity;
use crate::link::{Drain, Link, Parts, locked};
use crate::listeners::{Addresses, BindError, Listeners};
use crate::metrics::Metrics;
use crate::replicas::REPLICAS;
use crate::reserved::{self, GreetError};
use crate::view::{Credentials, View};
use crate::wire::ReplicaId;
use crate::{doctor, housekeeping, lanes, report, reverse, supervise};

/// Time for tasks to say goodbye after everything was told to stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a relay that goes away takes new streams: until those who choose it have heard (relay, "Inside").
const GRACE: Duration = Duration::from_secs(5);

/// What a relay starts with. One relay carries one link.
pub struct Setup {
    /// What to run.
    pub snapshot: Snapshot,
    /// Who we are.
    pub credentials: Credentials,
    /// What must survive a restart, read back from [`Setup::store`].
    pub memory: Memory,
    /// Where that is kept.
    pub store: Arc<dyn Store>,
    /// By which certificates and agreements are judged.
    pub clock: Clock,
    /// Shared by the relays of a process.
    pub metrics: Metrics,
    /// Likewise.
    pub capacity: Capacity,
}

/// What must survive a relay's restart.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Agreements seen to end.
    pub latch: Latch,
    /// Cuts that no snapshot has acknowledged which is kept itself; see [`Relay::kept`].
    pub cuts: CutBook,
}

/// Where a relay keeps its [`Memory`]. Called seldom.
pub trait Store: Send + Sync {
    /// Keeps the ends of agreements. Called where a disk may be waited for.
    fn save_latch(&self, latch: &Latch) -> io::Result<()>;
    /// Takes the cuts to keep, in place of those taken before; an error if it cannot. Called in the midst of a cut, which the
    /// next one waits for: must not wait for a disk.
    fn save_cuts(&self, cuts: &CutBook) -> io::Result<()>;
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a snapshot was not adopted. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It does not parse.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is of the past.
    #[error(
        "version {offered} is older than version {running} in force; a controller that was paused may have sent it"
    )]
    Older {
        /// Its version.
        offered: u64,
        /// The version in force.
        running: u64,
    },
    /// The same version with other contents.
    #[error("version {version} is in force with other contents ({running}, not {offered}); two controllers write it")]
    Conflict {
        /// The version.
        version: u64,
        /// The hash in force.
        running: Digest,
        /// The hash offered.
        offered: Digest,
    },
    /// It is for another link.
    #[error("the snapshot is for another link or another pair of organizations; start a relay of its own for it")]
    OtherLink,
}

impl AdoptError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Bind(_) => "BindFailed",
            Self::Tls(_) => "TlsFailed",
            Self::Snapshot(error) => error.reason(),
            Self::Older { .. } => "OlderSnapshot",
            Self::Conflict { .. } => "ConflictingSnapshot",
            Self::OtherLink => "OtherLink",
        }
    }
}

/// What a cut did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutReceipt {
    /// Whether it was news.
    pub fresh: bool,
    /// Streams that it ended.
    pub ended: u64,
}

/// A running relay. Clones hold the same one; it stops when the last is dropped, which is to be before its runtime is: streams
/// that carry much are on threads of the process.
#[derive(Clone)]
pub struct Relay(Arc<Running>);

struct Running {
    link: Arc<Link>,
    listeners: tokio::sync::Mutex<Listeners>,
    addresses: std::sync::Mutex<Addresses>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.link.stop.cancel();
    }
}

impl Relay {
    /// Starts a relay on the current tokio runtime. Its sockets listen when this returns.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        lanes::prepare();
        let listeners = Listeners::default();
        let bound = listeners.bind(&setup.snapshot)?;
        let snapshot = Arc::new(setup.snapshot);
        let stored = setup.memory.cuts;
        let mut book = stored.clone();
        book.reconcile(&snapshot);
        let cuts = book.effective(&snapshot);
        let view = View::new(Arc::clone(&snapshot), cuts, &setup.credentials, &setup.clock, None)?;
        let link = Link::new(Parts {
            view,
            credentials: setup.credentials,
            book,
            stored,
            latch: setup.memory.latch,
            store: setup.store,
            clock: setup.clock,
            metrics: setup.metrics.link(&snapshot.link),
            shares: setup.capacity.open(),
            replica: ReplicaId(reserved::random()),
        });
        link.tasks.spawn(supervise::supervise(Arc::clone(&link)));
        link.tasks.spawn(reverse::keep_parked(Arc::clone(&link)));
        link.tasks.spawn(Arc::clone(&link).settle());
        link.tasks.spawn(Arc::clone(&link).keep_ends());
        link.tasks.spawn(housekeeping::watch_clock(Arc::clone(&link)));
        link.tasks.spawn(housekeeping::keep_probing(Arc::clone(&link)));
        let relay = Self(Arc::new(Running {
            link,
            listeners: tokio::sync::Mutex::new(listeners),
            addresses: std::sync::Mutex::default(),
        }));
        relay.switch(&snapshot, bound).await;
        Ok(relay)
    }

    async fn switch(&self, snapshot: &Snapshot, bound: crate::listeners::Bound) {
        let mut listeners = self.0.listeners.lock().await;
        listeners.switch(&self.0.link, snapshot, bound);
        *locked(&self.0.addresses) = listeners.addresses(snapshot);
    }

    /// Puts another snapshot in force. After an error the last good one stays, and [`Relay::report`] says why.
    pub async fn adopt(&self, snapshot: Snapshot) -> Result<(), AdoptError> {
        let adopted = self.try_adopt(snapshot).await;
        if let Err(error) = &adopted {
            self.0.link.reject(error.reason(), error.to_string());
        }
        adopted
    }

    async fn try_adopt(&self, snapshot: Snapshot) -> Result<(), AdoptError> {
        let mut listeners = self.0.listeners.lock().await;
        let running = self.0.link.view();
        if snapshot.link != running.snapshot.link
            || snapshot.own != running.snapshot.own
            || snapshot.peer.trust_domain != running.snapshot.peer.trust_domain
        {
            return Err(AdoptError::OtherLink);
        }
        let (version, offered) = (snapshot.version, snapshot.hash());
        if version < running.snapshot.version {
            return Err(AdoptError::Older { offered: version, running: running.snapshot.version });
        }
        if version == running.snapshot.version {
            return if offered == running.hash {
                Ok(())
            } else {
                Err(AdoptError::Conflict { version, running: running.hash, offered })
            };
        }
        let bound = listeners.bind(&snapshot)?;
        self.0.link.replace(snapshot.clone())?;
        listeners.switch(&self.0.link, &snapshot, bound);
        *locked(&self.0.addresses) = listeners.addresses(&snapshot);
        self.0.link.changed();
        Ok(())
    }

    /// Says that a restart will find the snapshot of this version. Only then cuts that it acknowledges are no longer stored:
    /// under an older one they have to hold.
    pub fn kept(&self, version: u64) {
        self.0.link.kept(version);
    }

    /// Records why something was refused before it came here; what is in force stays.
    pub fn refuse(&self, reason: &str, message: String) {
        self.0.link.reject(reason, message);
    }

    /// Puts another leaf in force. Connections are made anew with it; streams on the old ones go on.
    pub fn install(&self, credentials: Credentials) -> Result<(), TlsError> {
        let installed = self.0.link.install(credentials);
        if let Err(error) = &installed {
            self.0.link.reject("TlsFailed", error.to_string());
        }
        installed
    }

    /// Cuts at once, and returns when nothing that the cut forbids is left. A cut that was seen before does nothing.
    pub async fn cut(&self, cut: Cut) -> CutReceipt {
        let (fresh, ended) = self.0.link.cut(cut).await;
        CutReceipt { fresh, ended }
    }

    /// The state of the link.
    pub fn report(&self) -> LinkReport {
        report::report(&self.0.link, &locked(&self.0.addresses))
    }

    /// Raised whenever the report changed in a way people care about.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.link.changes.subscribe()
    }

    /// Sends the peer a text and brings back the proof that it arrived.
    pub async fn greet(&self, text: &str) -> Result<GreetReply, GreetError> {
        reserved::greet(&self.0.link, text).await
    }

    /// Looks at everything a stream needs, one thing after the other, and says what to do about what does not work.
    pub async fn doctor(&self) -> DoctorReport {
        let link = &self.0.link;
        let mut findings = doctor::way(link).await;
        findings.extend(doctor::services(link, &self.report()).await);
        DoctorReport { link: link.name.clone(), at: link.now(), findings }
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.link.view().snapshot)
    }

    /// Whether it can carry a stream: listening, not draining and, if it serves imports, with a live link.
    pub fn is_ready(&self) -> bool {
        self.0.link.is_ready()
    }

    /// Tells our siblings' identities, which are told to the peer so that it finds them all behind one address. In place of
    /// those told before.
    pub fn introduce(&self, siblings: Vec<ReplicaId>) {
        let mut named: Vec<_> = siblings.into_iter().filter(|sibling| *sibling != self.0.link.replica).collect();
        named.truncate(REPLICAS);
        self.0.link.siblings.store(Arc::new(named));
        self.0.link.bump();
    }

    /// Our own identity among them: another one at each start.
    pub fn replica(&self) -> ReplicaId {
        self.0.link.replica
    }

    /// Says that it goes away, takes streams for a moment more, then none; gives those that live until `deadline` from now,
    /// resets the rest and stops.
    pub async fn drain(&self, deadline: Duration) {
        let grace = if self.0.link.is_connected() { GRACE.min(deadline / 2) } else { Duration::ZERO };
        self.leave(grace, deadline).await;
    }

    /// The same for one that has no siblings: nobody has to hear where else to go, so from now on it takes no stream.
    pub async fn finish(&self, deadline: Duration) {
        self.leave(Duration::ZERO, deadline).await;
    }

    async fn leave(&self, grace: Duration, deadline: Duration) {
        let link = &self.0.link;
        let start = Instant::now();
        let drain =
            link.drain.get_or_init(|| Drain { closing: AtomicBool::new(grace.is_zero()), until: start + deadline });
        link.bump();
        tokio::select! {
            () = sleep(grace) => {}
            () = link.stop.cancelled() => {}
        }
        drain.closing.store(true, Ordering::Release);
        link.bump();
        // What is left is reset below.
        let _ = timeout_at(start + deadline, link.streams.none(|_| true)).await;
        link.stop.cancel();
        link.tasks.close();
        if timeout(FAREWELL, link.tasks.wait()).await.is_err() {
            tracing::warn!(link = %link.name, "some tasks did not end in time; their sockets close with the process");
        }
    }
}
