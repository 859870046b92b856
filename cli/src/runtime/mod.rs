//! The standalone runtime: one organization's half of its links, in one process, from YAML files and a state folder.
//!
//! It runs the planner's functions and the relay's code as they run in a cluster; here are only the files, the clock and
//! the sockets around them. What is wrong in a file never ends a link that works.

mod apply;
mod brake;
pub(crate) mod declared;
mod engine;
mod error;
pub(crate) mod files;
mod held;
mod issue;
pub(crate) mod planning;
mod reconcile;
mod report;
mod rotate;
mod shared;
mod store;
pub(crate) mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use securelink_crds::load::ObjectId;
use securelink_relay_config::{GreetReply, LinkRef, RecordLayer};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::declared::{Declarations, as_object};
pub use self::engine::Clock;
use self::engine::{Metrics, Relay};
pub use self::error::RuntimeError;
use self::held::one_line;
pub use self::report::{CutDone, LinkProblem, LinkStatus, ReloadReport, ResumeDone};
use self::shared::{Shared, World};
use self::watching::{DEBOUNCE, Watch};
use crate::control::{HealthPort, Socket};
use crate::state::{StateDir, StoredCut};

/// Where metrics and status are shown unless told otherwise.
pub const DEFAULT_LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15_445);

/// From a look that broke off to the next: not at once, since it may break off again.
const AFTER_A_FAULT: Duration = Duration::from_secs(1);

/// What a runtime is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// YAML files, and folders of them.
    pub files: Vec<PathBuf>,
    /// Where keys and everything else that must last is kept.
    pub state_dir: PathBuf,
    /// Whether a new or empty state folder may be taken; a mistyped one is refused without it.
    pub init: bool,
    /// By link (`NAME` or `NAMESPACE/NAME`): where the peer's listener binds instead of `expose.port` on all addresses.
    pub listen: BTreeMap<String, SocketAddr>,
    /// Whether a peer may be dialed on this very machine, as the demo does.
    pub allow_loopback_peers: bool,
    /// Who makes the records of TLS.
    pub records: RecordLayer,
    /// Where metrics and status are shown; nowhere if absent. Port 0 takes any.
    pub local: Option<SocketAddr>,
    /// Whether the files are read again when they change or SIGHUP arrives.
    pub watch: bool,
}

/// A running half of an organization's links. Cheap to clone; runs until [`Runtime::shutdown`].
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
    local: Option<SocketAddr>,
}

impl Runtime {
    /// Starts every link the files declare. Mistakes in files do not stop it, as long as anything can run.
    pub async fn start(options: Options) -> Result<Self, RuntimeError> {
        Self::start_with(options, Clock::system()).await
    }

    /// The same by another clock.
    #[doc(hidden)]
    pub async fn start_with(options: Options, clock: Clock) -> Result<Self, RuntimeError> {
        files::check(&options.files)?;
        files::check_lasting(&options.files)?;
        let state = StateDir::open(&options.state_dir, options.init)?;
        let lock = state.lock()?;
        let mut registry = Registry::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("securelink_build", "The version that runs", Info::new(version));
        let metrics = Metrics::register(&mut registry);
        let socket = Socket::bind(&state.socket())?;
        let local = match options.local {
            Some(address) => Some(HealthPort::bind_local(address).await?),
            None => None,
        };
        let watch = if options.watch { Watch::new(&options.files) } else { Watch::off() };
        let address = local.as_ref().map(HealthPort::address);
        let files = Declarations::before_any(state.policies()?);
        let shared = Arc::new(Shared::new(options, clock, (state, lock), metrics, files));
        let runtime = Self { shared, local: address };
        let pause = runtime.first_look().await?;
        runtime.spawn(watch, pause, socket, local.zip(Some(Arc::new(registry))));
        Ok(runtime)
    }

    fn spawn(&self, watch: Watch, pause: Duration, socket: Socket, local: Option<(HealthPort, Arc<Registry>)>) {
        let shared = &self.shared;
        shared.tasks.spawn(self.clone().keep_looking(watch, pause));
        shared.tasks.spawn(socket.run(self.clone(), shared.closed.clone()));
        if let Some((local, registry)) = local {
            shared.tasks.spawn(local.run(self.clone(), registry, shared.closed.clone()));
        }
        shared.tasks.close();
    }

    /// Reads the files again and does what they say.
    pub async fn reload(&self) -> ReloadReport {
        self.look(&mut *self.shared.world.lock().await, true).await.0
    }

