//! The control port: cuts, which hold whatever happens to the process, to its files or to its disk; and what is asked of two
//! relays together.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hanging_disk;
mod relay_support;
mod skipped;

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hanging_disk::HangingDisk;
use relay_support::pod::{Relay, pair};
use relay_support::{exchange, link, until};
use securelink_relay_config::control::{CutOrder, CutReply};
use securelink_relay_config::{Cut, CutScope, LinkState};
use serde_json::json;
use skipped::skipped;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

fn order(id: &str, revision: u64) -> CutOrder {
    let cut = Cut { id: id.to_owned(), revision, scope: CutScope::Link, reason: "incident 114".to_owned() };
    CutOrder { link: link(), cut }
}

async fn cut(relay: &Relay, id: &str, revision: u64) -> CutReply {
    serde_json::from_value(relay.controller().done("POST", "/v1/cut", &order(id, revision)).await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_live_streams_and_outlives_the_process_until_a_snapshot_acknowledges_it() {
    let (mut a, b) = pair().await;
    let mut stream = TcpStream::connect(b.import_address().await).await.unwrap();
    exchange(&mut stream, "before").await.unwrap();
    assert_eq!(cut(&a, "LinkCut/1", 3).await, CutReply { fresh: true, ended: 1, stored: true });
    stream.read_to_end(&mut Vec::new()).await.expect_err("the stream is reset");
    assert_eq!(cut(&a, "LinkCut/1", 3).await, CutReply { fresh: false, ended: 0, stored: true });

    a.pod.kill();
    a.pod.start();
    assert_eq!(a.status().await.report.cuts, ["LinkCut/1"], "from the first moment on");
    // A snapshot that does not know of it changes nothing.
    a.push(|snapshot| snapshot.seen.extend([("LinkCut/1".to_owned(), 2)])).await;
    assert_eq!(a.status().await.report.cuts, ["LinkCut/1"]);
    // One that does, and does not cut itself, ends it, also for the next process and for an order that was on its way.
    a.push(|snapshot| snapshot.seen.extend([("LinkCut/1".to_owned(), 3)])).await;
    assert!(a.status().await.report.cuts.is_empty());
    assert!(!cut(&a, "LinkCut/1", 3).await.fresh);
    a.pod.kill();
    a.pod.start();
    assert!(a.status().await.report.cuts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_cuts_that_cannot_be_read_counts_as_a_cut() {
    let (mut a, _b) = pair().await;
    cut(&a, "LinkCut/1", 1).await;
    a.pod.kill();
    fs::write(a.pod.scratch().join("cuts.json"), "{").unwrap();
    a.pod.start();
    let status = a.status().await;
    assert_eq!(status.report.cuts, ["Scratch/cuts.json"]);
    assert_eq!(status.report.agreed.own.state, LinkState::Cut);
    assert!(status.faults[0].message.contains("stays cut"), "{:?}", status.faults);
}

/// A mount namespace with a tiny file system where scratch is, which outlives the relay in it.
struct TinyDisk(Child);

impl TinyDisk {
    fn new(at: &str) -> Self {
        let script = "mount -t tmpfs -o size=64k,mode=0777 scratch \"$0\" && echo mounted && exec cat";
        let line = ["-m", "sh", "-c", script, at];
        let mut child =
            Command::new("unshare").args(line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(child)
    }

    /// What a relay is started with, to have this disk.
    fn wrapper(&self) -> Vec<String> {
        ["nsenter", "-m", "-t", &self.0.id().to_string()].map(str::to_owned).to_vec()
    }

    /// Takes all room; what is written next has so many bytes at least.
    fn fill(&self, at: &std::path::Path, left: u64) -> std::path::PathBuf {
        let filler = self.path(at).join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        file.set_len(file.metadata().unwrap().len() - left).unwrap();
        filler
    }

    fn path(&self, at: &std::path::Path) -> std::path::PathBuf {
        std::path::PathBuf::from(format!("/proc/{}/root{}", self.0.id(), at.display()))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_on_a_full_disk_a_cut_is_in_force_and_the_status_says_that_it_is_not_kept() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a tiny file system");
    }
    let (mut a, b) = pair().await;
    a.pod.kill();
    let disk = TinyDisk::new(&a.pod.scratch().display().to_string());
    a.pod.wrapper = disk.wrapper();
    a.pod.start();
    let mut stream = b.stream().await;
    let filler = disk.fill(&a.pod.scratch(), 0);

    assert_eq!(cut(&a, "LinkCut/1", 1).await, CutReply { fresh: true, ended: 1, stored: false });
    stream.read_to_end(&mut Vec::new()).await.expect_err("the cut is in force all the same");
    let status = a.status().await;
    assert_eq!(status.report.cuts, ["LinkCut/1"]);
    assert_eq!(status.faults[0].reason, "ScratchFailed");
    assert!(status.faults[0].message.contains("space"), "{:?}", status.faults);

    // As soon as there is room it is kept, without anybody asking.
    fs::remove_file(&filler).unwrap();
    a.until("the cut is kept", |status| status.faults.is_empty()).await;
    a.pod.kill();
    a.pod.start();
    assert_eq!(a.status().await.report.cuts, ["LinkCut/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_a_cut_stays_kept_while_the_disk_has_no_room_for_the_snapshot_that_acknowledges_it() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a tiny file system");
    }
    let (mut a, _b) = pair().await;
    a.pod.kill();
    let disk = TinyDisk::new(&a.pod.scratch().display().to_string());
    a.pod.wrapper = disk.wrapper();
    a.pod.start();
    assert!(cut(&a, "LinkCut/1", 1).await.stored);
    // A page is room for the cuts, and none for so much.
    let filler = disk.fill(&a.pod.scratch(), 4096);
    let acknowledged = |snapshot: &mut securelink_relay_config::Snapshot| {
        snapshot.seen.extend((1..200).map(|number| (format!("LinkCut/{number}"), 1)));
    };
    a.push(acknowledged).await;
    let status = a.status().await;
    assert_eq!((status.report.version, status.report.cuts.len()), (2, 0), "what it says is in force");
    assert_eq!(status.faults[0].reason, "ScratchFailed");
    a.pod.kill();
    a.pod.start();
    let status = a.status().await;
    assert_eq!((status.report.version, status.report.cuts), (1, vec!["LinkCut/1".to_owned()]), "and was not kept");

    fs::remove_file(&filler).unwrap();
    a.push(acknowledged).await;
    assert!(a.status().await.report.cuts.is_empty());
    let kept = || fs::read_to_string(disk.path(&a.pod.scratch()).join("cuts.json")).unwrap();
    until("the cut is dropped, its acknowledgement being kept", async || (!kept().contains("LinkCut")).then_some(()))
        .await;
}

/// What a cut is given (promise P4).
const A_SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_ten_cuts_on_a_disk_that_hangs_are_each_in_force_within_a_second_and_kept_once_it_goes_on() {
    let (mut a, b) = pair().await;
    a.pod.kill();
    let disk = HangingDisk::new();
    a.pod.wrapper = vec!["env".to_owned()];
    a.pod.wrapper.extend(disk.env().map(|(name, value)| format!("{name}={}", value.display())));
    a.pod.start();
    let mut stream = b.stream().await;
    disk.hang();
    let start = Instant::now();
    let mut cuts = JoinSet::new();
    for number in 0..10 {
        let (controller, order) = (a.controller(), order(&format!("LinkCut/{number}"), 1));
        cuts.spawn(async move { (controller.done("POST", "/v1/cut", &order).await, start.elapsed()) });
    }
    let mut ended = 0;
    while let Some(done) = cuts.join_next().await {
        let (reply, took) = done.unwrap();
        let reply: CutReply = serde_json::from_value(reply).unwrap();
        assert!(took <= A_SECOND, "the acknowledgement took {took:?}");
        assert!(reply.fresh && !reply.stored, "{reply:?}");
        ended = ended.max(reply.ended);
    }
    assert_eq!(ended, 1);
    stream.read_to_end(&mut Vec::new()).await.expect_err("the cut is in force all the same");
    let status = a.status().await;
    assert!(status.faults[0].message.contains("disk"), "{:?}", status.faults);

    disk.go_on();
    a.until("the cuts are kept", |status| status.faults.is_empty()).await;
    assert!(cut(&a, "LinkCut/10", 1).await.stored);
    a.pod.kill();
    a.pod.start();
    assert_eq!(a.status().await.report.cuts.len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greet_and_doctor_cross_the_link_and_say_what_is_wrong() {
    let (mut a, b) = pair().await;
    let (at_a, at_b) = (a.controller(), b.controller());
    let greeting = json!({"link": link(), "text": "the line is open"});
    for (controller, peer) in [(&at_a, "b.example"), (&at_b, "a.example")] {
        let reply = controller.done("POST", "/v1/greet", &greeting).await;
        assert_eq!(reply["peer"], peer);
        assert!(reply["signature"].as_str().unwrap().len() > 100);
    }
    let failed = |report: &serde_json::Value| -> Vec<String> {
        let findings = report["findings"].as_array().unwrap();
        let bad = findings.iter().filter(|finding| finding["outcome"] == "failed");
        bad.map(|finding| format!("{} {}", finding["probe"].as_str().unwrap(), finding["reason"].as_str().unwrap()))
            .collect()
    };
    let ask = json!({"link": link()});
    for controller in [&at_a, &at_b] {
        assert_eq!(failed(&controller.done("POST", "/v1/doctor", &ask).await), Vec::<String>::new());
    }
    // The service behind the export goes away, and the link is cut.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a.push(|snapshot| snapshot.exports[0].target.port = closed.port()).await;
    assert_eq!(failed(&at_a.done("POST", "/v1/doctor", &ask).await), ["Export Refused"]);
    cut(&a, "LinkCut/1", 1).await;
    assert_eq!(failed(&at_a.done("POST", "/v1/doctor", &ask).await), ["Agreement CutHere", "Export Refused"]);
    let refused = at_a.refused("POST", "/v1/greet", &greeting).await;
    assert_eq!(refused, (502, "GreetFailed".to_owned()));
}
