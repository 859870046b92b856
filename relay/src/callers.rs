//! Who may be in a handshake at once. Where all places are taken, one of those who hold more than their share leaves: at
//! once for somebody who has less than his, else as soon as it has had its time. Knows addresses, no TLS. Why so:
//! docs/decisions/0018.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::capacity::shares::{Account, Taken};
use crate::link::locked;

/// A caller keeps its place for so long, however many of its kind wait: an honest one is through after two round trips, and there are
/// paths of a quarter of a second. It also bounds what callers cost: 256 places make 512 handshakes a second.
const STAY: Duration = Duration::from_millis(500);
/// The share of callers from where the peer proved itself, in quarters of all places. All others have the rest.
const QUARTERS_FOR_PROVED: usize = 3;
/// Addresses remembered from where the peer proved itself: one of each replica, of which PEERS names at most as many
/// (contracts 1). The latest stay.
const PROVED: usize = 64;

/// See the module.
pub(crate) struct Callers {
    room: Mutex<Room>,
    /// How many may be inside.
    handshakes: Arc<Account>,
    proved: Line,
    strangers: Line,
}

/// Callers of one kind that wait: neither kind stands behind the other.
struct Line {
    /// How many may wait.
    waiting: Arc<Account>,
    /// Somebody left the room.
    left: Notify,
    /// Held by whoever waits in front.
    front: tokio::sync::Mutex<()>,
}

impl Line {
    fn new(waiting: Arc<Account>) -> Self {
        Self { waiting, left: Notify::new(), front: tokio::sync::Mutex::default() }
    }
}

#[derive(Default)]
struct Room {
    next: u64,
    /// The oldest first.
    inside: BTreeMap<u64, Caller>,
    /// The latest last.
    proved: VecDeque<Source>,
}

struct Caller {
    source: Source,
    proved: bool,
    since: Instant,
    /// Its part of the budget, which whoever takes its place inherits.
    taken: Taken,
    /// Dropped when the caller has to leave.
    _may_stay: oneshot::Sender<Infallible>,
}

/// Where a caller comes from: an IPv4 address, or the /64 of an IPv6 one, which is what one host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Of a caller that has been accepted: its place, or its right to wait for one.
pub(crate) struct Ticket {
    callers: Arc<Callers>,
    source: Source,
    may_grow: bool,
    state: State,
}

enum State {
    Inside(Visit),
    /// In the line of those from where the peer proved itself, or in the other one.
    Waits {
        proved: bool,
        _waiting: Taken,
    },
}

/// A caller's place, until this is dropped.
pub(crate) struct Visit {
    callers: Arc<Callers>,
    id: u64,
    source: Source,
    may_stay: oneshot::Receiver<Infallible>,
}

impl Callers {
    /// For a listener with these parts of what its process has.
    pub(crate) fn new(handshakes: Arc<Account>, proved: Arc<Account>, strangers: Arc<Account>) -> Arc<Self> {
        let (proved, strangers) = (Line::new(proved), Line::new(strangers));
        Arc::new(Self { room: Mutex::default(), handshakes, proved, strangers })
    }

    /// A caller has come; there may be one more inside for it unless `may_grow` is false. None where it can neither enter nor
    /// wait.
    pub(crate) fn receive(self: &Arc<Self>, address: IpAddr, may_grow: bool) -> Option<Ticket> {
        let source = Source::from(address);
        let state = if let Ok(visit) = self.try_enter(source, may_grow) {
            State::Inside(visit)
        } else {
            let proved = locked(&self.room).proved.contains(&source);
            State::Waits { proved, _waiting: self.may_wait(proved)? }
        };
        Some(Ticket { callers: Arc::clone(self), source, may_grow, state })
    }

    /// Room to wait: all have some, and where the peer proved itself there is more. It may be a crowd that comes from there.
    fn may_wait(&self, proved: bool) -> Option<Taken> {
        let kept = if proved { self.proved.waiting.take() } else { None };
        kept.or_else(|| self.strangers.waiting.take())
    }

    fn line(&self, proved: bool) -> &Line {
        if proved { &self.proved } else { &self.strangers }
    }

