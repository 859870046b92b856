//! Streams that carry much have threads of their own, as long as they do (docs/decisions/0031). Nothing else runs in this
//! process: what the threads have worked is counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use support::{PATIENCE, Pair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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
    carry(&mut client, &mut service).await;
    let by_much = worked();
    assert!(by_much > 0, "none for {MUCH} bytes up");
    carry(&mut service, &mut client).await;
    assert!(worked() > by_much, "none for as many down");
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
}
