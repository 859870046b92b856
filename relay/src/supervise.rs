//! Keeps a control connection to every replica of the peer: one keeper for each way to it. Behind one way there may be
//! several replicas, so a keeper that holds one goes on looking, seldom, or often while PEERS names one that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::control;
use crate::failure::Failure;
use crate::handshake::connect_by;
use crate::link::Link;
use crate::view::View;
use crate::ways::Way;
use crate::wire::{Code, Role};

/// First wait after a failure, and the longest. A partner's restart is found within seconds, an outage of days costs
/// a handshake every ten seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A connection that lived so long and ends for a new certificate is made anew without a wait.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// A connection that lived so long was a good one: the next failure begins at the first wait again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// Between looks for further replicas behind a way, first and longest: each costs both sides a handshake. A load balancer
/// of two leads elsewhere at every other dial; whoever it hides for long is found when its sibling dies.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// The same while a replica is named that is missing. A peer that names ever others costs us five handshakes a second.
const LOOK_FOR_NAMED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Between looks at what the peer's names resolve to, while nothing fails.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Runs as long as the relay lives.
pub(crate) async fn supervise(link: Arc<Link>) {
    let mut keepers: BTreeMap<Way, CancellationToken> = BTreeMap::new();
    let again = Arc::new(Notify::new());
    let mut wait = BACKOFF.0;
    while !link.stop.is_cancelled() {
        let view = link.view();
        let (ways, all_lead) = tokio::select! {
            found = find(&link, &view) => found,
            () = control::changed(&link, &view) => continue,
        };
        keepers.retain(|way, kept| {
            let kept_on = ways.contains(way);
            if !kept_on {
                kept.cancel();
            }
            kept_on
        });
        link.replicas.lead(ways.clone());
        for way in ways {
            keepers.entry(way).or_insert_with_key(|way| {
                let keeper = Keeper::new(&link, way.clone(), &again);
                let retired = keeper.retired.clone();
                link.tasks.spawn(keeper.keep());
                retired
            });
        }
        let due = jittered(if all_lead { RESOLVE_EVERY } else { wait });
        wait = if all_lead { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
        tokio::select! {
            // Where there is nothing to resolve, only another snapshot brings something.
            () = sleep(due), if link.dials() => {}
            () = again.notified() => {}
            () = control::changed(&link, &view) => {}
        }
    }
}

/// The ways to the peer now, and whether every endpoint leads somewhere. A name that does not resolve is told of only where
/// nothing is known instead.
async fn find(link: &Link, view: &View) -> (BTreeSet<Way>, bool) {
    let (mut ways, mut all_lead) = (BTreeSet::new(), true);
    let endpoints = &view.snapshot.peer.endpoints;
    link.names.retain(endpoints);
    for endpoint in endpoints {
        let found = link.names.ways(&view.snapshot, endpoint).await;
        if let Some(failure) = found.failure {
            if found.ways.is_empty() {
                all_lead = false;
                report(link, &failure);
            } else {
                tracing::debug!(link = %link.name, %failure, "the addresses it had last are used");
            }
        }
        ways.extend(found.ways);
    }
    (ways, all_lead)
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

/// Dials one way.
struct Keeper {
    link: Arc<Link>,
    way: Way,
    /// The peer's names no longer lead this way: what is held is kept until it ends.
    retired: CancellationToken,
    /// Told when names had better be resolved again.
    again: Arc<Notify>,
    /// What drives the connections held.
    held: JoinSet<(Instant, Failure)>,
    wait: Duration,
    /// Looks in a row that met nobody new.
    misses: u32,
    /// Reasons to look anew that are known.
    reasons: u64,
}

/// What a dial brought.
enum Dialed {
    New,
    Known,
    Failed,
}

impl Keeper {
    fn new(link: &Arc<Link>, way: Way, again: &Arc<Notify>) -> Self {
        Self {
            link: Arc::clone(link),
            way,
            retired: CancellationToken::new(),
            again: Arc::clone(again),
            held: JoinSet::new(),
            wait: BACKOFF.0,
            misses: 0,
            reasons: link.replicas.reasons(),
        }
    }

    async fn keep(mut self) {
        let (link, retired) = (Arc::clone(&self.link), self.retired.clone());
        while !retired.is_cancelled() && !link.stop.is_cancelled() {
            let view = link.view();
            let dialed = tokio::select! {
                () = link.stop.cancelled() => break,
                () = retired.cancelled() => break,
                dialed = connect_by(&link, &self.way, Role::Control) => self.take(dialed).await,
            };
            self.pause(&view, &dialed).await;
        }
        while self.held.join_next().await.is_some() {}
    }

    async fn take(&mut self, dialed: Result<Box<Connection>, Failure>) -> Dialed {
        match dialed {
            Ok(mut connection) => {
                if self.link.replicas.met(connection.facts.replica, &self.way) {
                    let link = Arc::clone(&self.link);
                    let drive = async move { (Instant::now(), control::drive(&link, connection).await) };
                    self.held.spawn(drive);
                    self.misses = 0;
                    return Dialed::New;
                }
                connection.bye(Code::Draining, "one control connection is enough").await;
                self.misses += 1;
                Dialed::Known
            }
            Err(failure) => {
                if self.held.is_empty() {
                    report(&self.link, &failure);
                    self.again.notify_one();
                }
                self.misses += 1;
                Dialed::Failed
            }
        }
    }

    /// Waits until it is time to dial again.
    async fn pause(&mut self, view: &View, dialed: &Dialed) {
        let link = Arc::clone(&self.link);
        // Once: who causes news must not roll the dice again.
        let (since, part) = (Instant::now(), jitter());
        let mut news = link.replicas.news();
        loop {
            let reasons = link.replicas.reasons();
            if std::mem::replace(&mut self.reasons, reasons) != reasons {
                // Who is named now, or was reached by another way before, may be behind this one.
                self.misses = 0;
            }
            let wait = if self.held.is_empty() && matches!(dialed, Dialed::Failed) { self.wait } else { self.look() };
            let due = since + wait.mul_f64(part);
            tokio::select! {
                () = sleep_until(due), if !link.replicas.is_full() || self.held.is_empty() => {
                    if matches!(dialed, Dialed::Failed) {
                        self.wait = (self.wait * 2).min(BACKOFF.1);
                    }
                    return;
                }
                Some(ended) = self.held.join_next() => return self.lost(view, ended.ok()).await,
                _ = news.changed() => {}
                () = control::changed(&link, view), if self.held.is_empty() => {
                    self.wait = BACKOFF.0;
                    return;
                }
                () = self.retired.cancelled() => return,
                () = link.stop.cancelled() => return,
            }
        }
    }

    fn look(&self) -> Duration {
        let (first, longest) = if self.link.replicas.is_one_missing() { LOOK_FOR_NAMED } else { LOOK };
        first.saturating_mul(2_u32.saturating_pow(self.misses.min(16))).min(longest)
    }

    /// A connection held has ended: returns when it is time to dial again.
    async fn lost(&mut self, view: &View, ended: Option<(Instant, Failure)>) {
        self.misses = 0;
        let Some((began, failure)) = ended else { return };
        if self.link.stop.is_cancelled() {
            return;
        }
        // At once, unless the peer says so again and again.
        if matches!(failure, Failure::TrustChanged) && began.elapsed() > SETTLED_AFTER {
            self.wait = BACKOFF.0;
            return;
        }
        report(&self.link, &failure);
        self.again.notify_one();
        if began.elapsed() > GOOD_AFTER {
            self.wait = BACKOFF.0;
        }
        tokio::select! {
            () = sleep(jittered(self.wait)) => self.wait = (self.wait * 2).min(BACKOFF.1),
            () = control::changed(&self.link, view) => self.wait = BACKOFF.0,
            () = self.retired.cancelled() => {}
            () = self.link.stop.cancelled() => {}
        }
    }
}

/// Many relays must not dial in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(jitter())
}

fn jitter() -> f64 {
    0.5 + fastrand::f64() / 2.0
}
