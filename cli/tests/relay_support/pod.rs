//! A relay process with its volumes: started, killed, started again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use securelink_pki::Leaf;
use securelink_relay_config::Snapshot;
use securelink_relay_config::control::{LeafPem, Push, RelayStatus};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::controller::{ControlCa, Controller};
use super::volume::Volume;
use super::{Organization, echo, endpoint, exchange, export, import, next, snapshot, until};

pub struct Pod {
    folder: TempDir,
    pub config: Volume,
    pub leaf: Volume,
    pub control: SocketAddr,
    pub metrics: SocketAddr,
    pub log: Arc<Mutex<String>>,
    child: Option<Child>,
    /// Run before it, such as `unshare`.
    pub wrapper: Vec<String>,
}

impl Pod {
    pub fn new() -> Self {
        // In memory: a relay waits 250 ms for its disk, and one that others write to may take longer.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let below = |name: &str| folder.path().join(name);
        let nowhere = "127.0.0.1:0".parse().unwrap();
        let (config, leaf) = (Volume::new(below("config")), Volume::new(below("leaf")));
        fs::create_dir(below("scratch")).unwrap();
        Self {
            config,
            leaf,
            folder,
            control: nowhere,
            metrics: nowhere,
            log: Arc::default(),
            child: None,
            wrapper: vec![],
        }
    }

    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn mount(&self, snapshot: &Snapshot) {
        self.config.swap(&[("relay.json", &snapshot.to_bytes())]);
    }

    pub fn mount_leaf(&self, leaf: &Leaf) {
        self.leaf.swap(&[("tls.key", leaf.key().to_pem().as_bytes()), ("tls.crt", leaf.chain_pem().as_bytes())]);
    }

    /// Starts it and waits until its ports are open.
    pub fn start(&mut self) {
        let binary = env!("CARGO_BIN_EXE_securelink").to_owned();
        let folder = |path: &Path| path.display().to_string();
        let own = [
            binary,
            "relay".into(),
            "--config".into(),
            folder(self.config.dir()),
            "--leaf".into(),
            folder(self.leaf.dir()),
            "--scratch".into(),
            folder(&self.scratch()),
            "--control".into(),
            "127.0.0.1:0".into(),
            "--metrics".into(),
            "127.0.0.1:0".into(),
            "-o".into(),
            "json".into(),
            "-vv".into(),
        ];
        let line: Vec<String> = self.wrapper.iter().cloned().chain(own).collect();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_remove("SECURELINK_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (log, errors) = (Arc::clone(&self.log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut text = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while serde_json::from_str::<Value>(&text).is_err() {
            let Some(Ok(line)) = lines.next() else { panic!("it ended at once: {}", self.log.lock().unwrap()) };
            text.push_str(&line);
        }
        let started: Value = serde_json::from_str(&text).unwrap();
        let address = |name: &str| started[name].as_str().unwrap().parse().unwrap();
        (self.control, self.metrics) = (address("control"), address("metrics"));
        self.child = Some(child);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end.
    pub fn ended(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// As the kernel ends it when memory is short.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// GET on the metrics port: status and body.
    pub async fn shown(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:15445\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub async fn until_shown(&self, path: &str, status: u16) -> String {
        until(&format!("{path} says {status}"), async || {
            let (found, body) = self.shown(path).await;
            (found == status).then_some(body)
        })
        .await
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the relay at {}:\n{}", self.control, self.log.lock().unwrap());
        }
    }
}

/// A pod that has been started for a link, and its controller.
pub struct Relay {
    pub own: Organization,
    pub pod: Pod,
    pub ca: ControlCa,
    pub leaf: Leaf,
    pub snapshot: Snapshot,
}

impl Relay {
    /// With its first configuration and leaf mounted, started.
    pub fn new(own: Organization, peer: &Organization, edit: impl FnOnce(&mut Snapshot)) -> Self {
        let (mut pod, ca) = (Pod::new(), ControlCa::new());
        let leaf = own.leaf(peer, 1);
        let mut first = snapshot(&own, peer, &[&ca]);
        edit(&mut first);
        pod.mount(&first);
        pod.mount_leaf(&leaf);
        pod.start();
        Self { own, pod, ca, leaf, snapshot: first }
    }

    pub fn controller(&self) -> Controller {
        Controller::new(self.pod.control, self.ca.client(), &[&self.leaf])
    }

    pub async fn status(&self) -> RelayStatus {
        serde_json::from_value(self.controller().done("GET", "/v1/status", &()).await).unwrap()
    }

    /// Waits until the status is as wished.
    pub async fn until(&self, what: &str, wished: impl Fn(&RelayStatus) -> bool) -> RelayStatus {
        until(what, async || Some(self.status().await).filter(|status| wished(status))).await
    }

    pub async fn until_ready(&self) {
        self.until("a round trip", |status| status.report.probe.last_success.is_some()).await;
    }

    /// Puts the next version in force by a push.
    pub async fn push(&mut self, edit: impl FnOnce(&mut Snapshot)) -> Value {
        self.snapshot = next(&self.snapshot, edit);
        let push = pushed(Some(&self.snapshot), None);
        self.controller().done("PUT", "/v1/snapshot", &push).await
    }

    /// Waits until what was pushed last is in scratch: a push does not wait for a slow disk.
    pub async fn until_kept(&self) {
        let path = self.pod.scratch().join("relay.json");
        until("what was pushed is kept", async || {
            let kept = Snapshot::from_bytes(&std::fs::read(&path).ok()?).ok()?;
            (kept.version == self.snapshot.version).then_some(())
        })
        .await;
    }

    /// A stream to the first import, proved by a byte each way. Its peer's relay may have been away: then it is tried again.
    pub async fn stream(&self) -> TcpStream {
        let import = self.import_address().await;
        until("a stream through both relays", async || {
            let mut stream = TcpStream::connect(import).await.ok()?;
            exchange(&mut stream, "?").await.ok().map(|()| stream)
        })
        .await
    }

    /// Where the peer dials.
    pub async fn listens_on(&self) -> SocketAddr {
        self.status().await.report.listener.unwrap().address
    }

    /// Where clients of the first import connect.
    pub async fn import_address(&self) -> SocketAddr {
        self.status().await.report.imports[0].address.unwrap()
    }
}

pub fn pushed(snapshot: Option<&Snapshot>, leaf: Option<&Leaf>) -> Push {
    let leaf = leaf.map(|leaf| LeafPem {
        key: leaf.key().to_pem().to_string(),
        chain: leaf.chain_pem(),
        transitions: String::new(),
    });
    Push { snapshot: snapshot.map(|snapshot| serde_json::to_value(snapshot).unwrap()), leaf }
}

/// Two relays: `a` exports an echo and listens, `b` imports it and dials. Both are ready.
pub async fn pair() -> (Relay, Relay) {
    let (a, b) = (Organization::new("a.example"), Organization::new("b.example"));
    let service = echo().await;
    // A port to keep: after a restart the peer finds it again.
    let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let relay_a = Relay::new(a, &b, |snapshot| {
        snapshot.exports.push(export("echo", service));
        snapshot.listen = Some(at);
    });
    let relay_b = Relay::new(b, &relay_a.own, |snapshot| {
        snapshot.imports.push(import("echo"));
        snapshot.peer.endpoints.push(endpoint(at));
    });
    relay_a.until_ready().await;
    relay_b.until_ready().await;
    (relay_a, relay_b)
}
