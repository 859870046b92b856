//! The way of a byte there: an accepted connection, OPEN, authorize, dial, ACCEPT, copy. What is over soon is boxed: the task
//! of a stream at rest is as large as the largest of its parts.

use std::sync::Arc;
use std::time::Duration;

use securelink_relay_config::{Export, Limits};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::capacity::{self, descriptors};
use crate::connection::{Connection, Facts};
use crate::copy::{Copy, Paces};
use crate::dial::{abort_on_close, dial, finish_on_close};
use crate::end::End;
use crate::failure::Failure;
use crate::frames::Fault;
use crate::judge::{Denial, Direction, Judgment};
use crate::limits::{MAX_STREAMS, Pace, Use};
use crate::link::Link;
use crate::reserved;
use crate::reverse::Slot;
use crate::stream::{answer_idle, conclude};
use crate::streams::{Entry, StreamGuard};
use crate::view::View;
use crate::wire::{Bye, Code, GREET, Message, Open, PROBE, Reject};

/// How long an OPEN waits for a declaration that is on its way (contracts 2).
const DECLARE_TIMEOUT: Duration = Duration::from_secs(2);
/// After so long it is worth another try, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;
/// Time for an export's target to take a connection.
const TARGET_TIMEOUT: Duration = Duration::from_secs(5);
/// After BYE an acceptor keeps reading for so long (contracts 1).
const BYE_GRACE: Duration = Duration::from_secs(5);
/// Time for what of a refused stream is still on its way.
const REJECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reverse connection rests that is one too many.
const SURPLUS_AFTER: Duration = Duration::from_mins(1);

/// Serves a connection on which the peer opens streams until it ends: an accepted one, or a reverse one, which is at rest
/// as long as it has a slot.
pub(crate) async fn serve(link: Arc<Link>, mut connection: Box<Connection>, slot: Option<Slot>) {
    let failure = drive(&link, &mut connection, slot).await;
    Box::pin(connection.end(&failure)).await;
    tracing::debug!(link = %link.name, connection = connection.facts.id, %failure, "connection ended");
}

async fn drive(link: &Arc<Link>, connection: &mut Connection, mut slot: Option<Slot>) -> Failure {
    let mut generation = link.generation();
    let is_reverse = slot.is_some();
    // Not put off by what the peer says meanwhile.
    let mut look = Instant::now() + SURPLUS_AFTER;
    loop {
        let view = link.view();
        if connection.is_outdated(&view) || !link.trusts(&connection.facts) {
            part(link, connection, Code::TrustChanged, "our trust or certificate changed").await;
            return Failure::TrustChanged;
        }
        if link.is_closing() {
            part(link, connection, Code::Draining, "this relay stops").await;
            return Fault::Ended.into();
        }
        if link.replicas.is_dead(connection.facts.replica) {
            return Failure::Gone;
        }
        if let Err(fault) = connection.tell_head(&view) {
            return fault.into();
        }
        let message = tokio::select! {
            biased;
            () = link.stop.cancelled() => {
                Box::pin(connection.bye(Code::Draining, "this relay stops")).await;
                return Fault::Ended.into();
            }
            _ = generation.changed() => continue,
            () = sleep_until(look), if is_reverse => {
                look = Instant::now() + SURPLUS_AFTER;
                if slot.as_mut().is_some_and(Slot::is_surplus) {
                    part(link, connection, Code::Draining, "idle").await;
                    return Fault::Ended.into();
                }
                continue;
            }
            message = connection.frames.message() => message,
        };
        match message {
            Ok(Message::Open(open)) => {
                drop(slot.take());
                if let Err(failure) = stream(link, connection, open).await {
                    return failure;
                }
                if !connection.unload() {
                    part(link, connection, Code::Overloaded, "too many connections without a stream").await;
                    return Failure::TooMany;
                }
                slot = is_reverse.then(|| Slot::new(link, connection.facts.replica));
                look = Instant::now() + SURPLUS_AFTER;
                if slot.as_mut().is_some_and(Slot::is_far_too_many) {
                    part(link, connection, Code::Draining, "enough connections are at rest").await;
                    return Fault::Ended.into();
                }
                connection.frames.rest();
            }
            Ok(Message::Ping(ping)) => {
                if let Err(fault) = connection.frames.queue(&Message::Pong(ping)) {
                    return fault.into();
                }
            }
            Ok(Message::Head(head)) => link.heard_head(&connection.facts, &head),
            Ok(Message::Bye(bye)) => return Failure::of_bye(&bye),
            Ok(_) => {}
            Err(fault) => return fault.into(),
        }
    }
}

