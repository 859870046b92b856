//! Reverse connections: the side that can dial parks them, the side that cannot opens its streams on them (promise P12).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::handshake::connect;
use crate::limits::Bucket;
use crate::link::{Link, locked};
use crate::serve::serve;
use crate::wire::Role;

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
    /// Dialing side: those at rest, those being dialed included.
    resting: AtomicU32,
    /// Dialing side: how many the peer wants.
    asked: AtomicU32,
    bucket: Bucket,
    changed: Notify,
    /// Other side: how many we want.
    wanted: watch::Sender<u32>,
    shortage: Mutex<Instant>,
    /// Other side: clients that wait for one.
    waiting: AtomicU32,
    arrived: Notify,
}

impl Default for Reverse {
    fn default() -> Self {
        Self {
            resting: AtomicU32::new(0),
            asked: AtomicU32::new(PARKED),
            bucket: Bucket::default(),
            changed: Notify::new(),
            wanted: watch::Sender::new(PARKED),
            shortage: Mutex::new(Instant::now()),
            waiting: AtomicU32::new(0),
            arrived: Notify::new(),
        }
    }
}

/// One connection at rest, as long as it lives.
pub(crate) struct Slot(Arc<Link>);

impl Slot {
    pub(crate) fn new(link: &Arc<Link>) -> Self {
        link.reverse.resting.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(link))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.reverse.resting.fetch_sub(1, Ordering::AcqRel);
        self.0.reverse.changed.notify_one();
    }
}

impl Reverse {
    /// The peer said WANT.
    pub(crate) fn heard_want(&self, count: u16) {
        self.asked.store(u32::from(count).clamp(PARKED, MAX_PARKED), Ordering::Release);
        self.changed.notify_one();
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

/// How many to keep at rest: some where the peer says that it does not dial, none elsewhere.
fn target(link: &Link) -> u32 {
    let dials = link.peer().current().is_none_or(|declaration| declaration.dials);
    if dials || !link.dials() || link.is_draining() { 0 } else { link.reverse.asked.load(Ordering::Acquire) }
}

/// Whether more are at rest than wanted.
pub(crate) fn is_surplus(link: &Link) -> bool {
    link.reverse.resting.load(Ordering::Acquire) > target(link)
}

/// Keeps as many at rest as the peer wants, until the relay stops.
pub(crate) async fn keep_parked(link: Arc<Link>) {
    let mut generation = link.generation();
    loop {
        let mut held_back = false;
        while link.reverse.resting.load(Ordering::Acquire) < target(&link) {
            if !link.reverse.bucket.admit(DIALS_PER_SECOND, Instant::now()) {
                held_back = true;
                break;
            }
            let slot = Slot::new(&link);
            link.tasks.spawn(park(Arc::clone(&link), slot));
        }
        tokio::select! {
            () = link.stop.cancelled() => return,
            () = link.reverse.changed.notified() => {}
            _ = generation.changed() => {}
            () = sleep(Duration::from_secs(1) / DIALS_PER_SECOND), if held_back => {}
        }
    }
}

async fn park(link: Arc<Link>, slot: Slot) {
    let connected = tokio::select! {
        () = link.stop.cancelled() => return,
        connected = connect(&link, Role::Reverse) => connected,
    };
    match connected {
        Ok(connection) => serve(link, connection, Some(slot)).await,
        Err(failure) => {
            link.failed(&failure);
            tokio::select! {
                () = link.stop.cancelled() => {}
                () = sleep(RETRY) => {}
            }
            // The slot is free again only now.
            drop(slot);
        }
    }
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
pub(crate) async fn take(link: &Arc<Link>) -> Result<Connection, Failure> {
    if let Some(connection) = link.pool.take().await {
        return Ok(connection);
    }
    let waiting = Waiting::new(&link.reverse);
    let taking = async {
        loop {
            let arrived = link.reverse.arrived.notified();
            tokio::pin!(arrived);
            // Before looking: two may arrive between a look and a wait, and only one of them would be remembered.
            arrived.as_mut().enable();
            if let Some(connection) = link.pool.take().await {
                return connection;
            }
            link.reverse.short(waiting.0.load(Ordering::Acquire));
            arrived.await;
        }
    };
    timeout(ARRIVAL_TIMEOUT, taking).await.map_err(|_| Failure::NoneParked)
}
