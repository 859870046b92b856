//! Only one side can be reached, and services work both ways (promise P12, fault F87).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use securelink_pki::testing::Organization;
use securelink_relay::wire::{Message, ReplicaId, Role, Want};
use support::acceptor::{Acceptor, control};
use support::intruder::{self, Heard};
use support::{PATIENCE, Side, endpoint, export, import, link_cut, open, read_to_end, snapshot, turned_away};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// One crowd at a time: what is shown is how a relay bounds what it dials, not how this machine shares its cores.
static ALONE: Mutex<()> = Mutex::const_new(());

/// `open_side` listens and cannot dial; `shut_side` dials and has no listener at all.
struct OneWay {
    open_side: Side,
    shut_side: Side,
    at_open: TcpListener,
    at_shut: TcpListener,
}

impl OneWay {
    async fn ready() -> Self {
        let (org_open, org_shut) = (Organization::new("open.example"), Organization::new("shut.example"));
        let at_open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at_shut = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut for_open, mut for_shut) = (snapshot(&org_open, &org_shut), snapshot(&org_shut, &org_open));
        for_open.exports.push(export("at-open", at_open.local_addr().unwrap()));
        for_open.imports.push(import("at-shut", 0));
        for_shut.exports.push(export("at-shut", at_shut.local_addr().unwrap()));
        for_shut.imports.push(import("at-open", 0));
        for_shut.listen = None;
        let open_side = Side::start(&org_open, &org_shut.domain, for_open).await;
        for_shut.peer.endpoints = vec![endpoint(open_side.listens_on())];
        let shut_side = Side::start(&org_shut, &org_open.domain, for_shut).await;
        open_side.until_ready().await;
        shut_side.until_ready().await;
        Self { open_side, shut_side, at_open, at_shut }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_work_both_ways_and_both_sides_are_ready() {
    let link = OneWay::ready().await;
    assert!(link.open_side.relay.report().listener.is_some() && link.shut_side.relay.report().listener.is_none());
    for round in 0..20 {
        let to_shut = open(link.open_side.import_address("at-shut"), &link.at_shut).await;
        let to_open = open(link.shut_side.import_address("at-open"), &link.at_open).await;
        for (mut client, mut service) in [to_shut, to_open] {
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read_to_end(&mut service).await.0, b"request", "round {round}");
            service.write_all(b"answer").await.unwrap();
            service.shutdown().await.unwrap();
            let (answer, end) = read_to_end(&mut client).await;
            assert!(answer == b"answer" && end.is_ok(), "round {round}");
        }
    }
    link.open_side.relay.greet("from the side that cannot dial").await.unwrap();
    link.shut_side.relay.greet("from the side that cannot be dialed").await.unwrap();
}

/// More clients at once than are parked: WANT brings more, and all are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_clients_makes_the_peer_park_more() {
    const CLIENTS: u64 = 60;
    let link = OneWay::ready().await;
    let address = link.open_side.import_address("at-shut");
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_u64(number).await.unwrap();
            client.read_u64().await.expect("an answer") == number
        });
    }
    let serving = async {
        // All are open at the same time before the first is answered: no connection is used twice.
        let mut services = Vec::new();
        for _ in 0..CLIENTS {
            services.push(link.at_shut.accept().await.unwrap().0);
        }
        for service in &mut services {
            let number = service.read_u64().await.unwrap();
            service.write_u64(number).await.unwrap();
        }
        while let Some(answered) = clients.join_next().await {
            assert!(answered.unwrap());
        }
    };
    timeout(PATIENCE, serving).await.expect("all are served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_on_either_side_ends_streams_on_reverse_connections_too() {
    for shut_cuts in [true, false] {
        let link = OneWay::ready().await;
        let (mut client, mut service) = open(link.open_side.import_address("at-shut"), &link.at_shut).await;
        let side = if shut_cuts { &link.shut_side } else { &link.open_side };
        let receipt = side.relay.cut(link_cut("LinkCut/1", 1)).await;
        assert_eq!(receipt.ended, 1);
        assert!(read_to_end(&mut client).await.1.is_err());
        assert!(read_to_end(&mut service).await.1.is_err());
        turned_away(link.open_side.import_address("at-shut")).await;
    }
}

/// A stream on a reverse connection is authorized like any other: by what its server exports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_exported_is_refused_on_a_reverse_connection_too() {
    let mut link = OneWay::ready().await;
    link.shut_side.adopt(|snapshot| snapshot.exports.clear()).await;
    turned_away(link.open_side.import_address("at-shut")).await;
    assert!(link.at_shut.accept().now_or_never().is_none());
}

