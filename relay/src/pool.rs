//! Connections at rest on which we may open streams. The last one put back is taken first: its congestion window is the warmest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::Connection;
use crate::link::Link;
use crate::wire::{Code, Message, Ping, Side};

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
type Request = oneshot::Sender<Connection>;

/// See the module.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<oneshot::Sender<Request>>>);

impl Pool {
    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<oneshot::Sender<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection at rest that still works, if there is one.
    pub(crate) async fn take(&self) -> Option<Connection> {
        loop {
            let parked = self.parked().pop()?;
            let (request, given) = oneshot::channel();
            if parked.send(request).is_ok()
                && let Ok(connection) = given.await
            {
                return Some(connection);
            }
        }
    }

    /// Puts a connection to rest, or ends it where enough are.
    pub(crate) fn put(link: &Arc<Link>, mut connection: Connection) {
        let (parked, asked) = oneshot::channel();
        let kept = connection.unload() && {
            let mut all = link.pool.parked();
            all.retain(|other| !other.is_closed());
            let room = all.len() < RESTING || connection.facts.side == Side::Acceptor;
            if room {
                all.push(parked);
            }
            room
        };
        if !kept {
            link.tasks.spawn(async move { connection.bye(Code::Draining, "enough connections are at rest").await });
            return;
        }
        link.reverse.arrived();
        link.tasks.spawn(rest(Arc::clone(link), connection, asked));
    }
}

/// Watches a connection at rest until it is wanted, ends, or is of no more use.
async fn rest(link: Arc<Link>, mut connection: Connection, mut asked: oneshot::Receiver<Request>) {
    let mut generation = link.generation();
    let since = Instant::now();
    connection.frames.rest();
    loop {
        let view = link.view();
        if connection.is_outdated(&view) {
            return connection.bye(Code::TrustChanged, "our trust or certificate changed").await;
        }
        if connection.tell_head(&view).is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = link.stop.cancelled() => return connection.bye(Code::Draining, "this relay stops").await,
            request = &mut asked => {
                if let Ok(request) = request
                    && (since.elapsed() < ASK_AFTER || answers(&link, &mut connection).await)
                {
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
    matches!(timeout(link.round_trip() + ASK_MARGIN, asking).await, Ok(Some(())))
}
