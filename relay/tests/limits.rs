//! What an export's limits allow and refuse, and the proxy on the way to the peer (fault F56).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use securelink_relay::wire::{Code, Message, Role};
use securelink_relay_config::{Endpoint, Limits, LinkReport};
use support::intruder::{self, Caller, Heard};
use support::{Pair, endpoint, open, read_to_end, turned_away};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_at_once_are_limited_per_export_and_per_link() {
    for of_link in [false, true] {
        let limits = Limits { connections: Some(2), ..Limits::default() };
        let pair = Pair::dialing(|_, b| {
            let place = if of_link { &mut b.limits } else { &mut b.exports[0].limits };
            *place = limits;
        })
        .await;
        pair.a.until_ready().await;
        let first = pair.stream_to_b().await;
        let _second = pair.stream_to_b().await;
        turned_away(pair.a.import_address("at-b")).await;
        drop(first);
        pair.b.until("one has ended", |report| report.streams.live == 1).await;
        pair.stream_to_b().await;
    }
}

/// Twice as many at once as there may be, on a connection each: exactly so many are taken, and the service sees no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f56_a_quota_that_is_used_twice_over_is_given_once() {
    const QUOTA: usize = 16;
    for of_link in [false, true] {
        let limits = Limits { connections: Some(u32::try_from(QUOTA).unwrap()), ..Limits::default() };
        let pair = Pair::dialing(|_, b| {
            let place = if of_link { &mut b.limits } else { &mut b.exports[0].limits };
            *place = limits;
        })
        .await;
        pair.a.until_ready().await;
        let caller = Caller::new(&pair);
        let mut intruders = Vec::new();
        for _ in 0..2 * QUOTA {
            intruders.push(caller.connect(Role::Forward).await);
        }
        let start = Arc::new(Barrier::new(2 * QUOTA));
        let mut opening = JoinSet::new();
        for mut intruder in intruders {
            let start = Arc::clone(&start);
            opening.spawn(async move {
                start.wait().await;
                intruder.say(&intruder::open("at-b")).await;
                let answered = |heard: &Heard| matches!(heard, Heard::Message(Message::Accept | Message::Reject(_)));
                (intruder.hear_until(answered).await, intruder)
            });
        }
        let answers = opening.join_all().await;
        let refused = answers.iter().filter(|(answer, _)| match answer {
            Heard::Message(Message::Reject(reject)) => reject.code == Code::Limit,
            _ => false,
        });
        assert_eq!(refused.count(), QUOTA, "of the link: {of_link}");
        let report = pair.b.relay.report().streams;
        assert_eq!((report.live, report.limit), (QUOTA as u64, if of_link { QUOTA as u64 } else { 10_000 }));
        for _ in 0..QUOTA {
            pair.at_b.accept().await.unwrap();
        }
        assert!(futures_util::FutureExt::now_or_never(pair.at_b.accept()).is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_in_a_second_are_limited() {
    const RATE: u32 = 3;
    const CLIENTS: usize = 40;
    let pair = Pair::dialing(|_, b| {
        b.exports[0].limits = Limits { new_connections_per_second: Some(RATE), ..Limits::default() };
    })
    .await;
    pair.a.until_ready().await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&accepted);
    let Pair { at_b, a, b: _b, .. } = pair;
    let service = tokio::spawn(async move {
        while let Ok((mut socket, _)) = at_b.accept().await {
            counting.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move { socket.read_u8().await });
        }
    });
    // Far more at once than a second allows. Who is served sees a clean end, who is refused a reset.
    let address = a.import_address("at-b");
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let Ok(mut client) = TcpStream::connect(address).await else { return false };
            client.write_all(b"x").await.is_ok() && read_to_end(&mut client).await.1.is_ok()
        });
    }
    let mut served = 0;
    while let Some(clean) = clients.join_next().await {
        served += usize::from(clean.unwrap());
    }
    assert!(served >= RATE as usize, "the first of them are served");
    assert!(served < CLIENTS, "some are refused");
    assert_eq!(accepted.load(Ordering::SeqCst), served, "who is refused never reaches the service");
    service.abort();
}

/// Bytes a second: what was carried never exceeds rate and time by more than the burst and a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_a_second_are_limited() {
    const RATE: u64 = 2_000_000;
    let pair = Pair::dialing(|_, b| {
        b.exports[0].limits = Limits { bytes_per_second: Some(RATE), ..Limits::default() };
    })
    .await;
    pair.a.until_ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let start = std::time::Instant::now();
    let sending = tokio::spawn(async move {
        let block = vec![7; 65_536];
        for _ in 0..64 {
            client.write_all(&block).await.unwrap();
        }
        client.shutdown().await.unwrap();
        client
    });
    let mut received = 0_u64;
    let mut buffer = vec![0; 65_536];
    loop {
        let count = service.read(&mut buffer).await.unwrap() as u64;
        if count == 0 {
            break;
        }
        received += count;
    }
    assert_eq!(received, 64 * 65_536);
    // A lower bound on time cannot fail on a slow machine. Burst: a tenth of a second; batches: 256 KiB.
    #[allow(clippy::cast_precision_loss)]
    let least = (received - 2 * 262_144) as f64 / RATE as f64 - 0.1;
    assert!(start.elapsed().as_secs_f64() >= least, "{received} bytes in {:?}", start.elapsed());
    sending.await.unwrap();
}

/// A proxy that counts whom it connected, and where to.
async fn proxy(answer: &'static str) -> (Endpoint, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let record = Arc::clone(&record);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(inner.read_u8().await?);
                }
                let line = String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
                let target = line.split(' ').nth(1).unwrap().to_owned();
                record.lock().unwrap().push(line);
                inner.write_all(answer.as_bytes()).await?;
                if answer.contains("200") {
                    let mut outer = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut inner, &mut outer).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    (endpoint(address), seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_used_for_every_connection_to_the_peer() {
    let (by, seen) = proxy("HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await;
    let mut pair = Pair::ready().await;
    pair.a.adopt(|snapshot| snapshot.peer.proxy = Some(by)).await;
    pair.a
        .until("the control connection passes the proxy", |report| {
            !seen.lock().unwrap().is_empty() && report.peer.control_connections == 2
        })
        .await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open(pair.a.import_address("at-b"), &pair.at_b).await);
    }
    let lines = seen.lock().unwrap().clone();
    let wanted = format!("CONNECT {} HTTP/1.1", pair.b.listens_on());
    assert!(lines.len() >= 3 && lines.iter().all(|line| *line == wanted), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_is_named_with_its_answer() {
    let (by, _) = proxy("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    let name = by.to_string();
    let pair = Pair::dialing(|_, b| b.peer.proxy = Some(by)).await;
    // Forgotten for a moment where the peer comes by itself, until the next attempt.
    let last = |report: &LinkReport| report.peer.last_error.clone().filter(|error| error.reason == "ProxyFailed");
    let report = pair.b.until("the proxy refuses", |report| last(report).is_some()).await;
    let message = last(&report).unwrap().message;
    assert!(message.contains(&name) && message.contains("403 Forbidden"), "{message}");
}
