//! A relay that was once short of memory is not so for ever: what its streams let go of, others get (fault F64). The relay
//! under a limit is a process of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use securelink_pki::testing::Organization;
use support::hosted::{Group, Hosted, Under, host};
use support::skipped::skipped;
use support::{PATIENCE, Side, endpoint, export, import, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// More than there is memory for.
const MOST: usize = 2_000;
/// So few that the buffers of all of them may grow.
const FEW: usize = 12;
/// Each way on each stream: buffers grow as far as they may.
const CARRIED: usize = 16 << 20;

/// The other process.
#[test]
#[ignore = "is started by the tests here"]
fn hosted() {
    host();
}

/// A client's socket and the service's.
type Stream = (TcpStream, TcpStream);

/// A stream from `a` to the service, none where it is refused.
async fn open(a: &Side, service: &TcpListener) -> Option<Stream> {
    let mut client = TcpStream::connect(a.import_address("at-b")).await.unwrap();
    client.write_all(b"?").await.ok()?;
    let mut byte = [0];
    loop {
        let mut served = tokio::select! {
            accepted = service.accept() => accepted.unwrap().0,
            _ = client.read(&mut byte) => return None,
        };
        // One that was refused when its target was reached already is not this client's.
        if served.read_exact(&mut byte).await.is_ok() {
            served.write_all(b"!").await.ok()?;
            client.read_exact(&mut byte).await.ok()?;
            return Some((client, served));
        }
    }
}

/// So many, or as many as there is memory for.
async fn fill(a: &Side, service: &TcpListener, most: usize) -> Vec<Stream> {
    let mut streams = Vec::new();
    while streams.len() < most {
        let opened = timeout(PATIENCE, open(a, service)).await.expect("a stream opens or is refused");
        let Some(stream) = opened else { break };
        streams.push(stream);
    }
    streams
}

/// Both ways at the same time.
async fn carries((mut client, mut service): Stream) -> Stream {
    let block = vec![1; CARRIED];
    let (mut up, mut down) = (vec![0; CARRIED], vec![0; CARRIED]);
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
    (client, service)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_after_a_peak_of_memory_as_many_streams_fit_as_before() {
    let Some(group) = Group::new(40 << 20) else {
        return skipped("a memory limit needs root and control groups that can be written");
    };
    let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut for_a, mut for_b) = (snapshot(&org_a, &org_b), snapshot(&org_b, &org_a));
    for_b.exports.push(export("at-b", service.local_addr().unwrap()));
    let mut b = Hosted::start("hosted", &org_b, &for_b, Under { group: Some(group.path()), ..Under::default() });
    for_a.imports.push(import("at-b", 0));
    for_a.peer.endpoints = vec![endpoint(b.report().listener.unwrap().address)];
    let a = Side::start(&org_a, &org_b.domain, for_a).await;
    a.until_ready().await;
    let mut fitted = Vec::new();
    for most in [MOST, FEW, MOST] {
        let streams = fill(&a, &service, most).await;
        fitted.push(streams.len());
        if most == FEW {
            let carried: JoinSet<_> = streams.into_iter().map(carries).collect();
            drop(carried.join_all().await);
        } else {
            drop(streams);
        }
        a.until("they have ended", |report| report.streams.live == 0).await;
        let live = async { while b.report().streams.live > 0 {} };
        timeout(PATIENCE, live).await.expect("there, too");
    }
    assert!((50..MOST).contains(&fitted[0]) && fitted[1] == FEW, "{fitted:?}");
    assert!(fitted[2] >= fitted[0] * 9 / 10, "{fitted:?}");
}
