//! Relays that die and networks that fail, each relay in a process of its own: new streams go elsewhere within the bound
//! (fault F60), names that change or do not resolve cost nothing (F66).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use securelink_pki::testing::Organization;
use securelink_relay_config::{Endpoint, Snapshot};
use support::network::{add_address, add_machine, black_hole, connections_to, heal, isolated, lose_machine, names};
use support::process::RelayProcess;
use support::{PATIENCE, Side, endpoint, export, import, served, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

relay_process!();

/// One after the other: these have promises to keep within milliseconds.
fn alone<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    isolated(name, body);
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 10));
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 1, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 2, 1));
/// Our end of the cable to [`FIRST`], where that is another machine.
const CABLE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 1, 2));

/// `a` dials two relays of `b`, each a process with an address and a service of its own.
struct Dialing {
    a: Side,
    b: Vec<RelayProcess>,
    services: Vec<TcpListener>,
    org_b: Organization,
    org_a: Organization,
}

fn organizations() -> (Organization, Organization) {
    (Organization::new("a.example"), Organization::new("b.example"))
}

/// What a relay of `b` at `address` runs.
fn exporting(own: &Organization, peer: &Organization, address: SocketAddr, service: &TcpListener) -> Snapshot {
    let mut snapshot = snapshot(own, peer);
    snapshot.listen = Some(address);
    snapshot.exports.push(export("at-b", service.local_addr().unwrap()));
    snapshot
}

impl Dialing {
    /// The first relay runs on `machine`, where one is named. Both have met `a` and hold a connection of its at rest.
    async fn ready(machine: Option<&str>) -> Self {
        add_address(HERE);
        add_address(SECOND);
        match machine {
            Some(name) => add_machine(name, CABLE, FIRST),
            None => add_address(FIRST),
        }
        let (org_a, org_b) = organizations();
        let (mut b, mut services) = (Vec::new(), Vec::new());
        for (address, machine) in [(FIRST, machine), (SECOND, None)] {
            let service = TcpListener::bind((if machine.is_some() { CABLE } else { HERE }, 0)).await.unwrap();
            let snapshot = exporting(&org_b, &org_a, SocketAddr::new(address, 0), &service);
            b.push(RelayProcess::start(&org_b, &org_a.domain, &snapshot, machine));
            services.push(service);
        }
        let mut dialing = snapshot(&org_a, &org_b);
        dialing.listen = None;
        dialing.imports.push(import("at-b", 0));
        dialing.peer.endpoints = b.iter().map(|process| endpoint(process.address)).collect();
        let a = Side::start(&org_a, &org_b.domain, dialing).await;
        a.until_met(2).await;
        let all = Self { a, b, services, org_b, org_a };
        let (mut streams, mut which) = (Vec::new(), BTreeSet::new());
        while which.len() < 2 {
            // Probes take their turns, too.
            assert!(streams.len() < 16, "both are given streams");
            streams.push(all.stream().await);
            which.extend(streams.last().map(|(which, ..)| *which));
        }
        drop(streams);
        all.a.until("their streams have ended", |report| report.streams.live == 0).await;
        all
    }

    async fn stream(&self) -> (usize, tokio::net::TcpStream, tokio::net::TcpStream) {
        served(self.a.import_address("at-b"), &self.services).await
    }

    /// As many streams as come now are all served by the second relay before `bound` is over; also those that are given to
    /// the first one before its death is known, since none of their bytes was sent.
    async fn all_go_to_the_second(&self, streams: usize, bound: Duration) {
        let deadline = Instant::now() + bound;
        let streams = futures_util::future::join_all((0..streams).map(|_| self.stream()));
        let served = timeout_at(deadline, streams).await.unwrap_or_else(|_| panic!("not within {bound:?}"));
        assert!(served.iter().all(|(which, ..)| *which == 1));
        drop(served);
        self.a.until("the first one is gone", |report| report.peer.replicas == [self.b[1].replica.to_string()]).await;
        for _ in 0..4 {
            assert_eq!(self.stream().await.0, 1);
        }
    }

