//! One control connection: declarations, heads, heartbeats, and word of replicas that come and go.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::frames::Fault;
use crate::limits::Bucket;
use crate::link::Link;
use crate::view::View;
use crate::wire::{Code, Drain, Message, Peers, Ping, ReplicaId, Side, Want};

/// Between heartbeats (contracts 1).
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Without a byte for so long the other end is dead (contracts 1).
const DEAD_AFTER: Duration = Duration::from_millis(2_500);
/// After so long, two heartbeats, others are given the new streams.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);
/// PEERS obeyed at once; of more in a second the last is obeyed at the next heartbeat. Each costs a look at all replicas.
const PEERS_PER_SECOND: u32 = 4;

/// Returns once the way to the peer, our certificate or our trust is another, or the relay stops.
pub(crate) async fn changed(link: &Link, before: &View) {
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
pub(crate) async fn drive(link: &Arc<Link>, mut connection: Box<Connection>) -> Failure {
    let facts = Arc::clone(&connection.facts);
    let aloud = link.may_say();
    if aloud {
        tracing::info!(
            link = %link.name, peer = %facts.peer.trust_domain, replica = %facts.replica,
            side = ?facts.side, group = facts.tls_group, "control connection up"
        );
    }
    if facts.side == Side::Acceptor {
        link.replicas.called(facts.replica);
    }
    let failure = talk(link, &mut connection).await;
    link.parted(&facts, &failure);
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
    let mut state = Talk::new();
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
            () = sleep_until(state.heard + DEAD_AFTER) => return Failure::Dead(DEAD_AFTER),
            _ = heartbeat.tick() => {
                state.obey_peers(link, connection);
                if state.asked.is_some_and(|asked| asked.elapsed() > OVERDUE_AFTER) {
                    link.replicas.overdue(connection.facts.replica);
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
    /// The siblings last named.
    named: Arc<Vec<ReplicaId>>,
    heard: Instant,
    /// The heartbeat that waits for its answer.
    asked: Option<Instant>,
    nonce: u64,
    /// What the last WANT said.
    wanted: u32,
    /// PEERS that may still be obeyed at once, and what the last one said that was not.
    peers: Bucket,
    unheard: Option<Peers>,
}

impl Talk {
    fn new() -> Self {
        let named = Arc::default();
        Self {
            declared: None,
            drained: false,
            named,
            heard: Instant::now(),
            asked: None,
            nonce: 0,
            wanted: 0,
            peers: Bucket::default(),
            unheard: None,
        }
    }

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
        let siblings = link.siblings.load_full();
        if siblings != self.named {
            connection.frames.queue(&Message::Peers(Peers { replicas: siblings.to_vec() }))?;
            self.named = siblings;
        }
        if link.is_draining() && !self.drained {
            self.drained = true;
            let deadline_ms = u32::try_from(link.drain_left().as_millis()).unwrap_or(u32::MAX);
            connection.frames.queue(&Message::Drain(Drain { deadline_ms }))?;
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

    fn obey_peers(&mut self, link: &Link, connection: &Connection) {
        if let Some(peers) = self.unheard.take() {
            link.replicas.names(connection.facts.replica, peers.replicas);
        }
    }

    fn hear(&mut self, link: &Link, connection: &mut Connection, message: Message) -> Result<(), Failure> {
        self.heard = Instant::now();
        link.peer().last_heard = Some(self.heard);
        match message {
            Message::Ping(ping) => connection.frames.queue(&Message::Pong(ping))?,
            Message::Pong(_) => {
                if let Some(asked) = self.asked.take() {
                    let took = asked.elapsed();
                    link.replicas.answered(connection.facts.replica, took);
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
            Message::Want(want) => link.reverse.heard_want(connection.facts.replica, want.count),
            Message::Peers(peers) => {
                self.unheard = Some(peers);
                if self.peers.admit(PEERS_PER_SECOND, self.heard) {
                    self.obey_peers(link, connection);
                }
            }
            Message::Drain(_) => link.leaves(&connection.facts),
            Message::Bye(bye) if bye.code == Code::TrustChanged => return Err(Failure::TrustChanged),
            Message::Bye(bye) => return Err(Failure::of_bye(&bye)),
            _ => {}
        }
        Ok(())
    }
}
