//! The demo: the product's promises, each shown on two organizations that live on this machine for a minute.
//!
//! Everything is real: YAML files, roots, state folders, runtimes, relays, TLS, control sockets. Only the distance is not.

mod agreement;
mod brake;
mod launch;
mod organization;
mod service;
mod show;
mod strangers;
mod transfer;
mod yaml;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::runtime::Builder;

use self::organization::Organization;
use self::show::Show;
use crate::output::{Failure, Out};

/// A link between neighbours comes up in well under a second; a busy machine gets its time.
const UP: Duration = Duration::from_secs(30);
/// For what takes a round trip.
const SOON: Duration = Duration::from_secs(10);

/// What the person asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes of the file that is carried.
    pub size: u64,
    /// Whether the folder stays.
    pub keep: bool,
    /// Whether a program reads the answer.
    pub json: bool,
}

/// The demo.
#[derive(Debug)]
pub struct Demo;

/// The two, while they live.
struct Pair {
    interpol: Organization,
    europol: Organization,
}

impl Demo {
    /// Shows everything; fails if some step did not do what it should.
    pub fn run(plan: &Plan, out: Out) -> Result<(), Failure> {
        let failed = |error: &std::io::Error| Failure::failed(format!("the demo cannot start: {error}; try again"));
        let threads = Builder::new_multi_thread().enable_all().build().map_err(|error| failed(&error))?;
        let folder = tempfile::Builder::new().prefix("securelink-demo-").tempdir().map_err(|error| failed(&error))?;
        let mut show = Show::new(out, plan.json);
        let done = threads.block_on(async {
            tokio::select! {
                () = play(plan, &folder, &mut show) => Ok(()),
                _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted; start it again at any time")),
            }
        });
        threads.shutdown_timeout(Duration::from_secs(1));
        let kept = keep(plan, folder);
        done?;
        show.end(kept)
    }
}

/// The folder, if it stays.
fn keep(plan: &Plan, folder: TempDir) -> Option<PathBuf> {
    plan.keep.then(|| folder.keep())
}

/// The steps: what a program calls them, and what a person does.
const FOUND: (&str, &str) = ("identities", "Two organizations, each with its own root");
const LINES: (&str, &str) = ("lines", "Each hands the other two lines, no secret");
const READY: (&str, &str) = ("ready", "Both start their half, the link comes up");
const GREET: (&str, &str) = ("greet", "The first messages, each signed for");
const CARRY: (&str, &str) = ("transfer", "A file from Europol to INTERPOL");
const THIRD: (&str, &str) = ("wrongRoot", "A third organization, posing as Europol");
const OTHER: (&str, &str) = ("wrongAudience", "Europol's certificate for another partner");
const ENDS: (&str, &str) = ("agreementEnds", "The agreement ends on one side");
const AGAIN: (&str, &str) = ("agreementRestored", "The agreement is prolonged");
const CUT: (&str, &str) = ("cut", "INTERPOL cuts the link, streams alive on it");
const RESUME: (&str, &str) = ("resume", "INTERPOL resumes the link");
/// What is not tried where there is nothing to try it on.
const REST: [(&str, &str); 10] = [LINES, READY, GREET, CARRY, THIRD, OTHER, ENDS, AGAIN, CUT, RESUME];

async fn play(plan: &Plan, folder: &TempDir, show: &mut Show) {
    show.title();
    let found = async |_| {
        let interpol = Organization::found(folder.path(), yaml::INTERPOL).await.context("INTERPOL")?;
        let europol = Organization::found(folder.path(), yaml::EUROPOL).await.context("Europol")?;
        Ok(launch::founded(Pair { interpol, europol }, folder.path()))
    };
    let Some(pair) = show.step(FOUND, found).await else { return show.skip(&REST) };
    link(plan, &pair, show).await;
    pair.interpol.close().await;
    pair.europol.close().await;
}

async fn link(plan: &Plan, pair: &Pair, show: &mut Show) {
    if show.step(LINES, |_| launch::exchange(pair)).await.is_none() {
        return show.skip(&REST[1..]);
    }
    show.organizations(pair.interpol.lines(), pair.europol.lines());
    if show.step(READY, |_| launch::ready(pair)).await.is_none() {
        return show.skip(&REST[2..]);
    }
    show.step(GREET, |_| launch::greet(pair)).await;
    show.step(CARRY, |progress| transfer::carry(pair, plan.size, progress)).await;
    show.step(THIRD, |_| strangers::third(pair)).await;
    show.step(OTHER, |_| strangers::other_audience(pair)).await;
    show.step(ENDS, |_| agreement::ends(pair)).await;
    show.step(AGAIN, |_| agreement::restored(pair)).await;
    show.step(CUT, |_| brake::cut(pair)).await;
    show.step(RESUME, |_| brake::resume(pair)).await;
}

/// Asks until it is so; at the deadline says what was the last thing known.
async fn until<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    /// Between two looks.
    const PACE: Duration = Duration::from_millis(10);
    let end = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= end => {
                anyhow::bail!("{what} did not happen within {} s: {why}", deadline.as_secs());
            }
            Err(_) => tokio::time::sleep(PACE).await,
        }
    }
}
