//! Neighbours that read nothing.

use std::io;
use std::time::Duration;

use super::bulk::rate;
use super::{Plan, pings};
use crate::figures::percentile;
use crate::systems::System;
use crate::traffic::{self, Way};

/// Clients that ask for much and read nothing.
const STALLED: usize = 8;
/// Time for every buffer on the way to fill, a second's worth of bytes: nobody tells when they have.
const FILL: Duration = Duration::from_secs(1);

pub async fn measure(plan: &Plan, system: &System) -> io::Result<Vec<f64>> {
    let alone = rate(system.address, Way::Down, 1, plan.bulk_mib).await?;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(traffic::stall(system.address).await?);
    }
    tokio::time::sleep(FILL).await;
    let beside = rate(system.address, Way::Down, 1, plan.bulk_mib).await?;
    let mut socket = traffic::opened(system.address).await?;
    let mut took = pings::for_a_time(&mut socket, plan.time).await?;
    Ok(vec![beside / alone * 100.0, percentile(&mut took, 99)])
}