    async fn first_comes_back(&self) {
        self.a.until_met(2).await;
        while self.serves().await != 0 {}
    }

    /// Which relay a new stream is served by. A relay that comes back may first dial its service for a stream that was given
    /// to it, and then to the other one: what counts is whose byte the client gets.
    async fn serves(&self) -> usize {
        let mut client = TcpStream::connect(self.a.import_address("at-b")).await.unwrap();
        let answering = async {
            let mut kept = Vec::new();
            loop {
                let accepting = self.services.iter().map(|service| Box::pin(service.accept()));
                let (accepted, which, _) = futures_util::future::select_all(accepting).await;
                let mut service = accepted.unwrap().0;
                // The forgotten stream's socket may be gone.
                let _ = service.write_all(&[u8::try_from(which).unwrap()]).await;
                kept.push(service);
            }
        };
        let answer = async {
            tokio::select! {
                never = answering => never,
                byte = client.read_u8() => byte.expect("a byte comes back").into(),
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("a stream opens")
    }
}

#[test]
fn f60_a_relay_killed_is_left_within_a_tenth_of_a_second() {
    alone("f60_a_relay_killed_is_left_within_a_tenth_of_a_second", || async {
        let mut all = Dialing::ready(None).await;
        all.b[0].kill();
        // One, for which a connection is at rest: handshakes are not what is measured.
        all.all_go_to_the_second(1, Duration::from_millis(100)).await;
        let snapshot = exporting(&all.org_b, &all.org_a, all.b[0].address, &all.services[0]);
        all.b[0] = RelayProcess::start(&all.org_b, &all.org_a.domain, &snapshot, None);
        all.first_comes_back().await;
    });
}

#[test]
fn f60_a_relay_paused_is_left_within_three_seconds() {
    alone("f60_a_relay_paused_is_left_within_three_seconds", || async {
        let all = Dialing::ready(None).await;
        all.b[0].pause();
        all.all_go_to_the_second(2, Duration::from_secs(3)).await;
        all.b[0].resume();
        all.first_comes_back().await;
    });
}

#[test]
fn f60_a_relay_behind_a_black_hole_is_left_within_three_seconds() {
    alone("f60_a_relay_behind_a_black_hole_is_left_within_three_seconds", || async {
        let all = Dialing::ready(None).await;
        black_hole(&[FIRST]);
        all.all_go_to_the_second(2, Duration::from_secs(3)).await;
        heal();
        all.first_comes_back().await;
    });
}

#[test]
fn f60_a_relay_whose_machine_is_gone_is_left_within_three_seconds() {
    alone("f60_a_relay_whose_machine_is_gone_is_left_within_three_seconds", || async {
        let all = Dialing::ready(Some("first")).await;
        lose_machine("first");
        all.all_go_to_the_second(2, Duration::from_secs(3)).await;
    });
}

/// Clients that each open one stream after the other.
const OPENERS: usize = 8;
/// Streams of each once the death is known.
const AFTERWARDS: usize = 100;

/// Says which one it is, gives back what it gets and ends with its client.
async fn echo(service: TcpListener, which: u8) {
    loop {
        let Ok((mut socket, _)) = service.accept().await else { continue };
        tokio::spawn(async move {
            socket.write_u8(which).await?;
            let (mut reader, mut writer) = socket.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        });
    }
}

/// A whole stream, begun, used and ended: which relay served it.
async fn whole(address: SocketAddr) -> io::Result<u8> {
    let mut client = TcpStream::connect(address).await?;
    let which = client.read_u8().await?;
    client.write_all(&[7; 4096]).await?;
    client.shutdown().await?;
    let mut back = Vec::new();
    client.read_to_end(&mut back).await?;
    if back == [7; 4096] { Ok(which) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Opens streams without end; once the death is known, [`AFTERWARDS`] more, which all are whole and served by the other one.
/// Those begun before may have lived on the one that died.
async fn opens(address: SocketAddr, known: watch::Receiver<bool>) {
    let mut afterwards = 0;
    while afterwards < AFTERWARDS {
        let is_known = *known.borrow();
        let stream = tokio::time::timeout(PATIENCE, whole(address)).await.expect("every stream ends");
        match stream {
            Ok(which) if is_known => assert_eq!(which, 1),
            Err(error) if is_known => panic!("a stream failed that was begun when the death was known: {error}"),
            Err(_) | Ok(_) => {}
        }
        afterwards += usize::from(is_known);
    }
}

impl Dialing {
    /// Whatever is begun after the first relay's death is known, within `bound`, is whole, however many streams come.
    async fn loses_none_under_load(mut self, kill: impl FnOnce(&mut Self), bound: Duration) {
        let (known, address) = (watch::Sender::new(false), self.a.import_address("at-b"));
        let mut services = JoinSet::new();
        for (service, which) in std::mem::take(&mut self.services).into_iter().zip(0..) {
            services.spawn(echo(service, which));
        }
        let mut both = BTreeSet::new();
        while both.len() < 2 {
            both.insert(whole(address).await.unwrap());
        }
        let mut opening = JoinSet::new();
        for _ in 0..OPENERS {
            opening.spawn(opens(address, known.subscribe()));
        }
        self.a.until("all of them are at it", |report| report.streams.opened >= 200).await;
        let start = Instant::now();
        kill(&mut self);
        self.a.until("the first one is gone", |report| report.peer.replicas == [self.b[1].replica.to_string()]).await;
        let after = start.elapsed();
        assert!(after <= bound, "known after {after:?}");
        known.send_replace(true);
        opening.join_all().await;
    }
}

#[test]
fn f60_under_load_no_stream_fails_that_is_begun_once_a_crash_is_known() {
    alone("f60_under_load_no_stream_fails_that_is_begun_once_a_crash_is_known", || async {
        let all = Dialing::ready(None).await;
        all.loses_none_under_load(|all| all.b[0].kill(), Duration::from_millis(100)).await;
    });
}

#[test]
fn f60_under_load_no_stream_fails_that_is_begun_once_a_black_hole_is_known() {
    alone("f60_under_load_no_stream_fails_that_is_begun_once_a_black_hole_is_known", || async {
        let all = Dialing::ready(None).await;
        all.loses_none_under_load(|_| black_hole(&[FIRST]), Duration::from_secs(3)).await;
    });
}

/// The other way round: `b` cannot dial, and uses what two relays of `a` keep at rest with it.
#[test]
fn f60_a_relay_that_keeps_connections_at_rest_and_dies_is_left_as_soon() {
    alone("f60_a_relay_that_keeps_connections_at_rest_and_dies_is_left_as_soon", || async {
        add_address(HERE);
        let (org_a, org_b) = organizations();
        let mut dialed = snapshot(&org_b, &org_a);
        dialed.imports.push(import("at-a", 0));
        let b = Side::start(&org_b, &org_a.domain, dialed).await;
        let (mut a, mut services) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let service = TcpListener::bind((HERE, 0)).await.unwrap();
            let mut dialing = snapshot(&org_a, &org_b);
            dialing.listen = None;
            dialing.exports.push(export("at-a", service.local_addr().unwrap()));
            dialing.peer.endpoints = vec![endpoint(b.listens_on())];
            a.push(RelayProcess::start(&org_a, &org_b.domain, &dialing, None));
            services.push(service);
        }
        b.until_met(3).await;
        let mut used = BTreeSet::new();
        while used.len() < 3 {
            used.insert(served(b.import_address("at-a"), &services).await.0);
        }
        for (paused, bound) in [(false, Duration::from_millis(100)), (true, Duration::from_secs(3))] {
            let gone = a.len() - 1;
            if paused {
                a[gone].pause();
            } else {
                a[gone].kill();
            }
            let stream = served(b.import_address("at-a"), &services);
            let (which, ..) = timeout_at(Instant::now() + bound, stream).await.expect("in time");
            assert!(which < gone);
            b.until("it is gone", |report| report.peer.replicas.len() == gone).await;
            for _ in 0..4 {
                assert!(served(b.import_address("at-a"), &services).await.0 < gone);
            }
            a.pop();
        }
    });
}

/// Each of two addresses leads to the same relay. One of them is cut off: it is reached by the other one.
#[test]
fn f60_a_relay_that_has_another_address_is_reached_by_that_one() {
    alone("f60_a_relay_that_has_another_address_is_reached_by_that_one", || async {
        [HERE, FIRST, SECOND].into_iter().for_each(add_address);
        let (org_a, org_b) = organizations();
        let service = TcpListener::bind((HERE, 0)).await.unwrap();
        let anywhere = exporting(&org_b, &org_a, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), &service);
        let b = RelayProcess::start(&org_b, &org_a.domain, &anywhere, None);
        let mut dialing = snapshot(&org_a, &org_b);
        dialing.listen = None;
        dialing.imports.push(import("at-b", 0));
        let port = b.address.port();
        dialing.peer.endpoints = [FIRST, SECOND].map(|address| endpoint((address, port).into())).to_vec();
        let a = Side::start(&org_a, &org_b.domain, dialing).await;
        let before = a.until_ready().await.peer.connected_since;
        // The control connection and the probe's go one way; the other one is only tried now and then.
        let by = |one: IpAddr| connections_to(port).iter().filter(|(_, to)| to.ip() == one).count();
        black_hole(&[if by(FIRST) > by(SECOND) { FIRST } else { SECOND }]);
        a.until("it is reached again", |report| report.peer.connected_since.is_some_and(|now| Some(now) != before))
            .await;
        served(a.import_address("at-b"), std::slice::from_ref(&service)).await;
    });
}

fn zone(address: IpAddr) -> BTreeMap<String, Vec<Ipv4Addr>> {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    BTreeMap::from([("relay.b.example".to_owned(), vec![address])])
}

#[test]
fn f66_a_name_that_moves_is_followed_and_one_that_does_not_resolve_costs_nothing() {
    isolated("f66_a_name_that_moves_is_followed_and_one_that_does_not_resolve_costs_nothing", || async {
        [HERE, FIRST, SECOND].into_iter().for_each(add_address);
        let mut names = names::serve().await;
        *names.zone.lock().unwrap() = Some(zone(FIRST));
        let (org_a, org_b) = organizations();
        let services = [TcpListener::bind((HERE, 0)).await.unwrap(), TcpListener::bind((HERE, 0)).await.unwrap()];
        let at = |address, service| exporting(&org_b, &org_a, SocketAddr::new(address, 4433), service);
        let start = |snapshot: &Snapshot| RelayProcess::start(&org_b, &org_a.domain, snapshot, None);
        let mut first = start(&at(FIRST, &services[0]));
        let mut dialing = snapshot(&org_a, &org_b);
        dialing.listen = None;
        dialing.imports.push(import("at-b", 0));
        dialing.peer.endpoints = vec![Endpoint { host: "relay.b.example".to_owned(), port: 4433 }];
        let a = Side::start(&org_a, &org_b.domain, dialing).await;
        a.until_met(1).await;
        let stream = async || served(a.import_address("at-b"), &services).await.0;
        assert_eq!(stream().await, 0);

        // No answer at all: what lives goes on, and what is restarted is found where it was.
        *names.zone.lock().unwrap() = None;
        assert_eq!(stream().await, 0);
        first.kill();
        names.until_tried().await;
        first = start(&at(FIRST, &services[0]));
        a.until_met(1).await;
        assert_eq!(stream().await, 0);

        // It moves, then the old one ends.
        let second = start(&at(SECOND, &services[1]));
        *names.zone.lock().unwrap() = Some(zone(SECOND));
        first.kill();
        a.until("the new one is met", |report| report.peer.replicas == [second.replica.to_string()]).await;
        assert_eq!(stream().await, 1);

        // The name is gone for good, and with it what was there.
        *names.zone.lock().unwrap() = Some(BTreeMap::new());
        assert_eq!(stream().await, 1);
    });
}
