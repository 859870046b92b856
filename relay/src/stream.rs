//! What both ends of a stream share: its count, its end, and the connection's way back to rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::timeout;

use crate::connection::{Connection, Facts};
use crate::dial::abort_on_close;
use crate::end::End;
use crate::failure::Failure;
use crate::frames::Fault;
use crate::judge::Direction;
use crate::link::Link;
use crate::streams::{Entry, StreamGuard};
use crate::wire::{Code, Message, Rst};

/// Time for the peer's IDLE: a round trip, until its application has taken the rest, and what of a refused stream is still on
/// its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an abort to reach a peer behind the DATA before it. Where its application reads nothing it never does, and
/// only the end of the connection tells.
const RST_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream is counted as long as this lives.
pub(crate) struct Counted {
    _guard: StreamGuard,
    gauge: Option<Gauge>,
}

impl Counted {
    /// Registers a stream. `service` is a name of our own configuration.
    pub(crate) fn new(link: &Link, facts: &Facts, direction: Direction, service: &Arc<str>) -> Self {
        let pin = facts.peer.pin;
        let guard = link.streams.register(Entry { direction, service: Arc::clone(service), pin });
        Self::admitted(link, guard, direction, service)
    }

    /// Counts a stream that is registered.
    pub(crate) fn admitted(link: &Link, guard: StreamGuard, direction: Direction, service: &Arc<str>) -> Self {
        link.opened.fetch_add(1, Ordering::Relaxed);
        Self { _guard: guard, gauge: Some(link.metrics.opened(direction, service)) }
    }

    /// Registers a stream of a reserved service.
    pub(crate) fn reserved(link: &Link, facts: &Facts, direction: Direction, service: &str) -> Self {
        let pin = facts.peer.pin;
        Self { _guard: link.reserved.register(Entry { direction, service: Arc::from(service), pin }), gauge: None }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}

/// Ends a stream on its connection. After an error the connection carries no other.
pub(crate) async fn conclude(
    link: &Link,
    connection: &mut Connection,
    (direction, service): (Direction, &str),
    end: End,
) -> Result<(), Failure> {
    if let End::Denied(denial) = &end {
        reset_now(connection, denial.code).await;
        return Err(Fault::Ended.into());
    }
    let facts = Arc::clone(&connection.facts);
    // The peer may take its time over its last word; a cut and the end of this relay do not wait for it.
    tokio::select! {
        biased;
        () = link.stop.cancelled() => {}
        _ = link.denied(&facts, direction, service) => {}
        concluded = part_ways(link, connection, end) => return concluded,
    }
    abort_on_close(connection.frames.socket());
    Err(Fault::Ended.into())
}

async fn part_ways(link: &Link, connection: &mut Connection, end: End) -> Result<(), Failure> {
    let opener = connection.frames.session.is_opener();
    let concluded = match end {
        End::Finished => timeout(IDLE_TIMEOUT, say_idle(link, connection)).await,
        End::Rejected(_) if opener => timeout(IDLE_TIMEOUT, say_idle(link, connection)).await,
        End::Aborted => {
            let code = if opener { Code::PeerLost } else { Code::TargetReset };
            reset_in_order(connection, code).await;
            return Err(Fault::Ended.into());
        }
        End::Unanswered => {
            reset_in_order(connection, Code::Timeout).await;
            return Err(Fault::Ended.into());
        }
        End::Lost(fault) => return Err(fault.into()),
        End::Denied(_) | End::Rejected(_) | End::Reset(_) => return Err(Fault::Ended.into()),
    };
    Ok(concluded.unwrap_or(Err(Fault::Ended))?)
}

/// IDLE, unless it was said, and the peer's.
pub(crate) async fn say_idle(link: &Link, connection: &mut Connection) -> Result<(), Fault> {
    let counts = connection.frames.session.counts();
    if connection.frames.session.idle_due() {
        connection.frames.send(&Message::Idle(counts)).await?;
    }
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

/// Server, after a REJECT: waits for the opener's IDLE, throwing away what of the stream still comes, and answers.
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
        // Refused once IDLE was said. What waits leaves all the same.
        let said = connection.frames.queue(&Message::Rst(Rst { code }));
        connection.frames.flush().await?;
        said?;
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
pub(crate) async fn reset_now(connection: &mut Connection, code: Code) {
    if connection.frames.is_drained() && connection.frames.queue(&Message::Rst(Rst { code })).is_ok() {
        // One attempt: a peer that reads has room for a frame.
        let _ = timeout(Duration::from_millis(50), connection.frames.flush()).await;
    }
    abort_on_close(connection.frames.socket());
}
