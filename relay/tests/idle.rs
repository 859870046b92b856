//! What only time shows, scaled to half a minute: idle flows that a network forgets (fault F80).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::network::{connections_to, forget_idle_flows, isolated};
use support::{Replicas, endpoint, read_to_end, served};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// After so long at rest a connection is asked before it is used again.
const ASKED_AFTER: Duration = Duration::from_secs(30);

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
