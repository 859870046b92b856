//! Connections at rest on which we may open streams, by replica of the peer. The last one put back is taken first: its
//! congestion window is the warmest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::Connection;
use crate::link::{Link, locked};
use crate::wire::{Code, Message, Ping, ReplicaId, Side};

/// Connections at rest at the most: as many as a peer parks ([`crate::reverse`]). More are dialed anew when they are
/// needed, a millisecond each, and the peer has places for four such replicas ([`crate::places`]).
pub(crate) const RESTING: usize = 256;
/// How long a connection rests before the dialer closes it (relay, "Direction, replicas, death").
const IDLE_TTL: Duration = Duration::from_mins(10);
/// After so long at rest a network may have forgotten the flow: ask before use (relay, the same place).
const ASK_AFTER: Duration = Duration::from_secs(30);
/// On top of the last round trip, time for the answer (relay, the same place).
const ASK_MARGIN: Duration = Duration::from_millis(200);

/// Whoever wants the connection sends the way to hand it over.
type Request = oneshot::Sender<Box<Connection>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Parked>);

type Parked = BTreeMap<ReplicaId, Vec<oneshot::Sender<Request>>>;

impl Pool {
    fn parked(&self) -> MutexGuard<'_, Parked> {
        locked(&self.0)
    }

    /// A connection at rest with `replica` that still works, if there is one.
    pub(crate) async fn take(&self, replica: ReplicaId) -> Option<Box<Connection>> {
        self.take_from(|parked| parked.get_mut(&replica)?.pop()).await
    }

    /// The same with any replica.
    pub(crate) async fn take_any(&self) -> Option<Box<Connection>> {
        self.take_from(|parked| parked.values_mut().find_map(Vec::pop)).await
    }

    async fn take_from(
        &self,
        pop: impl Fn(&mut Parked) -> Option<oneshot::Sender<Request>> + Send,
    ) -> Option<Box<Connection>> {
        loop {
            let parked = pop(&mut self.parked())?;
            let (request, given) = oneshot::channel();
            if parked.send(request).is_ok()
                && let Ok(connection) = given.await
            {
                return Some(connection);
            }
        }
    }

    /// Puts a connection to rest, or ends it where enough are or its replica takes no streams.
    pub(crate) fn put(link: &Arc<Link>, mut connection: Box<Connection>) {
        let (parked, asked) = oneshot::channel();
        let replica = connection.facts.replica;
        let kept = connection.unload() && {
            let mut all = link.pool.parked();
            for resting in all.values_mut() {
                resting.retain(|other| !other.is_closed());
            }
            all.retain(|_, resting| !resting.is_empty());
            let is_room = all.values().map(Vec::len).sum::<usize>() < RESTING;
            let kept = (is_room || connection.facts.side == Side::Acceptor) && !link.shuns(replica);
            if kept {
                all.entry(replica).or_default().push(parked);
            }
            kept
        };
        if !kept {
            link.tasks.spawn(async move { connection.bye(Code::Draining, "it is not needed").await });
            return;
        }
        link.reverse.arrived();
        link.tasks.spawn(rest(Arc::clone(link), connection, asked));
    }

    /// Lets go of those with a replica that is to be given no stream any more.
    pub(crate) fn discard(&self, replica: ReplicaId) {
        self.parked().remove(&replica);
    }
}

/// Watches a connection at rest until it is wanted, ends, or is of no more use.
async fn rest(link: Arc<Link>, mut connection: Box<Connection>, mut asked: oneshot::Receiver<Request>) {
    let mut generation = link.generation();
    let since = Instant::now();
    connection.frames.rest();
    loop {
        let view = link.view();
        if connection.is_outdated(&view) {
            return connection.bye(Code::TrustChanged, "our trust or certificate changed").await;
        }
        if link.is_closing() {
            return connection.bye(Code::Draining, "this relay stops").await;
        }
        if connection.tell_head(&view).is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = link.stop.cancelled() => return connection.bye(Code::Draining, "this relay stops").await,
            request = &mut asked => {
                let Ok(request) = request else {
                    return connection.bye(Code::Draining, "its replica goes away").await;
                };
                if since.elapsed() < ASK_AFTER || answers(&link, &mut connection).await {
                    // Whoever asked may have gone: then the connection ends here.
                    let _ = request.send(connection);
                }
                return;
            }
            _ = generation.changed() => {}
            message = connection.frames.message() => match message {
                Ok(Message::Head(head)) => link.heard_head(&connection.facts, &head),
                Ok(_) => return,
                Err(fault) => return connection.end(&fault.into()).await,
            },
            // Only who dialed closes what is idle (contracts 1).
            () = sleep_until(since + IDLE_TTL), if connection.facts.side == Side::Dialer => {
                return connection.bye(Code::Draining, "idle").await;
            }
        }
    }
}

/// Whether the other end still answers.
async fn answers(link: &Link, connection: &mut Connection) -> bool {
    let asking = async {
        connection.frames.send(&Message::Ping(Ping { nonce: 1 })).await.ok()?;
        loop {
            match connection.frames.message().await.ok()? {
                Message::Pong(_) => return Some(()),
                Message::Head(head) => link.heard_head(&connection.facts, &head),
                _ => return None,
            }
        }
    };
    matches!(timeout(link.replicas.round_trip(connection.facts.replica) + ASK_MARGIN, asking).await, Ok(Some(())))
}
