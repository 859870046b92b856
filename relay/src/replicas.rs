//! The peer's replicas: which of them live, where they were reached, which are leaving. Learned from HELLO, from control
//! connections and PEERS, never from the network's addresses; decides whose turn the next stream is. Opens nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::link::locked;
use crate::ways::Way;
use crate::wire::ReplicaId;

/// Replicas of the peer that are kept apart: as many as PEERS may name (contracts 1).
pub(crate) const REPLICAS: usize = 64;

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
    /// Control connections that we dialed and that ended.
    losses: u64,
    turn: usize,
}

#[derive(Default)]
struct Replica {
    /// Its control connections that we accepted.
    accepted: u32,
    /// The way by which we dialed its control connection, while we hold one.
    dialed: Option<Way>,
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

    /// A control connection is up that we dialed by `way`. False where we hold one to that replica, or too many.
    pub(crate) fn met(&self, id: ReplicaId, way: &Way) -> bool {
        let mut known = self.known();
        let room = known.live.len() < REPLICAS || known.live.contains_key(&id);
        let replica = known.live.entry(id).or_default();
        let is_new = room && replica.dialed.is_none();
        if is_new {
            replica.dialed = Some(way.clone());
        } else if !room {
            known.live.remove(&id);
        }
        drop(known);
        self.tell();
        is_new
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
            replica.dialed = None;
            known.losses += 1;
        } else {
            replica.accepted -= 1;
        }
        let is_gone = replica.dialed.is_none() && replica.accepted == 0;
        if is_gone {
            known.live.remove(&id);
        }
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

    /// It says that it goes away.
    pub(crate) fn drains(&self, id: ReplicaId) {
        if let Some(replica) = self.known().live.get_mut(&id) {
            replica.draining = true;
        }
        self.tell();
    }

    /// Whether it had better be given no stream.
    pub(crate) fn is_leaving(&self, id: ReplicaId) -> bool {
        self.known().live.get(&id).is_some_and(|replica| replica.draining)
    }

    /// It names its siblings.
    pub(crate) fn names(&self, id: ReplicaId, siblings: Vec<ReplicaId>) {
        if let Some(replica) = self.known().live.get_mut(&id) {
            replica.siblings = siblings;
        }
        self.tell();
    }

    /// Whether a replica is named by a sibling that lives, and we hold no control connection to it.
    pub(crate) fn is_one_missing(&self) -> bool {
        let known = self.known();
        let is_held = |id| known.live.get(id).is_some_and(|replica| replica.dialed.is_some());
        known.live.values().flat_map(|replica| &replica.siblings).any(|named| !is_held(named))
    }

    /// Raised when a control connection that we dialed ends: what was behind it may be found by another way.
    pub(crate) fn losses(&self) -> u64 {
        self.known().losses
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

    /// The ways that the peer's names have now.
    pub(crate) fn lead(&self, ways: BTreeSet<Way>) {
        self.known().ways = ways;
    }

    /// Whom to give the next stream, in this order; each is the first in its turn. Those that leave, that
    /// are silent, or whose address the peer's names no longer have, only where there are no others.
    pub(crate) fn turn(&self) -> Vec<Live> {
        let mut known = self.known();
        known.turn = known.turn.wrapping_add(1);
        let is_listed = |way: &Option<Way>| way.as_ref().is_none_or(|way| known.ways.contains(way));
        let preferred = |replica: &Replica| !replica.draining && !replica.silent && is_listed(&replica.dialed);
        let all = |which: &dyn Fn(&Replica) -> bool| -> Vec<Live> {
            let chosen = known.live.iter().filter(|(_, replica)| which(replica));
            chosen.map(|(id, replica)| Live { id: *id, way: replica.dialed.clone() }).collect()
        };
        let mut order = all(&preferred);
        if order.is_empty() {
            order = all(&|_| true);
        }
        if !order.is_empty() {
            let first = known.turn % order.len();
            order.rotate_left(first);
        }
        order
    }

    /// Those we reach by dialing and that stay, to park connections there; in the order of their names.
    pub(crate) fn reached(&self) -> Vec<(ReplicaId, Way)> {
        let known = self.known();
        let staying = known.live.iter().filter(|(_, replica)| !replica.draining);
        staying.filter_map(|(id, replica)| Some((*id, replica.dialed.clone()?))).collect()
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
