//! The link's connections and what they say: heads, declarations, failures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use securelink_relay_config::{Declaration, DeclarationError, Digest, ErrorReport, Head, successor};
use tokio::time::Instant;

use super::{Link, locked};
use crate::connection::Facts;
use crate::failure::Failure;
use crate::peer::PeerState;
use crate::wire::{ReplicaId, Role, Side};

impl Link {
    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Lists a connection and hears its HELLO.
    pub(crate) fn admit(&self, facts: &Arc<Facts>) {
        locked(&self.connections).insert(facts.id, Arc::clone(facts));
        self.replicas.heard(facts.replica);
        let head = facts.head().clone();
        let now = self.now();
        let control = facts.role == Role::Control;
        let mut peer = self.peer();
        let news = peer.heads.observe(&head);
        let mut first = false;
        if control {
            peer.prove(facts.replica, facts.peer.not_after);
        }
        if facts.is_witness() {
            first = self.controls.fetch_add(1, Ordering::AcqRel) == 0;
            peer.last_heard = Some(Instant::now());
            peer.last_group = facts.tls_group.filter(|_| facts.is_connect());
            peer.ever_connected = true;
            peer.connected_since.get_or_insert(now);
            peer.last_error = None;
        }
        drop(peer);
        // A connection like all others changes no judgment: thousands of streams are not to look again for each.
        if news || control {
            self.bump_soon();
        } else if first {
            self.changed();
        }
    }

    pub(crate) fn forget(&self, id: u64) {
        let gone = locked(&self.connections).remove(&id);
        let Some(facts) = gone.filter(|facts| facts.is_witness()) else { return };
        let last = self.controls.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            let mut peer = self.peer();
            (peer.connected_since, peer.last_heard) = (None, Some(Instant::now()));
            peer.last_seen = facts.is_connect().then(|| self.now());
        }
        if facts.role == Role::Control {
            self.bump_soon();
        } else if last {
            self.changed();
        }
    }

    /// A control connection has ended. Unless it is made anew for another certificate, the last one with a replica takes the
    /// connections at rest with it: new streams go elsewhere.
    pub(crate) fn parted(&self, facts: &Facts, why: &Failure) {
        let is_last = self.replicas.parted(facts.replica, facts.side == Side::Dialer);
        if !is_last {
            return;
        }
        self.reverse.forget(facts.replica);
        if !matches!(why, Failure::TrustChanged) {
            self.replicas.died(facts.replica);
            self.pool.discard(facts.replica);
            self.bump_soon();
        }
    }

    /// A replica of the peer's says that it goes away: it carries its streams to their end and is given no other.
    pub(crate) fn leaves(&self, facts: &Facts) {
        if self.replicas.drains(facts.replica) {
            self.pool.discard(facts.replica);
            self.bump_soon();
        }
    }

    /// Whether a replica is to be given no stream, and so no connection with it is to be kept.
    pub(crate) fn shuns(&self, replica: ReplicaId) -> bool {
        self.replicas.is_leaving(replica) || self.replicas.is_dead(replica)
    }

    /// Returns once a replica is known not to answer.
    pub(crate) async fn died(&self, replica: ReplicaId) {
        let mut generation = self.generation();
        while !self.replicas.is_dead(replica) {
            // Its sender lives as long as the link.
            let _ = generation.changed().await;
        }
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Facts>> {
        locked(&self.connections).values().cloned().collect()
    }

    /// Whether we know where to dial the peer.
    pub(crate) fn dials(&self) -> bool {
        !self.view.load().snapshot.peer.endpoints.is_empty()
    }

    /// Whether a control connection is up, in either direction; or a tunnel of a partner without our software.
    pub(crate) fn is_connected(&self) -> bool {
        self.controls.load(Ordering::Acquire) > 0
    }

    /// A partner without our software asks for a tunnel and names `agreement`: the head the tunnel is judged by.
    pub(crate) fn heard_call(&self, agreement: Option<Digest>) -> Head {
        let now = self.now();
        let (head, news) = self.peer().called(agreement, now);
        if news {
            self.changed();
        }
        head
    }

    /// A head came on a connection.
    pub(crate) fn heard_head(&self, facts: &Facts, head: &Head) {
        let news_here = {
            let mut last = facts.head();
            let next = successor(&last, head);
            std::mem::replace(&mut *last, next.clone()) != next
        };
        let news = self.peer().heads.observe(head);
        if news || news_here {
            self.bump_soon();
        }
    }

    /// A declaration came.
    pub(crate) fn heard_declaration(&self, bytes: &[u8]) -> Result<(), DeclarationError> {
        let declaration = Declaration::from_bytes(bytes)?;
        if self.peer().remember(bytes, declaration) {
            self.bump_soon();
        }
        Ok(())
    }

    /// An attempt of ours failed.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.count(failure, |peer| &mut peer.last_error);
    }

    /// A caller was refused. A stranger's knock must not hide why we do not reach the peer.
    pub(crate) fn refused(&self, failure: &Failure) {
        self.count(failure, |peer| &mut peer.last_refused);
    }

    /// Something new was refused because too little is left for it. People are told what to do.
    pub(crate) fn overloaded(&self, failure: &Failure) {
        if self.may_say_of_strangers() {
            tracing::warn!(link = %self.name, reason = failure.reason(), %failure, "a stream was refused; those that live go on");
        }
        self.refused(failure);
    }

    fn count(&self, failure: &Failure, place: impl FnOnce(&mut PeerState) -> &mut Option<ErrorReport>) {
        self.metrics.refused(failure.reason());
        let now = self.now();
        let mut peer = self.peer();
        let error = peer.count(failure, now);
        *place(&mut peer) = Some(error);
        drop(peer);
        self.changed_soon();
    }
}
