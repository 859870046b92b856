//! A relay process from outside: health, metrics, the end, and what it says of keys.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod relay_support;

use std::fs;

use relay_support::pod::{pair, pushed};
use relay_support::{exchange, until};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ready_while_it_can_carry_a_stream_and_the_metrics_port_only_shows() {
    let (mut a, b) = pair().await;
    assert_eq!(b.pod.shown("/readyz").await, (200, "ready\n".to_owned()));
    let (status, metrics) = b.pod.shown("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("securelink_snapshot_version{namespace=\"liaison\",link=\"partner\"} 1"), "{metrics}");
    assert_eq!(b.pod.shown("/status").await.0, 404, "others than this machine's users are in reach of it");
    assert_eq!(b.pod.shown("/v1/status").await.0, 404);
    // An import without the peer carries nothing; an export can still be dialed by it.
    a.pod.kill();
    let why = b.pod.until_shown("/readyz", 503).await;
    assert!(why.contains("no live connection"), "{why}");
    assert_eq!(b.pod.shown("/livez").await.0, 200);
    a.pod.start();
    assert_eq!(a.pod.until_shown("/readyz", 200).await, "ready\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_a_live_stream_finish_and_is_answered_meanwhile() {
    let (mut a, b) = pair().await;
    let mut stream = TcpStream::connect(b.import_address().await).await.unwrap();
    exchange(&mut stream, "before").await.unwrap();
    a.pod.signal("TERM");
    let why = a.pod.until_shown("/readyz", 503).await;
    assert!(why.contains("draining"), "{why}");
    exchange(&mut stream, "while it drains").await.unwrap();
    assert_eq!(a.status().await.report.streams.live, 1, "it is still answered, and can be told to cut");
    drop(stream);
    let ended = tokio::task::spawn_blocking(move || a.pod.ended()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_in_a_log_or_in_scratch() {
    let (mut a, b) = pair().await;
    let (newer, bad) = (a.own.leaf(&b.own, 0), b.own.leaf(&a.own, 0));
    let controller = a.controller();
    controller.refused("PUT", "/v1/snapshot", &pushed(None, Some(&bad))).await;
    let mut broken = serde_json::to_value(pushed(None, Some(&newer))).unwrap();
    broken["leaf"]["chain"] = 7.into();
    controller.refused("PUT", "/v1/snapshot", &broken).await;
    controller.done("PUT", "/v1/snapshot", &pushed(None, Some(&newer))).await;
    a.pod.signal("TERM");
    assert_eq!(a.pod.ended().code(), Some(0));
    let mut texts = vec![
        until("the last line", async || {
            let log = a.pod.log.lock().unwrap().clone();
            log.contains("draining").then_some(log)
        })
        .await,
    ];
    for file in fs::read_dir(a.pod.scratch()).unwrap() {
        texts.push(fs::read_to_string(file.unwrap().path()).unwrap());
    }
    assert!(texts.len() > 1 && texts[0].contains("another leaf is in use"), "{texts:?}");
    for leaf in [&a.leaf, &newer, &bad] {
        let pem = leaf.key().to_pem();
        let secret = pem.lines().nth(1).unwrap();
        assert!(texts.iter().all(|text| !text.contains(secret) && !text.contains("PRIVATE")));
    }
}