/// Asks the opener to leave, and refuses an OPEN that crosses.
async fn part(link: &Arc<Link>, connection: &mut Connection, code: Code, text: &str) {
    let parting = async {
        connection.frames.send(&Message::Bye(Bye { code, text: text.to_owned() })).await?;
        loop {
            match connection.frames.message().await? {
                Message::Open(_) => {
                    let denial = Denial::new(Code::Draining, "this connection is over, dial anew");
                    reject(link, connection, denial, Some(0)).await?;
                }
                Message::Head(head) => link.heard_head(&connection.facts, &head),
                _ => {}
            }
        }
    };
    // Who stays on, or does not even take our word, is left.
    let _: Option<Result<Result<(), Failure>, _>> = link.unless_stopped(Box::pin(timeout(BYE_GRACE, parting))).await;
}

/// Refuses a stream and waits until its opener has understood. After an error the connection carries no other.
async fn reject(
    link: &Link,
    connection: &mut Connection,
    denial: Denial,
    retry_after_ms: Option<u32>,
) -> Result<(), Failure> {
    tracing::debug!(link = %link.name, code = %denial.code, text = denial.text, "stream refused");
    link.metrics.ended(Direction::Incoming, "refused");
    let reject = Reject { code: denial.code, retry_after_ms, text: denial.text };
    // Nothing of it was carried, nobody waits for its end.
    let kept = connection.unload();
    let refusing = async {
        connection.frames.send(&Message::Reject(reject)).await?;
        if kept { Ok(answer_idle(link, connection).await?) } else { Err(Failure::TooMany) }
    };
    let refused = link.unless_stopped(Box::pin(timeout(REJECT_TIMEOUT, refusing))).await;
    refused.and_then(Result::ok).unwrap_or(Err(Fault::Ended.into()))
}

/// Serves one stream. After an error the connection carries no other.
async fn stream(link: &Arc<Link>, connection: &mut Connection, open: Open) -> Result<(), Failure> {
    if link.is_closing() {
        return reject(link, connection, Denial::new(Code::Draining, "this relay stops"), Some(0)).await;
    }
    match link.unless_stopped(Box::pin(authorize(link, connection, &open.service))).await {
        Some(Ok(())) => {}
        Some(Err((denial, retry))) => return reject(link, connection, denial, retry).await,
        None => return Err(Fault::Ended.into()),
    }
    if open.service == PROBE || open.service == GREET {
        return Box::pin(reserved::serve(link, connection, &open.service)).await;
    }
    let Some(export) = link.view().export(&open.service).cloned() else {
        return reject(link, connection, Denial::new(Code::UnknownExport, "no such export"), None).await;
    };
    let service: Arc<str> = Arc::from(export.name.as_str());
    match admit(link, &connection.facts, &export, &service) {
        Ok(guard) => connection.carry_admitted(guard, &service),
        Err(denial) => return reject(link, connection, denial, Some(RETRY_AFTER_MS)).await,
    }
    let facts = Arc::clone(&connection.facts);
    let reached = tokio::select! {
        biased;
        () = link.stop.cancelled() => return Err(Fault::Ended.into()),
        // A target that does not answer delays no cut.
        denial = link.denied(&facts, Direction::Incoming, &service) => {
            return reject(link, connection, denial, None).await;
        }
        reached = Box::pin(reach(link, &export)) => reached,
    };
    let target = match reached {
        Ok(target) => target,
        Err(failure) => {
            return reject(link, connection, unreached(link, &service, &failure), Some(RETRY_AFTER_MS)).await;
        }
    };
    carry(link, connection, &export, target).await
}

/// Says here what is wrong. What the peer learns is that it does not work, not how this side is built.
fn unreached(link: &Link, service: &Arc<str>, failure: &Failure) -> Denial {
    if let Failure::Shortage(_) = failure {
        link.overloaded(failure);
        return overloaded();
    }
    if link.may_say() {
        tracing::warn!(link = %link.name, export = %service, %failure, "the export's target cannot be reached");
    }
    Denial::new(Code::Unavailable, "the service does not answer on the exporting side")
}

