//! Several relays on each side: each has met each, new streams go to all of them and to none that leaves.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use securelink_pki::testing::Organization;
use securelink_relay::wire::{Message, Peers, ReplicaId, Role};
use support::acceptor::Acceptor;
use support::{PATIENCE, Replicas, Side, endpoint, import, read_to_end, served, snapshot, turned_away};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Which of `targets` serve a few clients of `address` that are there at the same time.
async fn who_serves(address: SocketAddr, targets: &[TcpListener]) -> BTreeSet<usize> {
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(served(address, targets).await);
    }
    streams.iter().map(|(which, ..)| *which).collect()
}

async fn works(client: &mut TcpStream, service: &mut TcpStream) {
    client.write_all(b"x").await.unwrap();
    assert_eq!(service.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_replica_meets_each_and_streams_go_to_all_of_them_both_ways() {
    let all = Replicas::linked(2, 2).await;
    let both = BTreeSet::from([0, 1]);
    for a in &all.a {
        assert_eq!(who_serves(a.import_address("at-b"), &all.at_b).await, both, "forward");
    }
    for b in &all.b {
        b.until_ready().await;
        assert_eq!(who_serves(b.import_address("at-a"), &all.at_a).await, both, "reverse");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_replica_make_one_control_connection() {
    let mut all = Replicas::apart(0).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut anywhere = all.exporting(target.local_addr().unwrap());
    anywhere.listen = Some("0.0.0.0:0".parse().unwrap());
    all.b.push(Side::start(&all.org_b, &all.org_a.domain, anywhere).await);
    let port = all.b[0].listens_on().port();
    let by = |last: u8| endpoint(SocketAddr::from(([127, 0, 0, last], port)));
    all.add_dialer(|snapshot| snapshot.peer.endpoints = vec![by(1), by(2)]).await;
    all.b[0].until("both addresses were dialed", |report| report.peer.control_connections == 2).await;
    all.until_met().await;
    who_serves(all.a[0].import_address("at-b"), &[target]).await;
}

/// One address for several relays: leads to the first ones `often`, in turn from then on.
async fn balancer(behind: Vec<SocketAddr>, often: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dials = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let number = dials.fetch_add(1, Ordering::SeqCst);
            let to = behind[if number < often { 0 } else { number % behind.len() }];
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_behind_one_address_are_found() {
    let mut all = Replicas::apart(2).await;
    let one = balancer(all.b.iter().map(Side::listens_on).collect(), 0).await;
    all.add_dialer(|snapshot| snapshot.peer.endpoints = vec![endpoint(one)]).await;
    all.until_met().await;
    assert_eq!(who_serves(all.a[0].import_address("at-b"), &all.at_b).await.len(), 2);
    all.b[1].until_ready().await;
    assert_eq!(
        who_serves(all.b[1].import_address("at-a"), &all.at_a).await.len(),
        1,
        "it has connections at rest, too"
    );
}

/// Who is not named is looked for more and more seldom; the balancer shows the other one too late for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_peers_names_is_looked_for_until_it_is_met() {
    const HIDDEN: usize = 7;
    let mut all = Replicas::apart(2).await;
    let one = balancer(all.b.iter().map(Side::listens_on).collect(), HIDDEN).await;
    // They say that they dial, so that nothing is parked: looks are all that the balancer counts, and one probe.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = endpoint(held.local_addr().unwrap());
    for side in &mut all.b {
        side.adopt(|snapshot| snapshot.peer.endpoints = vec![nobody.clone()]).await;
    }
    let ids: Vec<_> = all.b.iter().map(|side| side.relay.replica()).collect();
    all.add_dialer(|snapshot| snapshot.peer.endpoints = vec![endpoint(one)]).await;
    let first = all.b[0].relay.replica().to_string();
    all.a[0].until("it meets the one that is shown", |report| report.peer.replicas == [first.clone()]).await;
    for side in &all.b {
        side.relay.introduce(ids.clone());
    }
    all.until_met().await;
}

/// A peer that names one who is not there, takes it back and names it again, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_peer_that_names_and_unnames_replicas_is_not_dialed_ever_again_for_it() {
    // Looks come after 0.2 s, 0.4 s and so on, or after half of that at the least.
    const LOOKS: usize = 5;
    const AT_LEAST: Duration = Duration::from_millis(200 * (1 + 2 + 4 + 8 + 16) / 2);
    let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
    let dials = watch::Sender::new(0_usize);
    let counted = dials.clone();
    let hostile = Acceptor::start((&org_b, &org_a), &snapshot(&org_b, &org_a), move |role, mut caller| {
        let counted = counted.clone();
        async move {
            let is_first = role == Role::Control && *counted.borrow() == 0;
            counted.send_modify(|dials| *dials += usize::from(role == Role::Control));
            if is_first {
                for number in 0_u64.. {
                    let named = if number % 2 == 0 { vec![ReplicaId([9; 16])] } else { vec![] };
                    caller.say(&Message::Peers(Peers { replicas: named })).await;
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    let mut for_a = snapshot(&org_a, &org_b);
    for_a.peer.endpoints = vec![hostile.endpoint.clone()];
    let _a = Side::start(&org_a, &org_b.domain, for_a).await;
    let mut dials = dials.subscribe();
    let mut times = async |number| timeout(PATIENCE, dials.wait_for(|dials| *dials >= number)).await.map(drop);
    times(1).await.expect("it is dialed");
    let start = Instant::now();
    times(1 + LOOKS).await.expect("it is looked for the one it names");
    assert!(start.elapsed() >= AT_LEAST, "{LOOKS} looks in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f68_a_relay_that_drains_gives_its_streams_time_and_new_ones_go_to_its_sibling() {
    const DEADLINE: Duration = Duration::from_secs(8);
    // It takes streams for half of the time: what goes elsewhere before does so because it was told.
    const TOLD: Duration = Duration::from_secs(3);
    let all = Replicas::linked(1, 2).await;
    let address = all.a[0].import_address("at-b");
    let mut streams: Vec<(usize, TcpStream, TcpStream)> = Vec::new();
    while !streams.iter().any(|(which, ..)| *which == 0) || streams.len() < 3 {
        streams.push(served(address, &all.at_b).await);
    }
    let relay = all.b[0].relay.clone();
    let start = Instant::now();
    let draining = tokio::spawn(async move { relay.drain(DEADLINE).await });
    all.b[0].until("it is not ready", |_| !all.b[0].relay.is_ready()).await;
    // The opener has heard once it holds no connection at rest with it; until then a stream may still be taken there.
    let mut moved = 0;
    while moved < 4 {
        let (which, ..) = served(address, &all.at_b).await;
        moved = if which == 1 { moved + 1 } else { 0 };
        assert!(start.elapsed() < TOLD, "new streams still go to the one that drains");
    }
    for (_, client, service) in &mut streams {
        works(client, service).await;
    }
    // What is left when the time is over is reset, and its sibling's live on.
    draining.await.unwrap();
    assert!(start.elapsed() >= DEADLINE, "streams had their time");
    for (which, mut client, mut service) in streams {
        if which == 0 {
            assert!(read_to_end(&mut client).await.1.is_err() && read_to_end(&mut service).await.1.is_err());
        } else {
            works(&mut client, &mut service).await;
        }
    }
    all.a[0].until_met(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f68_a_relay_without_siblings_takes_streams_for_a_moment_then_none_and_ends_when_the_last_does() {
    let all = Replicas::linked(1, 1).await;
    let address = all.a[0].import_address("at-b");
    let (_, mut client, mut service) = served(address, &all.at_b).await;
    let relay = all.b[0].relay.clone();
    let start = Instant::now();
    let draining = tokio::spawn(async move { relay.drain(2 * PATIENCE).await });
    all.b[0].until("it is not ready", |_| !all.b[0].relay.is_ready()).await;
    let (_, mut late, mut late_service) = served(address, &all.at_b).await;
    works(&mut late, &mut late_service).await;
    drop((late, late_service));
    // Its listener stays and it refuses: a client here is turned away, and no service is dialed for it.
    let refused = async {
        loop {
            let Ok(mut client) = TcpStream::connect(address).await else { continue };
            if client.read_u8().await.is_err() {
                return;
            }
        }
    };
    let served_on = async {
        while let Ok((mut service, _)) = all.at_b[0].accept().await {
            // The client may be gone.
            let _ = service.write_all(b"!").await;
        }
    };
    tokio::select! {
        () = async { timeout(PATIENCE, refused).await.expect("it stops taking streams") } => {}
        () = served_on => unreachable!(),
    }
    turned_away(address).await;
    works(&mut client, &mut service).await;
    client.shutdown().await.unwrap();
    assert!(read_to_end(&mut service).await.1.is_ok());
    service.shutdown().await.unwrap();
    assert!(read_to_end(&mut client).await.1.is_ok());
    draining.await.unwrap();
    assert!(start.elapsed() < 2 * PATIENCE, "it waited for nobody");
}

/// What `a` runs in the next version.
async fn next(
    all: &mut Replicas,
    which: usize,
    version: u64,
    edit: impl FnOnce(&mut securelink_relay_config::Snapshot),
) {
    let side = &mut all.a[which];
    side.snapshot.version = version - 1;
    side.adopt(edit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f79_replicas_that_declare_different_things_are_held_to_the_newest_and_each_to_its_own() {
    let mut all = Replicas::linked(2, 1).await;
    let addresses: Vec<_> = all.a.iter().map(|side| side.import_address("at-b")).collect();
    let (_, mut client, mut service) = served(addresses[0], &all.at_b).await;

    // The second one no longer wants the service: the first, which lags, may not reach it either.
    next(&mut all, 1, 11, |snapshot| snapshot.imports.clear()).await;
    assert!(read_to_end(&mut client).await.1.is_err() && read_to_end(&mut service).await.1.is_err());
    turned_away(addresses[0]).await;
    // A third comes and says what was said before: nothing is wider for that.
    let to_b = endpoint(all.b[0].listens_on());
    all.add_dialer(|snapshot| (snapshot.version, snapshot.peer.endpoints) = (10, vec![to_b])).await;
    all.until_met().await;
    turned_away(all.a[2].import_address("at-b")).await;

    // Wider by a higher sequence, for all of them.
    next(&mut all, 1, 12, |snapshot| snapshot.imports.push(import("at-b", 0))).await;
    all.b[0]
        .until("the newest word is heard", |report| {
            report.agreed.peer.as_ref().is_some_and(|peer| peer.sequence == 12)
                && report.exports.iter().all(|export| export.unusable.is_none())
        })
        .await;
    for side in &all.a {
        served(side.import_address("at-b"), &all.at_b).await;
    }

    // One that lags and is narrower is held to its own word, and narrows nobody else.
    next(&mut all, 0, 11, |snapshot| snapshot.state = securelink_relay_config::LinkState::Suspended).await;
    turned_away(addresses[0]).await;
    served(all.a[1].import_address("at-b"), &all.at_b).await;
}
