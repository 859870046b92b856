//! Streams that carry much have threads of their own, as long as they do (docs/decisions/0031). There is one test in this
//! process: what the threads have worked is counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use socket2::SockRef;
use support::{PATIENCE, Pair, link_cut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

/// Enough for some ticks of the system's accounts, of 10 ms each.
const MUCH: usize = 64 << 20;
/// Enough for many ticks, wherever they are.
const PINGS: u32 = 5_000;

/// Ticks that the threads for streams which carry much have worked, all of them.
fn worked() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let of_bulk = threads.filter(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "bulk\n"));
    let ticks = of_bulk.map(|thread| {
        let stat = fs::read_to_string(thread.join("stat")).unwrap();
        // proc_pid_stat(5): utime and stime are the 14th and 15th field, the second ends with a parenthesis.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    });
    ticks.sum()
}

async fn carry(from: &mut TcpStream, to: &mut TcpStream) {
    let block: Vec<u8> = (0..=250).cycle().take(MUCH).collect();
    let mut received = vec![0; MUCH];
    let carrying = async { tokio::try_join!(from.write_all(&block), to.read_exact(&mut received)).map(drop) };
    timeout(3 * PATIENCE, carrying).await.unwrap().unwrap();
    assert!(received == block);
}

/// As often as it takes to be moved.
async fn carry_much(from: &mut TcpStream, to: &mut TcpStream) {
    let before = worked();
    let moved = async {
        while worked() == before {
            carry(from, to).await;
        }
    };
    timeout(3 * PATIENCE, moved).await.expect("who carries much is moved");
}

/// Carries until it breaks, by now on the threads for that. To abort the client's task resets its socket.
async fn pump((mut client, mut service): (TcpStream, TcpStream)) -> (JoinHandle<()>, JoinHandle<ErrorKind>) {
    let before = worked();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    let sending = tokio::spawn(async move {
        let block = vec![7; 65_536];
        while client.write_all(&block).await.is_ok() {}
    });
    let receiving = tokio::spawn(async move {
        let mut buffer = vec![0; 262_144];
        loop {
            match service.read(&mut buffer).await {
                Ok(0) => panic!("it looks like an end"),
                Ok(count) => assert!(buffer[..count].iter().all(|byte| *byte == 7)),
                Err(error) => return error.kind(),
            }
        }
    });
    let moved = async {
        while worked() == before {
            yield_now().await;
        }
    };
    timeout(PATIENCE, moved).await.expect("who carries much is moved");
    (sending, receiving)
}

async fn pings(client: &mut TcpStream, service: &mut TcpStream) {
    let pinging = async {
        for number in 0..PINGS {
            let (message, mut there) = (number.to_le_bytes(), [0; 4]);
            client.write_all(&message).await.unwrap();
            service.read_exact(&mut there).await.unwrap();
            service.write_all(&there).await.unwrap();
            client.read_exact(&mut there).await.unwrap();
            assert_eq!(there, message);
        }
    };
    timeout(PATIENCE, pinging).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_carries_much_works_on_threads_of_its_own_and_comes_back() {
    let pair = Pair::ready().await;
    let ((mut client, mut service), (mut other, mut others)) = (pair.stream_to_b().await, pair.stream_to_b().await);
    pings(&mut client, &mut service).await;
    assert_eq!(worked(), 0, "who carries little is not there");
    carry_much(&mut client, &mut service).await;
    carry_much(&mut service, &mut client).await;
    pings(&mut other, &mut others).await;
    // Who slows down is moved: pings of its own leave those threads alone, too.
    let comes_back = async {
        loop {
            let before = worked();
            pings(&mut client, &mut service).await;
            if worked() == before {
                return;
            }
        }
    };
    timeout(PATIENCE, comes_back).await.expect("it stays there");
    carry(&mut client, &mut service).await;
    // The end, from those threads: as clean as any other, and the connections are used again.
    client.shutdown().await.unwrap();
    service.shutdown().await.unwrap();
    assert_eq!(service.read(&mut [0]).await.unwrap() + client.read(&mut [0]).await.unwrap(), 0);
    let (mut client, mut service) = pair.stream_to_b().await;
    pings(&mut client, &mut service).await;
    // A client that breaks off there is heard of, and so is a cut.
    let (sending, receiving) = pump((client, service)).await;
    sending.abort();
    timeout(PATIENCE, receiving).await.expect("the service is told").unwrap();
    let (sending, receiving) = pump(pair.stream_to_b().await).await;
    let receipt = pair.a.relay.cut(link_cut("LinkCut/1", 1)).await;
    assert!(receipt.fresh && receipt.ended >= 1, "{receipt:?}");
    timeout(PATIENCE, sending).await.expect("the client is told").unwrap();
    timeout(PATIENCE, receiving).await.expect("and the service").unwrap();
    pair.b.until("the other side's streams end", |report| report.streams.live == 0).await;
}