    /// Every link, sorted by name.
    pub fn status(&self) -> Vec<LinkStatus> {
        let now = self.shared.clock.now();
        let mut links = self.shared.links_mut();
        let shown = links.values_mut().map(|held| {
            held.refresh(now);
            held.shown()
        });
        shown.collect()
    }

    /// Raised whenever [`Runtime::status`] may say something else than before.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    /// The links that should run and cannot carry a stream.
    pub fn not_ready(&self) -> Vec<LinkRef> {
        let links = self.shared.links();
        links.iter().filter(|(_, held)| !held.is_ready()).map(|(link, _)| link.clone()).collect()
    }

    /// Cuts a link: obeyed at once, and meanwhile written down. Returns when no stream of it is left, and the disk has
    /// answered.
    pub async fn cut(&self, link: &LinkRef, reason: &str) -> Result<CutDone, RuntimeError> {
        let folder = self.known(link)?;
        if self.shared.is_cut_by_command(link) {
            return Ok(CutDone { ended: 0, took: Duration::ZERO, fresh: false });
        }
        let order = StoredCut::by_command(reason);
        let (cut, owed) = (order.cut.clone(), order.clone());
        let relay = self.shared.running(link).map(|running| running.relay);
        let (done, written) = brake::give(folder, relay, order).await;
        tracing::warn!(%link, cut = cut.id, reason = one_line(&cut.reason), ended = done.ended, "cut");
        if written.is_err() {
            self.shared.owe(link, owed);
        }
        self.shared.note_cut(link, cut);
        self.shared.wake.notify_one();
        written.map(|()| done).map_err(RuntimeError::CutNotKept)
    }

    /// Takes back what [`Runtime::cut`] ordered. A `LinkCut` in the files goes on cutting.
    pub async fn resume(&self, link: &LinkRef) -> Result<ResumeDone, RuntimeError> {
        let folder = self.known(link)?;
        let mut world = self.shared.world.lock().await;
        let owed = self.shared.keep_orders(link, &folder);
        // Only what a snapshot has acknowledged can be released by the next one: an order that comes meanwhile holds.
        let mut stored = folder.cuts()?;
        stored.extend(owed.into_iter().filter(|order| !stored.contains(order)).collect::<Vec<_>>());
        self.look(&mut world, false).await;
        let mut done = ResumeDone::default();
        for order in stored.iter().filter(|order| order.is_command()) {
            folder.remove_cut(&order.cut.id)?;
            self.shared.settle(order);
            done.released.push(order.cut.id.clone());
        }
        done.still_cut_by = store::objects(&stored);
        self.look(&mut world, false).await;
        tracing::info!(%link, released = done.released.len(), "resumed");
        Ok(done)
    }

    /// Sends a message to the peer, who signs for it.
    pub async fn greet(&self, link: &LinkRef, text: &str) -> Result<GreetReply, RuntimeError> {
        self.running(link)?.greet(text).await.map_err(|error| RuntimeError::Greet(error.to_string()))
    }

    /// The relay of a link.
    pub(crate) fn running(&self, link: &LinkRef) -> Result<Relay, RuntimeError> {
        self.known(link)?;
        let running = self.shared.running(link).ok_or_else(|| RuntimeError::NotRunning(link.clone()))?;
        Ok(running.relay)
    }

    /// Where metrics and status are shown.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Takes no stream any more, lets those that live finish until `deadline`, stops everything and lets the state folder
    /// go. Until no stream is left it can be asked and told to cut.
    pub async fn shutdown(&self, deadline: Duration) {
        self.shared.stop.cancel();
        // A look that is under way ends first; no other begins.
        drop(self.shared.world.lock().await);
        let running: Vec<_> = self.shared.links().values().filter_map(|held| held.running.clone()).collect();
        let drained = running.into_iter().map(|running| async move {
            running.watched.cancel();
            running.relay.finish(deadline).await;
        });
        let mut draining = tokio::task::JoinSet::new();
        drained.for_each(|drain| drop(draining.spawn(drain)));
        draining.join_all().await;
        self.shared.closed.cancel();
        self.shared.links_mut().clear();
        self.shared.tasks.wait().await;
        self.shared.world.lock().await.lock = None;
    }

