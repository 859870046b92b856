//! One side's relay in a process of its own: this test binary once more, under limits that a whole test could not live with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use securelink_pki::testing::Organization;
use securelink_pki::{Leaf, Transitions};
use securelink_relay::Memory;
use securelink_relay_config::{LinkReport, Snapshot};
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{PATIENCE, Side, TestClock, credentials, link_cut};

/// How the test that is the other process learns what it is to run.
const GIVEN: &str = "SECURELINK_TEST_HOSTED";
/// Its answers, among what the test harness prints.
const ANSWER: &str = "hosted: ";

#[derive(Serialize, Deserialize)]
struct Given {
    snapshot: Snapshot,
    key: String,
    chain: String,
    limits: Under,
}

/// What the process has to live with.
#[derive(Default, Serialize, Deserialize)]
pub struct Under {
    /// Open files at the most.
    pub files: Option<u64>,
    /// A control group to join.
    pub group: Option<PathBuf>,
}

/// A relay in another process, which ends with this.
pub struct Hosted {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

/// The relay in the other process, up to the end of its orders. Returns at once where no one asked for it.
pub fn host() {
    let Ok(given) = std::env::var(GIVEN) else { return };
    let given: Given = serde_json::from_slice(&fs::read(given).unwrap()).unwrap();
    if let Some(group) = &given.limits.group {
        fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
    if let Some(files) = given.limits.files {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) }).unwrap();
    }
    let warnings = Warnings::default();
    tracing_subscriber::registry().with(warnings.clone()).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let leaf = Leaf::from_pem(&given.key, &given.chain).unwrap();
        let ours = credentials(leaf, &Transitions::none());
        let side = Side::start_with(ours, given.snapshot, TestClock::new(), Memory::default()).await;
        answer("");
        let (orders, mut ordered) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| orders.send(line))
        });
        let mut hogged = Vec::new();
        while let Some(order) = ordered.recv().await {
            match order.as_str() {
                "report" => answer(&serde_json::to_string(&side.relay.report()).unwrap()),
                "cut" => {
                    let start = Instant::now();
                    let receipt = side.relay.cut(link_cut("LinkCut/1", 1)).await;
                    answer(&format!("{} {}", receipt.ended, start.elapsed().as_millis()));
                }
                "hog" => {
                    hogged.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
                    answer("");
                }
                "free" => {
                    hogged.clear();
                    answer("");
                }
                "warnings" => answer(&warnings.0.load(Ordering::SeqCst).to_string()),
                other => panic!("{other}"),
            }
        }
    });
}

fn answer(text: &str) {
    #[allow(clippy::print_stdout)]
    {
        println!("{ANSWER}{text}");
    }
}

/// Warnings of a listener that could not accept.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() == tracing::Level::WARN && metadata.target() == "securelink_relay::listeners" {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Hosted {
    /// Starts the relay of `own`; `test` is the name of the test that calls [`host`].
    pub fn start(test: &str, own: &Organization, snapshot: &Snapshot, limits: Under) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let leaf = own.leaf_to(&snapshot.peer.trust_domain);
        let (key, chain) = (leaf.key().to_pem().to_string(), leaf.chain_pem());
        let given = Given { snapshot: snapshot.clone(), key, chain, limits };
        let file = folder.path().join("given.json");
        fs::write(&file, serde_json::to_vec(&given).unwrap()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(GIVEN, &file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            // The harness prints the name of the test in front of the first.
            let lines = said.lines().map_while(Result::ok);
            lines
                .filter_map(|line| line.split_once(ANSWER).map(|(_, text)| text.to_owned()))
                .try_for_each(|text| sender.send(text))
        });
        let hosted = Self { child, orders, answers, _folder: folder };
        assert_eq!(hosted.hear(), "");
        hosted
    }

    fn hear(&self) -> String {
        tokio::task::block_in_place(|| self.answers.recv_timeout(PATIENCE)).expect("the other process answers")
    }

    pub fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("the other process lives");
        self.hear()
    }

    pub fn report(&mut self) -> LinkReport {
        serde_json::from_str(&self.ask("report")).unwrap()
    }

    /// Cuts the link: how many streams ended, and how long the acknowledgement took.
    pub fn cut(&mut self) -> (u64, Duration) {
        let answer = self.ask("cut");
        let (ended, took) = answer.split_once(' ').unwrap();
        (ended.parse().unwrap(), Duration::from_millis(took.parse().unwrap()))
    }

    /// How often it could not accept.
    pub fn warnings(&mut self) -> usize {
        self.ask("warnings").parse().unwrap()
    }

    /// Files it has open.
    pub fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub fn refused(&mut self) -> BTreeMap<String, u64> {
        self.report().peer.refused
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control group with a memory limit, which is gone with this.
pub struct Group(PathBuf);

impl Group {
    /// Below the group of this process, version 1 or 2; none where this process may not.
    pub fn new(limit: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
        let (mount, file) = match own {
            Some(_) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            None => ("/sys/fs/cgroup", "memory.max"),
        };
        let own = own.or_else(|| groups.lines().find_map(|line| line.strip_prefix("0::")))?;
        let name = format!("securelink-test-{}-{}", std::process::id(), fastrand::u32(..));
        let group = Self(Path::new(mount).join(own.trim_start_matches('/')).join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(file), limit.to_string()).ok()?;
        Some(group)
    }

    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// What its files say, for a test that fails.
    pub fn says(&self) -> String {
        let files = [
            "memory.max_usage_in_bytes",
            "memory.usage_in_bytes",
            "memory.oom_control",
            "memory.peak",
            "memory.events",
        ];
        let said =
            files.iter().filter_map(|file| Some(format!("{file}: {}", fs::read_to_string(self.0.join(file)).ok()?)));
        said.collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process that was in it may still be going.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}
