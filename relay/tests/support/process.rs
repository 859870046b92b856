//! A relay in a process of its own, to be killed, paused and lost: the test binary, run once more.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use prometheus_client::registry::Registry;
use securelink_id::TrustDomain;
use securelink_pki::testing::Organization;
use securelink_pki::{Leaf, Transitions};
use securelink_relay::wire::ReplicaId;
use securelink_relay::{Capacity, Memory, Metrics, Relay, Setup};
use securelink_relay_config::Snapshot;

use super::{MemoryStore, PATIENCE, TestClock, credentials, logs};

/// Names the folder with what the relay is to be.
const FOLDER: &str = "SECURELINK_TEST_RELAY";
/// The test that is the relay where [`FOLDER`] is set; `relay_process!` writes it.
const HOST: &str = "hosts_a_relay_for_other_tests";

/// The test of a binary that is the relay when asked to be one.
#[macro_export]
macro_rules! relay_process {
    () => {
        #[test]
        fn hosts_a_relay_for_other_tests() {
            support::process::host();
        }
    };
}

/// Is the relay that the folder describes, until it is killed or told to end by SIGTERM.
pub fn host() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let read = |name| std::fs::read_to_string(Path::new(&folder).join(name)).unwrap();
    let snapshot: Snapshot = serde_json::from_str(&read("relay.json")).unwrap();
    let leaf = Leaf::from_pem(&read("leaf.key"), &read("leaf.crt")).unwrap();
    logs();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let setup = Setup {
            snapshot,
            credentials: credentials(leaf, &Transitions::none()),
            memory: Memory::default(),
            store: std::sync::Arc::new(MemoryStore::default()),
            clock: TestClock::new().clock(),
            metrics: Metrics::register(&mut Registry::default()),
            capacity: Capacity::of_process(),
        };
        let relay = Relay::start(setup).await.unwrap();
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let address = relay.report().listener.map_or(nowhere, |listener| listener.address);
        let mut out = std::io::stdout();
        writeln!(out, "\nup {address} {}", relay.replica()).unwrap();
        std::future::pending::<()>().await;
    });
}

/// One such process; killed with this.
pub struct RelayProcess {
    child: Child,
    /// Where it listens, if it does.
    pub address: SocketAddr,
    /// Who it is.
    pub replica: ReplicaId,
    _folder: tempfile::TempDir,
}

impl RelayProcess {
    /// A relay of `own` for its link to `peer`, on the machine of that name, or here.
    pub fn start(own: &Organization, peer: &TrustDomain, snapshot: &Snapshot, machine: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let leaf = own.leaf_to(peer);
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("relay.json", &serde_json::to_string(snapshot).unwrap());
        write("leaf.key", &leaf.key().to_pem());
        write("leaf.crt", &leaf.chain_pem());
        let this = env::current_exe().unwrap();
        let mut command = match machine {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(this);
                command
            }
            None => Command::new(this),
        };
        let mut child = command
            .args([HOST, "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            // It would say more than anybody reads.
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let up = said.map_while(Result::ok).find(|line| line.starts_with("up ")).expect("the process becomes a relay");
        let [_, address, replica] = up.split(' ').collect::<Vec<_>>()[..] else { panic!("{up}") };
        let digits = u128::from_str_radix(replica, 16).unwrap();
        let (address, replica) = (address.parse().unwrap(), ReplicaId(digits.to_be_bytes()));
        Self { child, address, replica, _folder: folder }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// As by `kill -9`; gone when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It does nothing any more, and its sockets stay.
    pub fn pause(&self) {
        self.signal("-STOP");
        // The signal stops one thread, which stops the others: until then they go on, and may take a stream.
        let start = Instant::now();
        while !self.is_paused() {
            assert!(start.elapsed() < PATIENCE, "a thread does not stop");
            std::thread::yield_now();
        }
    }

    fn is_paused(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap()).all(|stat| {
            // After the name, which stands in parentheses and may hold any.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
