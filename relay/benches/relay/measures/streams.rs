//! Streams that begin, end and rest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Plan;
use crate::figures::to_f64;
use crate::systems::System;
use crate::traffic::{self, Way};

/// Clients that open streams one after the other.
const OPENERS: usize = 16;
/// Streams that are opened at once where many are wanted.
const AT_ONCE: usize = 64;
/// Between two certificates.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Blocks of one upload meanwhile: one follows the other.
const UPLOAD: u64 = 256;

pub async fn opening(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let cpu = system.cpu();
    let (opened, failed, seconds) = open_for_a_time(system.address, plan.time).await;
    if let Some(error) = failed.into_iter().next() {
        return Err(error);
    }
    Ok(vec![to_f64(opened) / seconds, (system.cpu() - cpu) * 1e6 / to_f64(opened)])
}

/// Streams opened and finished, what failed, and in how many seconds.
async fn open_for_a_time(address: SocketAddr, time: Duration) -> (u64, Vec<io::Error>, f64) {
    let (start, opened) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut opening = JoinSet::new();
    for _ in 0..OPENERS {
        let opened = Arc::clone(&opened);
        opening.spawn(async move {
            let mut failed = Vec::new();
            while start.elapsed() < time {
                match traffic::open_and_finish(address).await {
                    Ok(()) => _ = opened.fetch_add(1, Ordering::Relaxed),
                    Err(error) => failed.push(error),
                }
            }
            failed
        });
    }
    let failed = opening.join_all().await.into_iter().flatten().collect();
    (opened.load(Ordering::Relaxed), failed, start.elapsed().as_secs_f64())
}

/// Streams that failed, uploads too, and those that did not, a second.
pub async fn renewal(plan: &Plan, system: &mut System) -> io::Result<Vec<f64>> {
    let (address, failed) = (system.address, Arc::new(AtomicU64::new(0)));
    let mut uploading = JoinSet::new();
    let uploads_failed = Arc::clone(&failed);
    uploading.spawn(async move {
        loop {
            if traffic::bulk(address, Way::Up, UPLOAD).await.is_err() {
                uploads_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let renewing = async {
        let mut due = tokio::time::interval(RENEW_EVERY);
        loop {
            due.tick().await;
            system.renew().await;
        }
    };
    let (opened, others, seconds) = tokio::select! {
        opened = open_for_a_time(address, plan.time) => opened,
        () = renewing => return Err(io::Error::other("renewing ended")),
    };
    Ok(vec![to_f64(failed.load(Ordering::Relaxed) + others.len() as u64), to_f64(opened) / seconds])
}

/// KiB that a stream which has carried a byte and rests adds to the costlier relay.
pub async fn idle(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let before = system.resident();
    let sockets = open_many(system.address, plan.idle).await?;
    let after = system.resident();
    let grown = before.iter().zip(&after).map(|(before, after)| after - before).fold(0.0, f64::max);
    Ok(vec![grown / to_f64(sockets.len() as u64)])
}

/// That many streams, each of which carried a byte.
pub async fn open_many(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    stream::iter(0..count).map(|_| traffic::opened(address)).buffer_unordered(AT_ONCE).try_collect().await
}
