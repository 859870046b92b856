//! What is measured of a system, in rounds in which the systems take turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::systems::{Service, System};
use crate::traffic::{BLOCK, echo, ping, upload};

/// How much of everything.
pub struct Plan {
    pub rounds: usize,
    bulk_mib: u64,
    several: u64,
    pings: u64,
    ping_time: Duration,
    opening: Duration,
    idle: usize,
}

impl Plan {
    pub const SHORT: Self = Self {
        rounds: 3,
        bulk_mib: 256,
        several: 16,
        pings: 2_000,
        ping_time: Duration::from_millis(500),
        opening: Duration::from_millis(500),
        idle: 500,
    };
    pub const LONG: Self = Self {
        rounds: 7,
        bulk_mib: 2048,
        several: 16,
        pings: 20_000,
        ping_time: Duration::from_secs(3),
        opening: Duration::from_secs(3),
        idle: 2_000,
    };
}

/// Connections that ping at once.
const PINGERS: usize = 64;
/// Clients that open streams one after the other.
const OPENERS: usize = 16;

/// The figures of one system in one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// One stream, MiB/s.
    pub bulk: f64,
    /// CPU seconds of both relays for a GiB of that.
    pub cpu: f64,
    /// Many streams together, MiB/s.
    pub several: f64,
    /// One connection: median, microseconds.
    pub ping: f64,
    /// 64 connections: thousands a second.
    pub pings: f64,
    /// 64 connections: 99th of a hundred, microseconds.
    pub pings_p99: f64,
    /// Streams opened, used for a byte and closed, a second.
    pub streams: f64,
    /// KiB a stream without traffic keeps in the costlier of the two relays.
    pub idle: f64,
}

/// The figures of each system, round by round.
pub type Results = Vec<(&'static str, Vec<Figures>)>;

/// Measures everything.
pub async fn all(plan: &Plan) -> Results {
    let service = Service::start();
    let address = service.address;
    let mut systems = vec![
        System::ours("ours", address).await,
        System::ours("again", address).await,
        System::copy(address),
        System::direct(address),
    ];
    let mut results: Results = systems.iter().map(|system| (system.name, Vec::new())).collect();
    for system in &systems {
        // Not counted: caches, allocators, windows.
        upload(TcpStream::connect(system.address).await.unwrap(), 64).await;
    }
    for round in 0..plan.rounds {
        // Whoever comes first in one round comes last in the next.
        let order: Vec<usize> = match round % 2 {
            0 => (0..systems.len()).collect(),
            _ => (0..systems.len()).rev().collect(),
        };
        for at in order {
            results[at].1.push(one(plan, &systems[at]).await);
        }
    }
    // Memory last, each in relays that have not carried anything else: what earlier measures left would count too.
    systems.clear();
    for (name, figures) in &mut results {
        let system = match *name {
            "copy" => System::copy(address),
            "direct" => continue,
            name => System::ours(name, address).await,
        };
        let idle = idle(plan, &system).await;
        for figures in figures {
            figures.idle = idle;
        }
    }
    results
}

async fn one(plan: &Plan, system: &System) -> Figures {
    let mut figures = Figures::default();
    let blocks = plan.bulk_mib * 1024 * 1024 / BLOCK as u64;
    let cpu = system.cpu();
    figures.bulk = bulk(system.address, 1, blocks).await;
    figures.cpu = (system.cpu() - cpu) / (to_f64(plan.bulk_mib) / 1024.0);
    figures.several = bulk(system.address, plan.several, blocks / plan.several).await;
    figures.ping = one_ping(system.address, plan.pings).await;
    (figures.pings, figures.pings_p99) = many_pings(system.address, plan.ping_time).await;
    figures.streams = new_streams(system.address, plan.opening).await;
    figures
}

/// MiB/s of `streams` streams that each carry `blocks` blocks.
async fn bulk(address: SocketAddr, streams: u64, blocks: u64) -> f64 {
    let start = Instant::now();
    let mut uploads = JoinSet::new();
    for _ in 0..streams {
        uploads.spawn(async move { upload(TcpStream::connect(address).await.unwrap(), blocks).await });
    }
    uploads.join_all().await;
    to_f64(streams * blocks * BLOCK as u64) / (1024.0 * 1024.0) / start.elapsed().as_secs_f64()
}

async fn one_ping(address: SocketAddr, count: u64) -> f64 {
    let mut socket = echo(address).await;
    let mut took = Vec::new();
    for number in 0..count {
        let start = Instant::now();
        ping(&mut socket, [number.to_le_bytes()[0]; 64]).await;
        took.push(start.elapsed());
    }
    percentile(&mut took, 50)
}

async fn many_pings(address: SocketAddr, time: Duration) -> (f64, f64) {
    let mut sockets = Vec::new();
    for _ in 0..PINGERS {
        let mut socket = echo(address).await;
        ping(&mut socket, [0; 64]).await;
        sockets.push(socket);
    }
    let start = Instant::now();
    let mut pinging = JoinSet::new();
    for mut socket in sockets {
        pinging.spawn(async move {
            let mut took = Vec::new();
            while start.elapsed() < time {
                let sent = Instant::now();
                ping(&mut socket, [took.len().to_le_bytes()[0]; 64]).await;
                took.push(sent.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = pinging.join_all().await.into_iter().flatten().collect();
    let rate = to_f64(took.len() as u64) / start.elapsed().as_secs_f64() / 1000.0;
    (rate, percentile(&mut took, 99))
}

async fn new_streams(address: SocketAddr, time: Duration) -> f64 {
    let (start, opened) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut opening = JoinSet::new();
    for _ in 0..OPENERS {
        let opened = Arc::clone(&opened);
        opening.spawn(async move {
            while start.elapsed() < time {
                let mut socket = echo(address).await;
                socket.write_u8(7).await.unwrap();
                assert_eq!(socket.read_u8().await.unwrap(), 7);
                socket.shutdown().await.unwrap();
                assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "a clean end");
                opened.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    opening.join_all().await;
    to_f64(opened.load(Ordering::Relaxed)) / start.elapsed().as_secs_f64()
}

/// KiB that a stream which has carried a byte and rests adds to the costlier relay.
async fn idle(plan: &Plan, system: &System) -> f64 {
    let before = system.resident();
    let mut sockets = Vec::new();
    for _ in 0..plan.idle {
        let mut socket = echo(system.address).await;
        socket.write_u8(7).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), 7);
        sockets.push(socket);
    }
    let after = system.resident();
    let grown = before.iter().zip(&after).map(|(before, after)| after - before).fold(0.0, f64::max);
    grown / to_f64(sockets.len() as u64)
}

/// Microseconds.
fn percentile(took: &mut [Duration], of_hundred: usize) -> f64 {
    took.sort_unstable();
    let at = (took.len() * of_hundred / 100).min(took.len().saturating_sub(1));
    took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

#[allow(clippy::cast_precision_loss, reason = "figures have four digits")]
pub fn to_f64(number: u64) -> f64 {
    number as f64
}
