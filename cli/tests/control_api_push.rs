//! The control port: what a controller pushes, and what of it is taken.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod relay_support;

use relay_support::controller::Controller;
use relay_support::pod::{Relay, pushed};
use relay_support::{Organization, endpoint, next, serial, until};
use securelink_relay_config::control::MAX_PUSH_BYTES;
use serde_json::json;

const SNAPSHOT: &str = "/v1/snapshot";

fn relay() -> (Relay, Organization) {
    let (own, peer) = (Organization::new("a.example"), Organization::new("b.example"));
    (Relay::new(own, &peer, |_| {}), peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_version_is_never_replaced_by_an_older_file() {
    let (mut a, _) = relay();
    a.push(|snapshot| snapshot.max_staleness_seconds = 1800).await;
    let reply = a.push(|snapshot| snapshot.max_staleness_seconds = 900).await;
    assert_eq!((&reply["version"], &reply["hash"]), (&json!(3), &json!(a.snapshot.hash().to_string())));
    assert_eq!(reply["serial"], serial(&a.leaf));
    // The ConfigMap arrives late, and with it a leaf that shows when it was looked at.
    let newer = a.own.leaf(&Organization::new("b.example"), 0);
    let mut late = a.snapshot.clone();
    (late.version, late.max_staleness_seconds) = (2, 1800);
    a.pod.mount(&late);
    a.pod.mount_leaf(&newer);
    let controller = Controller::new(a.pod.control, a.ca.client(), &[&a.leaf, &newer]);
    let status = until("a look", async || {
        let status = controller.done("GET", "/v1/status", &()).await;
        (status["certificate"]["serial"] == serial(&newer)).then_some(status)
    })
    .await;
    assert_eq!(status["version"], 3);
    assert!(
        status.get("rejected").is_none() && status.get("faults").is_none(),
        "a file that lags is no fault: {status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f78_what_must_not_be_adopted_is_refused_by_name_and_the_last_good_one_stays() {
    let (mut a, _) = relay();
    a.push(|_| {}).await;
    let (good, controller) = (a.snapshot.clone(), a.controller());
    let changed = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(next(&good, |_| {})).unwrap();
        edit(&mut value);
        json!({"snapshot": value})
    };
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases = [
        // A leader that was paused wakes up.
        (changed(&|new| new["version"] = json!(1)), 409, "OlderSnapshot"),
        // Two controllers write one version.
        (
            changed(&|new| (new["version"], new["maxStalenessSeconds"]) = (json!(2), json!(5))),
            409,
            "ConflictingSnapshot",
        ),
        (changed(&|new| new["link"]["name"] = json!("other")), 409, "OtherLink"),
        (changed(&|new| new["requires"] = json!(["quorum"])), 422, "UnsupportedSnapshot"),
        (changed(&|new| new["format"] = json!(2)), 422, "UnsupportedSnapshot"),
        (changed(&|new| new["own"] = json!("not a domain")), 422, "MalformedSnapshot"),
        (changed(&|new| new["controlCas"] = json!(["not a certificate"])), 422, "MalformedSnapshot"),
        (changed(&|new| new["controlCas"] = json!([a.ca.pem, a.ca.pem, a.ca.pem])), 422, "MalformedSnapshot"),
        (changed(&|new| new["controlCas"] = json!([a.leaf.chain_pem()])), 422, "MalformedSnapshot"),
        (changed(&|new| new["listen"] = json!(taken)), 500, "BindFailed"),
        (json!({}), 400, "Malformed"),
        (json!({"snapshot": {"format": "x".repeat(MAX_PUSH_BYTES)}}), 413, "TooLarge"),
    ];
    for (body, status, reason) in cases {
        assert_eq!(controller.refused("PUT", SNAPSHOT, &body).await, (status, reason.to_owned()));
        let now = a.status().await;
        assert_eq!((now.report.version, now.report.hash), (2, good.hash()), "{reason}");
        assert!(now.ready);
    }
    assert_eq!(controller.refused("POST", SNAPSHOT, &json!({})).await, (404, "UnknownRequest".to_owned()));
    assert_eq!(a.status().await.report.rejected.unwrap().reason, "BindFailed");
    // The same again is no conflict, and the next good one clears what was refused.
    controller.done("PUT", SNAPSHOT, &pushed(Some(&good), None)).await;
    a.push(|_| {}).await;
    assert!(a.status().await.report.rejected.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_is_ordered_apart_and_a_bad_one_holds_up_no_snapshot() {
    let (mut a, peer) = relay();
    let (newer, older, elsewhere) = (a.own.leaf(&peer, 0), a.own.leaf(&peer, 9), a.own.leaf(&a.own, 0));
    let future = a.own.leaf(&peer, -2);
    let controller = Controller::new(a.pod.control, a.ca.client(), &[&a.leaf, &newer]);
    let mut mixed = pushed(None, Some(&newer));
    mixed.leaf.as_mut().unwrap().key = older.key().to_pem().to_string();
    for (push, reason) in [
        (pushed(None, Some(&older)), (409, "OlderLeaf")),
        (pushed(None, Some(&elsewhere)), (422, "UnusableLeaf")),
        (pushed(None, Some(&future)), (422, "UnusableLeaf")),
        (mixed, (422, "UnusableLeaf")),
    ] {
        let (status, word) = controller.refused("PUT", SNAPSHOT, &push).await;
        assert_eq!((status, word.as_str()), reason);
        assert_eq!(a.status().await.report.certificate.unwrap().serial, serial(&a.leaf));
    }
    // Both at once: each is judged by itself.
    a.snapshot = next(&a.snapshot, |_| {});
    let refused = controller.refused("PUT", SNAPSHOT, &pushed(Some(&a.snapshot), Some(&older))).await;
    assert_eq!((refused.1.as_str(), a.status().await.report.version), ("OlderLeaf", 2));
    let mut old = a.snapshot.clone();
    old.version = 1;
    let refused = controller.refused("PUT", SNAPSHOT, &pushed(Some(&old), Some(&newer))).await;
    assert_eq!(refused.1, "OlderSnapshot");
    let status = controller.done("GET", "/v1/status", &()).await;
    assert_eq!((&status["version"], &status["certificate"]["serial"]), (&json!(2), &json!(serial(&newer))));
    // From now on the port presents it.
    Controller::new(a.pod.control, a.ca.client(), &[&newer]).done("GET", "/v1/status", &()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_leaf_has_ended_is_still_asked_and_healed() {
    let (own, peer) = (Organization::new("a.example"), Organization::new("b.example"));
    let ended = own.leaf(&peer, 100);
    let b = Relay::new(peer, &own, |_| {});
    let at = endpoint(b.listens_on().await);
    let mut a = Relay::new(own, &b.own, |snapshot| snapshot.peer.endpoints.push(at));
    // Its Secret was not renewed for days, and it was started again.
    a.pod.kill();
    a.pod.mount_leaf(&ended);
    a.pod.start();
    let controller = Controller::new(a.pod.control, a.ca.client(), &[&ended]);
    let refused = until("the peer's refusal", async || {
        let status = controller.done("GET", "/v1/status", &()).await;
        status["peer"]["lastError"]["reason"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(refused, "RefusedByPeer");
    let healed = a.own.leaf(&b.own, 0);
    let reply = controller.done("PUT", SNAPSHOT, &pushed(None, Some(&healed))).await;
    assert_eq!(reply["serial"], serial(&healed));
    a.leaf = healed;
    a.until_ready().await;
    b.until_ready().await;
}
