//! Rows that take long: scaled here, in full where the name says so (`make soak`; what came out stands in `docs/soak.md`).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The figures are what a soak is run for.
#![allow(clippy::print_stdout)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use securelink_id::SpiffeId;
use securelink_pki::testing::Organization;
use securelink_relay_config::Millis;
use support::{PATIENCE, Pair, Side, credentials};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

/// Longer than any answer takes on a machine that does a hundred other things.
const ANSWER: Duration = Duration::from_mins(1);

/// Sends back what arrives, until the end.
async fn echo(mut socket: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        if socket.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Sends `bytes` and reads them back.
async fn ping(client: &mut TcpStream, bytes: &[u8]) {
    let mut back = vec![0; bytes.len()];
    client.write_all(bytes).await.expect("the stream lives");
    timeout(ANSWER, client.read_exact(&mut back)).await.expect("an answer comes").expect("the stream lives");
    assert_eq!(back, bytes, "another answer than what was sent");
}

async fn one_byte_pings(streams: u64, each: u64) {
    let pair = Pair::ready().await;
    let mut clients = Vec::new();
    for _ in 0..streams {
        let (client, service) = pair.stream_to_b().await;
        client.set_nodelay(true).unwrap();
        service.set_nodelay(true).unwrap();
        tokio::spawn(echo(service));
        clients.push(client);
    }
    // A byte is counted a moment after it has left, and its answer may be here by then.
    let begun = |report: &securelink_relay_config::LinkReport| {
        report.streams.bytes_sent == streams && report.streams.bytes_received == streams
    };
    let before = pair.a.until("the byte that proved each stream is counted", begun).await;
    let start = Instant::now();
    let mut pinging = JoinSet::new();
    for (number, mut client) in (0..).zip(clients) {
        pinging.spawn(async move {
            for count in 0..each {
                ping(&mut client, &[(count + number).to_le_bytes()[0]]).await;
            }
            client
        });
    }
    let clients = pinging.join_all().await;
    println!("{} pings of one byte on {streams} streams in {:.1?}", streams * each, start.elapsed());
    let counted = |report: &securelink_relay_config::LinkReport| {
        report.streams.bytes_sent - before.streams.bytes_sent == streams * each
            && report.streams.bytes_received - before.streams.bytes_received == streams * each
    };
    let after = pair.a.until("every byte is counted once", counted).await;
    assert_eq!(after.streams.live, streams, "a stream was lost, or opened anew");
    assert_eq!(after.streams.opened, before.streams.opened);
    assert_eq!(after.peer.connected_since, before.peer.connected_since, "the control connection was lost");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f62_one_byte_pings_on_200_streams_all_come_back() {
    one_byte_pings(200, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "in full: make soak"]
async fn f62_in_full_a_million_one_byte_pings_on_200_streams_all_come_back() {
    one_byte_pings(200, 5000).await;
}

/// Puts a new leaf in force and waits until the peer has seen it.
async fn rotate(own: &Organization, peer: &Organization, side: &Side, seen_by: &Side) {
    let identity = SpiffeId::link(own.domain.clone(), peer.domain.clone());
    let leaf = own.intermediate.issue_leaf(&identity, &[], side.clock.now()).unwrap();
    let end = Millis::from(leaf.validity().not_after);
    side.relay.install(credentials(leaf, &own.transitions)).unwrap();
    let is_shown = |report: &securelink_relay_config::LinkReport| {
        report.peer.control_connections > 0 && report.peer.certificate_not_after >= Some(end)
    };
    seen_by.until("the new leaf is shown", is_shown).await;
}

/// Opens streams one after the other until told to stop; each sends, has it back, and ends cleanly.
async fn requests(pair: Arc<Pair>, stop: Arc<AtomicBool>, done: Arc<AtomicU64>, pace: Duration) {
    let mut pace = interval(pace);
    let request: Vec<u8> = (0..20_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    while !stop.load(Ordering::Relaxed) {
        let mut client = TcpStream::connect(pair.a.import_address("at-b")).await.expect("the import listens");
        ping(&mut client, &request).await;
        client.shutdown().await.expect("the stream lives");
        let end = timeout(ANSWER, client.read(&mut [0])).await.expect("the stream ends");
        assert_eq!(end.expect("a clean end"), 0, "a byte that nobody sent");
        done.fetch_add(1, Ordering::Relaxed);
        pace.tick().await;
    }
}

async fn rotations(count: u32, every: Duration, pace: Duration) {
    let pair = Arc::new(Pair::ready().await);
    let mut living = Vec::new();
    for _ in 0..8 {
        let (client, service) = pair.stream_to_a().await;
        tokio::spawn(echo(service));
        living.push(client);
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let serving = Arc::clone(&pair);
    let service = tokio::spawn(async move {
        while let Ok((socket, _)) = serving.at_b.accept().await {
            tokio::spawn(echo(socket));
        }
    });
    let mut load = JoinSet::new();
    for _ in 0..8 {
        load.spawn(requests(Arc::clone(&pair), Arc::clone(&stop), Arc::clone(&done), pace));
    }
    let (mut rounds, start) = (interval(every), Instant::now());
    for round in 1..=count {
        rounds.tick().await;
        let of_a = rotate(&pair.org_a, &pair.org_b, &pair.a, &pair.b);
        let of_b = rotate(&pair.org_b, &pair.org_a, &pair.b, &pair.a);
        tokio::join!(of_a, of_b);
        for client in &mut living {
            ping(client, &round.to_be_bytes()).await;
        }
        // A rotation that nobody met proves nothing.
        let met = done.load(Ordering::Relaxed) + 8;
        pair.a.until("requests go on", |_| done.load(Ordering::Relaxed) >= met).await;
        if let Some(ended) = load.try_join_next() {
            ended.expect("no request fails");
        }
    }
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    println!(
        "{count} new leaves a side in {:.1?}: {} requests and {} streams that lived through all, 0 errors",
        start.elapsed(),
        done.load(Ordering::Relaxed),
        living.len()
    );
    for side in [&pair.a, &pair.b] {
        // A caller who was on the way when the leaf changed is asked to call again.
        let refused = side.relay.report().peer.refused;
        assert!(refused.keys().all(|reason| reason == "TrustChanged"), "{refused:?}");
    }
    service.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f69_sixty_new_leaves_under_load_cost_no_request() {
    rotations(60, Duration::from_millis(200), Duration::from_millis(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "in full: make soak"]
async fn f69_in_full_a_new_leaf_each_minute_for_an_hour_costs_no_request() {
    rotations(60, Duration::from_mins(1), Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "in full: make soak"]
async fn f61_in_full_a_reader_paused_for_ten_minutes_gets_every_byte() {
    const PAUSE: Duration = Duration::from_mins(10);
    const BYTES: usize = 256 * 1024 * 1024;
    let pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let (mut beside, other) = pair.stream_to_b().await;
    tokio::spawn(echo(other));
    let byte = |at: usize| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0];
    let sending = tokio::spawn(async move {
        for start in (0..BYTES).step_by(1 << 20) {
            let block: Vec<u8> = (start..start + (1 << 20)).map(byte).collect();
            client.write_all(&block).await.expect("the stream lives");
        }
        client.shutdown().await.expect("the stream lives");
        client
    });
    let (start, mut pace) = (Instant::now(), interval(Duration::from_secs(1)));
    while start.elapsed() < PAUSE {
        pace.tick().await;
        ping(&mut beside, b"beside").await;
    }
    assert!(!sending.is_finished(), "the pause was to hold the sender up");
    let (mut at, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        let count = timeout(PATIENCE, service.read(&mut buffer)).await.expect("bytes come").expect("the stream lives");
        if count == 0 {
            break;
        }
        assert!(buffer[..count].iter().enumerate().all(|(more, found)| *found == byte(at + more)), "near byte {at}");
        at += count;
    }
    assert_eq!(at, BYTES);
    drop(sending.await.unwrap());
    println!("{BYTES} bytes whole after a pause of {PAUSE:?}");
}
