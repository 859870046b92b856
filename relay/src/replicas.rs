//! The peer's replicas: which of them live, where they were reached, which are leaving. Learned from HELLO, from control
//! connections and PEERS, never from the network's addresses; decides whose turn the next stream is. Opens nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::locked;
use crate::ways::Way;
use crate::wire::ReplicaId;

/// Replicas of the peer that are kept apart: as many as PEERS may name (contracts 1).
pub(crate) const REPLICAS: usize = 64;

/// Between two searches that PEERS can begin: as long as the longest wait of one ([`crate::supervise`]). Who is named
/// meanwhile is looked for by the one that goes on.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// A way by which a dial failed is the last choice for so long: a dial that is swallowed costs a client 4 s, and whatever
/// swallowed it may be over.
const FAILING_FOR: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(crate) struct Replicas {
    known: Mutex<Known>,
    /// Raised when a replica is named, met or lost: who looks for replicas looks again.
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    /// Those with a control connection.
    live: BTreeMap<ReplicaId, Replica>,
    /// Those that went silent or away, the oldest first, until one of them is heard of again.
    dead: VecDeque<ReplicaId>,
    /// The ways that the peer's names have now.
    ways: BTreeSet<Way>,
    /// Those by which the last dial failed, and when.
    failed: BTreeMap<Way, Instant>,
    /// A replica is named by a sibling that lives, and we hold no control connection to it.
    is_one_missing: bool,
    /// Reasons to look for replicas anew: control connections that we dialed and that ended, and searches begun by PEERS.
    reasons: u64,
    /// When PEERS last began a search.
    searched: Option<Instant>,
    turn: usize,
}

impl Known {
    /// Looks who is missing. True where somebody is and nobody was before.
    fn miss(&mut self) -> bool {
        let is_held = |id| self.live.get(id).is_some_and(|replica| replica.is_dialed);
        let missing = self.live.values().flat_map(|replica| &replica.siblings).any(|named| !is_held(named));
        !std::mem::replace(&mut self.is_one_missing, missing) && missing
    }

    fn is_listed(&self, way: &Way) -> bool {
        self.ways.contains(way)
    }

    fn is_failing(&self, way: &Way) -> bool {
        self.failed.get(way).is_some_and(|failed| failed.elapsed() < FAILING_FOR)
    }

    /// Where to dial a replica: where it still is and where the last dial did not fail, if there is such a way.
    fn way(&self, replica: &Replica) -> Option<Way> {
        replica.ways.iter().min_by_key(|way| (!self.is_listed(way), self.is_failing(way))).cloned()
    }
}

#[derive(Default)]
struct Replica {
    /// Its control connections that we accepted.
    accepted: u32,
    /// Whether we hold a control connection that we dialed.
    is_dialed: bool,
    /// The ways by which it was met meanwhile.
    ways: Vec<Way>,
    draining: bool,
    /// A heartbeat is overdue.
    silent: bool,
    round_trip: Duration,
    siblings: Vec<ReplicaId>,
}

/// A replica that may be given a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) id: ReplicaId,
    /// Where to dial it, if we did.
    pub(crate) way: Option<Way>,
}

impl Replicas {
    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    /// Raised at every change.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// A control connection is up that we dialed by `way`, which leads to that replica. False where we hold one to it, or too
    /// many.
    pub(crate) fn met(&self, id: ReplicaId, way: &Way) -> bool {
        let mut guard = self.known();
        let known = &mut *guard;
        if known.live.len() >= REPLICAS && !known.live.contains_key(&id) {
            return false;
        }
        let replica = known.live.entry(id).or_default();
        if !replica.ways.contains(way) {
            replica.ways.push(way.clone());
        }
        let is_new = !std::mem::replace(&mut replica.is_dialed, true);
        if is_new {
            known.miss();
            drop(guard);
            self.tell();
        }
        is_new
    }

    /// A dial by `way` worked.
    pub(crate) fn worked(&self, way: &Way) {
        self.known().failed.remove(way);
    }

    /// A dial by `way` failed.
    pub(crate) fn failed(&self, way: &Way) {
        self.known().failed.insert(way.clone(), Instant::now());
    }

