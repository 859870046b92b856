//! What is remembered of the peer over all connections: its heads, its declarations, and how dialing it went.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use securelink_relay_config::{AgreementTerm, Declaration, Digest, ErrorReport, Head, LinkState, Millis, PeerHeads};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::wire::ReplicaId;

/// Declarations remembered: during a rolling change of the peer two are alive, the rest is for heads that lag.
const DECLARATIONS: usize = 4;

/// Replicas remembered: as many as PEERS may name.
const REPLICAS: usize = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct PeerState {
    pub(crate) heads: PeerHeads,
    declarations: VecDeque<(Digest, Arc<Declaration>)>,
    /// By replica, the latest end of a leaf that it proved on a control connection.
    proved: BTreeMap<ReplicaId, Timestamp>,
    /// When a control connection last brought a byte. Not by the clock on the wall: a step of it makes no word old.
    pub(crate) last_heard: Option<Instant>,
    /// When a partner without our software was last here: asked for a tunnel, or held one.
    pub(crate) last_seen: Option<Millis>,
    /// The key exchange of its last tunnel.
    pub(crate) last_group: Option<&'static str>,
    pub(crate) ever_connected: bool,
    pub(crate) connected_since: Option<Millis>,
    /// Of our own attempts, until one succeeds.
    pub(crate) last_error: Option<ErrorReport>,
    /// Of those who called.
    pub(crate) last_refused: Option<ErrorReport>,
    /// Refusals and failures by reason: our own words, so the map is bounded.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

impl PeerState {
    /// A partner without our software named `agreement`: the head that one tunnel is judged by. The last one is kept for
    /// people; with it, whether it is another than before.
    pub(crate) fn called(&mut self, agreement: Option<Digest>, now: Millis) -> (Head, bool) {
        let term = |digest| AgreementTerm { digest, from: Millis(0), until: None };
        let hash = Digest::of(b"");
        let current = agreement.map(term);
        let head = Head { sequence: 0, current, next: None, state: LinkState::Active, hash };
        let last = self.heads.highest();
        let sequence = last.map_or(0, |last| last.sequence.saturating_add(u64::from(last.current != current)));
        (self.last_heard, self.last_seen) = (Some(Instant::now()), Some(now));
        let news = self.heads.observe(&Head { sequence, ..head.clone() });
        (head, news)
    }

    /// A replica proved on a control connection that it has a leaf until `not_after`.
    pub(crate) fn prove(&mut self, replica: ReplicaId, not_after: Timestamp) {
        if self.proved.len() == REPLICAS && !self.proved.contains_key(&replica) {
            let first_to_end = self.proved.iter().min_by_key(|(_, end)| **end).map(|(replica, _)| *replica);
            first_to_end.and_then(|replica| self.proved.remove(&replica));
        }
        let end = self.proved.entry(replica).or_insert(not_after);
        *end = not_after.max(*end);
    }

    /// Until when a replica is known to have a leaf. Also while its control connection is being made anew.
    pub(crate) fn proved_until(&self, replica: ReplicaId) -> Option<Timestamp> {
        self.proved.get(&replica).copied()
    }

    /// The declaration behind a hash, if it was received.
    pub(crate) fn declaration(&self, hash: Digest) -> Option<&Declaration> {
        self.declarations.iter().find(|(known, _)| *known == hash).map(|(_, declaration)| &**declaration)
    }

    /// The declaration behind the highest head.
    pub(crate) fn current(&self) -> Option<&Declaration> {
        self.heads.highest().and_then(|head| self.declaration(head.hash))
    }

    /// Remembers a declaration; true where it was not known.
    pub(crate) fn remember(&mut self, bytes: &[u8], declaration: Declaration) -> bool {
        let hash = Digest::of(bytes);
        if self.declaration(hash).is_some() {
            return false;
        }
        self.declarations.push_back((hash, Arc::new(declaration)));
        if self.declarations.len() > DECLARATIONS {
            let current = self.heads.highest().map(|head| head.hash);
            let oldest = self.declarations.iter().position(|(known, _)| Some(*known) != current).unwrap_or(0);
            self.declarations.remove(oldest);
        }
        true
    }

    /// Counts a failure; the caller keeps what it returns for people.
    pub(crate) fn count(&mut self, failure: &Failure, now: Millis) -> ErrorReport {
        *self.refused.entry(failure.reason()).or_default() += 1;
        ErrorReport { reason: failure.reason().to_owned(), message: failure.to_string(), at: now }
    }

    /// Whether the peer's last word is older than `allowed`, with no control connection to renew it.
    pub(crate) fn is_stale(&self, connected: bool, allowed: Duration) -> bool {
        !connected && self.last_heard.is_some_and(|heard| heard.elapsed() > allowed)
    }
}
