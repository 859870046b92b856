//! What is under way, on standard error: a line every few seconds, and one for each thing that is done.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use securelink_e2e::harness::tell;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what lies in this process.
pub const LOOK: Duration = Duration::from_millis(20);
/// Between two looks that cost the API server something.
pub const SELDOM: Duration = Duration::from_secs(1);

/// Looks until `left` says that nothing is left, or `limit` has passed; what is left is shown meanwhile. How long it took.
pub async fn until(
    what: &str,
    limit: Duration,
    every: Duration,
    left: impl AsyncFn() -> Result<Option<String>>,
) -> Result<Duration> {
    let began = Instant::now();
    let (mut looks, mut shown) = (tokio::time::interval(every), Instant::now());
    loop {
        looks.tick().await;
        let Some(still) = left().await? else { break };
        let took = began.elapsed();
        if took > limit {
            bail!("{what}: not within {} s; {still}", limit.as_secs());
        }
        if shown.elapsed() >= EVERY {
            shown = Instant::now();
            tell(&format!("scale: {what}: {} s, {still}", took.as_secs()));
        }
    }
    tell(&format!("scale: {what}: done after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(began.elapsed())
}
