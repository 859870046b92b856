//! Small messages there and back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Plan;
use super::bulk::MIB;
use crate::figures::{percentile, to_f64};
use crate::systems::System;
use crate::traffic::{self, BLOCK, Way, echo, ping};

/// Connections that ping at once.
const PINGERS: usize = 64;
/// Blocks of one upload beside which is pinged: one follows the other.
const UPLOAD: u64 = 256;
/// MiB/s of an upload beside which is pinged and that leaves everybody time.
const PACE: u64 = 200;
/// How much longer than it should such an upload may take.
const LATE: f64 = 1.1;

pub async fn one(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let mut socket = echo(system.address).await?;
    let mut took = Vec::new();
    for number in 0..plan.pings {
        let start = Instant::now();
        ping(&mut socket, [number.to_le_bytes()[0]; 64]).await?;
        took.push(start.elapsed());
    }
    Ok(vec![percentile(&mut took, 50), percentile(&mut took, 99)])
}

pub async fn many(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let mut sockets = Vec::new();
    for _ in 0..PINGERS {
        sockets.push(traffic::opened(system.address).await?);
    }
    let start = Instant::now();
    let mut pinging = JoinSet::new();
    for mut socket in sockets {
        let time = plan.time;
        pinging.spawn(async move { for_a_time(&mut socket, time).await });
    }
    let took = pinging.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?;
    let mut took = took.concat();
    let rate = to_f64(took.len() as u64) / start.elapsed().as_secs_f64() / 1000.0;
    Ok(vec![rate, percentile(&mut took, 50), percentile(&mut took, 99)])
}

pub async fn beside(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let mut socket = traffic::opened(system.address).await?;
    let address = system.address;
    let (start, uploads) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&uploads);
    let mut uploading = JoinSet::new();
    uploading.spawn(async move {
        loop {
            traffic::bulk(address, Way::Up, UPLOAD).await?;
            counted.fetch_add(1, Relaxed);
        }
    });
    let pinged = tokio::select! {
        pinged = for_a_time(&mut socket, plan.time) => pinged,
        Some(failed) = uploading.join_next() => failed.unwrap(),
    };
    let mut took = pinged?;
    let rate = to_f64(uploads.load(Relaxed) * UPLOAD * BLOCK as u64) / to_f64(MIB) / start.elapsed().as_secs_f64();
    Ok(vec![percentile(&mut took, 50), percentile(&mut took, 99), rate])
}

/// Beside an upload that is the same for all systems, however fast they are.
pub async fn beside_paced(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let mut socket = traffic::opened(system.address).await?;
    let (address, time) = (system.address, plan.time);
    let uploading = tokio::task::spawn_blocking(move || traffic::paced(address, PACE * MIB, time));
    let mut took = for_a_time(&mut socket, time).await?;
    let uploaded = uploading.await.unwrap()?;
    if uploaded.as_secs_f64() > time.as_secs_f64() * LATE {
        return Err(io::Error::other(format!("an upload of {time:?} took {uploaded:?}")));
    }
    Ok(vec![percentile(&mut took, 50), percentile(&mut took, 99)])
}

/// One ping after the other.
pub async fn for_a_time(socket: &mut TcpStream, time: Duration) -> io::Result<Vec<Duration>> {
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let sent = Instant::now();
        ping(socket, [took.len().to_le_bytes()[0]; 64]).await?;
        took.push(sent.elapsed());
    }
    Ok(took)
}
