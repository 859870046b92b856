//! Control connections: declarations, heads and heartbeats; and the loop that keeps one up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::frames::Fault;
use crate::handshake::connect;
use crate::link::Link;
use crate::view::View;
use crate::wire::{Code, Drain, Message, Ping, Role, Side, Want};

/// Between heartbeats (contracts 1).
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Without a byte for so long the other end is dead (contracts 1).
const DEAD_AFTER: Duration = Duration::from_millis(2_500);
/// First wait after a failure, and the longest. A partner's restart is found within seconds, an outage of days costs
/// a handshake every ten seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A connection that lived so long and ends for a new certificate is made anew without a wait.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// A connection that lived so long was a good one: the next failure begins at the first wait again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Keeps a control connection to the peer up, as long as the relay lives.
pub(crate) async fn supervise(link: Arc<Link>) {
    let mut wait = BACKOFF.0;
    while !link.stop.is_cancelled() {
        let view = link.view();
        if view.snapshot.peer.endpoints.is_empty() {
            changed(&link, &view).await;
            continue;
        }
        let start = Instant::now();
        let failure = match link.unless_stopped(connect(&link, Role::Control)).await {
            Some(Ok(connection)) => drive(&link, connection).await,
            Some(Err(failure)) => failure,
            None => return,
        };
        if link.stop.is_cancelled() {
            return;
        }
        // At once, unless the peer says so again and again.
        if matches!(failure, Failure::TrustChanged) && start.elapsed() > SETTLED_AFTER {
            wait = BACKOFF.0;
            continue;
        }
        report(&link, &failure);
        if start.elapsed() > GOOD_AFTER {
            wait = BACKOFF.0;
        }
        let jittered = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = sleep(jittered) => wait = (wait * 2).min(BACKOFF.1),
            () = changed(&link, &view) => wait = BACKOFF.0,
            () = link.stop.cancelled() => return,
        }
    }
}

/// Says a failure aloud once, and in a whisper while it stays the same.
fn report(link: &Link, failure: &Failure) {
    let reason = failure.reason();
    let again = link.peer().last_error.as_ref().is_some_and(|last| last.reason == reason);
    link.failed(failure);
    if again {
        tracing::debug!(link = %link.name, reason, %failure, "no connection to the peer");
    } else {
        tracing::warn!(link = %link.name, reason, %failure, "no connection to the peer");
    }
}

/// Returns once the way to the peer, our certificate or our trust is another.
async fn changed(link: &Link, before: &View) {
    let mut generation = link.generation();
    loop {
        let now = link.view();
        let same = Arc::ptr_eq(&now.tls, &before.tls) && now.snapshot.peer == before.snapshot.peer;
        if !same || link.stop.is_cancelled() {
            return;
        }
        tokio::select! {
            _ = generation.changed() => {}
            () = link.stop.cancelled() => return,
        }
    }
}

/// Drives one control connection, dialed or accepted, until it ends.
pub(crate) async fn drive(link: &Arc<Link>, mut connection: Connection) -> Failure {
    let facts = Arc::clone(&connection.facts);
    let aloud = link.may_say();
    if aloud {
        tracing::info!(
            link = %link.name, peer = %facts.peer.trust_domain, replica = %facts.replica,
            side = ?facts.side, group = facts.tls_group, "control connection up"
        );
    }
    let failure = talk(link, &mut connection).await;
    connection.end(&failure).await;
    if aloud {
        tracing::info!(link = %link.name, peer = %facts.peer.trust_domain, replica = %facts.replica, %failure, "control connection down");
    }
    failure
}

async fn talk(link: &Arc<Link>, connection: &mut Connection) -> Failure {
    let mut generation = link.generation();
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = Talk { declared: None, drained: false, heard: Instant::now(), asked: None, nonce: 0, wanted: 0 };
    let mut wanted = link.reverse.wanted();
    loop {
        let view = link.view();
        if !link.trusts(&connection.facts) || connection.is_outdated(&view) {
            connection.bye(Code::TrustChanged, "our trust or certificate changed").await;
            return Failure::TrustChanged;
        }
        if let Err(fault) = state.tell(link, connection, &view) {
            return fault.into();
        }
        tokio::select! {
            biased;
            () = link.stop.cancelled() => {
                connection.bye(Code::Draining, "this relay stops").await;
                return Fault::Ended.into();
            }
            _ = generation.changed() => {}
            _ = wanted.changed() => {}
            message = connection.frames.message() => {
                let heard = message.map_err(Failure::from).and_then(|message| state.hear(link, connection, message));
                if let Err(failure) = heard {
                    return failure;
                }
            }
            _ = heartbeat.tick() => {
                if state.heard.elapsed() > DEAD_AFTER {
                    return Failure::Dead(DEAD_AFTER);
                }
                if let Err(fault) = state.ask(connection) {
                    return fault.into();
                }
            }
        }
    }
}

/// What a control connection remembers.
struct Talk {
    /// Hash of the declaration last sent.
    declared: Option<securelink_relay_config::Digest>,
    drained: bool,
    heard: Instant,
    /// The heartbeat that waits for its answer.
    asked: Option<Instant>,
    nonce: u64,
    /// What the last WANT said.
    wanted: u32,
}

impl Talk {
    /// The declaration goes before its head, so that no OPEN waits for it.
    fn tell(&mut self, link: &Link, connection: &mut Connection, view: &View) -> Result<(), Fault> {
        if self.declared != Some(view.head.hash) {
            connection.frames.queue(&Message::Declare(view.declared.clone()))?;
            self.declared = Some(view.head.hash);
        }
        connection.tell_head(view)?;
        let wanted = *link.reverse.wanted().borrow();
        if connection.facts.side == Side::Acceptor && !link.dials() && wanted != self.wanted {
            self.wanted = wanted;
            connection.frames.queue(&Message::Want(Want { count: u16::try_from(wanted).unwrap_or(u16::MAX) }))?;
        }
        if link.is_draining() && !self.drained {
            self.drained = true;
            connection.frames.queue(&Message::Drain(Drain { deadline_ms: 0 }))?;
        }
        Ok(())
    }

    fn ask(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        if self.asked.is_none() {
            self.nonce += 1;
            connection.frames.queue(&Message::Ping(Ping { nonce: self.nonce }))?;
            self.asked = Some(Instant::now());
        }
        Ok(())
    }

    fn hear(&mut self, link: &Link, connection: &mut Connection, message: Message) -> Result<(), Failure> {
        self.heard = Instant::now();
        link.peer().last_heard = Some(self.heard);
        match message {
            Message::Ping(ping) => connection.frames.queue(&Message::Pong(ping))?,
            Message::Pong(_) => {
                if let Some(asked) = self.asked.take() {
                    let took = asked.elapsed();
                    link.rtt.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
                    link.metrics.rtt.set(took.as_secs_f64());
                }
            }
            Message::Head(head) => link.heard_head(&connection.facts, &head),
            Message::Declare(bytes) => {
                if let Err(error) = link.heard_declaration(&bytes)
                    && link.may_say()
                {
                    tracing::warn!(link = %link.name, %error, "the peer's declaration is not used");
                }
            }
            Message::Want(want) => link.reverse.heard_want(want.count),
            Message::Bye(bye) if bye.code == Code::TrustChanged => return Err(Failure::TrustChanged),
            Message::Bye(bye) => return Err(Failure::of_bye(&bye)),
            _ => {}
        }
        Ok(())
    }
}
