//! A cut stops what it forbids at once and nothing else (promise P4).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use securelink_relay::Memory;
use securelink_relay_config::{Cut, CutScope};
use support::{Pair, Side, TestClock, credentials, link_cut, open, read_to_end, turned_away};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Sends back whatever comes until the socket breaks; a clean end is a failure.
async fn echo(mut socket: TcpStream) {
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer).await {
            Ok(0) => panic!("a cut looked like an end"),
            Ok(count) if socket.write_all(&buffer[..count]).await.is_ok() => {}
            Ok(_) | Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_five_hundred_live_streams_within_a_second_and_another_link_loses_none() {
    const STREAMS: usize = 500;
    let (pair, other) = (Pair::ready().await, Pair::ready().await);
    let (mut kept, mut kept_service) = other.stream_to_b().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(pair.stream_to_b().await);
    }
    // One message a stream goes round and round: bytes pass all the time.
    let mut pumps = JoinSet::new();
    for (mut client, service) in streams {
        client.write_all(&[7; 256]).await.unwrap();
        pumps.spawn(echo(client));
        pumps.spawn(echo(service));
    }
    pair.a.until("all streams carry", |report| report.streams.live == STREAMS as u64).await;
    let start = Instant::now();
    let receipt = pair.a.relay.cut(link_cut("LinkCut/1", 1)).await;
    let took = start.elapsed();
    let acknowledged = pair.a.relay.report().streams;
    assert!(took <= Duration::from_secs(1), "the acknowledgement took {took:?}");
    assert_eq!((receipt.fresh, receipt.ended), (true, STREAMS as u64));
    assert_eq!(acknowledged.live, 0);
    // Everything ends with a reset, on both sides, and nothing passes after the acknowledgement.
    while let Some(pumped) = pumps.join_next().await {
        pumped.expect("no end looked clean");
    }
    pair.b.until("the other side's streams end", |report| report.streams.live == 0).await;
    let after = pair.a.relay.report().streams;
    assert_eq!((after.bytes_sent, after.bytes_received), (acknowledged.bytes_sent, acknowledged.bytes_received));
    let report = pair.b.until_disagreed("CutByPeer").await;
    assert_eq!(report.agreed.peer_reason.as_deref(), Some("incident 114"));
    assert!(report.peer.control_connections > 0, "the peer stays authenticated and is told");
    pair.a.until_disagreed("CutHere").await;
    assert_eq!(other.a.relay.report().streams.live, 1);
    kept.write_all(b"still").await.unwrap();
    let mut still = [0; 5];
    kept_service.read_exact(&mut still).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_kept_over_a_restart_until_a_newer_snapshot_releases_it() {
    let pair = Pair::ready().await;
    pair.a.relay.cut(link_cut("LinkCut/1", 1)).await;
    let again = pair.a.relay.cut(link_cut("LinkCut/1", 1)).await;
    assert!(!again.fresh, "obeyed once");
    let memory = Memory { cuts: pair.a.store.cuts.lock().unwrap().clone(), ..Memory::default() };
    let ours = credentials(pair.org_a.leaf_to(&pair.org_b.domain), &pair.org_a.transitions);
    let snapshot = pair.a.snapshot.clone();
    pair.a.relay.drain(Duration::ZERO).await;
    let mut restarted = Side::start_with(ours, snapshot, TestClock::new(), memory).await;
    restarted.until_disagreed("CutHere").await;
    restarted
        .adopt(|snapshot| {
            snapshot.released.push("LinkCut/1".to_owned());
        })
        .await;
    restarted.until_ready().await;
    open(restarted.import_address("at-b"), &pair.at_b).await;
    let late = restarted.relay.cut(link_cut("LinkCut/1", 1)).await;
    assert!(!late.fresh, "a cut that was released does not come back");
    restarted.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_stored_until_the_snapshot_that_acknowledges_it_is() {
    let mut pair = Pair::ready().await;
    let held = |pair: &Pair| pair.a.store.cuts.lock().unwrap().stored().map(|cut| cut.id.clone()).collect::<Vec<_>>();
    pair.a.relay.cut(link_cut("LinkCut/1", 1)).await;
    pair.a.adopt(|snapshot| snapshot.released.push("LinkCut/1".to_owned())).await;
    pair.a.until_ready().await;
    assert_eq!(held(&pair), ["LinkCut/1"], "a restart would find the snapshot before");
    pair.a.relay.cut(link_cut("LinkCut/2", 1)).await;
    assert_eq!(held(&pair), ["LinkCut/1", "LinkCut/2"]);
    let acknowledging = pair.a.snapshot.version;
    pair.a.relay.kept(acknowledging - 1);
    assert_eq!(held(&pair), ["LinkCut/1", "LinkCut/2"], "another one was kept");
    pair.a.relay.kept(acknowledging);
    assert_eq!(held(&pair), ["LinkCut/2"]);
    assert_eq!(pair.a.relay.report().cuts, ["LinkCut/2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_one_service_leaves_the_others() {
    let pair = Pair::ready().await;
    let (mut to_a, mut service_a) = pair.stream_to_a().await;
    let (mut to_b, mut service_b) = pair.stream_to_b().await;
    let cut = |id: &str, scope| Cut { id: id.to_owned(), revision: 1, scope, reason: "why".to_owned() };
    let receipt = pair.a.relay.cut(cut("Service/1", CutScope::Export("at-a".to_owned()))).await;
    assert_eq!(receipt.ended, 1);
    assert!(read_to_end(&mut to_a).await.1.is_err());
    assert!(read_to_end(&mut service_a).await.1.is_err());
    to_b.write_all(b"x").await.unwrap();
    assert_eq!(service_b.read_u8().await.unwrap(), b'x');
    turned_away(pair.b.import_address("at-a")).await;
    let receipt = pair.a.relay.cut(cut("Service/2", CutScope::Import("at-b".to_owned()))).await;
    assert_eq!(receipt.ended, 1);
    assert!(read_to_end(&mut to_b).await.1.is_err());
    assert!(read_to_end(&mut service_b).await.1.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_pin_is_no_pin() {
    let pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let scope = CutScope::Pin(pair.org_b.root.fingerprint());
    let cut = Cut { id: "SecureLink/1".to_owned(), revision: 2, scope, reason: "withdrawn".to_owned() };
    assert_eq!(pair.a.relay.cut(cut).await.ended, 1);
    assert!(read_to_end(&mut client).await.1.is_err());
    assert!(read_to_end(&mut service).await.1.is_err());
    pair.a
        .until("the peer is refused", |report| {
            report.peer.control_connections == 0 && report.peer.refused.contains_key("WrongRoot")
        })
        .await;
}
