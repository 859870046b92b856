//! Judgments with everything the link knows: may this connection stay, may this stream be, did time change that?

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use securelink_pki::verify;
use securelink_relay_config::{Disagreement, GateOpinion, Head, Millis, ended};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{KEEP_LATCH_EVERY, Link, Verdicts, locked};
use crate::connection::Facts;
use crate::judge::{Denial, Direction, Judgment, PeerView, gate, judge};
use crate::wire::Code;

/// How long a stream outlives its peer's leaf (relay, "Direction, replicas, death"; fault F86).
const LEAF_GRACE: SignedDuration = SignedDuration::from_mins(5);

impl Link {
    /// Whether a connection's peer is still the one this link trusts.
    pub(crate) fn trusts(&self, facts: &Facts) -> bool {
        let view = self.view();
        // Another pin may admit the peer as well: then by a new connection.
        if view.is_pin_cut(facts.peer.pin) {
            return false;
        }
        if Arc::ptr_eq(&facts.trust, &view.trust) {
            return true;
        }
        let mut verdicts = locked(&self.verdicts);
        if !Arc::ptr_eq(&verdicts.trust, &view.trust) {
            *verdicts = Verdicts { trust: Arc::clone(&view.trust), known: HashMap::new() };
        }
        // A leaf that has run out since is another rule's business (fault F86).
        let now = self.clock.now().min(facts.peer.not_after);
        *verdicts.known.entry(facts.peer.chain_hash).or_insert_with(|| verify(&facts.chain, &view.trust, now).is_ok())
    }

    /// Whether a connection's leaf ended too long ago, and the same replica has proved no later one on a control connection.
    fn is_outlived(&self, facts: &Facts, now: Timestamp) -> bool {
        let ended = |end: Timestamp| now > end.saturating_add(LEAF_GRACE).unwrap_or(Timestamp::MAX);
        ended(facts.peer.not_after) && self.peer().proved_until(facts.replica).is_none_or(ended)
    }

    fn with_peer<T>(&self, head: &Head, use_it: impl FnOnce(&PeerView<'_>, Millis) -> T) -> T {
        let (connected, view, now) = (self.is_connected(), self.view(), self.now());
        let (allowed, asserts) = (view.snapshot.max_staleness_seconds, view.is_connect());
        let peer = self.peer();
        let view = PeerView {
            connection: head,
            // What a partner without our software names is meant for that one tunnel.
            highest: if asserts { Some(head) } else { peer.heads.highest() },
            asserts,
            declaration: &|hash| peer.declaration(hash),
            stale: peer.is_stale(connected, Duration::from_secs(allowed)),
        };
        use_it(&view, now)
    }

    /// Judges a stream on a connection.
    pub(crate) fn judge(&self, facts: &Facts, direction: Direction, service: &str) -> Judgment {
        if !self.trusts(facts) {
            return Judgment::Deny(Denial::new(Code::TrustChanged, "this side no longer trusts that key"));
        }
        if self.is_outlived(facts, self.clock.now()) {
            return Judgment::Deny(Denial::new(Code::TrustChanged, "your certificate has ended and was not renewed"));
        }
        let view = self.view();
        if facts.is_connect() != view.is_connect() {
            return Judgment::Deny(Denial::new(Code::TrustChanged, "this link speaks another protocol now"));
        }
        let head = facts.head().clone();
        let judgment = self.with_peer(&head, |peer, now| judge(&view, peer, (direction, service), &self.latch(), now));
        if matches!(&judgment, Judgment::Deny(denial) if denial.code == Code::Expired) {
            // The two heads that were judged, not all: every stream comes here when an agreement ends.
            let highest = self.peer().heads.highest().cloned();
            self.remember_ends(&view.head, &[Some(head), highest].into_iter().flatten().collect::<Vec<_>>());
        }
        judgment
    }

    /// Returns the denial once a stream may no longer be; looks at every change.
    pub(crate) async fn denied(&self, facts: &Facts, direction: Direction, service: &str) -> Denial {
        let mut generation = self.generation();
        loop {
            if let Judgment::Deny(denial) = self.judge(facts, direction, service) {
                return denial;
            }
            // Its sender lives as long as the link.
            let _ = generation.changed().await;
        }
    }

    /// The gate as people see it: by the highest head. Of a partner without our software by the one of any tunnel, or by
    /// the last one it named: one client of its that names a wrong agreement does not speak for the others.
    pub(crate) fn gate(&self) -> Option<GateOpinion> {
        let view = self.view();
        let highest = || self.peer().heads.highest().cloned().into_iter().collect();
        let heads = if view.is_connect() { self.heads() } else { highest() };
        let judged = |head| self.with_peer(head, |peer, now| gate(&view.head, peer, &self.latch(), now));
        let opinions: Vec<GateOpinion> = heads.iter().map(judged).collect();
        let opinion = *opinions.iter().find(|opinion| opinion.verdict.is_ok()).or(opinions.first())?;
        if let Err(Disagreement::Expired { .. }) = opinion.verdict {
            self.remember_ends(&view.head, &heads);
        }
        Some(opinion)
    }

    /// The distinct heads heard, the highest first.
    fn heads(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = self.peer().heads.highest().cloned().into_iter().collect();
        for facts in locked(&self.connections).values() {
            let head = facts.head();
            if !heads.contains(&head) {
                heads.push(head.clone());
            }
        }
        heads
    }

    /// An end that anybody was told of stays one, also if the clock steps back the next moment (contracts 2).
    fn remember_ends(&self, own: &Head, heads: &[Head]) {
        let now = self.now();
        let mut latch = self.latch();
        let mut news = false;
        for (digest, end) in heads.iter().flat_map(|head| ended(own, head, now)) {
            news |= latch.record(digest, end);
        }
        if news {
            self.unkept.notify_one();
        }
    }

    /// Stores the ends that were seen, until the relay stops: the first at once, and the last not after it.
    pub(crate) async fn keep_ends(self: Arc<Self>) {
        while self.unless_stopped(self.unkept.notified()).await.is_some() {
            self.save_ends().await;
            self.unless_stopped(sleep(KEEP_LATCH_EVERY)).await;
        }
        if self.unkept.notified().now_or_never().is_some() {
            self.save_ends().await;
        }
    }

    /// Nobody waits for the disk: neither a stream nor who asks the gate.
    async fn save_ends(&self) {
        let (latch, store) = (self.latch().clone(), Arc::clone(&self.store));
        if let Ok(Err(error)) = spawn_blocking(move || store.save_latch(&latch)).await {
            tracing::error!(link = %self.name, %error, "the agreement's end could not be stored");
        }
    }

    /// Looks whether time alone changed a judgment, and remembers agreements that ended. `before` is what the last call
    /// returned.
    pub(crate) fn tick(&self, before: &[bool]) -> Vec<bool> {
        let (view, heads) = (self.view(), self.heads());
        self.remember_ends(&view.head, &heads);
        let mut open: Vec<bool> = heads
            .iter()
            .map(|head| self.with_peer(head, |peer, now| gate(&view.head, peer, &self.latch(), now).verdict.is_ok()))
            .collect();
        self.metrics.agreed.set(i64::from(self.gate().is_some_and(|opinion| opinion.verdict.is_ok())));
        self.metrics.ready.set(i64::from(self.is_ready()));
        let now = self.clock.now();
        open.extend(self.connections().iter().filter(|facts| self.is_outlived(facts, now)).map(|_| true));
        if open != before {
            self.bump();
        }
        open
    }
}
