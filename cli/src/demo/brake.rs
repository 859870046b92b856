//! The emergency brake, on live streams, and its release.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::agreement::{live, resets};
use super::launch::millis;
use super::service::Trickle;
use super::show::Told;
use super::{Pair, SOON, UP, until};
use crate::output::{plural, span};

/// Live streams each way.
const STREAMS: usize = 25;
/// The promise (product, P4): last byte at most a second after the order.
const PROMISE: Duration = Duration::from_secs(1);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(500);
/// For both sides to read.
const REASON: &str = "incident 2026-114, credentials on a lost laptop";

/// INTERPOL cuts, as `securelink cut` does.
pub(super) async fn cut(pair: &Pair) -> anyhow::Result<((), Told)> {
    let streams = live(pair, STREAMS).await?;
    let client = pair.interpol.client().await?;
    let ordered = Instant::now();
    let done = client.cut(&pair.interpol.link, REASON).await?;
    until(SOON, "the end of every stream", async || resets(&streams).map_err(|error| error.to_string())).await?;
    let before: u64 = streams.iter().map(Trickle::bytes).sum();
    let late = Trickle::start(pair.interpol.import);
    tokio::time::sleep(SILENCE).await;
    let after = streams.iter().map(Trickle::bytes).sum::<u64>() - before + late.bytes();
    anyhow::ensure!(after == 0, "{after} bytes passed after the cut");
    let last = streams.iter().filter_map(Trickle::last).max().context("no byte ever came")?;
    let lateness = last.saturating_duration_since(ordered);
    anyhow::ensure!(lateness <= PROMISE, "the last byte came {} after the order", span(lateness));
    let (here, there) = tokio::try_join!(pair.interpol.disagrees("CutHere"), pair.europol.disagrees("CutByPeer"))?;
    let figures = json!({
        "ended": done.ended,
        "tookMillis": millis(done.took),
        "lastByteAfterMillis": millis(lateness),
        "bytesAfterCut": after,
    });
    let count = plural(usize::try_from(done.ended).unwrap_or(usize::MAX), "stream");
    let told = Told::new(format!("{count} ended in {}", span(done.took)), figures)
        .row([pair.interpol.name.to_owned(), "CutHere".to_owned(), here])
        .row([pair.europol.name.to_owned(), "CutByPeer".to_owned(), there]);
    Ok(((), told))
}

/// INTERPOL resumes, as `securelink resume` does.
pub(super) async fn resume(pair: &Pair) -> anyhow::Result<((), Told)> {
    let began = Instant::now();
    let done = pair.interpol.client().await?.resume(&pair.interpol.link).await?;
    anyhow::ensure!(done.still_cut_by.is_empty(), "something else still cuts: {:?}", done.still_cut_by);
    tokio::try_join!(pair.interpol.ready(UP), pair.europol.ready(UP))?;
    let took = began.elapsed();
    drop(live(pair, 1).await?);
    let told = Told::new(format!("Ready after {}", span(took)), json!({"millis": millis(took)})).row([
        "both".to_owned(),
        "Ready".to_owned(),
        "bytes flow both ways".to_owned(),
    ]);
    Ok(((), told))
}
