//! Crowds at the peer's listener: strangers who take every place they can get keep the peer out for no longer than a few
//! round trips, and what lives goes on (fault F47).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use securelink_pki::testing::Organization;
use securelink_relay::Capacity;
use securelink_relay::wire::Role;
use support::intruder::{Caller, Heard};
use support::{Pair, Side, credentials, endpoint, export, import, open, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// More than twice the handshakes that may be in flight, none of which ever ends by itself.
const STRANGERS: usize = 600;

/// One flood at a time: what is shown is how a relay shares its places, not how this machine shares its cores.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The beginning of a `ClientHello`, which is never finished.
const HALF: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

/// Strangers who hold on to every connection until the relay takes it away, and come again.
struct Flood {
    _strangers: JoinSet<()>,
}

impl Flood {
    /// From one address, or from one each.
    fn start(target: SocketAddr, from: impl Fn(usize) -> IpAddr) -> Self {
        let mut strangers = JoinSet::new();
        for number in 0..STRANGERS {
            let from = from(number);
            strangers.spawn(async move {
                loop {
                    let socket = TcpSocket::new_v4().unwrap();
                    socket.bind(SocketAddr::new(from, 0)).unwrap();
                    let Ok(mut socket) = socket.connect(target).await else { continue };
                    // Some say nothing at all, the others let the relay wait for the rest.
                    if number % 2 == 0 {
                        let _ = socket.write_all(&HALF).await;
                    }
                    let _ = socket.read_to_end(&mut Vec::new()).await;
                }
            });
        }
        Self { _strangers: strangers }
    }
}

/// As through a gateway that hides where callers come from.
fn one(_: usize) -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn many(number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number + 2).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_flood_of_half_handshakes_keeps_no_peer_out_that_was_never_there() {
    let _alone = ALONE.lock().await;
    for from in [one as fn(usize) -> IpAddr, many] {
        let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
        let at_b = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut for_b = snapshot(&org_b, &org_a);
        for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
        let b = Side::start(&org_b, &org_a.domain, for_b).await;
        // All places are taken, and strangers make room for strangers.
        let _flood = Flood::start(b.listens_on(), from);
        b.until_refused("TooManyCallers").await;
        let mut for_a = snapshot(&org_a, &org_b);
        for_a.imports.push(import("at-b", 0));
        for_a.peer.endpoints = vec![endpoint(b.listens_on())];
        let a = Side::start(&org_a, &org_b.domain, for_a).await;
        a.until_ready().await;
        open(a.import_address("at-b"), &at_b).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_flood_of_half_handshakes_ends_no_stream_and_stops_no_new_one() {
    let _alone = ALONE.lock().await;
    for (from, streams) in [(one as fn(usize) -> IpAddr, 1), (many, 20)] {
        let pair = Pair::ready().await;
        let (mut client, mut service) = pair.stream_to_b().await;
        let _flood = Flood::start(pair.b.listens_on(), from);
        pair.b.until_refused("TooManyCallers").await;
        // Everything is dialed anew.
        pair.a.relay.install(credentials(pair.org_a.leaf_to(&pair.org_b.domain), &pair.org_a.transitions)).unwrap();
        let mut open = Vec::new();
        for _ in 0..streams {
            open.push(pair.stream_to_b().await);
        }
        pair.a.until("the control connections are back", |report| report.peer.control_connections == 2).await;
        client.write_all(b"still").await.unwrap();
        let mut still = [0; 5];
        service.read_exact(&mut still).await.unwrap();
        assert_eq!(&still, b"still");
    }
}

/// Two links of one process share its places, as those of the standalone runtime do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_flood_on_one_link_of_a_process_turns_nobody_away_from_another() {
    let _alone = ALONE.lock().await;
    let [org_a, org_b, org_c] = ["a.example", "b.example", "c.example"].map(Organization::new);
    let at_b = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let capacity = Capacity::of_process();
    let flooded = Side::start_sharing(&org_b, &org_c.domain, snapshot(&org_b, &org_c), capacity.clone()).await;
    let mut for_b = snapshot(&org_b, &org_a);
    for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
    let b = Side::start_sharing(&org_b, &org_a.domain, for_b, capacity).await;
    let _flood = Flood::start(flooded.listens_on(), many);
    flooded.until_refused("TooManyCallers").await;
    let mut for_a = snapshot(&org_a, &org_b);
    for_a.imports.push(import("at-b", 0));
    for_a.peer.endpoints = vec![endpoint(b.listens_on())];
    let a = Side::start(&org_a, &org_b.domain, for_a).await;
    a.until_ready().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(open(a.import_address("at-b"), &at_b).await);
    }
    assert_eq!(b.relay.report().peer.refused.get("TooManyCallers"), None, "its own places are free");
}

/// The limit is on the whole, not on each byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_who_finishes_tls_and_says_its_hello_byte_by_byte_or_not_at_all_is_left_in_time() {
    let pair = Pair::ready().await;
    let caller = Caller::new(&pair);
    let mut silent = caller.knock().await;
    let mut slow = caller.knock().await;
    let hello = caller.hello(Role::Forward);
    let mut said = 0;
    // Each second a byte, until the relay hangs up.
    while timeout(Duration::from_secs(1), slow.hear_for_ever()).await.is_err() {
        slow.send(&hello[said..=said]).await;
        said += 1;
        assert!(said < 20, "nobody hangs up");
    }
    assert_eq!(silent.hear().await, Heard::End);
    pair.b.until("both are counted", |report| report.peer.refused.get("TimedOut") == Some(&2)).await;
    pair.stream_to_b().await;
}
