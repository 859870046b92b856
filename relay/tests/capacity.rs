//! Where a relay's process runs out of file descriptors or memory, what is new is refused and what lives goes on (fault
//! F64). Each relay under a limit is a process of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Command;
use std::time::Duration;

use securelink_pki::testing::Organization;
use support::hosted::{Group, Hosted, Under, host};
use support::skipped::skipped;
use support::{PATIENCE, Side, endpoint, export, import, read_to_end, snapshot, turned_away};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a cut is given (promise P4).
const A_SECOND: Duration = Duration::from_secs(1);

/// The other process.
#[test]
#[ignore = "is started by the tests here"]
fn hosted() {
    host();
}

/// The test that has not what it needs.
#[test]
#[ignore = "is started by the test below"]
fn one_that_is_skipped() {
    skipped("this needs what nobody has");
}

#[test]
fn where_ci_is_set_a_test_that_has_not_what_it_needs_fails_and_elsewhere_it_passes() {
    let run = |name: &str| {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["one_that_is_skipped", "--exact", "--ignored"]).env_remove("CI").env(name, "true").output().unwrap()
    };
    assert!(!run("CI").status.success());
    let elsewhere = run("SECURELINK_TEST_ELSEWHERE");
    assert!(elsewhere.status.success());
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("skipped: this needs"), "{elsewhere:?}");
}

/// A client's socket and the service's.
type Stream = (TcpStream, TcpStream);

/// `a` here dials `b`, which lives under a limit and exports the service here.
struct Link {
    a: Side,
    b: Hosted,
    service: TcpListener,
    streams: Vec<Stream>,
}

impl Link {
    async fn under(limits: Under) -> Self {
        let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut for_a, mut for_b) = (snapshot(&org_a, &org_b), snapshot(&org_b, &org_a));
        for_b.exports.push(export("at-b", service.local_addr().unwrap()));
        let mut b = Hosted::start("hosted", &org_b, &for_b, limits);
        for_a.imports.push(import("at-b", 0));
        for_a.peer.endpoints = vec![endpoint(b.report().listener.unwrap().address)];
        let a = Side::start(&org_a, &org_b.domain, for_a).await;
        a.until_ready().await;
        Self { a, b, service, streams: Vec::new() }
    }

    /// Opens streams until so many live, or until one is refused; how many live then.
    async fn fill(&mut self, most: usize) -> usize {
        while self.streams.len() < most {
            let opened = timeout(PATIENCE, self.open()).await.expect("a stream opens or is refused");
            let Some(stream) = opened else { break };
            self.streams.push(stream);
        }
        self.streams.len()
    }

    async fn open(&self) -> Option<Stream> {
        let mut client = TcpStream::connect(self.a.import_address("at-b")).await.unwrap();
        client.write_all(b"?").await.ok()?;
        let mut byte = [0];
        loop {
            let mut service = tokio::select! {
                accepted = self.service.accept() => accepted.unwrap().0,
                _ = client.read(&mut byte) => return None,
            };
            // One that was refused when its target was reached already is not this client's.
            if service.read_exact(&mut byte).await.is_ok() {
                service.write_all(b"!").await.ok()?;
                client.read_exact(&mut byte).await.ok()?;
                return Some((client, service));
            }
        }
    }

    /// Every stream carries `length` bytes each way, all at the same time.
    async fn all_go_on(&mut self, length: usize) {
        let mut going = JoinSet::new();
        for (number, stream) in self.streams.drain(..).enumerate() {
            going.spawn(goes_on(stream, u8::try_from(number % 251).unwrap(), length));
        }
        self.streams = going.join_all().await;
    }

    /// Cuts at `b`, which must be done within the promise's second and end them all.
    async fn cut(mut self) {
        let live = self.b.report().streams.live;
        assert_eq!(live, self.streams.len() as u64);
        let (ended, took) = self.b.cut();
        assert!(ended == live && took <= A_SECOND, "{ended} of {live} in {took:?}");
        for (mut client, mut service) in self.streams {
            assert!(read_to_end(&mut client).await.1.is_err() && read_to_end(&mut service).await.1.is_err());
        }
    }
}

