//! Bytes cross the link, both ways, whole and in order.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use securelink_relay_config::RecordLayer;
use support::{PATIENCE, Pair, Replicas, endpoint, open, read_to_end};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_becomes_ready_on_both_sides() {
    let pair = Pair::ready().await;
    // Ready needs one connection; the other may still be on its way.
    let report = pair.a.until("both sides dialed", |report| report.peer.control_connections == 2).await;
    assert_eq!(report.peer.tls_group.as_deref(), Some("X25519MLKEM768"));
    assert!(report.exports.iter().chain(&report.imports).all(|entry| entry.unusable.is_none()), "{report:#?}");
    assert!(pair.a.relay.is_ready() && pair.b.relay.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_both_ways_and_both_ends_close_cleanly() {
    let pair = Pair::ready().await;
    for _ in 0..3 {
        for (mut client, mut server) in [pair.stream_to_b().await, pair.stream_to_a().await] {
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            let (request, end) = read_to_end(&mut server).await;
            assert_eq!((request.as_slice(), end.is_ok()), (b"request".as_slice(), true));
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            let (answer, end) = read_to_end(&mut client).await;
            assert_eq!((answer.as_slice(), end.is_ok()), (b"answer".as_slice(), true));
        }
    }
    pair.a.until("no stream is left", |report| report.streams.live == 0).await;
    assert_eq!(pair.a.relay.report().streams.opened, 6);
}

/// Sends `block` and the end, and hears both at the other.
async fn carry(block: &[u8], from: &mut TcpStream, to: &mut TcpStream) {
    let sending = async {
        from.write_all(block).await.unwrap();
        from.shutdown().await.unwrap();
    };
    let ((), (received, end)) = timeout(PATIENCE, async { tokio::join!(sending, read_to_end(to)) }).await.unwrap();
    assert!(received == block && end.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_makes_the_records_here_does_not_matter_there() {
    use RecordLayer::{InPlace, Rustls};
    let block: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    for layers in [(InPlace, Rustls), (Rustls, InPlace), (InPlace, InPlace)] {
        let pair = Pair::dialing(|a, b| (a.records, b.records) = layers).await;
        for (mut client, mut server) in [pair.stream_to_b().await, pair.stream_to_a().await] {
            carry(&block, &mut client, &mut server).await;
            carry(&block, &mut server, &mut client).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_comes_back_signed() {
    let pair = Pair::ready().await;
    let reply = pair.a.relay.greet("first message").await.unwrap();
    assert_eq!(reply.peer, "b.example");
    assert_eq!(reply.digest, securelink_relay_config::Digest::of(b"first message"));
    assert!(pair.b.relay.greet("the answer").await.is_ok());
    assert!(pair.b.relay.greet("").await.is_err());
    assert!(pair.b.relay.greet(&"x".repeat(5000)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_a_gibibyte_arrives_whole_in_chunks_of_every_size() {
    const SIZE: usize = 256 << 20;
    let pair = Pair::ready().await;
    let (mut client, mut server) = pair.stream_to_b().await;
    let sending = tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(7);
        let block: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut left = SIZE;
        while left > 0 {
            let size = random.usize(1..=block.len()).min(left);
            let start = random.usize(0..=block.len() - size);
            context.update(&block[start..start + size]);
            client.write_all(&block[start..start + size]).await.unwrap();
            left -= size;
        }
        client.shutdown().await.unwrap();
        (client, context.finish())
    });
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let (mut received, mut random) = (0, fastrand::Rng::with_seed(8));
    let mut buffer = vec![0; 1 << 20];
    let receiving = async {
        loop {
            let most = random.usize(1..=buffer.len());
            let count = server.read(&mut buffer[..most]).await.unwrap();
            if count == 0 {
                return;
            }
            context.update(&buffer[..count]);
            received += count;
        }
    };
    timeout(Duration::from_mins(2).max(PATIENCE), receiving).await.expect("all of it arrives");
    let (_client, sent) = sending.await.unwrap();
    assert_eq!(received, SIZE);
    assert_eq!(context.finish().as_ref(), sent.as_ref());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_clients_is_served_to_the_last() {
    const CLIENTS: usize = 400;
    let pair = Pair::ready().await;
    let address = pair.a.import_address("at-b");
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS as u64 {
        clients.spawn(async move {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client.write_u64(number).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_u64().await.expect("an answer") == number
        });
    }
    let serving = async {
        for _ in 0..CLIENTS {
            let (mut server, _) = pair.at_b.accept().await.unwrap();
            tokio::spawn(async move {
                let number = server.read_u64().await.unwrap();
                server.write_u64(number).await.unwrap();
            });
        }
        while let Some(answered) = clients.join_next().await {
            assert!(answered.unwrap());
        }
    };
    timeout(PATIENCE, serving).await.expect("all are served");
    let report = pair.a.relay.report();
    assert!(report.peer.refused.is_empty(), "{:?}", report.peer.refused);
}

/// What may pass of another stream while a message goes there and back: some quanta of both relays. A thread that looks at
/// its sockets only now and then lets tens of MiB pass.
const MEANWHILE: u64 = 8 * 1024 * 1024;

#[tokio::test]
async fn where_one_thread_has_all_streams_a_message_does_not_wait_for_a_long_transfer() {
    let (tell, told) = std::sync::mpsc::channel();
    // The other relay has a thread of its own, or each would wait for the other's now and then.
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::spawn(move || {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        own.block_on(async {
            tell.send(Replicas::apart(1).await).unwrap();
            let _ = stopped.await;
        });
    });
    let mut all = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
    let to = endpoint(all.b[0].listens_on());
    all.add_dialer(|snapshot| snapshot.peer.endpoints = vec![to]).await;
    all.until_met().await;
    let address = all.a[0].import_address("at-b");
    let ((source, sink), (client, service)) = (open(address, &all.at_b[0]).await, open(address, &all.at_b[0]).await);
    let [mut source, mut sink, mut client, mut service] = [source, sink, client, service].map(|socket| {
        let socket = socket.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        socket
    });
    let passed = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&passed);
    // Each thread ends with its stream, and only the relays are on this one.
    thread::spawn(move || while source.write_all(&[7; 16_384]).is_ok() {});
    thread::spawn(move || {
        let mut buffer = vec![0; 262_144];
        while let Ok(count @ 1..) = sink.read(&mut buffer) {
            counted.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    thread::spawn(move || {
        let mut byte = [0];
        while service.read_exact(&mut byte).is_ok() && service.write_all(&byte).is_ok() {}
    });
    let pinging = tokio::task::spawn_blocking(move || {
        while passed.load(Ordering::Relaxed) < MEANWHILE {
            thread::yield_now();
        }
        let ping = |_| {
            let before = passed.load(Ordering::Relaxed);
            client.write_all(b"?").unwrap();
            client.read_exact(&mut [0]).unwrap();
            passed.load(Ordering::Relaxed) - before
        };
        let mut passed: Vec<u64> = (0..21).map(ping).collect();
        passed.sort_unstable();
        // Of the middle one: a thread of the test's may wait for a processor now and then.
        passed[10]
    });
    let meanwhile = pinging.await.unwrap();
    assert!(meanwhile <= MEANWHILE, "{meanwhile} bytes of the transfer passed during a message");
}
