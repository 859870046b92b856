//! What both ends of a stream share: its count, its end, and the connection's way back to rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::copy::End;
use crate::dial::abort_on_close;
use crate::frames::Fault;
use crate::judge::Direction;
use crate::link::Link;
use crate::streams::{Entry, StreamGuard};
use crate::wire::{Code, Message, Rst};

/// Time for IDLE to come back: a round trip, and what of a refused stream is still on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an abort to reach a peer behind the DATA before it. Where its application reads nothing it never does, and
/// only the end of the connection tells.
const RST_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream is counted as long as this lives.
pub(crate) struct Counted {
    _guard: StreamGuard,
    gauge: Gauge,
}

impl Counted {
    /// Registers a stream. `service` is a name of our own configuration.
    pub(crate) fn new(link: &Link, connection: &Connection, direction: Direction, service: &Arc<str>) -> Self {
        let pin = connection.facts.peer.pin;
        let guard = link.streams.register(Entry { direction, service: Arc::clone(service), pin });
        link.opened.fetch_add(1, Ordering::Relaxed);
        Self { _guard: guard, gauge: link.metrics.opened(direction, service) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Ends a stream on its connection. True where the connection may carry another.
pub(crate) async fn conclude(link: &Link, connection: &mut Connection, end: &End) -> bool {
    let opener = connection.frames.session.is_opener();
    let concluded = match end {
        End::Finished | End::Rejected(_) if opener => timeout(IDLE_TIMEOUT, say_idle(link, connection)).await,
        End::Finished => timeout(IDLE_TIMEOUT, answer_idle(link, connection)).await,
        End::Denied(denial) => {
            reset_now(connection, denial.code).await;
            return false;
        }
        End::Aborted => {
            let code = if opener { Code::PeerLost } else { Code::TargetReset };
            reset_in_order(connection, code).await;
            return false;
        }
        End::Unanswered => {
            reset_in_order(connection, Code::Timeout).await;
            return false;
        }
        End::Lost(Fault::Wire(_) | Fault::Violation(_)) => {
            connection.bye(Code::Protocol, "a frame that may not be here").await;
            return false;
        }
        End::Rejected(_) | End::Reset(_) | End::Lost(_) => return false,
    };
    matches!(concluded, Ok(Ok(())))
}

/// Opener: IDLE, and the server's in return.
pub(crate) async fn say_idle(link: &Link, connection: &mut Connection) -> Result<(), Fault> {
    let counts = connection.frames.session.counts();
    connection.frames.send(&Message::Idle(counts)).await?;
    loop {
        match connection.frames.message().await? {
            Message::Idle(theirs) => {
                if (theirs.sent, theirs.received) != (counts.received, counts.sent) {
                    tracing::debug!(link = %link.name, ?counts, ?theirs, "the two sides count differently");
                }
                return Ok(());
            }
            Message::Head(head) => link.heard_head(&connection.facts, &head),
            Message::Bye(_) | Message::Rst(_) => return Err(Fault::Ended),
            _ => {}
        }
    }
}

/// Server: waits for the opener's IDLE, throwing away what of a refused stream still comes, and answers.
pub(crate) async fn answer_idle(link: &Link, connection: &mut Connection) -> Result<(), Fault> {
    loop {
        match connection.frames.message().await? {
            Message::Idle(_) => break,
            Message::Head(head) => link.heard_head(&connection.facts, &head),
            Message::Bye(_) | Message::Rst(_) => return Err(Fault::Ended),
            _ => {}
        }
    }
    let counts = connection.frames.session.counts();
    connection.frames.send(&Message::Idle(counts)).await
}

/// Our application broke off: RST behind what it sent before. The peer hangs up when it has heard it; to close before
/// that, with something unread, would take it back.
async fn reset_in_order(connection: &mut Connection, code: Code) {
    let resetting = async {
        connection.frames.send(&Message::Rst(Rst { code })).await?;
        loop {
            connection.frames.message().await?;
        }
    };
    let hung_up: Result<Result<(), Fault>, _> = timeout(RST_TIMEOUT, resetting).await;
    if hung_up.is_err() {
        abort_on_close(connection.frames.socket());
    }
}

/// The stream may no longer be: nothing that waits is sent any more, and what the network holds of it is dropped
/// (promise P4). Why, the head on the control connection says too.
async fn reset_now(connection: &mut Connection, code: Code) {
    if connection.frames.is_drained() && connection.frames.queue(&Message::Rst(Rst { code })).is_ok() {
        // One attempt: a peer that reads has room for a frame.
        let _ = timeout(Duration::from_millis(50), connection.frames.flush()).await;
    }
    abort_on_close(connection.frames.socket());
}
