//! The way of a byte here: a client's socket, a connection to the peer, OPEN, copy. What is over soon is boxed: the task of a
//! stream at rest is as large as the largest of its parts.

use std::sync::Arc;

use securelink_relay_config::Import;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::acquire::acquire;
use crate::connection::Connection;
use crate::copy::Copy;
use crate::dial::finish_on_close;
use crate::early::Early;
use crate::end::End;
use crate::judge::{Direction, Judgment};
use crate::link::Link;
use crate::pool::Pool;
use crate::reserved::random;
use crate::stream::conclude;
use crate::view::View;
use crate::wire::{Code, Message, Open, StreamId};

/// Connections tried for one client: one at rest may be dead, and one may be draining.
const ATTEMPTS: usize = 3;

/// Carries one client's connection to an import, which has its `place` until the end. Every end that is no clean one is a
/// reset for the client.
pub(crate) async fn serve_client(link: Arc<Link>, import: Import, mut client: TcpStream, _place: OwnedSemaphorePermit) {
    let service: Arc<str> = Arc::from(import.name.as_str());
    if let Some(Err(why)) = link.gate().map(|opinion| opinion.verdict) {
        tracing::debug!(link = %link.name, import = %service, reason = why.reason(), "a client was turned away");
        return link.metrics.ended(Direction::Outgoing, "denied");
    }
    let (mut early, mut failed) = (Early::default(), None);
    for _ in 0..ATTEMPTS {
        let connection = match link.unless_stopped(Box::pin(acquire(&link, failed))).await {
            Some(Ok(connection)) => connection,
            None => break,
            Some(Err(failure)) => {
                tracing::debug!(link = %link.name, import = %service, %failure, "a client found no way to the peer");
                link.failed(&failure);
                link.metrics.ended(Direction::Outgoing, "unreachable");
                break;
            }
        };
        failed = Some(connection.facts.replica);
        match attempt(&link, connection, (&import, &service), client, early).await {
            Some(again) => (client, early) = again,
            None => return,
        }
    }
}

/// One try. Where another may follow, because the peer refused or nothing of the client's was sent (contracts 1), the
/// client and what is to be sent first then.
async fn attempt(
    link: &Arc<Link>,
    mut connection: Box<Connection>,
    (import, service): (&Import, &Arc<str>),
    mut client: TcpStream,
    early: Early,
) -> Option<(TcpStream, Early)> {
    connection.carry(Direction::Outgoing, service);
    if let Judgment::Deny(denial) = link.judge(&connection.facts, Direction::Outgoing, service) {
        tracing::debug!(link = %link.name, import = %service, code = %denial.code, text = denial.text, "a client was turned away");
        link.metrics.ended(Direction::Outgoing, "denied");
        drop(client);
        Pool::put(link, connection);
        return None;
    }
    let open = Open {
        stream: StreamId(random()),
        service: import.name.clone(),
        client: import.name.clone(),
        traceparent: None,
        deadline_ms: None,
    };
    if connection.frames.queue(&Message::Open(open)).is_err() {
        return Some((client, early));
    }
    let unchanged = |view: &View| view.import(&import.name).is_some_and(|now| now.listen == import.listen);
    let of = (Direction::Outgoing, Arc::clone(service));
    let mut copy = Copy::new(link, &connection, of, &unchanged);
    copy.early = early;
    let end = copy.run(&mut connection, &mut client).await;
    let again = match &end {
        End::Lost(_) if !connection.frames.has_parted_with_data() && !copy.is_answered() => {
            connection.frames.take_back();
            true
        }
        End::Rejected(reject) => reject.code == Code::Draining,
        _ => false,
    };
    let early = std::mem::take(&mut copy.early).again();
    if matches!(end, End::Finished) {
        finish_on_close(&client);
    }
    tracing::debug!(link = %link.name, import = %service, %end, again, "stream ended");
    link.metrics.ended(Direction::Outgoing, end.outcome());
    // Closed before the stream counts as ended.
    let client = again.then_some(client);
    match Box::pin(conclude(link, &mut connection, (Direction::Outgoing, service), end)).await {
        Ok(()) if !connection.frames.session.heard_bye() => Pool::put(link, connection),
        Ok(()) => {}
        Err(failure) => Box::pin(connection.end(&failure)).await,
    }
    Some((client?, early))
}
