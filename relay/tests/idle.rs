//! What only time shows, scaled to half a minute (in full: `make soak`): idle flows that a network forgets (fault F80),
//! packets that it swallows on one connection only, and a reader that takes nothing for long, which is no death (F61).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::network::{connections_to, forget_idle_flows, isolated, swallow};
use support::{Replicas, endpoint, read_to_end, served};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// After so long at rest a connection is asked before it is used again.
const ASKED_AFTER: Duration = Duration::from_secs(30);

/// After so long without an acknowledgement a connection is dead, looked at every 5 s.
const SWALLOWED_AFTER: Duration = Duration::from_secs(15 + 5);

/// Connections at rest, in a network that forgets what is idle.
struct Resting {
    all: Replicas,
    since: Instant,
    port: u16,
    connections: Vec<(SocketAddr, SocketAddr)>,
}

impl Resting {
    const STREAMS: usize = 4;

    /// So many streams were there at once and are over. Flows are forgotten after `seconds`, which is longer than between
    /// two probes: they keep one connection warm.
    async fn begin(seconds: u32) -> Self {
        let mut all = Replicas::apart(1).await;
        let port = all.b[0].listens_on().port();
        forget_idle_flows(port, seconds);
        let to = endpoint(all.b[0].listens_on());
        all.add_dialer(|snapshot| snapshot.peer.endpoints = vec![to]).await;
        all.until_met().await;
        let mut resting = Self { all, since: Instant::now(), port, connections: vec![] };
        for (_, mut client, mut service) in resting.open().await {
            client.shutdown().await.unwrap();
            service.shutdown().await.unwrap();
            assert!(read_to_end(&mut client).await.1.is_ok());
        }
        resting.since = Instant::now();
        resting.connections = connections_to(port);
        assert!(resting.connections.len() > Self::STREAMS, "a control connection and those at rest");
        resting
    }

    /// Opens as many streams again.
    async fn open(&self) -> Vec<(usize, TcpStream, TcpStream)> {
        let mut streams = Vec::new();
        for _ in 0..Self::STREAMS {
            streams.push(served(self.all.a[0].import_address("at-b"), &self.all.at_b).await);
        }
        streams
    }

    /// How many of the connections are there still.
    fn kept(&self) -> usize {
        self.connections.len() - self.gone()
    }

    /// How many of the connections are gone.
    fn gone(&self) -> usize {
        let now = connections_to(self.port);
        self.connections.iter().filter(|one| !now.contains(one)).count()
    }
}

#[test]
fn f80_flows_that_the_network_forgot_are_not_used_and_the_next_streams_succeed() {
    isolated("f80_flows_that_the_network_forgot_are_not_used_and_the_next_streams_succeed", || async {
        let resting = Resting::begin(20).await;
        sleep_until(resting.since + ASKED_AFTER + Duration::from_secs(1)).await;
        assert_eq!(resting.gone(), 0, "neither side knows that they are forgotten");
        let _streams = resting.open().await;
        assert!(resting.gone() >= Resting::STREAMS - 1, "those that did not answer are closed");
    });
}

/// What a network forgets after more than half a minute it is reminded of in time.
#[test]
fn f80_flows_at_rest_are_kept_known_to_the_network() {
    isolated("f80_flows_at_rest_are_kept_known_to_the_network", || async {
        let resting = Resting::begin(40).await;
        sleep_until(resting.since + Duration::from_secs(45)).await;
        let _streams = resting.open().await;
        assert_eq!(resting.gone(), 0, "they answer and are used");
    });
}

/// As the load balancer of a cloud forgets them. Parked ones change meanwhile: one that is used is followed by another.
#[test]
#[ignore = "in full: make soak"]
fn f80_in_full_flows_at_rest_are_kept_known_to_a_network_that_forgets_after_four_minutes() {
    isolated("f80_in_full_flows_at_rest_are_kept_known_to_a_network_that_forgets_after_four_minutes", || async {
        let resting = Resting::begin(240).await;
        sleep_until(resting.since + Duration::from_mins(5)).await;
        let before = connections_to(resting.port);
        let _streams = resting.open().await;
        let mut now = connections_to(resting.port);
        now.retain(|one| !before.contains(one));
        assert_eq!(now, [], "they answer and are used");
        let (kept, all) = (resting.kept(), resting.connections.len());
        assert!(kept > Resting::STREAMS, "{kept} of {all}: the control connection and the pooled ones");
    });
}

/// Writes until nothing is taken any more.
async fn fill(socket: &mut TcpStream) -> usize {
    let (block, mut written) = (vec![b'x'; 65_536], 0);
    while let Ok(taken) = timeout(Duration::from_secs(1), socket.write(&block)).await {
        written += taken.unwrap();
    }
    written
}

#[test]
fn f61_a_reader_that_pauses_is_waited_for_and_a_connection_that_is_swallowed_is_ended() {
    isolated("f61_a_reader_that_pauses_is_waited_for_and_a_connection_that_is_swallowed_is_ended", || {
        a_paused_and_a_swallowed_one(Duration::from_secs(30))
    });
}

#[test]
#[ignore = "in full: make soak"]
fn f61_in_full_a_reader_that_pauses_for_ten_minutes_is_waited_for_and_a_connection_that_is_swallowed_is_ended() {
    isolated(
        "f61_in_full_a_reader_that_pauses_for_ten_minutes_is_waited_for_and_a_connection_that_is_swallowed_is_ended",
        || a_paused_and_a_swallowed_one(Duration::from_mins(10)),
    );
}

async fn a_paused_and_a_swallowed_one(pause: Duration) {
    let all = Replicas::linked(1, 1).await;
    let port = all.b[0].listens_on().port();
    let address = all.a[0].import_address("at-b");
    let (_, mut paused, mut reader) = served(address, &all.at_b).await;
    // One that is certainly its own connection, and no probe's.
    let mut others = Vec::new();
    let (swallowed, (_, mut lost, mut lost_service)) = loop {
        let before = connections_to(port);
        let stream = served(address, &all.at_b).await;
        let fresh: Vec<_> = connections_to(port).into_iter().filter(|one| !before.contains(one)).collect();
        if fresh.len() == 1 {
            break (fresh, stream);
        }
        others.push(stream);
    };

    let written = fill(&mut paused).await;
    let since = Instant::now();
    swallow(&swallowed);
    lost.write_all(b"into nothing").await.unwrap();
    let found = timeout(SWALLOWED_AFTER + Duration::from_secs(3), lost.read_u8()).await;
    assert!(found.expect("it is found dead").is_err());
    // The other side has sent nothing: it may take its keepalive to notice. Its service is not told of a clean end.
    lost_service.write_all(b"neither").await.unwrap();

    sleep_until(since + pause).await;
    paused.shutdown().await.unwrap();
    let received = timeout(support::PATIENCE, async {
        let mut received = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer).await.expect("the stream lives") {
                0 => return received,
                count => received += count,
            }
        }
    });
    assert_eq!(received.await.expect("all of it comes"), written);
    assert!(read_to_end(&mut lost_service).await.1.is_err(), "no clean end");
}
