//! Small messages there and back.

use std::io;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Plan;
use crate::figures::{percentile, to_f64};
use crate::systems::System;
use crate::traffic::{self, Way, echo, ping};

/// Connections that ping at once.
const PINGERS: usize = 64;
/// Blocks of one upload beside which is pinged: one follows the other.
const UPLOAD: u64 = 1024;

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
    let mut uploading = JoinSet::new();
    uploading.spawn(async move {
        loop {
            traffic::bulk(address, Way::Up, UPLOAD).await?;
        }
    });
    let pinged = tokio::select! {
        pinged = for_a_time(&mut socket, plan.time) => pinged,
        Some(failed) = uploading.join_next() => failed.unwrap(),
    };
    let mut took = pinged?;
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