    /// Whether the last dial by `way` failed, lately.
    pub(crate) fn is_failing(&self, way: &Way) -> bool {
        self.known().is_failing(way)
    }

    /// A control connection is up that we accepted.
    pub(crate) fn called(&self, id: ReplicaId) {
        self.known().live.entry(id).or_default().accepted += 1;
        self.tell();
    }

    /// A control connection has ended. True where it was the last one with that replica.
    pub(crate) fn parted(&self, id: ReplicaId, dialed: bool) -> bool {
        let mut guard = self.known();
        let known = &mut *guard;
        let Some(replica) = known.live.get_mut(&id) else { return false };
        if dialed {
            replica.is_dialed = false;
            replica.ways.clear();
            known.reasons += 1;
        } else {
            replica.accepted -= 1;
        }
        let is_gone = !replica.is_dialed && replica.accepted == 0;
        if is_gone {
            known.live.remove(&id);
        }
        known.miss();
        drop(guard);
        self.tell();
        is_gone
    }

    /// It went silent, or away.
    pub(crate) fn died(&self, id: ReplicaId) {
        let mut known = self.known();
        known.dead.push_back(id);
        if known.dead.len() > REPLICAS {
            known.dead.pop_front();
        }
    }

    /// It said HELLO: it lives.
    pub(crate) fn heard(&self, id: ReplicaId) {
        self.known().dead.retain(|dead| *dead != id);
    }

    /// Whether it is known not to answer.
    pub(crate) fn is_dead(&self, id: ReplicaId) -> bool {
        self.known().dead.contains(&id)
    }

    /// It says that it goes away. False where it had said so.
    pub(crate) fn drains(&self, id: ReplicaId) -> bool {
        let draining = self.known().live.get_mut(&id).map(|replica| std::mem::replace(&mut replica.draining, true));
        let is_news = draining == Some(false);
        if is_news {
            self.tell();
        }
        is_news
    }

    /// Whether it had better be given no stream.
    pub(crate) fn is_leaving(&self, id: ReplicaId) -> bool {
        self.known().live.get(&id).is_some_and(|replica| replica.draining)
    }

    /// It names its siblings. Whoever is missing now and was not before is a reason to look anew, not too often.
    pub(crate) fn names(&self, id: ReplicaId, siblings: Vec<ReplicaId>) {
        let mut guard = self.known();
        let known = &mut *guard;
        let Some(replica) = known.live.get_mut(&id).filter(|replica| replica.siblings != siblings) else { return };
        replica.siblings = siblings;
        if !known.miss() {
            return;
        }
        if known.searched.is_none_or(|last| last.elapsed() >= SEARCH_EVERY) {
            known.searched = Some(Instant::now());
            known.reasons += 1;
        }
        drop(guard);
        self.tell();
    }

    /// Whether a replica is named by a sibling that lives, and we hold no control connection to it.
    pub(crate) fn is_one_missing(&self) -> bool {
        self.known().is_one_missing
    }

    /// Raised when replicas had better be looked for anew: a control connection that we dialed has ended, and what was behind
    /// it may be found by another way; or one is named that is not met.
    pub(crate) fn reasons(&self) -> u64 {
        self.known().reasons
    }

    /// Whether as many are met as are kept apart.
    pub(crate) fn is_full(&self) -> bool {
        self.known().live.len() >= REPLICAS
    }

    /// A heartbeat took so long.
    pub(crate) fn answered(&self, id: ReplicaId, took: Duration) {
        if let Some(replica) = self.known().live.get_mut(&id) {
            replica.round_trip = took;
            replica.silent = false;
        }
    }

    /// A heartbeat is overdue: it may be dead.
    pub(crate) fn overdue(&self, id: ReplicaId) {
        if let Some(replica) = self.known().live.get_mut(&id) {
            replica.silent = true;
        }
    }

    /// The last heartbeat's time there and back; zero where none is known.
    pub(crate) fn round_trip(&self, id: ReplicaId) -> Duration {
        self.known().live.get(&id).map(|replica| replica.round_trip).unwrap_or_default()
    }

