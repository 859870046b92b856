//! The systems that are compared: started, found ready, and asked what they cost. Another relay to compare with becomes
//! one more function here.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use securelink_id::{SpiffeId, TrustDomain};
use securelink_pki::{Leaf, Root};
use serde_json::{Value, json};

/// A way from the client to the service.
pub struct System {
    pub name: &'static str,
    /// Where the client connects.
    pub address: SocketAddr,
    relays: Vec<Process>,
}

/// The service all systems lead to.
pub struct Service {
    pub address: SocketAddr,
    _process: Process,
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn play(role: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg(format!("role:{role}")).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "a process of the bench ended");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> Value {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        input.write_all(b"\n").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without input a role ends by itself.
        self.input = None;
        self.child.wait().unwrap();
    }
}

impl Service {
    pub fn start() -> Self {
        let mut process = Process::play("service", &[]);
        Self { address: process.line().parse().unwrap(), _process: process }
    }
}

impl System {
    pub fn direct(service: SocketAddr) -> Self {
        Self { name: "direct", address: service, relays: vec![] }
    }

    pub fn copy(service: SocketAddr) -> Self {
        let mut there = Process::play("copy", &[&service.to_string()]);
        let mut here = Process::play("copy", &[&there.line()]);
        Self { name: "copy", address: here.line().parse().unwrap(), relays: vec![here, there] }
    }

    /// Two relays with keys of their own; ready when a round trip was made.
    pub async fn ours(name: &'static str, service: SocketAddr) -> Self {
        let (here, there) = (Organization::new("here.example"), Organization::new("there.example"));
        let (here_port, there_port) = (free_port(), free_port());
        let export = json!({"exports": [{"name": "bench", "target": endpoint(service), "dataClass": "strategic"}]});
        let import = json!({"imports": [
            {"name": "bench", "slot": 0, "listen": "127.0.0.1:0", "dataClass": "strategic"}]});
        let mut relays =
            [(&here, &there, here_port, there_port, import), (&there, &here, there_port, here_port, export)].map(
                |(own, peer, port, peer_port, services)| {
                    let mut process = Process::play("relay", &[]);
                    process.ask(&own.orders(peer, port, peer_port, &services).to_string());
                    process
                },
            );
        let address = loop {
            let report = relays[0].ask("");
            if report["probe"]["lastSuccess"].is_u64() {
                break report["imports"][0]["address"].as_str().unwrap().parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self { name, address, relays: relays.into() }
    }

    /// Seconds of CPU the relays have used so far.
    pub fn cpu(&self) -> f64 {
        let ticks = |process: &Process| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
            // Behind the name in parentheses: state is field 3, user and system time are 14 and 15.
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>()
        };
        // USER_HZ is 100 on every Linux that this runs on.
        self.relays.iter().map(ticks).sum::<f64>() / 100.0
    }

    /// Resident KiB of each relay.
    pub fn resident(&self) -> Vec<f64> {
        let resident = |process: &Process| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        self.relays.iter().map(resident).collect()
    }
}

struct Organization {
    domain: TrustDomain,
    root: Root,
}

impl Organization {
    fn new(name: &str) -> Self {
        let domain: TrustDomain = name.parse().unwrap();
        Self { root: Root::generate(&domain, Timestamp::now()).unwrap(), domain }
    }

    fn leaf_to(&self, peer: &Self) -> Leaf {
        let identity = SpiffeId::link(self.domain.clone(), peer.domain.clone());
        self.root.issue_intermediate(Timestamp::now()).unwrap().issue_leaf(&identity, &[], Timestamp::now()).unwrap()
    }

    /// All that its relay needs to be told.
    fn orders(&self, peer: &Self, port: u16, peer_port: u16, services: &Value) -> Value {
        let leaf = self.leaf_to(peer);
        let mut snapshot = json!({
            "format": 1,
            "version": 1,
            "link": {"namespace": "bench", "name": "bench"},
            "own": self.domain,
            "peer": {
                "trustDomain": peer.domain,
                "fingerprints": [peer.root.fingerprint()],
                "endpoints": [{"host": "127.0.0.1", "port": peer_port}],
            },
            "listen": SocketAddr::from(([127, 0, 0, 1], port)),
            "maxStalenessSeconds": 3600,
        });
        snapshot.as_object_mut().unwrap().extend(services.as_object().unwrap().clone());
        json!({"snapshot": snapshot, "key": leaf.key().to_pem().as_str(), "chain": leaf.chain_pem()})
    }
}

fn endpoint(address: SocketAddr) -> Value {
    json!({"host": address.ip(), "port": address.port()})
}

/// Nobody else asks for ports in a namespace of our own.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
