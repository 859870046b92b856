//! Reverse connections: the side that can dial parks them, the side that cannot opens its streams on them (promise P12).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::capacity;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::handshake::connect_by;
use crate::lanes;
use crate::limits::Bucket;
use crate::link::{Link, locked};
use crate::serve::serve;
use crate::ways::Way;
use crate::wire::{Code, ReplicaId, Role};

/// Parked before the peer asks for more (relay, "Direction, replicas, death").
const PARKED: u32 = 4;
/// Parked at the most, whatever the peer asks for (the same place).
const MAX_PARKED: u32 = 256;
/// Dialed in one second at the most: a peer that uses them up in a loop costs us no more (fault F87).
const DIALS_PER_SECOND: u32 = 64;
/// After a failed dial.
const RETRY: Duration = Duration::from_secs(1);
/// How long a client waits for one to arrive (WANT, a dial and a handshake): as long as for ACCEPT.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a shortage for so long, half as many are wanted.
const DECAY: Duration = Duration::from_mins(1);

/// A link's reverse connections, at whichever end.
pub(crate) struct Reverse {
    /// Dialing side, by replica of the peer.
    parked: Mutex<BTreeMap<ReplicaId, Parked>>,
    bucket: Bucket,
    changed: Notify,
    /// Other side: how many we want.
    wanted: watch::Sender<u32>,
    shortage: Mutex<Instant>,
    /// Other side: clients that wait for one.
    waiting: AtomicU32,
    arrived: Notify,
}

/// The dialing side's account with one replica.
struct Parked {
    /// At rest there, those being dialed included.
    resting: u32,
    /// How many it wants.
    asked: u32,
}

impl Default for Parked {
    fn default() -> Self {
        Self { resting: 0, asked: PARKED }
    }
}

impl Default for Reverse {
    fn default() -> Self {
        Self {
            parked: Mutex::default(),
            bucket: Bucket::default(),
            changed: Notify::new(),
            wanted: watch::Sender::new(PARKED),
            shortage: Mutex::new(Instant::now()),
            waiting: AtomicU32::new(0),
            arrived: Notify::new(),
        }
    }
}

/// One connection at rest with a replica, as long as it lives.
pub(crate) struct Slot {
    link: Arc<Link>,
    replica: ReplicaId,
    counts: bool,
}

impl Slot {
    pub(crate) fn new(link: &Arc<Link>, replica: ReplicaId) -> Self {
        link.reverse.change(replica, |parked| parked.resting += 1);
        Self { link: Arc::clone(link), replica, counts: true }
    }

    /// Whether more are at rest than the replica wants, and this is one of those that leave: it counts no more then. All look
    /// at the same moment, and not all of them are too many.
    pub(crate) fn is_surplus(&mut self) -> bool {
        if !parks(&self.link) || self.link.replicas.is_leaving(self.replica) {
            return true;
        }
        self.leaves_where_more_rest_than(0)
    }

    /// The same where they are so many that a minute's patience only helps whoever uses them up without a stream.
    pub(crate) fn is_far_too_many(&mut self) -> bool {
        self.leaves_where_more_rest_than(MAX_PARKED)
    }

    fn leaves_where_more_rest_than(&mut self, surplus: u32) -> bool {
        self.counts = self.counts && !self.link.reverse.spare(self.replica, surplus);
        !self.counts
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let reverse = &self.link.reverse;
        if self.counts {
            reverse.change(self.replica, |parked| parked.resting = parked.resting.saturating_sub(1));
        }
        reverse.changed.notify_one();
    }
}

impl Reverse {
    /// A replica said WANT.
    pub(crate) fn heard_want(&self, replica: ReplicaId, count: u16) {
        let asked = u32::from(count).clamp(PARKED, MAX_PARKED);
        self.change(replica, |parked| parked.asked = asked);
        self.changed.notify_one();
    }

    /// A replica is gone: what it wanted counts no more.
    pub(crate) fn forget(&self, replica: ReplicaId) {
        self.change(replica, |parked| parked.asked = PARKED);
    }

    /// Changes a replica's account; one that says nothing is not kept.
    fn change(&self, replica: ReplicaId, change: impl FnOnce(&mut Parked)) {
        let mut all = locked(&self.parked);
        let parked = all.entry(replica).or_default();
        change(parked);
        if parked.resting == 0 && parked.asked == PARKED {
            all.remove(&replica);
        }
    }

    /// Whether a replica wants more.
    fn lacks(&self, replica: ReplicaId) -> bool {
        locked(&self.parked).get(&replica).is_none_or(|parked| parked.resting < parked.asked)
    }

    /// Counts one less with a replica where more are at rest than it wants and `surplus`; whether that was so.
    fn spare(&self, replica: ReplicaId, surplus: u32) -> bool {
        let mut parked = locked(&self.parked);
        let too_many = parked.get_mut(&replica).filter(|parked| parked.resting > parked.asked + surplus);
        too_many.map(|parked| parked.resting -= 1).is_some()
    }

    /// What our own WANT says.
    pub(crate) fn wanted(&self) -> watch::Receiver<u32> {
        self.wanted.subscribe()
    }

    /// A connection was put to rest on the side that opens streams.
    pub(crate) fn arrived(&self) {
        self.arrived.notify_one();
    }

    /// Wants enough for all who wait and for the next; in powers of two, so that a burst is few WANTs.
    fn short(&self, waiting: u32) {
        *locked(&self.shortage) = Instant::now();
        let enough = (waiting + PARKED).next_power_of_two().min(MAX_PARKED);
        self.wanted.send_if_modified(|wanted| {
            let more = enough.max(*wanted);
            std::mem::replace(wanted, more) != more
        });
    }