    /// The ways that the peer's names have now. Others are forgotten, but for a replica that was met by no other.
    pub(crate) fn lead(&self, ways: BTreeSet<Way>) {
        let mut known = self.known();
        known.failed.retain(|way, _| ways.contains(way));
        for replica in known.live.values_mut() {
            if replica.ways.iter().any(|way| ways.contains(way)) {
                replica.ways.retain(|way| ways.contains(way));
            }
        }
        known.ways = ways;
    }

    /// Whom to give the next stream, in this order; each is the first in its turn. Those that leave, that are silent, whose
    /// address the peer's names no longer have or where the last dial failed, only where there are no others.
    pub(crate) fn turn(&self) -> Vec<Live> {
        let mut known = self.known();
        known.turn = known.turn.wrapping_add(1);
        let order = known.live.iter().map(|(id, replica)| {
            let way = known.way(replica);
            let leads = way.as_ref().is_none_or(|way| known.is_listed(way) && !known.is_failing(way));
            (leads && !replica.draining && !replica.silent, Live { id: *id, way })
        });
        let mut order: Vec<_> = order.collect();
        if order.iter().any(|(preferred, _)| *preferred) {
            order.retain(|(preferred, _)| *preferred);
        }
        if !order.is_empty() {
            let first = known.turn % order.len();
            order.rotate_left(first);
        }
        order.into_iter().map(|(_, live)| live).collect()
    }

