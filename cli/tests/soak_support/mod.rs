//! Two linked processes with an echo service behind each, and what the kernel says of their memory and descriptors.
#![allow(clippy::cast_precision_loss, reason = "slopes have two digits")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::cli_support::{Ran, command, securelink};

/// A busy machine gets its time.
const DEADLINE: Duration = Duration::from_mins(1);

struct Side {
    name: &'static str,
    folder: TempDir,
    /// Peer listener and import; held until the link listens on them.
    ports: [u16; 2],
    held: Vec<TcpListener>,
    child: Option<Child>,
    fingerprint: String,
}

/// `one` and `other`, each exporting an echo service that the other imports.
pub(crate) struct Linked {
    one: Side,
    other: Side,
}

impl Side {
    /// Runs with an identity and no link yet.
    fn start(name: &'static str) -> Self {
        let held: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |at: usize| held[at].local_addr().unwrap().port();
        let ports = [port(0), port(1)];
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("yaml")).unwrap();
        let mut side = Self { name, folder, ports, held, child: None, fingerprint: String::new() };
        side.write(
            "identity.yaml",
            &format!(
                "apiVersion: securelink.dev/v1alpha1\nkind: LinkIdentity\nmetadata: {{name: default, namespace: test}}\n\
                 spec: {{trustDomain: {name}.example, issuer: {{builtIn: {{}}}}}}\n"
            ),
        );
        let started = side.run();
        started["identities"][0]["fingerprint"].as_str().unwrap().clone_into(&mut side.fingerprint);
        side
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join("yaml").join(file), text).unwrap();
    }

    fn path(&self, below: &str) -> String {
        self.folder.path().join(below).display().to_string()
    }

    /// Starts the process and reads the object it prints.
    fn run(&mut self) -> Value {
        let (yaml, state) = (self.path("yaml"), self.path("state"));
        let line = [
            "run",
            "-f",
            &yaml,
            "--state-dir",
            &state,
            "--init",
            "--local",
            "off",
            "--allow-loopback-peers",
            "-o",
            "json",
        ];
        let mut child = command(&line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        self.child = Some(child);
        loop {
            text += &lines.next().unwrap_or_else(|| panic!("{} ended at once", self.name)).unwrap();
            if let Ok(started) = serde_json::from_str(&text) {
                return started;
            }
        }
    }

    fn link_to(&mut self, peer: &Self, service: u16) {
        self.held.clear();
        let [port, import] = self.ports;
        self.write(
            "link.yaml",
            &format!(
                "apiVersion: securelink.dev/v1alpha1\nkind: SecureLink\nmetadata: {{name: {peer}, namespace: test}}\nspec:\n  \
                 identityRef: {{name: default}}\n  peer:\n    trustDomain: {peer}.example\n    fingerprints: [\"{fingerprint}\"]\n    \
                 endpoints: [{{host: 127.0.0.1, port: {peer_port}}}]\n  \
                 expose: {{type: LoadBalancer, hostname: 127.0.0.1, port: {port}}}\n  \
                 exports: [{{name: echo, target: {{host: 127.0.0.1, port: {service}}}, dataClass: strategic}}]\n  \
                 imports: [{{name: echo, port: {import}, dataClass: strategic, clients: [{{podSelector: {{}}}}]}}]\n",
                peer = peer.name,
                fingerprint = peer.fingerprint,
                peer_port = peer.ports[0],
            ),
        );
    }

    /// Of its one link: while there is none, there is nothing that could be Ready or not.
    fn status(&self) -> Ran {
        let peer = if self.name == "one" { "other" } else { "one" };
        securelink(&["status", peer, "-o", "json", "--state-dir", &self.path("state")])
    }

    fn until(&self, what: &str, wanted: impl Fn(&Ran) -> bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            let ran = self.status();
            if wanted(&ran) {
                return;
            }
            assert!(Instant::now() < end, "{}: not {what}\n{}{}", self.name, ran.out, ran.err);
        }
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Linked {
    /// Both Ready, and a stream has gone each way.
    pub(crate) fn up() -> Self {
        let (mut one, mut other) = (Side::start("one"), Side::start("other"));
        one.link_to(&other, echo_service());
        other.link_to(&one, echo_service());
        one.until("ready", |ran| ran.code == 0);
        other.until("ready", |ran| ran.code == 0);
        let linked = Self { one, other };
        for from_one in [true, false] {
            let mut client = linked.connect(from_one);
            client.write_all(b"?").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        linked.until_quiet();
        linked
    }

    /// A client of the import of one of the two.
    pub(crate) fn connect(&self, from_one: bool) -> TcpStream {
        let side = if from_one { &self.one } else { &self.other };
        TcpStream::connect(("127.0.0.1", side.ports[1])).unwrap()
    }

    /// Waits until no stream is live on either side.
    pub(crate) fn until_quiet(&self) {
        for side in [&self.one, &self.other] {
            side.until("quiet", |ran| ran.json()["links"][0]["report"]["streams"]["live"] == 0);
        }
    }

    /// Names and process ids.
    pub(crate) fn processes(&self) -> [(&'static str, u32); 2] {
        [(self.one.name, self.one.pid()), (self.other.name, self.other.pid())]
    }
}

/// Sends back what it gets; ends with the test's process.
fn echo_service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { continue };
            std::thread::spawn(move || {
                let Ok(mut sending) = socket.try_clone() else { return };
                // A client that went away ends both ways.
                let _ = std::io::copy(&mut socket, &mut sending);
                let _ = sending.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

/// What a process holds at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Resident bytes.
    pub(crate) rss: u64,
    /// Of them, those that are not pages of a file.
    pub(crate) own: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
}

impl Sample {
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |field: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a running process");
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { rss: bytes("VmRSS:"), own: bytes("RssAnon:"), descriptors: descriptors as u64 }
    }
}

/// Samples of one process over time.
pub(crate) struct Trend {
    name: &'static str,
    pid: u32,
    samples: Vec<(Duration, Sample)>,
}

impl Trend {
    pub(crate) fn new(name: &'static str, pid: u32) -> Self {
        Self { name, pid, samples: Vec::new() }
    }

    pub(crate) fn take(&mut self, at: Duration) {
        self.samples.push((at, Sample::of(self.pid)));
    }

    /// Prints the slopes and holds them to their bounds, each per stream. The first third of the samples is left out:
    /// until then pools and allocators fill up.
    pub(crate) fn judge(&self, streams_a_sample: u64, bounds: Leftover) {
        let settled = &self.samples[self.samples.len() / 3..];
        let per_stream = |of: fn(&Sample) -> u64| {
            let values: Vec<f64> = settled.iter().map(|(_, sample)| of(sample) as f64).collect();
            slope(&values) / streams_a_sample as f64
        };
        let found = Leftover { bytes: per_stream(|sample| sample.rss), descriptors: per_stream(|s| s.descriptors) };
        let minutes = settled[settled.len() - 1].0.saturating_sub(settled[0].0).as_secs_f64() / 60.0;
        let (first, last) = (settled[0].1, settled[settled.len() - 1].1);
        println!("{}: after warm-up {first:?}, {minutes:.1} minutes later {last:?}", self.name);
        println!("{}: slope per stream {:.2} bytes, {:.6} descriptors", self.name, found.bytes, found.descriptors);
        assert!(found.bytes < bounds.bytes, "{}: {found:?}, at most {bounds:?}\n{:#?}", self.name, self.samples);
        assert!(found.descriptors < bounds.descriptors, "{}: {found:?}, at most {bounds:?}", self.name);
    }
}

/// What a stream leaves behind on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    pub(crate) bytes: f64,
    pub(crate) descriptors: f64,
}

/// Least-squares slope of `values` over their index.
fn slope(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let away = at as f64 - middle;
        above += away * (value - mean);
        below += away * away;
    }
    above / below
}
