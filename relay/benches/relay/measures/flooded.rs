//! Strangers at the listener to which the other relay comes.

use std::io;
use std::time::{Duration, Instant};

use super::{Plan, pings};
use crate::figures::percentile;
use crate::process::Process;
use crate::systems::System;
use crate::traffic;

/// Of one client: 99th percentiles of pings, and of new streams one after the other, and each in percent of what it is
/// without strangers.
pub async fn measure(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let listener = system.listener.ok_or(io::ErrorKind::Unsupported)?;
    let alone = tails(plan, system).await?;
    let mut flood = Process::play("flood", &[&listener.to_string(), system.kind.alpn()]);
    // When all strangers are there.
    flood.line();
    let beside = tails(plan, system).await?;
    Ok(beside.iter().zip(&alone).flat_map(|(beside, alone)| [*beside, beside / alone * 100.0]).collect())
}

async fn tails(plan: &Plan, system: &System) -> io::Result<[f64; 2]> {
    let mut socket = traffic::opened(system.address).await?;
    let mut pings = pings::for_a_time(&mut socket, plan.time).await?;
    let (start, mut streams) = (Instant::now(), Vec::<Duration>::new());
    while start.elapsed() < plan.time {
        let begun = Instant::now();
        traffic::open_and_finish(system.address).await?;
        streams.push(begun.elapsed());
    }
    Ok([percentile(&mut pings, 99), percentile(&mut streams, 99)])
}