    /// Those we reach by dialing and that stay, to park connections there; in the order of their names.
    pub(crate) fn reached(&self) -> Vec<(ReplicaId, Way)> {
        let known = self.known();
        let staying = known.live.iter().filter(|(_, replica)| replica.is_dialed && !replica.draining);
        staying.filter_map(|(id, replica)| Some((*id, known.way(replica)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ReplicaId {
        ReplicaId([number; 16])
    }

    fn way(last: u8) -> Way {
        let endpoint = securelink_relay_config::Endpoint { host: "peer.example".to_owned(), port: 443 };
        Way { endpoint, address: Some(([192, 0, 2, last], 443).into()) }
    }

    /// Two that were met, both by addresses the peer's name has.
    fn two() -> Replicas {
        let replicas = Replicas::default();
        replicas.lead([way(1), way(2)].into());
        assert!(replicas.met(id(1), &way(1)) && replicas.met(id(2), &way(2)));
        replicas
    }

    fn first(replicas: &Replicas) -> Vec<ReplicaId> {
        (0..4).map(|_| replicas.turn()[0].id).collect()
    }

    #[test]
    fn each_has_its_turn() {
        let replicas = two();
        let turns = first(&replicas);
        assert!(turns[0] != turns[1] && turns[0] == turns[2] && turns[1] == turns[3], "{turns:?}");
        assert_eq!(replicas.turn().len(), 2, "the other one comes second");
    }

    #[test]
    fn one_that_leaves_or_is_silent_or_whose_address_is_gone_has_no_turn_while_another_is_there() {
        let replicas = two();
        replicas.drains(id(1));
        assert_eq!(first(&replicas), [id(2); 4]);
        replicas.lead([way(1)].into());
        assert_eq!(replicas.turn().len(), 2, "neither is better than the other");
        let replicas = two();
        replicas.overdue(id(2));
        assert_eq!(first(&replicas), [id(1); 4]);
        replicas.answered(id(2), Duration::ZERO);
        assert_eq!(replicas.turn().len(), 2);
        replicas.lead([way(2)].into());
        assert_eq!(first(&replicas), [id(2); 4]);
        assert!(replicas.parted(id(2), true));
        assert_eq!(first(&replicas), [id(1); 4], "better than none");
    }

    #[test]
    fn a_second_connection_to_a_replica_is_none_too_many_once_the_first_is_gone() {
        let replicas = two();
        assert!(!replicas.met(id(1), &way(2)));
        replicas.called(id(1));
        assert!(!replicas.parted(id(1), true), "it still calls us");
        assert!(replicas.met(id(1), &way(2)));
        assert!(!replicas.parted(id(1), false) && replicas.parted(id(1), true));
    }

    #[test]
    fn who_is_named_is_missed_until_met() {
        let replicas = two();
        assert!(!replicas.is_one_missing());
        replicas.names(id(1), vec![id(2), id(3)]);
        assert!(replicas.is_one_missing());
        replicas.called(id(3));
        assert!(replicas.is_one_missing(), "it reaches us, we do not reach it");
        assert!(replicas.met(id(3), &way(1)));
        assert!(!replicas.is_one_missing());
        replicas.names(id(1), vec![id(4)]);
        replicas.parted(id(1), true);
        assert!(!replicas.is_one_missing(), "who is gone names nobody");
    }

    #[test]
    fn a_way_that_the_names_no_longer_have_is_not_dialed_where_another_leads_to_the_replica() {
        let dialed = |replicas: &Replicas| replicas.turn()[0].way.clone();
        let replicas = Replicas::default();
        replicas.lead([way(1)].into());
        assert!(replicas.met(id(1), &way(1)));
        // The address moves while the control connection holds.
        replicas.lead([way(2)].into());
        assert_eq!(dialed(&replicas), Some(way(1)), "better than none");
        assert!(!replicas.met(id(1), &way(2)), "one control connection is enough");
        assert_eq!(dialed(&replicas), Some(way(2)));
        assert_eq!(replicas.reached(), [(id(1), way(2))]);
        // The other one may come back: it is one of two then.
        replicas.lead([way(1), way(2)].into());
        assert!(!replicas.met(id(1), &way(1)));
        replicas.lead([way(1)].into());
        assert_eq!(dialed(&replicas), Some(way(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_dial_failed_lately_none_goes_while_there_is_another_way_or_replica() {
        let replicas = two();
        replicas.failed(&way(1));
        assert_eq!(first(&replicas), [id(2); 4]);
        replicas.met(id(1), &way(2));
        assert!(replicas.turn().iter().all(|live| live.way == Some(way(2))) && replicas.turn().len() == 2);
        replicas.failed(&way(2));
        assert_eq!(replicas.turn().len(), 2, "better than none");
        replicas.worked(&way(2));
        assert!(replicas.is_failing(&way(1)) && !replicas.is_failing(&way(2)));
        tokio::time::advance(FAILING_FOR).await;
        assert!(!replicas.is_failing(&way(1)), "it may work again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_again_is_no_news_and_who_is_named_ever_anew_is_searched_for_now_and_then() {
        let replicas = two();
        let (mut news, before) = (replicas.news(), replicas.reasons());
        assert!(replicas.drains(id(2)) && news.has_changed().unwrap());
        news.mark_unchanged();
        assert!(!replicas.drains(id(2)) && !news.has_changed().unwrap());
        replicas.names(id(1), vec![id(3)]);
        assert!(replicas.reasons() == before + 1 && news.has_changed().unwrap());
        news.mark_unchanged();
        replicas.names(id(1), vec![id(3)]);
        replicas.names(id(1), vec![id(3), id(4)]);
        assert!(!news.has_changed().unwrap(), "one was missing before");
        for _ in 0..1000 {
            replicas.names(id(1), vec![]);
            replicas.names(id(1), vec![id(5)]);
        }
        assert_eq!(replicas.reasons(), before + 1, "the search goes on");
        tokio::time::advance(SEARCH_EVERY).await;
        replicas.names(id(1), vec![]);
        replicas.names(id(1), vec![id(5)]);
        assert_eq!(replicas.reasons(), before + 2);
    }

    #[test]
    fn no_peer_makes_us_keep_more_apart_than_it_may_name() {
        let replicas = Replicas::default();
        let many = u8::try_from(REPLICAS).unwrap();
        assert!((0..many).all(|number| replicas.met(id(number), &way(1))));
        assert!(replicas.is_full() && !replicas.met(id(many), &way(1)));
        assert_eq!(replicas.reached().len(), REPLICAS);
        (0..=many).for_each(|number| replicas.died(id(number)));
        assert!(!replicas.is_dead(id(0)) && replicas.is_dead(id(many)));
        replicas.heard(id(many));
        assert!(!replicas.is_dead(id(many)));
    }
}
