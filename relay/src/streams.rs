//! The streams that live now: counted for limits, and waited for after a cut. Decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use securelink_id::Fingerprint;
use tokio::sync::Notify;

use crate::capacity::Carried;
use crate::judge::Direction;

/// What a stream is, for those who count or wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) direction: Direction,
    pub(crate) service: Arc<str>,
    /// The pin that admitted its connection's peer.
    pub(crate) pin: Fingerprint,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Streams {
    live: Mutex<Live>,
    ended: Notify,
}

#[derive(Default)]
struct Live {
    next: u64,
    entries: HashMap<u64, Entry>,
    counts: BTreeMap<(Direction, Arc<str>), u32>,
}

/// A stream lives as long as this does.
pub(crate) struct StreamGuard {
    streams: Arc<Streams>,
    id: u64,
    _carried: Carried,
}

impl Streams {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a stream from now on.
    pub(crate) fn register(self: &Arc<Self>, entry: Entry) -> StreamGuard {
        self.count_in(&mut self.live(), entry)
    }

    /// The same, unless as many live already: in its direction, or of its service.
    pub(crate) fn register_within(self: &Arc<Self>, entry: Entry, all: u32, service: u32) -> Option<StreamGuard> {
        let mut live = self.live();
        let of = |(direction, _): &(Direction, _)| *direction == entry.direction;
        let in_direction: u32 = live.counts.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum();
        let of_service = live.counts.get(&(entry.direction, Arc::clone(&entry.service))).copied().unwrap_or(0);
        (in_direction < all && of_service < service).then(|| self.count_in(&mut live, entry))
    }

    fn count_in(self: &Arc<Self>, live: &mut Live, entry: Entry) -> StreamGuard {
        live.next += 1;
        let id = live.next;
        *live.counts.entry((entry.direction, Arc::clone(&entry.service))).or_default() += 1;
        live.entries.insert(id, entry);
        StreamGuard { streams: Arc::clone(self), id, _carried: Carried::new() }
    }

    /// How many live.
    pub(crate) fn len(&self) -> usize {
        self.live().entries.len()
    }

    /// How many live that `which` means.
    pub(crate) fn count(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.live().entries.values().filter(|entry| which(entry)).count()
    }

    /// Returns once none lives that `which` means.
    pub(crate) async fn none(&self, which: impl Fn(&Entry) -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.count(&which) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut live = self.streams.live();
        if let Some(entry) = live.entries.remove(&self.id) {
            let key = (entry.direction, entry.service);
            if let Some(count) = live.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    live.counts.remove(&key);
                }
            }
        }
        drop(live);
        self.streams.ended.notify_waiters();
    }
}
