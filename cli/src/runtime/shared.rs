//! What the parts of a running runtime share.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use securelink_crds::SecureLinkStatus;
use securelink_relay_config::{Cut, LinkRef};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Options;
use super::declared::Declarations;
use super::engine::{Capacity, Clock, Metrics, Relay};
use super::held::{Held, Running};
use super::report::ReloadReport;
use crate::state::{LinkDir, Lock, StateDir, StoredCut};

type Links = BTreeMap<LinkRef, Held>;

/// What the parts of a running runtime share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) state: StateDir,
    pub(crate) metrics: Metrics,
    pub(crate) capacity: Capacity,
    /// Held from one look to the end of it: looks do not overlap. A cut does not wait for it.
    pub(crate) world: Mutex<World>,
    /// Asks for a look without reading the files.
    pub(crate) wake: Notify,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Raised whenever a status may have changed.
    pub(crate) news: watch::Sender<u64>,
    /// Ends the sockets that answer, after everything else.
    pub(crate) closed: CancellationToken,
    links: RwLock<Links>,
    /// Orders by command that are in force and could not be written down.
    unwritten: std::sync::Mutex<Vec<(LinkRef, StoredCut)>>,
}

/// What one look leaves to the next.
pub(crate) struct World {
    /// Held as long as the runtime works on the folder.
    pub(crate) lock: Option<Lock>,
    pub(crate) files: Declarations,
    /// What was said last, so that it is said once.
    pub(crate) said: ReloadReport,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        clock: Clock,
        state: (StateDir, Lock),
        metrics: Metrics,
        files: Declarations,
    ) -> Self {
        let (state, lock) = state;
        let world = World { lock: Some(lock), files, said: ReloadReport::default() };
        Self {
            options,
            clock,
            state,
            metrics,
            capacity: Capacity::of_process(),
            world: Mutex::new(world),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            news: watch::Sender::default(),
            closed: CancellationToken::new(),
            links: RwLock::default(),
            unwritten: std::sync::Mutex::default(),
        }
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, Vec<(LinkRef, StoredCut)>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an order that could not be written down.
    pub(crate) fn owe(&self, link: &LinkRef, order: StoredCut) {
        self.unwritten().push((link.clone(), order));
    }

    /// Tries again to write down what could not be; returns the orders that were owed, written by now or not.
    pub(crate) fn keep_orders(&self, link: &LinkRef, folder: &LinkDir) -> Vec<StoredCut> {
        // Not held while a disk, maybe a slow one, writes: the next cut asks for it.
        let owed: Vec<_> =
            self.unwritten().iter().filter(|(of, _)| of == link).map(|(_, order)| order.clone()).collect();
        for order in owed.iter().filter(|order| folder.save_cut(order).is_ok()) {
            self.settle(order);
        }
        owed
    }

    /// An order is written down, or taken back: nothing is owed any more.
    pub(crate) fn settle(&self, order: &StoredCut) {
        self.unwritten().retain(|(_, other)| other != order);
    }

    /// Whether the link is cut by command, that is written down, and no stream is left: another order would change nothing.
    pub(crate) fn is_cut_by_command(&self, link: &LinkRef) -> bool {
        if self.unwritten().iter().any(|(of, _)| of == link) {
            return false;
        }
        let links = self.links();
        let Some(held) = links.get(link) else { return false };
        let Some(report) = held.running.as_ref().map(|running| running.relay.report()) else { return false };
        let by_command =
            |id: &String| StoredCut::is_command_id(id) && held.verdict.cuts.iter().any(|cut| cut.id == *id);
        report.streams.live == 0 && report.cuts.iter().any(by_command)
    }

    pub(crate) fn links(&self) -> RwLockReadGuard<'_, Links> {
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn links_mut(&self) -> RwLockWriteGuard<'_, Links> {
        self.links.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn running(&self, link: &LinkRef) -> Option<Running> {
        self.links().get(link)?.running.clone()
    }

    pub(crate) fn status_before(&self, link: &LinkRef) -> SecureLinkStatus {
        self.links().get(link).map(|held| held.status.clone()).unwrap_or_default()
    }

    /// Every link that runs or has something to say.
    pub(crate) fn known(&self) -> Vec<LinkRef> {
        self.links().keys().cloned().collect()
    }

    pub(crate) fn publish(&self, link: &LinkRef, held: Option<Held>) {
        match held {
            Some(held) => drop(self.links_mut().insert(link.clone(), held)),
            None => drop(self.links_mut().remove(link)),
        }
        self.tell();
    }

    /// Says what keeps a link from being looked at. One that runs goes on.
    pub(crate) fn set_fault(&self, link: &LinkRef, fault: String) {
        let mut links = self.links_mut();
        match links.get_mut(link).filter(|held| held.running.is_some()) {
            Some(held) => held.faults = vec![fault],
            None => drop(links.insert(link.clone(), Held::broken(link, &fault, self.clock.now()))),
        }
        drop(links);
        self.tell();
    }

    /// Shows a cut that was given, before the next look takes it into account.
    pub(crate) fn note_cut(&self, link: &LinkRef, cut: Cut) {
        if let Some(held) = self.links_mut().get_mut(link) {
            held.verdict.cuts.insert(cut);
            held.refresh(self.clock.now());
        }
        self.tell();
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Makes a link's status anew whenever its relay has news.
    pub(crate) fn watch(self: &Arc<Self>, link: &LinkRef, relay: &Relay, ended: CancellationToken) {
        let (shared, link, mut news) = (Arc::clone(self), link.clone(), relay.changes());
        self.tasks.spawn(async move {
            loop {
                let more = tokio::select! {
                    () = ended.cancelled() => return,
                    () = shared.stop.cancelled() => return,
                    more = news.changed() => more,
                };
                if more.is_err() {
                    return;
                }
                if let Some(held) = shared.links_mut().get_mut(&link) {
                    held.refresh(shared.clock.now());
                }
                shared.tell();
            }
        });
    }
}
