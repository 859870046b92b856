//! Runs the tests of one file in the order in which they are written, in one lab, and closes with cargo's lines.
//!
//! A test that cannot run here is reported as ignored, never as passed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, Namespace};
use crate::lab::Lab;
use crate::machine::Surroundings;
use crate::pair::Pair;

/// The two organizations of every test.
pub const CLUSTERS: [&str; 2] = ["org-a", "org-b"];

/// Where whoever brought the lab up for this run recorded what the machine held before ([`Surroundings::recorded`]).
/// Where it is set, this run may end the lab.
const BEFORE: &str = "SECURELINK_E2E_BEFORE";

/// Names an image that is there already, so that none is built.
const IMAGE: &str = "SECURELINK_E2E_IMAGE";

/// How a test ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What it promises holds.
    Held,
    /// It could not be tried here, and why.
    Skipped(String),
}

/// A test: its name is the promise.
pub struct Test {
    name: &'static str,
    body: for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<Outcome>>,
}

impl Test {
    /// A test of this name.
    pub fn new(name: &'static str, body: for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<Outcome>>) -> Self {
        Self { name, body }
    }
}

/// What the tests of one run share.
pub struct World {
    /// The lab.
    pub lab: Lab,
    raised: OnceLock<Result<Raised, String>>,
    product: OnceLock<Result<String, String>>,
    pair: OnceCell<Result<Option<Pair>, String>>,
    namespaces: Mutex<Vec<Namespace>>,
    swept: Mutex<BTreeSet<String>>,
    logs: PathBuf,
}

/// What bringing the clusters up told.
#[derive(Clone)]
struct Raised {
    image: String,
    may_end: bool,
    before: Result<Arc<Surroundings>, String>,
}

impl World {
    fn new(lab: Lab, logs: PathBuf) -> Self {
        Self {
            lab,
            raised: OnceLock::new(),
            product: OnceLock::new(),
            pair: OnceCell::new(),
            namespaces: Mutex::default(),
            swept: Mutex::default(),
            logs,
        }
    }