    /// Lets a caller in, or says when it is worth another try.
    fn try_enter(self: &Arc<Self>, source: Source, may_grow: bool) -> Result<Visit, Instant> {
        let (guard, may_stay) = oneshot::channel();
        let mut room = locked(&self.room);
        let (proved, since) = (room.proved.contains(&source), Instant::now());
        let more = if may_grow || room.inside.is_empty() { self.handshakes.take() } else { None };
        let taken = more.map_or_else(|| room.make_room(proved, since), Ok)?;
        room.next += 1;
        let id = room.next;
        room.inside.insert(id, Caller { source, proved, since, taken, _may_stay: guard });
        Ok(Visit { callers: Arc::clone(self), id, source, may_stay })
    }

    /// How many are inside.
    #[cfg(test)]
    fn len(&self) -> usize {
        locked(&self.room).inside.len()
    }
}

impl Ticket {
    /// The caller's place, after those of its kind who came before.
    pub(crate) async fn enter(self) -> Visit {
        let line = match self.state {
            State::Inside(visit) => return visit,
            State::Waits { proved, .. } => self.callers.line(proved),
        };
        let _front = line.front.lock().await;
        loop {
            match self.callers.try_enter(self.source, self.may_grow) {
                Ok(visit) => return visit,
                // Whoever left before this is remembered, too.
                Err(until) => drop(timeout_at(until, line.left.notified()).await),
            }
        }
    }
}

impl Room {
    /// Where no more may be inside, turns one out for a newcomer and returns what it had, or says when its time will have
    /// come.
    fn make_room(&mut self, proved: bool, now: Instant) -> Result<Taken, Instant> {
        let of_its_kind = self.inside.values().filter(|caller| caller.proved == proved).count();
        let for_proved = (self.inside.len() * QUARTERS_FOR_PROVED).div_ceil(4);
        let share = if proved { for_proved } else { self.inside.len() - for_proved };
        let has_less = of_its_kind < share;
        // Where none of its kind is inside, only another one can leave.
        let leaves = self.most_of(if has_less { !proved } else { proved }).or_else(|| self.most_of(!proved));
        let Some(id) = leaves else { return Err(now + STAY) };
        match self.inside.entry(id) {
            Entry::Occupied(caller) if has_less || caller.get().since + STAY <= now => Ok(caller.remove().taken),
            Entry::Occupied(caller) => Err(caller.get().since + STAY),
            Entry::Vacant(_) => Err(now + STAY),
        }
    }

    /// The oldest from the source with the most.
    fn most_of(&self, proved: bool) -> Option<u64> {
        let mut sources: HashMap<Source, (usize, u64)> = HashMap::new();
        for (id, caller) in self.inside.iter().filter(|(_, caller)| caller.proved == proved) {
            sources.entry(caller.source).or_insert((0, *id)).0 += 1;
        }
        sources.into_values().max_by_key(|(count, oldest)| (*count, u64::MAX - oldest)).map(|(_, oldest)| oldest)
    }
}

impl Visit {
    /// Returns when the caller has to leave.
    pub(crate) async fn turned_out(&mut self) {
        // Nothing is ever sent: this is the end of the sender.
        let _ = (&mut self.may_stay).await;
    }