    async fn first_look(&self) -> Result<Duration, RuntimeError> {
        let mut world = self.shared.world.lock().await;
        let (report, pause) = self.look(&mut world, true).await;
        let any = world.files.identities.values().any(Option::is_some) || !self.shared.links().is_empty();
        if any {
            return Ok(pause);
        }
        let problems = report.problems.iter().map(ToString::to_string);
        Err(RuntimeError::NothingToRun(problems.chain(report.notes.iter().cloned()).collect()))
    }

    /// Looks whenever something may have changed, until the end. A look that panics is a task of its own and not the last.
    async fn keep_looking(self, mut watch: Watch, mut pause: Duration) {
        loop {
            let read = tokio::select! {
                () = self.shared.stop.cancelled() => return,
                () = self.shared.wake.notified() => false,
                () = watch.changed() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    true
                }
                () = tokio::time::sleep(pause) => self.shared.options.watch,
            };
            let this = self.clone();
            let look = async move { this.look(&mut *this.shared.world.lock().await, read).await.1 };
            pause = self.shared.tasks.spawn(look).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a look at the files broke off by a fault of securelink itself; what runs goes on, and the next look follows");
                AFTER_A_FAULT
            });
        }
    }

    /// One look at everything; says what is new in it, and how long to sleep.
    async fn look(&self, world: &mut World, read: bool) -> (ReloadReport, Duration) {
        if self.shared.stop.is_cancelled() {
            return (ReloadReport::default(), Duration::MAX);
        }
        if read {
            let loaded = files::read(&self.shared.options.files, |id| self.before(&world.files, id));
            let files = Declarations::new(loaded, Some(&world.files));
            self.keep_guards(&world.files, &files);
            world.files = files;
        }
        let (report, deadline) = reconcile::reconcile(&self.shared, &world.files).await;
        say(&report, &world.said);
        world.said = report.clone();
        (report, reconcile::pause(deadline, self.shared.clock.now()))
    }

    /// Writes the guard rails down where they changed. What cannot be written is tried again at the next change.
    fn keep_guards(&self, before: &Declarations, now: &Declarations) {
        let known = !now.unguarded && (before.unguarded || before.policies != now.policies);
        if let Some(error) = known.then(|| self.shared.state.save_policies(&now.policies).err()).flatten() {
            tracing::error!(%error, "the LinkPolicies could not be kept; one that cannot be read after a restart would not hold");
        }
    }

    /// An object as it was accepted, for the rules on what cannot be changed.
    fn before(&self, files: &Declarations, id: &ObjectId) -> Option<Value> {
        let at = LinkRef { namespace: id.namespace.clone()?, name: id.name.clone() };
        match id.kind.as_str() {
            "SecureLink" => {
                let text = self.shared.state.link(&at).ok()?.accepted().ok()??;
                let accepted: Value = serde_json::from_str(&text).ok()?;
                Some(as_object("SecureLink", &at, &accepted["spec"]))
            }
            "LinkIdentity" => {
                let record = self.shared.state.identity(&at.namespace, &at.name).ok()?.record().ok()??;
                let spec = json!({"trustDomain": record.trust_domain, "issuer": {"builtIn": {}}});
                Some(as_object("LinkIdentity", &at, &spec))
            }
            "LinkCut" => files.cut_before(id),
            _ => None,
        }
    }

    fn known(&self, link: &LinkRef) -> Result<crate::state::LinkDir, RuntimeError> {
        let known = self.shared.known();
        if known.contains(link) {
            return Ok(self.shared.state.link(link)?);
        }
        Err(RuntimeError::UnknownLink { link: link.clone(), known })
    }
}

/// Logs what was not said the last time.
fn say(report: &ReloadReport, said: &ReloadReport) {
    // A folder full of mistakes has thousands of them.
    let known: BTreeSet<String> = said.problems.iter().map(ToString::to_string).collect();
    for problem in report.problems.iter().map(ToString::to_string).filter(|problem| !known.contains(problem)) {
        tracing::error!(problem = one_line(&problem), "a file has a problem; what worked goes on");
    }
    for problem in report.refused.iter().filter(|problem| !said.refused.contains(problem)) {
        tracing::error!(about = problem.about, problem = one_line(&problem.message), "not as declared");
    }
    for note in report.notes.iter().filter(|note| !said.notes.contains(note)) {
        tracing::warn!(note = one_line(note), "has no effect here");
    }
    for link in &report.changed {
        tracing::info!(%link, "the link's configuration changed");
    }
}
