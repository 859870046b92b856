//! What a hostile user, a bad moment or a broken machine does to a runtime: no order is lost, nothing that worked ends, and
//! what is taken away is gone.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod runtime_support;

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runtime_support::{Half, PATIENCE, Pair, Side, ended, exchange, link};
use securelink::control::Client;
use securelink::runtime::{Clock, Runtime};
use securelink_crds::conditions::ConditionType;
use tokio::net::TcpListener;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_obeyed_though_who_ordered_it_is_gone_at_once() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let body = r#"{"link":{"namespace":"default","name":"link"},"reason":"incident"}"#;
    let mut socket = UnixStream::connect(pair.a.state().join("control.sock")).unwrap();
    write!(socket, "POST /v1/cut HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    drop(socket);
    pair.a.until_reason(ConditionType::Agreed, "CutHere").await;
    ended(stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_could_not_be_written_down_is_taken_back_by_resume() {
    let pair = Pair::new().await;
    let cuts = pair.a.state().join("links/default/link/cuts");
    // A file where the folder should be: no order can be written.
    fs::write(&cuts, "").unwrap();
    pair.a.runtime().cut(&link(), "incident").await.unwrap_err();
    // Ordering it again does not make a person believe that it is kept.
    pair.a.runtime().cut(&link(), "incident").await.unwrap_err();
    pair.a.runtime().resume(&link()).await.unwrap_err();
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    fs::remove_file(&cuts).unwrap();
    pair.a.runtime().reload().await;
    assert_eq!(fs::read_dir(&cuts).unwrap().count(), 2, "written down as soon as it can be");
    assert_eq!(pair.a.runtime().resume(&link()).await.unwrap().released.len(), 2);
    pair.until_ready().await;
    exchange(&mut pair.connect().await, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_taken_back_by_resume_also_where_nothing_can_be_written() {
    let pair = Pair::new().await;
    // Reads as no folder yet, and none can be made.
    std::os::unix::fs::symlink("/nowhere/cuts", pair.a.state().join("links/default/link/cuts")).unwrap();
    pair.a.runtime().cut(&link(), "incident").await.unwrap_err();
    pair.a.runtime().reload().await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    assert_eq!(pair.a.runtime().resume(&link()).await.unwrap().released.len(), 1);
    pair.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_and_resumes_in_a_storm_leave_the_link_as_the_last_one_says() {
    let pair = Pair::new().await;
    for _ in 0..20 {
        let a = pair.a.runtime();
        let cut = async || a.cut(&link(), "storm").await.unwrap();
        let resume = async || a.resume(&link()).await.unwrap();
        tokio::join!(cut(), resume(), a.reload(), cut(), resume(), cut());
    }
    pair.a.runtime().resume(&link()).await.unwrap();
    pair.until_ready().await;
    exchange(&mut pair.connect().await, "after the storm").await;
    pair.a.runtime().cut(&link(), "the last word").await.unwrap();
    pair.a.runtime().reload().await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ordered_again_and_again_is_one_order() {
    let pair = Pair::new().await;
    assert!(pair.a.runtime().cut(&link(), "incident").await.unwrap().fresh);
    pair.a.runtime().reload().await;
    for _ in 0..10 {
        assert!(!pair.a.runtime().cut(&link(), "incident").await.unwrap().fresh);
    }
    let cuts = pair.a.state().join("links/default/link/cuts");
    assert_eq!(fs::read_dir(cuts).unwrap().count(), 1);
    assert_eq!(pair.a.runtime().resume(&link()).await.unwrap().released.len(), 1);
    pair.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_keeps_no_narrowing_of_the_same_edit_from_taking_effect() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let good = pair.b.read("link.yaml");
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = squatter.local_addr().unwrap().port();
    let more = format!("  - {{name: more, dataClass: strategic, port: {taken}, clients: [{{podSelector: {{}}}}]}}\n");
    pair.b.write("link.yaml", &(good.replace("state: Active", "state: Suspended") + &more));
    let report = pair.b.runtime().reload().await;
    assert!(report.refused.iter().any(|problem| problem.message.contains(&taken.to_string())), "{report:?}");
    ended(stream).await;
    pair.a.until_reason(ConditionType::Agreed, "SuspendedByPeer").await;
    // Trying again and again changes nothing more.
    let version = || pair.b.status().report.unwrap().version;
    let before = version();
    assert_eq!(pair.b.runtime().reload().await.changed, vec![]);
    assert_eq!(version(), before);
    // The rest of the edit counts as soon as the port is free.
    drop(squatter);
    assert_eq!(pair.b.runtime().reload().await.changed, vec![link()]);
    assert_eq!(pair.b.status().report.unwrap().imports.len(), 2);
    pair.b.write("link.yaml", &good);
    pair.b.runtime().reload().await;
    pair.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_being_written_or_was_cut_to_nothing_deletes_nothing() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    let good = pair.b.read("link.yaml");
    for empty in ["", "\n", "\u{feff} \n\n"] {
        pair.b.write("link.yaml", empty);
        let report = pair.b.runtime().reload().await;
        assert!(report.problems.iter().any(|problem| problem.message.contains("empty")), "{report:?}");
        exchange(&mut stream, "still there").await;
    }
    pair.b.write("link.yaml", &good);
    assert_eq!(pair.b.runtime().reload().await.problems, vec![]);
    // A person who comments everything out means it.
    pair.b.write("link.yaml", "# not now\n");
    pair.b.runtime().reload().await;
    ended(stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_panics_is_not_the_last_one() {
    let (mut side, peer) = (Side::new("a"), Side::new("b"));
    side.watch = true;
    let armed = Arc::new(AtomicBool::new(false));
    let trap = Arc::clone(&armed);
    let clock = Clock::new(move || {
        assert!(!trap.swap(false, Ordering::SeqCst), "a fault of our own");
        Timestamp::now()
    });
    side.runtime = Some(Runtime::start_with(side.options(), clock).await.unwrap());
    let pin = side.fingerprint();
    // No link yet: only a look asks for the time.
    armed.store(true, Ordering::SeqCst);
    side.write("link.yaml", &Half { peer: peer.name, pin, endpoint: None, services: String::new() }.yaml());
    let broken_off = async {
        while armed.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, broken_off).await.expect("a look begins");
    side.until("the link is there", |_| true).await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_not_waited_for() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    let pipe = pair.b.files().join("pipe.yaml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let runtime = pair.b.runtime().clone();
    let reload = tokio::spawn(async move { runtime.reload().await });
    let done = timeout(PATIENCE, reload).await;
    if done.is_err() {
        // Lets the process end, so that the test can fail.
        drop(fs::OpenOptions::new().write(true).open(&pipe));
    }
    let report = done.expect("nobody waits for a writer").unwrap();
    assert!(report.problems.iter().any(|problem| problem.source.ends_with("pipe.yaml")), "{report:?}");
    exchange(&mut stream, "still there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_works_while_the_process_drains() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let runtime = pair.b.runtime().clone();
    let began = Instant::now();
    let draining = tokio::spawn(async move { runtime.shutdown(Duration::from_mins(5)).await });
    pair.a.until_reason(ConditionType::Ready, "Ready").await;
    exchange(&mut stream, "a drain lets streams finish").await;
    let client = Client::connect(&pair.b.state()).await.unwrap();
    assert_eq!(client.status().await.unwrap().len(), 1);
    assert_eq!(client.cut(&link(), "incident").await.unwrap().ended, 1);
    ended(stream).await;
    draining.await.unwrap();
    assert!(began.elapsed() < Duration::from_mins(5));
    assert!(Client::connect(&pair.b.state()).await.is_err(), "nobody answers any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_whose_folder_is_gone_is_not_replaced_while_a_leaf_tells_of_it() {
    let mut pair = Pair::new().await;
    let fingerprint = pair.b.fingerprint();
    pair.b.stop().await;
    let (identities, elsewhere) = (pair.b.state().join("identities"), pair.b.files().join("backup"));
    fs::rename(&identities, &elsewhere).unwrap();
    pair.b.start().await;
    let told = pair.b.status();
    assert_eq!(pair.b.reason(ConditionType::Stalled), "RootMissing", "{told:?}");
    let said = format!("{:?}", told.status.conditions);
    assert!(said.contains(&fingerprint) && said.contains("restore"), "{said}");
    assert!(!identities.join("default/default").exists(), "nothing was minted");
    pair.b.stop().await;
    fs::rename(&elsewhere, &identities).unwrap();
    pair.b.start().await;
    assert_eq!(pair.b.fingerprint(), fingerprint);
    pair.until_ready().await;
}
