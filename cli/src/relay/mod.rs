//! The relay process: one process, one link, as it runs in a pod.
//!
//! Its configuration and its leaf are mounted and pushed; it decides nothing about them but whether they may be used, and goes
//! on with the last good ones whatever comes. What must outlive its container is in scratch. It holds no credential but its
//! leaf.

mod adopt;
mod leaf;
mod mounted;
mod scratch;
mod verbs;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use securelink_relay::{Clock, Metrics};
use securelink_relay_config::control::RelayStatus;
use securelink_relay_config::{ErrorReport, LinkRef};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::adopt::{Judged, Running};
use self::scratch::Scratch;
use crate::control::{ControlError, Guard, HealthPort, Port};
use crate::runtime::watching::{DEBOUNCE, Watch};

/// Between two looks at what is mounted, where the system tells of no change.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The same while there is nothing to run yet, or something could not be had, such as a port.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What a relay process is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mounted folder with `relay.json`.
    pub config: PathBuf,
    /// The mounted folder with the leaf.
    pub leaf: PathBuf,
    /// The folder that outlives the container.
    pub scratch: PathBuf,
    /// Where controllers ask.
    pub control: SocketAddr,
    /// Where metrics and health are shown, if anywhere.
    pub metrics: Option<SocketAddr>,
}

/// Why a relay process could not start. What is wrong inside of the folders does not stop it: it waits for better.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No folder.
    #[error("{} is no folder that can be read: {source}; check what is mounted there", .path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No thread.
    #[error("the thread that writes to scratch cannot be started: {0}; look at the limits of this container")]
    Thread(io::Error),
    /// The control port or the metrics port.
    #[error(transparent)]
    Port(#[from] ControlError),
}

/// A running relay process. Cheap to clone.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    options: Options,
    clock: Clock,
    metrics: Metrics,
    scratch: Scratch,
    running: OnceLock<Running>,
    /// Held by whoever changes what runs. A cut does not wait for it.
    changing: tokio::sync::Mutex<Judged>,
    /// Who may ask.
    guard: watch::Sender<Option<Guard>>,
    /// What is wrong with what is mounted, by where.
    faults: Mutex<BTreeMap<Place, ErrorReport>>,
    control: SocketAddr,
    shown: Option<SocketAddr>,
    /// Ends the looks.
    stop: CancellationToken,
    /// Ends the ports, after everything else.
    closed: CancellationToken,
    tasks: TaskTracker,
}

/// Where something can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Config,
    Leaf,
    /// What scratch held at the start.
    Scratch,
    /// Starting the relay.
    Start,
    /// The TLS of the control port.
    Control,
}

impl Process {
    /// Starts the process. The relay itself starts as soon as there is a configuration and a leaf for it.
    pub async fn start(options: Options) -> Result<Self, ProcessError> {
        [&options.config, &options.leaf, &options.scratch].into_iter().try_for_each(|path| folder(path))?;
        let scratch = Scratch::open(&options.scratch).map_err(ProcessError::Thread)?;
        let port = Port::bind(options.control).await?;
        let health = match options.metrics {
            Some(address) => Some(HealthPort::bind(address).await?),
            None => None,
        };
        let mut registry = Registry::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("securelink_build", "The version that runs", Info::new(version));
        let watch = Watch::new(&[options.config.clone(), options.leaf.clone()]);
        let process = Self(Arc::new(Inner {
            clock: Clock::system(),
            metrics: Metrics::register(&mut registry),
            scratch,
            running: OnceLock::new(),
            changing: tokio::sync::Mutex::default(),
            guard: watch::Sender::new(None),
            faults: Mutex::default(),
            control: port.address(),
            shown: health.as_ref().map(HealthPort::address),
            stop: CancellationToken::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            options,
        }));
        process.look().await;
        let (inner, closed) = (&process.0, || process.0.closed.clone());
        inner.tasks.spawn(port.run(process.clone(), inner.guard.subscribe(), closed()));
        if let Some(health) = health {
            inner.tasks.spawn(health.run(process.clone(), Arc::new(registry), closed()));
        }
        inner.tasks.spawn(process.clone().keep_looking(watch));
        inner.tasks.close();
        Ok(process)
    }

    /// Which link runs, if one does yet.
    pub fn link(&self) -> Option<LinkRef> {
        self.0.running.get().map(|running| running.relay.snapshot().link.clone())
    }

    /// Where controllers ask.
    pub fn control_addr(&self) -> SocketAddr {
        self.0.control
    }

    /// Where metrics and health are shown.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.0.shown
    }

    /// What a controller is told.
    pub fn status(&self) -> Option<RelayStatus> {
        let relay = &self.0.running.get()?.relay;
        Some(RelayStatus { report: relay.report(), ready: relay.is_ready(), faults: self.faults() })
    }

    /// Takes nothing new, lets streams finish until `deadline`, and ends. Until no stream is left it can be asked and told to
    /// cut.
    pub async fn shutdown(&self, deadline: Duration) {
        let inner = &self.0;
        inner.stop.cancel();
        if let Some(running) = inner.running.get() {
            running.relay.drain(deadline).await;
        }
        inner.closed.cancel();
        inner.tasks.wait().await;
        inner.scratch.flush().await;
    }

    /// Everything that is wrong and was not put right yet.
    fn faults(&self) -> Vec<ErrorReport> {
        let mounted: Vec<_> = self.known_faults().values().cloned().collect();
        mounted.into_iter().chain(self.0.scratch.faults()).collect()
    }

    fn known_faults(&self) -> MutexGuard<'_, BTreeMap<Place, ErrorReport>> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wrong at a place, and says it once.
    fn fault(&self, place: Place, reason: &str, message: &impl ToString) {
        let message = message.to_string();
        let mut faults = self.known_faults();
        if faults.get(&place).is_some_and(|known| known.message == message) {
            return;
        }
        tracing::error!(reason, message, "what works goes on");
        faults.insert(place, ErrorReport { reason: reason.to_owned(), message, at: self.0.clock.now().into() });
    }

    /// Nothing is wrong there any more.
    fn settle(&self, place: Place) {
        if let Some(over) = self.known_faults().remove(&place) {
            tracing::info!(reason = over.reason, "put right");
        }
    }

    async fn keep_looking(self, mut watch: Watch) {
        loop {
            // What scratch held at the start gets no better by looking.
            let mended = self.known_faults().keys().all(|place| *place == Place::Scratch);
            let well = mended && self.0.running.get().is_some();
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                // The kubelet swaps one link, whoever tries this out by hand may write in steps.
                () = watch.changed() => tokio::time::sleep(DEBOUNCE).await,
                () = tokio::time::sleep(if well { LOOK_EVERY } else { LOOK_AGAIN }) => {}
            }
            self.look().await;
        }
    }
}

/// Refuses what is no folder: a slip on the command line.
fn folder(path: &Path) -> Result<(), ProcessError> {
    fs::read_dir(path).map(drop).map_err(|source| ProcessError::Folder { path: path.to_owned(), source })
}
