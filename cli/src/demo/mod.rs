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
const UP: Duration = Duration::from_secs(20);
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

async fn play(plan: &Plan, folder: &TempDir, show: &mut Show) {
    show.title();
    let mut pair = None;
    let opening = async || {
        let interpol = Organization::found(folder.path(), yaml::INTERPOL).await.context("INTERPOL")?;
        let europol = Organization::found(folder.path(), yaml::EUROPOL).await.context("Europol")?;
        anyhow::Ok(Pair { interpol, europol })
    };
    let founded = show.step("identities", "Two organizations, each with its own YAML and its own root", |_| async {
        let (pair, told) = launch::founded(opening().await?, folder.path());
        Ok((pair, told))
    });
    if let Some(founded) = founded.await {
        pair = Some(founded);
    }
    let Some(pair) = pair.as_mut() else { return show.skip(&REST) };
    link(plan, pair, show).await;
    pair.interpol.close().await;
    pair.europol.close().await;
}

/// What is not tried where there is nothing to try it on.
const REST: [&str; 10] = [
    "lines",
    "ready",
    "greet",
    "transfer",
    "wrongRoot",
    "wrongAudience",
    "agreementEnds",
    "agreementRestored",
    "cut",
    "resume",
];

async fn link(plan: &Plan, pair: &mut Pair, show: &mut Show) {
    let exchanged = show.step("lines", "Each hands the other two lines, nothing secret", |_| launch::exchange(pair));
    if exchanged.await.is_none() {
        return show.skip(&REST[1..]);
    }
    show.organizations(pair.interpol.lines(), pair.europol.lines());
    let up = show.step("ready", "Both start their half, and the link comes up", |_| launch::ready(pair));
    if up.await.is_none() {
        return show.skip(&REST[2..]);
    }
    let pair = &*pair;
    show.step("greet", "The first messages, signed for by the other side", |_| launch::greet(pair)).await;
    let title = "A file from Europol's service through INTERPOL's imported port";
    show.step("transfer", title, |progress| transfer::carry(pair, plan.size, progress)).await;
    let title = "A third organization with a valid root of its own is refused";
    show.step("wrongRoot", title, |_| strangers::third(pair)).await;
    let title = "Europol's own certificate, made for another partner, is refused";
    show.step("wrongAudience", title, |_| strangers::other_audience(pair)).await;
    let title = "The agreement ends on one side: nothing passes any more";
    show.step("agreementEnds", title, |_| agreement::ends(pair)).await;
    let title = "The agreement is prolonged: the link is back";
    show.step("agreementRestored", title, |_| agreement::restored(pair)).await;
    show.step("cut", "INTERPOL cuts the link with streams alive on it", |_| brake::cut(pair)).await;
    show.step("resume", "INTERPOL resumes it", |_| brake::resume(pair)).await;
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