    /// The caller proved to be the peer: others from there are more welcome than strangers.
    pub(crate) fn prove(self) {
        let mut room = locked(&self.callers.room);
        let source = self.source;
        room.proved.retain(|known| *known != source);
        room.proved.push_back(source);
        if room.proved.len() > PROVED {
            room.proved.pop_front();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        locked(&self.callers.room).inside.remove(&self.id);
        self.callers.proved.left.notify_one();
        self.callers.strangers.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::capacity::shares::Budget;

    const MOST: usize = 8;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn stays(visit: &mut Visit) -> bool {
        visit.turned_out().now_or_never().is_none()
    }

    /// So many of each kind may wait.
    fn callers(waiting: usize) -> Arc<Callers> {
        let alone = |most| Budget::new(most).open();
        Callers::new(alone(MOST), alone(waiting), alone(waiting))
    }

    fn receive(callers: &Arc<Callers>, address: IpAddr) -> Ticket {
        callers.receive(address, true).unwrap()
    }

    async fn enter(callers: &Arc<Callers>, address: IpAddr) -> Visit {
        receive(callers, address).enter().await
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_most_leaves_and_of_those_the_oldest() {
        let callers = callers(1);
        let mut alone = enter(&callers, address(1)).await;
        let mut crowd = Vec::new();
        for _ in 0..MOST - 1 {
            crowd.push(enter(&callers, address(2)).await);
        }
        assert!(crowd.iter_mut().all(stays));
        let mut next = enter(&callers, address(3)).await;
        assert!(stays(&mut alone) && stays(&mut next), "who has one place keeps it");
        assert!(!stays(&mut crowd[0]) && crowd[1..].iter_mut().all(stays), "the oldest of the crowd leaves");
        assert_eq!(callers.len(), MOST);
        drop((crowd, next));
        assert_eq!(callers.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_for_its_kind_before_its_time_and_a_free_place_is_taken_at_once() {
        let (callers, start) = (callers(1), Instant::now());
        for (leave, after) in [(true, Duration::ZERO), (false, STAY)] {
            let mut inside = Vec::new();
            for _ in 0..MOST {
                inside.push(enter(&callers, address(1)).await);
            }
            let waiting = receive(&callers, address(2));
            assert!(callers.receive(address(2), true).is_none(), "one may wait");
            if leave {
                inside.clear();
            }
            waiting.enter().await;
            assert_eq!(start.elapsed(), after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_peer_proved_itself_no_flood_from_elsewhere_takes_a_place_or_time() {
        let peer = address(1);
        for many in [false, true] {
            let callers = callers(1000);
            enter(&callers, peer).await.prove();
            let (mut peers, mut flood) = (Vec::new(), Vec::new());
            for number in 2..200 {
                let ticket = receive(&callers, address(if many { number } else { 2 }));
                flood.push(tokio::spawn(ticket.enter()));
            }
            let start = Instant::now();
            for _ in 0..MOST * 3 / 4 {
                peers.push(enter(&callers, peer).await);
            }
            assert_eq!(start.elapsed(), Duration::ZERO, "many addresses: {many}");
            tokio::time::sleep(4 * STAY).await;
            assert!(peers.iter_mut().all(stays), "many addresses: {many}");
            assert_eq!(callers.len(), MOST);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_through_the_peers_own_address_leaves_strangers_their_places_and_newcomers_their_time() {
        let callers = callers(1);
        enter(&callers, address(1)).await.prove();
        let mut flood = Vec::new();
        for _ in 0..200 {
            flood.push(enter(&callers, address(1)).await);
            assert!(flood.last_mut().is_some_and(stays));
        }
        let start = Instant::now();
        let mut stranger = enter(&callers, address(2)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..200 {
            flood.push(enter(&callers, address(1)).await);
            assert!(stays(&mut stranger));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_that_may_wait_do_a_newcomer_goes_and_the_peer_has_room_behind_no_stranger() {
        let (callers, peer) = (callers(1), address(1));
        enter(&callers, peer).await.prove();
        let mut inside = Vec::new();
        for _ in 0..MOST {
            inside.push(enter(&callers, peer).await);
        }
        // Strangers have two places, and one may wait.
        let (_first, _second) = (enter(&callers, address(2)).await, enter(&callers, address(2)).await);
        let stranger = tokio::spawn(receive(&callers, address(2)).enter());
        assert!((3..200).all(|number| callers.receive(address(number), true).is_none()), "nobody is waited for");
        let waits = receive(&callers, peer);
        assert!(callers.receive(peer, true).is_none());
        drop(inside);
        drop(waits.enter().await);
        stranger.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_on_one_link_leaves_another_its_share() {
        let (handshakes, waiting) = (Budget::new(MOST), Budget::new(MOST));
        let link = || Callers::new(handshakes.open(), waiting.open(), waiting.open());
        let (flooded, other) = (link(), link());
        let mut flood = Vec::new();
        while let Some(ticket) = flooded.receive(address(2), true) {
            flood.push(ticket);
        }
        assert_eq!(flooded.len(), MOST * 3 / 4);
        let start = Instant::now();
        let mut own = Vec::new();
        for number in 3..3 + u8::try_from(MOST / 4).unwrap() {
            own.push(enter(&other, address(number)).await);
        }
        assert!(own.iter_mut().all(stays));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(other.receive(address(9), true).is_some(), "there is room to wait, too");
    }

    #[test]
    fn one_host_of_ipv6_is_one_source_and_a_mapped_address_is_what_it_is() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