async fn goes_on((mut client, mut service): Stream, byte: u8, length: usize) -> Stream {
    let block = vec![byte; length];
    let (mut up, mut down) = (vec![0; length], vec![0; length]);
    let ((mut from_client, mut to_client), (mut from_service, mut to_service)) = (client.split(), service.split());
    let all = async {
        tokio::try_join!(
            to_client.write_all(&block),
            from_service.read_exact(&mut up),
            to_service.write_all(&block),
            from_client.read_exact(&mut down),
        )
    };
    timeout(3 * PATIENCE, all).await.expect("it goes on").expect("it lives");
    assert!(up == block && down == block);
    (client, service)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_with_256_descriptors_new_streams_are_refused_and_old_ones_and_the_link_go_on() {
    const LIMIT: usize = 256;
    let mut link = Link::under(Under { files: Some(LIMIT as u64), ..Under::default() }).await;
    let most = link.fill(LIMIT).await;
    // Two descriptors each, of three quarters, but for those of the process itself.
    assert!((72..=96).contains(&most), "{most} streams");
    assert!(link.b.refused().contains_key("TooFewDescriptors"), "{:?}", link.b.refused());
    let address = link.a.import_address("at-b");
    let mut refused = JoinSet::new();
    for _ in 0..64 {
        refused.spawn(turned_away(address));
    }
    refused.join_all().await;
    // Strangers do not get at what is kept, nor do they keep anybody out.
    let to_b = link.b.report().listener.unwrap().address;
    let mut strangers = Vec::new();
    for _ in 0..LIMIT {
        strangers.push(TcpStream::connect(to_b).await.unwrap());
    }
    link.all_go_on(64 * 1024).await;
    assert!(link.b.files() < LIMIT - 16, "{} files are open", link.b.files());
    assert_eq!(link.b.warnings(), 0, "there is always one left to accept with");
    link.a.relay.greet("still there?").await.expect("the control connection and what rests are there");
    drop(strangers);
    // Who lets go makes room.
    link.streams.truncate(most / 2);
    link.a.until("some have ended", |report| report.streams.live <= most as u64 / 2).await;
    assert_eq!(link.fill(most / 2 + 10).await, most / 2 + 10);
    link.cut().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_with_no_descriptor_left_a_listener_waits_and_what_lives_goes_on() {
    let mut link = Link::under(Under { files: Some(256), ..Under::default() }).await;
    assert_eq!(link.fill(20).await, 20);
    link.b.ask("hog");
    let start = std::time::Instant::now();
    let mut stranger = TcpStream::connect(link.b.report().listener.unwrap().address).await.unwrap();
    let waits = async {
        while link.b.warnings() < 4 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waits).await.expect("it tries again");
    link.all_go_on(64 * 1024).await;
    let tries = link.b.warnings();
    // 10 ms, 20 ms and so on up to a second.
    assert!(tries <= 8 + usize::try_from(start.elapsed().as_secs()).unwrap(), "{tries} tries in {:?}", start.elapsed());
    turned_away(link.a.import_address("at-b")).await;
    assert_eq!(link.b.report().peer.control_connections, 1);
    link.b.ask("free");
    stranger.write_all(&[0xff; 64]).await.unwrap();
    assert!(read_to_end(&mut stranger).await.0.len() <= 7, "it is accepted, and gets no more than an alert");
    assert_eq!(link.fill(21).await, 21);
    link.b.ask("hog");
    link.cut().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_with_64_mib_of_memory_new_streams_are_refused_and_old_ones_carry_on() {
    const MOST: usize = 2_000;
    let Some(group) = Group::new(64 << 20) else {
        return skipped("a memory limit needs root and control groups that can be written");
    };
    let mut link = Link::under(Under { group: Some(group.path()), ..Under::default() }).await;
    let most = link.fill(MOST).await;
    assert!((100..MOST).contains(&most), "{most} streams");
    assert!(link.b.refused().contains_key("TooLittleMemory"), "{:?}", link.b.refused());
    link.all_go_on(1 << 20).await;
    let report = link.b.report();
    assert_eq!((report.peer.control_connections, report.agreed.disagreement), (1, None), "{}", group.says());
    link.cut().await;
}