fn overloaded() -> Denial {
    Denial::new(Code::Overloaded, "the exporting side carries as much as it can")
}

/// Whether the stream may be, waiting for a declaration that is on its way.
async fn authorize(link: &Link, connection: &mut Connection, service: &str) -> Result<(), (Denial, Option<u32>)> {
    let deadline = Instant::now() + DECLARE_TIMEOUT;
    let mut generation = link.generation();
    loop {
        match link.judge(&connection.facts, Direction::Incoming, service) {
            Judgment::Admit => return Ok(()),
            Judgment::Deny(denial) => return Err((denial, None)),
            Judgment::Await => {}
        }
        if timeout_at(deadline, generation.changed()).await.is_err() {
            let denial = Denial::new(Code::NotAgreed, "your declaration has not arrived on a control connection");
            return Err((denial, Some(RETRY_AFTER_MS)));
        }
    }
}

/// A stream's place, before anything else is allocated for it.
fn admit(link: &Link, facts: &Facts, export: &Export, service: &Arc<str>) -> Result<StreamGuard, Denial> {
    if let Err(shortage) = capacity::admit() {
        link.overloaded(&shortage.into());
        return Err(overloaded());
    }
    let (view, now) = (link.view(), Instant::now());
    let (all, own) = (&view.snapshot.limits, &export.limits);
    let entry = Entry { direction: Direction::Incoming, service: Arc::clone(service), pin: facts.peer.pin };
    let most = (all.connections.unwrap_or(MAX_STREAMS), own.connections.unwrap_or(u32::MAX));
    let too_many = || Denial::new(Code::Limit, "too many connections at once; the exporting side sets the limit");
    let guard = link.streams.register_within(entry, most.0, most.1).ok_or_else(too_many)?;
    let fast = |limits: &Limits, of: Option<&Arc<str>>| {
        let rate = limits.new_connections_per_second;
        rate.is_some_and(|rate| !link.buckets.get(Use::Opens, of).admit(rate, now))
    };
    if fast(own, Some(service)) || fast(all, None) {
        return Err(Denial::new(Code::Limit, "too many new connections a second; the exporting side sets the limit"));
    }
    Ok(guard)
}

/// Dials an export's target.
pub(crate) async fn reach(link: &Link, export: &Export) -> Result<TcpStream, Failure> {
    let view = link.view();
    let denied = [view.snapshot.dial.denied.as_slice()];
    let target = timeout(TARGET_TIMEOUT, dial(&export.target, &denied))
        .await
        .unwrap_or_else(|_| Err(Failure::TimedOut { endpoint: export.target.to_string() }))?;
    // Others may have taken what was left meanwhile.
    descriptors::admit_socket(&target)?;
    Ok(target)
}

async fn carry(
    link: &Arc<Link>,
    connection: &mut Connection,
    export: &Export,
    mut target: TcpStream,
) -> Result<(), Failure> {
    abort_on_close(&target);
    connection.frames.queue(&Message::Accept)?;
    let service: Arc<str> = Arc::from(export.name.as_str());
    let unchanged = |view: &View| view.export(&export.name).is_some_and(|now| now.target == export.target);
    let mut copy = Copy::new(link, connection, (Direction::Incoming, Arc::clone(&service)), &unchanged);
    copy.paces = paces(link, export, &service);
    let end = copy.run(connection, &mut target).await;
    if matches!(end, End::Finished) {
        finish_on_close(&target);
    }
    tracing::debug!(link = %link.name, export = %service, %end, "stream ended");
    link.metrics.ended(Direction::Incoming, end.outcome());
    // Closed before the stream counts as ended.
    drop(target);
    Box::pin(conclude(link, connection, (Direction::Incoming, &service), end)).await
}

/// The byte limits in force when the stream opens.
fn paces(link: &Link, export: &Export, service: &Arc<str>) -> Paces {
    let view = link.view();
    let limits = [(None, view.snapshot.limits), (Some(service), export.limits)];
    let of = |what: Use| {
        let paced = limits.iter().filter_map(|(of, limits)| Some((*of, limits.bytes_per_second?)));
        paced.map(|(of, per_second)| Pace { bucket: link.buckets.get(what, of), per_second }).collect()
    };
    Paces { sent: of(Use::Sent), received: of(Use::Received) }
}
