//! Many bytes, both ways.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::task::JoinSet;

use super::Plan;
use crate::figures::to_f64;
use crate::systems::System;
use crate::traffic::{self, BLOCK, Way};

pub const MIB: u64 = 1024 * 1024;

pub async fn measure(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let mut figures = Vec::new();
    for streams in [1, 16, 64] {
        for way in [Way::Up, Way::Down] {
            let cpu = system.cpu();
            figures.push(rate(system.address, way, streams, plan.bulk_mib).await?);
            if streams == 1 {
                figures.push((system.cpu() - cpu) / (to_f64(plan.bulk_mib) / 1024.0));
            }
        }
    }
    Ok(figures)
}

/// MiB/s of `streams` streams that carry `mib` MiB together.
pub async fn rate(address: SocketAddr, way: Way, streams: u64, mib: u64) -> io::Result<f64> {
    let start = Instant::now();
    let blocks = mib * MIB / BLOCK as u64 / streams;
    let mut carrying = JoinSet::new();
    for _ in 0..streams {
        carrying.spawn(traffic::bulk(address, way, blocks));
    }
    carrying.join_all().await.into_iter().collect::<io::Result<()>>()?;
    Ok(to_f64(streams * blocks * BLOCK as u64) / to_f64(MIB) / start.elapsed().as_secs_f64())
}
