//! The end of very many streams at once, by order.

use std::io;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;
use tokio::task::{JoinSet, block_in_place};

use super::Plan;
use super::streams::open_many;
use crate::systems::System;

/// Milliseconds from the order, to the exporting relay of each pair, until the last client sees its reset.
pub async fn measure(plan: &Plan, pairs: &mut [System]) -> io::Result<Vec<f64>> {
    let mut waiting = JoinSet::new();
    for pair in &*pairs {
        for mut socket in open_many(pair.address, plan.cut / pairs.len()).await? {
            waiting.spawn(async move {
                let end = socket.read(&mut [0]).await;
                assert!(end.is_err(), "a cut looks like a clean end: {end:?}");
                Instant::now()
            });
        }
    }
    let start = Instant::now();
    block_in_place(|| {
        std::thread::scope(|scope| {
            for pair in pairs {
                scope.spawn(|| pair.cut());
            }
        });
    });
    let last = waiting.join_all().await.into_iter().max().unwrap_or(start);
    Ok(vec![last.duration_since(start).as_secs_f64() * 1e3])
}