/// An acceptor that lets every parked connection go as soon as it comes, and asks for as many as there can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f87_parked_connections_that_are_used_up_in_a_loop_are_dialed_at_a_bounded_rate() {
    const PER_SECOND: u64 = 64;
    const ENOUGH: usize = 160;
    let _alone = ALONE.lock().await;
    let (org_open, org_shut) = (Organization::new("open.example"), Organization::new("shut.example"));
    let for_open = snapshot(&org_open, &org_shut);
    let parked = watch::Sender::new(0_usize);
    let (counted, declared) = (parked.clone(), for_open.clone());
    let hostile = Acceptor::start((&org_open, &org_shut), &for_open, move |role, mut caller| {
        let (counted, declared) = (counted.clone(), declared.clone());
        async move {
            match role {
                Role::Control => {
                    caller.say(&Message::Want(Want { count: u16::MAX })).await;
                    control(caller, declared).await;
                }
                Role::Reverse => counted.send_modify(|count| *count += 1),
                Role::Forward => {}
            }
        }
    })
    .await;
    let mut for_shut = snapshot(&org_shut, &org_open);
    for_shut.listen = None;
    for_shut.peer.endpoints = vec![hostile.endpoint.clone()];
    let start = Instant::now();
    let shut = Side::start(&org_shut, &org_open.domain, for_shut).await;
    let mut parked = parked.subscribe();
    let consumed = timeout(PATIENCE, parked.wait_for(|count| *count >= ENOUGH)).await;
    let dialed = *consumed.expect("they are dialed again and again").unwrap();
    let took = start.elapsed();
    // A second's worth at once, and then so many a second, however long this machine takes.
    let most = u64::try_from(took.as_millis()).unwrap() * PER_SECOND / 1000 + PER_SECOND;
    assert!(dialed as u64 <= most + 1, "{dialed} in {took:?}");
    assert!(shut.relay.report().peer.control_connections > 0, "the link itself stays");
}

/// One of so many, as long as it lives.
struct OneOf(watch::Sender<usize>);

impl OneOf {
    fn new(all: &watch::Sender<usize>) -> Self {
        all.send_modify(|count| *count += 1);
        Self(all.clone())
    }
}

impl Drop for OneOf {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// An acceptor that opens what nobody exports on each parked connection and keeps it from resting until very many others were
/// dialed in their places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f87_parked_connections_that_are_used_for_nothing_are_only_so_many() {
    // What is parked without being asked for, and as many again as are parked at the most.
    const MOST: usize = 4 + 256;
    const AT_ONCE: usize = MOST + 20;
    // The relay waits longer than that for a refused stream's end.
    const HELD: Duration = Duration::from_secs(3);
    let _alone = ALONE.lock().await;
    let (org_open, org_shut) = (Organization::new("open.example"), Organization::new("shut.example"));
    let for_open = snapshot(&org_open, &org_shut);
    let (parted, rest) = (watch::Sender::new(false), watch::Sender::new(false));
    let (open, resting) = (watch::Sender::new(0_usize), Arc::<AtomicUsize>::default());
    let (told, counted, declared) = (parted.clone(), Arc::clone(&resting), for_open.clone());
    let (all, may_rest) = (open.clone(), rest.subscribe());
    let hostile = Acceptor::start((&org_open, &org_shut), &for_open, move |role, mut caller| {
        let (told, counted, declared) = (told.clone(), Arc::clone(&counted), declared.clone());
        let (all, mut may_rest) = (all.clone(), may_rest.clone());
        async move {
            match role {
                Role::Control => control(caller, declared).await,
                Role::Reverse => {
                    let _one = OneOf::new(&all);
                    let mut enough = false;
                    while !enough {
                        caller.say(&intruder::open("nothing")).await;
                        caller.hear_until(|heard| matches!(heard, Heard::Message(Message::Reject(_)))).await;
                        enough = timeout(HELD, may_rest.wait_for(|may| *may)).await.is_ok();
                        counted.fetch_add(usize::from(enough), Ordering::SeqCst);
                        caller.say_idle(0, 0).await;
                        caller.hear_until(|heard| matches!(heard, Heard::Message(Message::Idle(_)))).await;
                    }
                    while !matches!(caller.hear_for_ever().await, Heard::End | Heard::Message(Message::Bye(_))) {}
                    told.send_replace(true);
                }
                Role::Forward => {}
            }
        }
    })
    .await;
    let mut for_shut = snapshot(&org_shut, &org_open);
    for_shut.listen = None;
    for_shut.peer.endpoints = vec![hostile.endpoint.clone()];
    let _shut = Side::start(&org_shut, &org_open.domain, for_shut).await;
    open.subscribe().wait_for(|count| *count >= AT_ONCE).await.unwrap();
    rest.send_replace(true);
    // Sooner than by the patience of a minute that a few too many meet.
    let left = timeout(PATIENCE / 2, parted.subscribe().wait_for(|parted| *parted)).await.map(|left| left.map(drop));
    left.expect("one too many leaves").unwrap();
    let resting = resting.load(Ordering::SeqCst);
    assert!(resting >= MOST, "of {resting} one left");
}

