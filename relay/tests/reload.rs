//! Changes of configuration, certificate and trust under load: what stays loses nothing, what goes goes at once, what is
//! bad changes nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use prometheus_client::registry::Registry;
use securelink_pki::testing::Organization;
use securelink_relay::{AdoptError, Credentials};
use support::{Pair, Side, credentials, endpoint, export, import, open, read_to_end};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn works(client: &mut TcpStream, service: &mut TcpStream) {
    client.write_all(b"ping").await.expect("the stream lives");
    let mut bytes = [0; 4];
    service.read_exact(&mut bytes).await.expect("the stream lives");
    service.write_all(b"pong").await.expect("the stream lives");
    client.read_exact(&mut bytes).await.expect("the stream lives");
    assert_eq!(&bytes, b"pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_and_twenty_new_leaves_under_load_lose_no_byte() {
    const BLOCK: usize = 256 * 1024;
    let mut pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sending = tokio::spawn(async move {
        let (mut sent, mut hash) = (0_usize, aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256));
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let block: Vec<u8> = (sent..sent + BLOCK).map(|at| at.to_le_bytes()[0]).collect();
            client.write_all(&block).await.expect("the stream lives");
            hash.update(&block);
            sent += BLOCK;
        }
        client.shutdown().await.unwrap();
        assert!(read_to_end(&mut client).await.1.is_ok());
        (sent, hash.finish())
    });
    let receiving = tokio::spawn(async move {
        let (bytes, end) = read_to_end(&mut service).await;
        end.expect("a clean end");
        service.shutdown().await.unwrap();
        (bytes.len(), aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes))
    });
    for round in 0..50_u16 {
        let target = pair.at_a.local_addr().unwrap();
        let edit = move |snapshot: &mut securelink_relay_config::Snapshot| {
            snapshot.exports.truncate(1);
            snapshot.imports.truncate(1);
            snapshot.exports.push(export(&format!("extra-{round}"), target));
            snapshot.imports.push(import(&format!("extra-{round}"), round + 1));
        };
        pair.a.adopt(edit).await;
        pair.b.adopt(edit).await;
        if round % 5 == 0 {
            let fresh = |own: &securelink_pki::testing::Organization, peer: &securelink_pki::testing::Organization| {
                credentials(own.leaf_to(&peer.domain), &own.transitions)
            };
            pair.a.relay.install(fresh(&pair.org_a, &pair.org_b)).unwrap();
            pair.b.relay.install(fresh(&pair.org_b, &pair.org_a)).unwrap();
        }
        // Another stream is opened and closed in each round: none may fail.
        let (mut other, mut other_service) = pair.stream_to_a().await;
        works(&mut other, &mut other_service).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (sent, sent_hash) = sending.await.unwrap();
    let (received, received_hash) = receiving.await.unwrap();
    assert_eq!(sent, received);
    assert_eq!(sent_hash.as_ref(), received_hash.as_ref());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_adopted_changes_nothing_and_says_why() {
    let pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let running = pair.a.relay.snapshot();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let next = || {
        let mut snapshot = (*running).clone();
        snapshot.version += 1;
        snapshot
    };
    let mut older = next();
    older.version = 0;
    let mut conflict = next();
    conflict.version = running.version;
    conflict.max_staleness_seconds += 1;
    let mut other = next();
    other.link.name = "other".to_owned();
    let mut blocked = next();
    blocked.imports.push(import("blocked", 7));
    blocked.imports.last_mut().unwrap().listen = taken.local_addr().unwrap();
    for (bad, reason) in
        [(older, "OlderSnapshot"), (conflict, "ConflictingSnapshot"), (other, "OtherLink"), (blocked, "BindFailed")]
    {
        assert!(pair.a.relay.adopt(bad).await.is_err(), "{reason}");
        let report = pair.a.relay.report();
        assert_eq!(report.rejected.expect("the report says so").reason, reason);
        assert_eq!(report.version, running.version);
        works(&mut client, &mut service).await;
    }
    let same = pair.a.relay.adopt((*running).clone()).await;
    assert!(!matches!(same, Err(AdoptError::Conflict { .. })), "the same snapshot again is no conflict");
    pair.a.relay.adopt(next()).await.unwrap();
    assert!(pair.a.relay.report().rejected.is_none(), "a good snapshot clears it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_removes_or_retargets_ends_and_the_rest_goes_on() {
    let mut pair = Pair::ready().await;
    let (mut removed, mut removed_service) = pair.stream_to_a().await;
    let (mut kept, mut kept_service) = pair.stream_to_b().await;
    pair.a.adopt(|snapshot| snapshot.exports.clear()).await;
    assert!(read_to_end(&mut removed).await.1.is_err());
    assert!(read_to_end(&mut removed_service).await.1.is_err());
    works(&mut kept, &mut kept_service).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = elsewhere.local_addr().unwrap();
    pair.b.adopt(|snapshot| snapshot.exports[0].target = endpoint(target)).await;
    assert!(read_to_end(&mut kept).await.1.is_err(), "another target is another service");
    assert!(read_to_end(&mut kept_service).await.1.is_err());
    let (mut anew, mut anew_service) = open(pair.a.import_address("at-b"), &elsewhere).await;
    works(&mut anew, &mut anew_service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_is_withdrawn_ends_the_peers_streams_and_coming_back_heals() {
    let mut pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let pin = pair.org_b.root.fingerprint();
    let stranger = securelink_pki::testing::Organization::new("c.example").root.fingerprint();
    pair.a.adopt(|snapshot| snapshot.peer.fingerprints = vec![stranger]).await;
    assert!(read_to_end(&mut client).await.1.is_err());
    assert!(read_to_end(&mut service).await.1.is_err());
    pair.a.until_refused("WrongRoot").await;
    pair.a.adopt(|snapshot| snapshot.peer.fingerprints = vec![stranger, pin]).await;
    pair.a.until_ready().await;
    pair.b.until_ready().await;
    pair.stream_to_b().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_root_behind_an_old_pin_is_followed_without_losing_a_stream() {
    let mut pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let old = pair.org_b.root.fingerprint();
    pair.org_b.rotate_root();
    let ours: Credentials = credentials(pair.org_b.leaf_to(&pair.org_a.domain), &pair.org_b.transitions);
    pair.b.relay.install(ours).unwrap();
    let new = pair.org_b.root.fingerprint().to_string();
    let report = pair.a.until("the new root is seen", |report| report.peer.root.as_deref() == Some(&new)).await;
    assert_eq!(report.peer.pin_used, Some(old.to_string()), "the pin is outdated and still works");
    pair.b.until("the peer's pin is known", |report| report.peer.pinned_us_by == Some(old.to_string())).await;
    works(&mut client, &mut service).await;
    let (mut next, mut next_service) = pair.stream_to_b().await;
    works(&mut next, &mut next_service).await;
}

/// A leaf that nobody renews ends the streams it admitted five minutes later; one that is renewed does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f86_a_stream_outlives_its_peers_leaf_only_if_the_peer_has_a_new_one() {
    const LIFETIME_MS: i64 = 72 * 3_600_000;
    const MINUTE_MS: i64 = 60_000;
    for renewed in [true, false] {
        let pair = Pair::ready().await;
        let (mut client, mut service) = pair.stream_to_b().await;
        for side in [&pair.a, &pair.b] {
            side.clock.step(LIFETIME_MS - MINUTE_MS);
        }
        let renew = |own: &Organization, peer: &Organization, side: &support::Side| {
            let identity = securelink_id::SpiffeId::link(own.domain.clone(), peer.domain.clone());
            let leaf = own.intermediate.issue_leaf(&identity, &[], side.clock.now()).unwrap();
            side.relay.install(credentials(leaf, &own.transitions)).unwrap();
        };
        renew(&pair.org_a, &pair.org_b, &pair.a);
        if renewed {
            renew(&pair.org_b, &pair.org_a, &pair.b);
        }
        let ends = |report: &securelink_relay_config::LinkReport| report.peer.certificate_not_after.unwrap().0;
        let fresh = pair.a.clock.millis().0 + u64::try_from(LIFETIME_MS / 2).unwrap();
        let is_fresh =
            |report: &securelink_relay_config::LinkReport| report.peer.control_connections > 0 && ends(report) > fresh;
        pair.b.until("the first renewal is seen", is_fresh).await;
        if renewed {
            pair.a.until("the second renewal is seen", is_fresh).await;
        }
        for side in [&pair.a, &pair.b] {
            side.clock.step(5 * MINUTE_MS);
        }
        works(&mut client, &mut service).await;
        for side in [&pair.a, &pair.b] {
            side.clock.step(2 * MINUTE_MS);
        }
        if renewed {
            pair.a.until("the clock was looked at", |report| report.streams.live > 0).await;
            works(&mut client, &mut service).await;
        } else {
            assert!(read_to_end(&mut client).await.1.is_err());
            assert!(read_to_end(&mut service).await.1.is_err());
        }
    }
}

/// How many connections a relay has dialed to open streams on.
fn resting(registry: &Registry) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| {
        line.starts_with("securelink_connections{") && line.contains("\"forward\"") && line.contains("\"dialer\"")
    });
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
}

/// Sixty seconds are promised, and it is done at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_at_rest_are_made_anew_for_another_leaf_and_other_pins() {
    const STREAMS: usize = 6;
    let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut for_a, mut for_b) = (support::snapshot(&org_a, &org_b), support::snapshot(&org_b, &org_a));
    for_b.exports.push(export("at-b", service.local_addr().unwrap()));
    for_a.imports.push(import("at-b", 0));
    let b = Side::start(&org_b, &org_a.domain, for_b).await;
    for_a.peer.endpoints = vec![endpoint(b.listens_on())];
    let mut registry = Registry::default();
    let mut a = Side::start_counted(&org_a, &org_b.domain, for_a, &mut registry).await;
    a.until_ready().await;
    for pins in [false, true] {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(open(a.import_address("at-b"), &service).await);
        }
        for (mut client, mut service) in streams {
            client.shutdown().await.unwrap();
            service.shutdown().await.unwrap();
            assert!(read_to_end(&mut client).await.1.is_ok());
        }
        a.until("they rest", |report| report.streams.live == 0).await;
        assert!(resting(&registry) >= STREAMS as u64);
        if pins {
            let another = Organization::new("b.example").root.fingerprint();
            a.adopt(|snapshot| snapshot.peer.fingerprints.push(another)).await;
        } else {
            a.relay.install(credentials(org_a.leaf_to(&org_b.domain), &org_a.transitions)).unwrap();
        }
        // One is made for the probe.
        a.until("none of them is left", |_| resting(&registry) <= 1).await;
        a.until_met(1).await;
    }
}