    /// Wants fewer after a while without a shortage.
    pub(crate) fn decay(&self) {
        let mut since = locked(&self.shortage);
        if since.elapsed() > DECAY {
            *since = Instant::now();
            self.wanted.send_if_modified(|wanted| {
                let fewer = (*wanted / 2).max(PARKED);
                std::mem::replace(wanted, fewer) != fewer
            });
        }
    }
}

/// Whether any are kept at rest: only where the peer says that it does not dial.
fn parks(link: &Link) -> bool {
    link.dials() && !link.is_draining() && link.peer().current().is_some_and(|declaration| !declaration.dials)
}

/// Keeps as many at rest with each replica as it wants, until the relay stops.
pub(crate) async fn keep_parked(link: Arc<Link>) {
    let mut generation = link.generation();
    let mut news = link.replicas.news();
    let mut last = None;
    loop {
        let held_back = parks(&link) && fill(&link, &mut last);
        tokio::select! {
            () = link.stop.cancelled() => return,
            () = link.reverse.changed.notified() => {}
            _ = generation.changed() => {}
            _ = news.changed() => {}
            () = sleep(Duration::from_secs(1) / DIALS_PER_SECOND), if held_back => {}
        }
    }
}

/// Dials what replicas lack, one for each in turn after the `last` one served: who wants ever more starves no sibling. True
/// where the bucket, or what is left of the machine, holds some back.
fn fill(link: &Arc<Link>, last: &mut Option<ReplicaId>) -> bool {
    let reached = link.replicas.reached();
    while let Some((replica, way)) = next_lacking(&reached, *last, |replica| link.reverse.lacks(replica)) {
        if capacity::admit().is_err() || !link.reverse.bucket.admit(DIALS_PER_SECOND, Instant::now()) {
            return true;
        }
        let slot = Slot::new(link, *replica);
        lanes::spawn(&link.tasks, park(Arc::clone(link), way.clone(), slot));
        *last = Some(*replica);
    }
    false
}

/// Of those `reached`, in the order of their names, the first after `last` that lacks some.
fn next_lacking(
    reached: &[(ReplicaId, Way)],
    last: Option<ReplicaId>,
    lacks: impl Fn(ReplicaId) -> bool,
) -> Option<&(ReplicaId, Way)> {
    let (before, after) = reached.split_at(reached.partition_point(|(replica, _)| Some(*replica) <= last));
    after.iter().chain(before).find(|(replica, _)| lacks(*replica))
}

async fn park(link: Arc<Link>, way: Way, slot: Slot) {
    let connected = tokio::select! {
        () = link.stop.cancelled() => return,
        connected = Box::pin(connect_by(&link, &way, Role::Reverse)) => connected,
    };
    match connected {
        Ok(connection) if connection.facts.replica == slot.replica => {
            return serve(link, connection, Some(slot)).await;
        }
        // Another one behind the same address, which may want it, too.
        Ok(connection) if link.reverse.lacks(connection.facts.replica) => {
            let theirs = Slot::new(&link, connection.facts.replica);
            lanes::spawn(&link.tasks, serve(Arc::clone(&link), connection, Some(theirs)));
        }
        Ok(mut connection) => Box::pin(connection.bye(Code::Draining, "enough connections are at rest")).await,
        Err(failure) => link.failed(&failure),
    }
    tokio::select! {
        () = link.stop.cancelled() => {}
        () = sleep(RETRY) => {}
    }
    // The slot is free again only now.
    drop(slot);
}

/// A client waits as long as this lives.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(reverse: &'a Reverse) -> Self {
        reverse.waiting.fetch_add(1, Ordering::AcqRel);
        Self(&reverse.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection that the peer parked here; asks for more where none is left.
pub(crate) async fn take(link: &Arc<Link>) -> Result<Box<Connection>, Failure> {
    if let Some(connection) = rested(link).await {
        return Ok(connection);
    }
    let waiting = Waiting::new(&link.reverse);
    let taking = async {
        loop {
            let arrived = link.reverse.arrived.notified();
            tokio::pin!(arrived);
            // Before looking: two may arrive between a look and a wait, and only one of them would be remembered.
            arrived.as_mut().enable();
            if let Some(connection) = rested(link).await {
                return connection;
            }
            link.reverse.short(waiting.0.load(Ordering::Acquire));
            arrived.await;
        }
    };
    timeout(ARRIVAL_TIMEOUT, taking).await.map_err(|_| Failure::NoneParked)
}

/// One at rest, of the replica whose turn it is, else of any.
async fn rested(link: &Link) -> Option<Box<Connection>> {
    for live in link.replicas.turn() {
        if let Some(connection) = link.pool.take(live.id).await {
            return Some(connection);
        }
    }
    link.pool.take_any().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_as_many_as_are_too_many_are_spared_however_many_look() {
        let (reverse, replica) = (Reverse::default(), ReplicaId([1; 16]));
        assert!(!reverse.spare(replica, 0) && reverse.lacks(replica));
        reverse.change(replica, |parked| parked.resting = PARKED + 3);
        assert!(!reverse.spare(replica, 3));
        let spared = (0..PARKED + 3).filter(|_| reverse.spare(replica, 0)).count();
        assert_eq!((spared, reverse.lacks(replica)), (3, false));
    }
}
