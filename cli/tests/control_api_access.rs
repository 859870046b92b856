//! The control port: who is let in.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod relay_support;

use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use relay_support::controller::{ControlCa, Controller, Identity, send};
use relay_support::pod::{Relay, pushed};
use relay_support::{Organization, PATIENCE, next};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn relay() -> (Relay, Organization) {
    let (own, peer) = (Organization::new("a.example"), Organization::new("b.example"));
    (Relay::new(own, &peer, |_| {}), peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_without_a_certificate_of_a_control_ca_is_let_in() {
    let (a, peer) = relay();
    let strangers = [
        ("nobody", Identity::nobody()),
        ("another CA's client", ControlCa::new().client()),
        ("the peer, with its leaf for this link", Identity::of_leaf(&peer.leaf(&a.own, 1))),
        ("the relay itself", Identity::of_leaf(&a.leaf)),
        ("a server's certificate of the control CA", a.ca.issue(ExtendedKeyUsagePurpose::ServerAuth)),
    ];
    for (who, identity) in strangers {
        assert!(Controller::new(a.pod.control, identity, &[&a.leaf]).is_kept_out().await, "{who}");
    }
    assert!(!a.controller().is_kept_out().await);
    // And a controller does not speak to a relay whose key it did not issue.
    let other = a.own.leaf(&peer, 0);
    assert!(Controller::new(a.pod.control, a.ca.client(), &[&other]).is_kept_out().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_is_replaced_over_two_and_the_old_ones_clients_have_to_go() {
    let (mut a, _) = relay();
    let (second, third) = (ControlCa::new(), ControlCa::new());
    let by = |ca: &ControlCa, a: &Relay| Controller::new(a.pod.control, ca.client(), &[&a.leaf]);
    assert!(by(&second, &a).is_kept_out().await);
    let both = vec![a.ca.pem.clone(), second.pem.clone()];
    a.push(|snapshot| snapshot.control_cas = both).await;
    for (ca, kept_out) in [(&a.ca, false), (&second, false), (&third, true)] {
        assert_eq!(by(ca, &a).is_kept_out().await, kept_out);
    }
    // A connection of the first CA's client, which stays open until its CA goes.
    let mut held = a.controller().connect().await.unwrap();
    send(&mut held, "GET", "/v1/status", "", "keep-alive").await.unwrap();
    let mut some = [0; 16];
    held.read_exact(&mut some).await.unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"));
    // And one on which it has begun to ask.
    let mut begun = a.controller().connect().await.unwrap();
    begun.write_all(b"GET /v1/status HTTP/1.1\r\nHost: relay\r\n").await.unwrap();
    let only = next(&a.snapshot, |snapshot| snapshot.control_cas = vec![second.pem.clone()]);
    by(&second, &a).done("PUT", "/v1/snapshot", &pushed(Some(&only), None)).await;
    // It may be closed already.
    let _ = begun.write_all(b"\r\n").await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, begun.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&answer));
    let mut rest = Vec::new();
    // It ends, with or without a goodbye, before the five minutes in which an idle one may ask again.
    let _ = timeout(PATIENCE, held.read_to_end(&mut rest)).await.expect("the connection ends");
    assert!(by(&a.ca, &a).is_kept_out().await);
    assert!(!by(&second, &a).is_kept_out().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_withdrawn_while_the_request_still_arrives_is_not_obeyed() {
    let (mut a, _) = relay();
    let second = ControlCa::new();
    let both = vec![a.ca.pem.clone(), second.pem.clone()];
    a.push(|snapshot| snapshot.control_cas = both).await;
    let cut = json!({"id": "LinkCut/1", "revision": 1, "scope": "link", "reason": "drill"});
    let body = json!({"link": a.snapshot.link, "cut": cut}).to_string();
    let mut begun = a.controller().connect().await.unwrap();
    let head = format!(
        "POST /v1/cut HTTP/1.1\r\nHost: relay\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    // Said once the relay waits for the body.
    let mut asked = [0; 25];
    timeout(PATIENCE, begun.read_exact(&mut asked)).await.expect("it asks for the body").unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"));
    let only = next(&a.snapshot, |snapshot| snapshot.control_cas = vec![second.pem.clone()]);
    let controller = Controller::new(a.pod.control, second.client(), &[&a.leaf]);
    controller.done("PUT", "/v1/snapshot", &pushed(Some(&only), None)).await;
    begun.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, begun.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(answer.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&answer));
    let status = controller.done("GET", "/v1/status", &()).await;
    assert!(status["cuts"].as_array().is_none_or(Vec::is_empty), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_control_ca_the_port_serves_nobody() {
    let (mut a, _) = relay();
    a.push(|snapshot| snapshot.control_cas.clear()).await;
    assert!(a.controller().is_kept_out().await);
    a.pod.until_shown("/readyz", 200).await;
    // The ConfigMap can still bring one back.
    let back = next(&a.snapshot, |snapshot| snapshot.control_cas = vec![a.ca.pem.clone()]);
    a.pod.mount(&back);
    let controller = a.controller();
    relay_support::until("the port again", async || (!controller.is_kept_out().await).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cannot_keep_a_controller_out() {
    let (a, _) = relay();
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(TcpStream::connect(a.pod.control).await.unwrap());
    }
    let controller = a.controller();
    // As long as one of them may hold its place.
    let answer = timeout(Duration::from_secs(5), controller.done("GET", "/v1/status", &())).await;
    assert_eq!(answer.expect("before the strangers' time is over")["ready"], true);
    // The oldest were dropped for it, long before the five seconds that each of them has.
    let mut first = strangers.remove(0);
    let ended = timeout(Duration::from_secs(2), first.read(&mut [0; 1])).await.expect("it ends for the others' sake");
    assert!(!matches!(ended, Ok(1..)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_have_places_and_one_more_is_refused() {
    let (a, _) = relay();
    let mut held = Vec::new();
    for _ in 0..32 {
        let mut stream = a.controller().connect().await.unwrap();
        send(&mut stream, "GET", "/v1/status", "", "keep-alive").await.unwrap();
        stream.read_exact(&mut [0; 16]).await.unwrap();
        held.push(stream);
    }
    assert!(a.controller().is_kept_out().await);
    held.clear();
    let controller = a.controller();
    relay_support::until("a place", async || (!controller.is_kept_out().await).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_another_link_is_refused() {
    let (a, _) = relay();
    let controller = a.controller();
    let other = json!({"namespace": "liaison", "name": "other"});
    let cut = json!({"id": "LinkCut/1", "revision": 1, "scope": "link", "reason": "drill"});
    for (path, body) in [
        ("/v1/cut", json!({"link": other, "cut": cut})),
        ("/v1/greet", json!({"link": other, "text": "x"})),
        ("/v1/doctor", json!({"link": other})),
    ] {
        assert_eq!(controller.refused("POST", path, &body).await, (404, "UnknownLink".to_owned()), "{path}");
    }
    assert!(a.status().await.report.cuts.is_empty());
}