/// The hungry one's name comes first in every order of names; the other one asks when the hungry one has all there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f87_a_replica_that_uses_up_all_that_is_parked_starves_no_sibling() {
    const WANTED: u16 = 16;
    const A_SECONDS_WORTH: usize = 64;
    let _alone = ALONE.lock().await;
    let (org_open, org_shut) = (Organization::new("open.example"), Organization::new("shut.example"));
    let for_open = snapshot(&org_open, &org_shut);
    let used_up = watch::Sender::new(0_usize);
    let (counted, declared) = (used_up.clone(), for_open.clone());
    let hungry = Acceptor::replica(ReplicaId([0; 16]), (&org_open, &org_shut), &for_open, move |role, mut caller| {
        let (counted, declared) = (counted.clone(), declared.clone());
        async move {
            match role {
                Role::Control => {
                    caller.say(&Message::Want(Want { count: u16::MAX })).await;
                    control(caller, declared).await;
                }
                Role::Reverse => counted.send_modify(|count| *count += 1),
                Role::Forward => {}
            }
        }
    })
    .await;
    let parked = watch::Sender::new(0_u16);
    let (held, eaten, declared) = (parked.clone(), used_up.clone(), for_open.clone());
    let modest = Acceptor::replica(ReplicaId([9; 16]), (&org_open, &org_shut), &for_open, move |role, mut caller| {
        let (held, eaten, declared) = (held.clone(), eaten.clone(), declared.clone());
        async move {
            match role {
                Role::Control => {
                    let before = *eaten.borrow();
                    eaten.subscribe().wait_for(|now| *now >= before + A_SECONDS_WORTH).await.unwrap();
                    caller.say(&Message::Want(Want { count: WANTED })).await;
                    control(caller, declared).await;
                }
                Role::Reverse => {
                    held.send_modify(|count| *count += 1);
                    while caller.hear_for_ever().await != Heard::End {}
                }
                Role::Forward => {}
            }
        }
    })
    .await;
    let mut for_shut = snapshot(&org_shut, &org_open);
    for_shut.listen = None;
    for_shut.peer.endpoints = vec![hungry.endpoint.clone(), modest.endpoint.clone()];
    let _shut = Side::start(&org_shut, &org_open.domain, for_shut).await;
    let mut parked = parked.subscribe();
    let served = timeout(PATIENCE, parked.wait_for(|count| *count >= WANTED)).await;
    served.expect("the modest one has what it wants").unwrap();
}

/// The side that dials restarts: its partner's clients are served again without doing anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_connections_come_back_after_a_restart_and_a_new_leaf() {
    let (org_open, org_shut) = (Organization::new("open.example"), Organization::new("shut.example"));
    let at_shut = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut for_open = snapshot(&org_open, &org_shut);
    for_open.imports.push(import("at-shut", 0));
    let mut for_shut = snapshot(&org_shut, &org_open);
    for_shut.exports.push(export("at-shut", at_shut.local_addr().unwrap()));
    for_shut.listen = None;
    let open_side = Side::start(&org_open, &org_shut.domain, for_open).await;
    for_shut.peer.endpoints = vec![endpoint(open_side.listens_on())];
    let first = Side::start(&org_shut, &org_open.domain, for_shut.clone()).await;
    open_side.until_ready().await;
    open(open_side.import_address("at-shut"), &at_shut).await;
    first.relay.drain(std::time::Duration::ZERO).await;
    open_side.until("the peer is gone", |report| report.peer.control_connections == 0).await;
    let second = Side::start(&org_shut, &org_open.domain, for_shut).await;
    open_side.until_ready().await;
    open(open_side.import_address("at-shut"), &at_shut).await;
    let renewed = support::credentials(org_shut.leaf_to(&org_open.domain), &org_shut.transitions);
    second.relay.install(renewed).unwrap();
    open(open_side.import_address("at-shut"), &at_shut).await;
}