    /// Brings the clusters up, once for all tests; whoever comes later gets the same answer.
    fn raised(&self) -> Result<Raised> {
        let raise = || {
            let recorded = std::env::var_os(BEFORE).map(PathBuf::from);
            let before = recorded.as_deref().map_or_else(Surroundings::now, Surroundings::recorded);
            let before = before.map(Arc::new).map_err(|error| format!("{error:#}"));
            let ready = self.lab.status()?.ready();
            let was_up = CLUSTERS.iter().all(|name| ready.iter().any(|up| up == name));
            self.lab.up(&CLUSTERS)?;
            anyhow::Ok(Raised { image: self.lab.probe()?, may_end: !was_up || recorded.is_some(), before })
        };
        self.raised
            .get_or_init(|| raise().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(|error| anyhow!(error))
    }

    /// Whether this run may end the lab: not where somebody had it up before.
    pub fn may_end(&self) -> Result<bool> {
        Ok(self.raised()?.may_end)
    }

    /// What the machine held before this run brought the lab up.
    pub fn before(&self) -> Result<Arc<Surroundings>> {
        self.raised()?.before.map_err(|error| anyhow!(error))
    }

    /// The name of the test image that every cluster has.
    pub fn image(&self) -> Result<String> {
        Ok(self.raised()?.image)
    }

    /// The name of the product's image, in every cluster: the one that `SECURELINK_E2E_IMAGE` names, or one that is built once.
    pub fn product(&self) -> Result<String> {
        self.raised()?;
        let image = || match std::env::var(IMAGE) {
            Ok(image) => self.lab.load(&[&image]).map(|()| image),
            Err(_) => self.lab.image(),
        };
        let built = self.product.get_or_init(|| image().map_err(|error| format!("{error:#}")));
        built.clone().map_err(|error| anyhow!(error))
    }

    /// A client for one of [`CLUSTERS`].
    pub async fn cluster(&self, name: &str) -> Result<Cluster> {
        self.raised()?;
        let cluster = Cluster::connect(&self.lab, name).await?;
        let first = self.swept.lock().is_ok_and(|mut swept| swept.insert(name.to_owned()));
        if first {
            cluster.sweep().await?;
        }
        Ok(cluster)
    }

    /// A namespace that goes when the test has ended.
    pub async fn namespace(&self, cluster: &Cluster, purpose: &str) -> Result<Namespace> {
        Ok(self.kept(cluster.namespace(purpose).await?))
    }

    /// The same under a name that something else gives.
    pub async fn namespace_named(&self, cluster: &Cluster, name: &str) -> Result<Namespace> {
        Ok(self.kept(cluster.namespace_named(name, name.to_owned()).await?))
    }

    fn kept(&self, namespace: Namespace) -> Namespace {
        if let Ok(mut all) = self.namespaces.lock() {
            all.push(namespace.clone());
        }
        namespace
    }

    /// Two organizations and two links between them, made once for all tests of a file and as they were made; nothing where
    /// somebody else has installed the kinds.
    pub async fn pair(&self) -> Result<Option<&Pair>> {
        let make = async || {
            let made = Box::pin(Pair::new(self)).await.map_err(|error| format!("{error:#}"));
            // What was made stays for the tests to come.
            if let (Ok(Some(_)), Ok(mut all)) = (&made, self.namespaces.lock()) {
                all.clear();
            }
            made
        };
        match self.pair.get_or_init(make).await {
            Ok(Some(pair)) => pair.restore().await.map(|()| Some(pair)).context("the links are not as they were made"),
            Ok(None) => Ok(None),
            Err(error) => Err(anyhow!(error.clone())),
        }
    }

    /// Removes what tests shared.
    async fn end(&self) -> Result<()> {
        match self.pair.get() {
            Some(Ok(Some(pair))) => pair.remove().await,
            _ => Ok(()),
        }
    }

    /// Runs a test; a failure leaves logs to read, and nothing else stays.
    async fn run(&self, test: &Test) -> Result<Outcome> {
        let began = Instant::now();
        let mut outcome = (test.body)(self).await;
        tell(&format!("{}: {} ms", test.name, began.elapsed().as_millis()));
        if let Err(error) = outcome {
            let folder = self.logs.join(test.name);
            let logs = match self.lab.logs(&folder) {
                Ok(()) => {
                    digest(&folder);
                    format!("objects, events and logs: {}", folder.display())
                }
                Err(error) => format!("no logs could be collected: {error:#}"),
            };
            outcome = Err(error.context(logs));
        }
        let namespaces = self.namespaces.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
        let removed = futures_util::future::join_all(namespaces.iter().map(Namespace::remove)).await;
        outcome.and_then(|outcome| removed.into_iter().collect::<Result<()>>().map(|()| outcome))
    }
}

/// The `main` of a test file. `logs` is where a failed test leaves what it saw.
pub fn run(logs: &str, tests: Vec<Test>) -> ExitCode {
    let world = World::new(Lab::default(), PathBuf::from(logs).join("e2e-logs"));
    match conclude(world, Arguments::from_args(), tests) {
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            tell(&format!("e2e: no runtime can be started: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn conclude(world: World, mut arguments: Arguments, tests: Vec<Test>) -> std::io::Result<Conclusion> {
    // One after another: they share the network between the clusters, and the last ones end the lab.
    arguments.test_threads = Some(1);
    let world = Arc::new(world);
    let hindrance = if arguments.list { None } else { world.lab.hindrance() };
    if let Some(reason) = &hindrance {
        tell(&format!("e2e: every test is skipped: {reason}"));
    }
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?);
    let shared = (world.clone(), runtime.clone());
    let trials = tests.into_iter().map(move |test| {
        let ((world, runtime), name) = (shared.clone(), test.name);
        let body = move || match runtime.block_on(world.run(&test)).context(name) {
            Ok(Outcome::Held) => Ok(Completion::Completed),
            Ok(Outcome::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        };
        Trial::ignorable_test(name, body).with_ignored_flag(hindrance.is_some())
    });
    let mut conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Err(error) = runtime.block_on(world.end()) {
        tell(&format!("e2e: what the tests shared could not be removed: {error:#}"));
        conclusion.num_failed += 1;
    }
    Ok(conclusion)
}

/// What a reader who has only this output wants to see first of the logs in a folder.
fn digest(folder: &Path) {
    for name in CLUSTERS {
        for (file, lines) in [("pods.txt", 60), ("events.txt", 40), ("lab-policy.log", 10)] {
            let text = std::fs::read_to_string(folder.join(name).join(file)).unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            tell(&format!("--- {name}: {file}, its last {lines} lines"));
            all.iter().skip(all.len().saturating_sub(lines)).for_each(|line| tell(line));
        }
    }
}

/// A line for who watches the run.
#[allow(clippy::print_stderr)] // the harness's own output, as the one of cargo's
pub fn tell(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_lab_cannot_run_no_test_is_reported_as_passed() {
        let folder = std::env::temp_dir();
        let never = || Test::new("never", |_| Box::pin(async { Ok(Outcome::Held) }));
        // `false` hinders as a lab does that cannot run, and says no reason.
        let world = World::new(Lab::at("false"), folder);
        // Its report is no part of ours.
        let silent = Arguments { logfile: Some("/dev/null".into()), ..Arguments::default() };
        let conclusion = conclude(world, silent, vec![never(), never()]).expect("a runtime");
        let counted = (conclusion.num_ignored, conclusion.num_passed, conclusion.num_failed);
        assert_eq!(counted, (2, 0, 0));
    }
}
