//! One side's agreement ends, and is prolonged again.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use securelink_crds::conditions::Time;
use serde_json::json;

use super::launch::millis;
use super::service::{End, Trickle};
use super::show::Told;
use super::{Pair, UP, until};
use crate::output::{plural, span};

/// The promise (product, P3): one second after the end not a byte passes.
const PROMISE: Duration = Duration::from_secs(1);
/// Streams must live until the end: a busy machine's pause between two beats is forgiven.
const BEFORE: Duration = Duration::from_millis(500);
/// Live streams each way.
const STREAMS: usize = 5;

/// INTERPOL writes an end two seconds ahead, and both look on.
pub(super) async fn ends(pair: &Pair) -> anyhow::Result<((), Told)> {
    let streams = live(pair, STREAMS).await?;
    let mut link = pair.interpol.declared()?;
    let end = Timestamp::from_second(Timestamp::now().as_second() + 2)?;
    link.spec.agreement.as_mut().context("there is no agreement")?.expires = Time(end);
    pair.interpol.declare(&link).await?;
    let ahead = Timestamp::now().duration_until(end);
    let at = Instant::now() + Duration::try_from(ahead).unwrap_or_default();

    tokio::time::sleep_until((at + PROMISE).into()).await;
    let before: u64 = streams.iter().map(Trickle::bytes).sum();
    let late = Trickle::start(pair.interpol.import);
    tokio::time::sleep_until((at + PROMISE * 2).into()).await;
    let after = streams.iter().map(Trickle::bytes).sum::<u64>() - before + late.bytes();
    anyhow::ensure!(after == 0, "{after} bytes passed later than one second after the end");
    resets(&streams)?;

    let (here, there) = tokio::try_join!(pair.interpol.disagrees("Expired"), pair.europol.disagrees("Expired"))?;
    let last = streams.iter().filter_map(Trickle::last).max().context("no byte ever came")?;
    anyhow::ensure!(last + BEFORE >= at, "the streams ended {} before the agreement", span(at - last));
    let lateness = last.saturating_duration_since(at);
    let figures =
        json!({"bytesAfterPromise": after, "lastByteAfterMillis": millis(lateness), "streams": streams.len()});
    let told = Told::new(format!("silent {} after the end", span(lateness)), figures)
        .row([
            "streams".to_owned(),
            "reset".to_owned(),
            format!("{}, none ended as if complete", plural(streams.len(), "stream")),
        ])
        .row([pair.interpol.name.to_owned(), "Expired".to_owned(), here])
        .row([pair.europol.name.to_owned(), "Expired".to_owned(), there]);
    Ok(((), told))
}

/// INTERPOL writes a later end; nothing else is needed.
pub(super) async fn restored(pair: &Pair) -> anyhow::Result<((), Told)> {
    let mut link = pair.interpol.declared()?;
    let end = pair.europol.declared()?.spec.agreement.context("there is no agreement")?.expires;
    link.spec.agreement.as_mut().context("there is no agreement")?.expires = end.clone();
    let began = Instant::now();
    pair.interpol.declare(&link).await?;
    tokio::try_join!(pair.interpol.ready(UP), pair.europol.ready(UP))?;
    let took = began.elapsed();
    drop(live(pair, 1).await?);
    let told = Told::new(format!("Ready after {}", span(took)), json!({"millis": millis(took)})).row([
        "both".to_owned(),
        "Ready".to_owned(),
        format!("in force until {}, bytes flow both ways", end.0),
    ]);
    Ok(((), told))
}

/// Streams on which bytes flow, `each` in either direction.
pub(super) async fn live(pair: &Pair, each: usize) -> anyhow::Result<Vec<Trickle>> {
    let ports = [pair.interpol.import, pair.europol.import];
    let streams: Vec<_> = (0..each).flat_map(|_| ports).map(Trickle::start).collect();
    until(UP, "bytes on every stream", async || {
        let flowing = streams.iter().filter(|stream| stream.bytes() > 0).count();
        let ended = streams.iter().filter(|stream| stream.ended().is_some()).count();
        let all = streams.len();
        if flowing == all { Ok(()) } else { Err(format!("{flowing} of {all} have some, {ended} have ended")) }
    })
    .await?;
    Ok(streams)
}

/// Every stream must have ended, and by a reset: what was cut short is not complete.
pub(super) fn resets(streams: &[Trickle]) -> anyhow::Result<()> {
    let alive = streams.iter().filter(|stream| stream.ended().is_none()).count();
    anyhow::ensure!(alive == 0, "{} of {} streams are still open", alive, streams.len());
    let clean = streams.iter().filter(|stream| stream.ended() == Some(End::Clean)).count();
    anyhow::ensure!(clean == 0, "{clean} streams ended as if everything had been sent");
    Ok(())
}
