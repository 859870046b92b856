//! Two `securelink run` processes, each with its own folder, link up and are spoken to by the other commands.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;
mod hanging_disk;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cli_support::{Ran, command, securelink};
use hanging_disk::HangingDisk;
use serde_json::Value;
use tempfile::TempDir;

/// A busy machine gets its time; a link that never comes up is noticed.
const DEADLINE: Duration = Duration::from_mins(1);

struct Side {
    folder: TempDir,
    name: &'static str,
    port: u16,
    /// Keeps the port from others until the link listens on it.
    held: Option<TcpListener>,
    child: Option<Child>,
    started: Value,
    disk: HangingDisk,
}

impl Side {
    fn new(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("yaml")).unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let side =
            Self { folder, name, port, held: Some(held), child: None, started: Value::Null, disk: HangingDisk::new() };
        side.write("identity.yaml", &format!(
            "apiVersion: securelink.dev/v1alpha1\nkind: LinkIdentity\nmetadata: {{name: default, namespace: test}}\n\
             spec: {{trustDomain: {name}.example, issuer: {{builtIn: {{}}}}}}\n"
        ));
        side
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join("yaml").join(file), text).unwrap();
    }

    fn link_to(&mut self, peer: &Self) {
        self.held = None;
        let fingerprint = peer.started["identities"][0]["fingerprint"].as_str().unwrap();
        self.write("link.yaml", &format!(
            "apiVersion: securelink.dev/v1alpha1\nkind: SecureLink\nmetadata: {{name: {peer}, namespace: test}}\nspec:\n  \
             identityRef: {{name: default}}\n  peer:\n    trustDomain: {peer}.example\n    fingerprints: [\"{fingerprint}\"]\n    \
             endpoints: [{{host: 127.0.0.1, port: {peer_port}}}]\n  \
             expose: {{type: LoadBalancer, hostname: 127.0.0.1, port: {port}}}\n",
            peer = peer.name, peer_port = peer.port, port = self.port,
        ));
    }

    fn state(&self) -> String {
        self.folder.path().join("state").display().to_string()
    }

    /// Starts it and waits for the object it prints.
    fn start(&mut self, more: &[&str]) {
        let yaml: PathBuf = self.folder.path().join("yaml");
        let line =
            ["run", "-f", yaml.to_str().unwrap(), "--state-dir", &self.state(), "--allow-loopback-peers", "-o", "json"];
        let mut command = command(&[&line, more].concat());
        command.envs(self.disk.env()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut text = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !text.ends_with("}\n") || serde_json::from_str::<Value>(&text).is_err() {
            let Some(line) = lines.next() else {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("{} ended at once: {said}", self.name);
            };
            text.push_str(&line.unwrap());
            text.push('\n');
        }
        // Nobody reads the log, and a full pipe would hold the process up.
        let mut log = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        self.started = serde_json::from_str(&text).unwrap();
        self.child = Some(child);
    }

    fn ask(&self, line: &[&str]) -> Ran {
        securelink(&[line, &["--state-dir", &self.state()]].concat())
    }

    /// Asks until the answer is as wanted.
    fn until(&self, line: &[&str], wanted: impl Fn(&Ran) -> bool) -> Ran {
        let end = Instant::now() + DEADLINE;
        loop {
            let ran = self.ask(line);
            if wanted(&ran) {
                return ran;
            }
            assert!(Instant::now() < end, "{}: still {}\n{}{}", ran.line, ran.code, ran.out, ran.err);
        }
    }

    fn signal(&mut self, name: &str) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap().code()
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

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["links"][0]["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap()
}

fn linked() -> (Side, Side) {
    let (mut one, mut other) = (Side::new("one"), Side::new("other"));
    one.start(&["--init", "--local", "127.0.0.1:0"]);
    other.start(&["--init", "--local", "off"]);
    one.link_to(&other);
    other.link_to(&one);
    one.until(&["status", "other"], |ran| ran.code == 0);
    other.until(&["status", "one"], |ran| ran.code == 0);
    (one, other)
}

#[test]
fn two_processes_link_up_from_yaml_written_while_they_run_and_obey_the_commands() {
    let (mut one, mut other) = linked();
    assert!(one.started["local"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(other.started["local"].is_null() && one.started["version"] == env!("CARGO_PKG_VERSION"));

    let table = one.ask(&["status"]).expect(0).out;
    let mut lines = table.lines();
    let words = |line: Option<&str>| line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines.next()), ["LINK", "PEER", "READY", "REASON", "STREAMS", "AGREEMENT", "CERTIFICATE"]);
    assert_eq!(words(lines.next())[..6], ["test/other", "other.example", "True", "Ready", "0", "none"]);

    let greeting = one.ask(&["greet", "other", "the line is open", "-o", "json"]).expect(0).json();
    assert_eq!((&greeting["peer"], &greeting["text"]), (&"other.example".into(), &"the line is open".into()));
    assert!(
        greeting["signature"].is_string() && greeting["roundTripMicros"].is_u64() && greeting["link"] == "test/other"
    );

    let annex = one.ask(&["fingerprint", "-o", "json"]).expect(0).json();
    assert_eq!(annex["identities"][0]["fingerprint"], one.started["identities"][0]["fingerprint"]);
    assert_eq!(annex["identities"][0]["links"][0]["endpoint"], format!("127.0.0.1:{}", one.port));
    assert_eq!(annex["identities"][0]["links"][0]["peer"], "other.example");

    let identity = one.folder.path().join("state/identities/test/default");
    for file in ["root.pem", "intermediate.pem"] {
        let file = identity.join(file).display().to_string();
        let printed = securelink(&["fingerprint", "--certificate", &file]).expect(0).out;
        assert_eq!(printed.trim_end(), annex["identities"][0]["fingerprint"].as_str().unwrap(), "{file}");
    }

    let table = one.ask(&["doctor"]).expect(0).out;
    assert!(table.starts_with("test/other\n") && table.contains("✓   round trip   other.example"), "{table}");
    let report = one.ask(&["doctor", "other", "-o", "json"]).expect(0).json();
    let probes = report["links"][0]["findings"].as_array().unwrap().iter().map(|finding| finding["probe"].clone());
    assert_eq!(probes.collect::<Vec<_>>(), ["Dns", "Tcp", "Tls", "Peer", "Agreement", "RoundTrip"]);

    for _ in 0..2 {
        let cut = one.ask(&["cut", "test/other", "--reason", "drill \u{1b}[2J", "-o", "json"]).expect(0).json();
        assert_eq!((&cut["link"], &cut["cut"], &cut["running"]), (&"test/other".into(), &true.into(), &true.into()));
        assert!(cut["ended"].is_u64() && cut["tookMicros"].is_u64());
    }
    let here = one.ask(&["status", "-o", "json"]).expect(1).json();
    assert_eq!(condition(&here, "Agreed")["reason"], "CutHere");
    let there = other.until(&["status"], |ran| ran.out.contains("Agreed: CutByPeer"));
    assert!(
        there.out.contains("drill ") && there.out.contains("do: ") && !there.out.contains('\u{1b}'),
        "{}",
        there.out
    );
    assert!(one.ask(&["greet", "other"]).expect(1).err.starts_with("error: "));
    let found = one.ask(&["doctor", "other"]).expect(1);
    assert!(found.out.contains("CutHere") && found.out.contains("do: take the cut back"), "{}", found.out);

    let resumed = one.ask(&["resume", "other", "-o", "json"]).expect(0).json();
    assert_eq!((resumed["released"].as_array().unwrap().len(), &resumed["cut"]), (1, &false.into()));
    assert!(one.ask(&["resume", "other"]).expect(0).out.contains("was not cut"));
    other.until(&["status"], |ran| ran.code == 0);

    let unknown = one.ask(&["greet", "nobody"]).expect(1);
    assert_eq!(unknown.err, "error: there is no link nobody; there are: test/other\n");
    assert_eq!((one.signal("TERM"), other.signal("INT")), (Some(0), Some(0)));
    assert!(one.ask(&["status"]).expect(3).err.contains("securelink run"));
}

#[test]
fn f68_a_process_whose_links_carry_no_stream_ends_within_a_second_of_sigterm() {
    let (mut one, other) = linked();
    let start = Instant::now();
    assert_eq!(one.signal("TERM"), Some(0));
    let took = start.elapsed();
    assert!(took <= Duration::from_secs(1), "it took {took:?}");
    // It said so before it went.
    other.until(&["status"], |ran| ran.code != 0);
}

#[test]
fn a_cut_ordered_while_no_process_runs_holds_when_one_starts() {
    let (mut one, other) = linked();
    assert_eq!(one.signal("TERM"), Some(0));
    let cut = one.ask(&["cut", "other", "--reason", "drill", "-o", "json"]).expect(0).json();
    assert_eq!((&cut["cut"], &cut["running"]), (&true.into(), &false.into()));
    one.start(&["--local", "off"]);
    other.until(&["status"], |ran| ran.out.contains("Agreed: CutByPeer"));
    assert_eq!(condition(&one.ask(&["status", "-o", "json"]).expect(1).json(), "Agreed")["reason"], "CutHere");
    one.ask(&["resume", "other"]).expect(0);
    other.until(&["status"], |ran| ran.code == 0);
}

#[test]
fn f65_a_cut_by_command_is_in_force_while_the_disk_hangs_and_acknowledged_once_it_goes_on() {
    let (one, other) = linked();
    one.disk.hang();
    let state = one.state();
    let cut = move || securelink(&["cut", "other", "--reason", "drill", "--state-dir", &state]);
    let cutting = std::thread::spawn(cut);
    one.until(&["status"], |ran| ran.out.contains("Agreed: CutHere"));
    other.until(&["status"], |ran| ran.out.contains("Agreed: CutByPeer"));
    assert!(!cutting.is_finished());
    one.disk.go_on();
    cutting.join().unwrap().expect(0);
    one.ask(&["resume", "other"]).expect(0);
}

#[test]
fn a_link_cut_among_the_files_is_named_by_resume() {
    let (mut one, _other) = linked();
    one.write(
        "cut.yaml",
        "apiVersion: securelink.dev/v1alpha1\nkind: LinkCut\nmetadata: {name: drill, namespace: test}\n\
        spec: {linkRef: {name: other}, reason: a drill}\n",
    );
    one.until(&["status"], |ran| ran.out.contains("Agreed: CutHere"));
    let ran = one.ask(&["resume", "other"]).expect(1);
    assert_eq!(ran.err, "error: test/other is still cut by LinkCut drill; remove it from the files\n");
    // It will cut from the next start on, too.
    assert_eq!(one.signal("TERM"), Some(0));
    assert_eq!(one.ask(&["resume", "other"]).expect(1).err, ran.err);
}

#[test]
fn a_second_process_on_one_state_folder_is_refused() {
    let mut one = Side::new("one");
    one.start(&["--init", "--local", "off"]);
    let yaml = one.folder.path().join("yaml").display().to_string();
    let ran = one.ask(&["run", "-f", &yaml, "--local", "off"]).expect(1);
    assert!(ran.err.contains(" is held by process "), "{}", ran.err);
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let mut one = Side::new("one");
    let yaml = one.folder.path().join("yaml").display().to_string();
    let line = ["run", "-f", &yaml, "--state-dir", &one.state(), "--init", "--local", "off", "-vv"];
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    one.child = Some(command(&line).stdout(Stdio::null()).stderr(full).spawn().unwrap());
    // Without links there is nothing that could be Ready or not.
    one.until(&["status"], |ran| ran.code == 0);
    assert_eq!(one.signal("TERM"), Some(0));
}
