//! What time alone does to a link: agreements begin and end, words grow stale, probes are due.

use std::sync::Arc;
use std::time::Duration;

use securelink_relay_config::ProbeReport;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::capacity;
use crate::link::{Link, locked};
use crate::reserved::probe;

/// How often the gate looks at the clock: an agreement's end must stop bytes within a second (promise P3), also where
/// the clock was stepped, which no timer notices.
const TICK: Duration = Duration::from_millis(200);
/// Between round trips while they succeed: Ready speaks of the last 30 s (product), so two may fail.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// Between round trips while they fail.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Looks at the clock until the relay stops.
pub(crate) async fn watch_clock(link: Arc<Link>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = Vec::new();
    loop {
        tokio::select! {
            () = link.stop.cancelled() => return,
            _ = ticks.tick() => {
                open = link.tick(&open);
                link.reverse.decay();
                capacity::look();
            }
        }
    }
}

/// Sends bytes on the round trip while both sides agree, until the relay stops.
pub(crate) async fn keep_probing(link: Arc<Link>) {
    let mut generation = link.generation();
    let mut due = Instant::now();
    let mut was_open = false;
    loop {
        // A partner without our software has nothing that echoes (contracts 8).
        let probed = link.is_connected() && !link.view().is_connect();
        let open = probed && link.gate().is_some_and(|opinion| opinion.verdict.is_ok());
        if !open && was_open {
            // What was true before says nothing about what will be.
            *locked(&link.probe) = ProbeReport::default();
            link.changed();
        } else if open && !was_open {
            due = Instant::now();
        }
        was_open = open;
        if open && Instant::now() >= due {
            let succeeded = run(&link).await;
            due = Instant::now() + if succeeded { PROBE_EVERY } else { PROBE_AGAIN };
        }
        tokio::select! {
            () = link.stop.cancelled() => return,
            _ = generation.changed() => {}
            () = sleep_until(due), if open => {}
        }
    }
}

async fn run(link: &Arc<Link>) -> bool {
    let result = tokio::select! {
        () = link.stop.cancelled() => return false,
        result = probe(link) => result,
    };
    let now = link.now();
    let succeeded = result.is_ok();
    {
        let mut report = locked(&link.probe);
        match result {
            Ok(took) => {
                *report = ProbeReport {
                    last_success: Some(now),
                    round_trip_micros: u64::try_from(took.as_micros()).ok(),
                    error: None,
                };
            }
            Err(error) => report.error = Some(error.to_string()),
        }
    }
    link.changed();
    succeeded
}
