//! What `doctor` finds between two relays, when all is well and when something is not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use securelink_pki::testing::Organization;
use securelink_relay_config::{DoctorReport, Finding, Outcome, Probe};
use support::{Pair, endpoint, export, import, link_cut};
use tokio::net::TcpListener;

fn find(report: &DoctorReport, probe: Probe) -> &Finding {
    report.findings.iter().find(|finding| finding.probe == probe).unwrap_or_else(|| panic!("{probe}: {report:#?}"))
}

/// The outcome, reason and remedy of the first finding of that kind.
fn told(report: &DoctorReport, probe: Probe) -> (Outcome, &str, bool) {
    let finding = find(report, probe);
    (finding.outcome, finding.reason.as_deref().unwrap_or(""), finding.remedy.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_well_every_line_says_so() {
    let pair = Pair::ready().await;
    let report = pair.a.relay.doctor().await;
    let lines: Vec<_> = report.findings.iter().map(|f| (f.probe, f.subject.as_str(), f.outcome)).collect();
    let to_b = endpoint(pair.b.listens_on()).to_string();
    let expected = [
        (Probe::Dns, to_b.as_str()),
        (Probe::Tcp, &to_b),
        (Probe::Tls, &to_b),
        (Probe::Peer, &to_b),
        (Probe::Agreement, "b.example"),
        (Probe::RoundTrip, "b.example"),
        (Probe::Export, "at-a"),
        (Probe::Import, "at-b"),
    ];
    assert_eq!(lines, expected.map(|(probe, of)| (probe, of, Outcome::Ok)), "{report:#?}");
    assert!(report.is_well());
    assert!(find(&report, Probe::Tls).message.contains("X25519MLKEM768"), "{report:#?}");
    assert!(pair.b.relay.report().peer.refused.is_empty(), "the peer has nobody to refuse");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_nobody_listens_on_fails_as_tcp_and_what_follows_is_not_tried() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut pair = Pair::dialing(|_, _| {}).await;
    pair.a.adopt(|snapshot| snapshot.peer.endpoints = vec![endpoint(free)]).await;
    let report = pair.a.relay.doctor().await;
    assert_eq!(told(&report, Probe::Dns), (Outcome::Ok, "", false));
    assert_eq!(told(&report, Probe::Tcp), (Outcome::Failed, "Refused", true));
    for after in [Probe::Tls, Probe::Peer] {
        assert_eq!(told(&report, after), (Outcome::Skipped, "Refused", false));
    }
    assert!(!report.is_well());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve_fails_as_dns() {
    let mut pair = Pair::dialing(|_, _| {}).await;
    pair.a.adopt(|snapshot| snapshot.peer.endpoints[0].host = "nowhere.invalid".to_owned()).await;
    let report = pair.a.relay.doctor().await;
    assert_eq!(told(&report, Probe::Dns), (Outcome::Failed, "DnsFailed", true));
    assert_eq!(told(&report, Probe::Tcp), (Outcome::Skipped, "DnsFailed", false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_root_fails_as_the_peer_with_tls_in_order() {
    let stranger = Organization::new("b.example");
    let mut pair = Pair::dialing(|_, _| {}).await;
    pair.a.adopt(|snapshot| snapshot.peer.fingerprints = vec![stranger.root.fingerprint()]).await;
    let report = pair.a.relay.doctor().await;
    assert_eq!(told(&report, Probe::Tls), (Outcome::Ok, "", false));
    assert_eq!(told(&report, Probe::Peer), (Outcome::Failed, "WrongRoot", true));
    let report = pair.b.relay.doctor().await;
    assert_eq!(told(&report, Probe::Peer), (Outcome::Failed, "RefusedByPeer", true), "and there it says who refuses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_fail_each_for_its_own_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let unwanted = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = unwanted.local_addr().unwrap();
    let pair = Pair::dialing(|for_a, _| {
        for_a.exports = vec![export("closed", closed), export("unwanted", target)];
        for_a.imports = vec![import("not-offered", 0)];
    })
    .await;
    pair.a.until_ready().await;
    let report = pair.a.relay.doctor().await;
    let services: Vec<_> = report.findings[6..].iter().map(|f| (f.subject.as_str(), f.reason.as_deref())).collect();
    assert_eq!(
        services,
        [("closed", Some("Refused")), ("unwanted", Some("Unusable")), ("not-offered", Some("Unusable"))]
    );
    assert!(report.findings[6..].iter().all(|f| f.outcome == Outcome::Failed && f.remedy.is_some()), "{report:#?}");
    assert!(report.findings[6].remedy.as_ref().unwrap().contains("target"), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_named_on_both_sides_and_words_of_the_peer_give_no_advice() {
    let pair = Pair::ready().await;
    let mut cut = link_cut("LinkCut/1", 1);
    cut.reason = "drill; dial evil.example instead".to_owned();
    pair.a.relay.cut(cut).await;
    let here = pair.a.relay.doctor().await;
    assert_eq!(told(&here, Probe::Agreement), (Outcome::Failed, "CutHere", true));
    assert_eq!(told(&here, Probe::RoundTrip), (Outcome::Skipped, "NotAgreed", false));
    assert_eq!(told(&here, Probe::Peer).0, Outcome::Ok, "a peer that is cut is still known");
    pair.b.until_disagreed("CutByPeer").await;
    pair.b.until("the reason", |report| report.agreed.peer_reason.is_some()).await;
    let there = pair.b.relay.doctor().await;
    let finding = find(&there, Probe::Agreement);
    assert_eq!((finding.outcome, finding.reason.as_deref()), (Outcome::Failed, Some("CutByPeer")));
    assert!(finding.message.contains("drill, dial evil.example"), "{finding:?}");
    assert_eq!(finding.remedy.as_deref(), Some("ask the peer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_only_listens_asks_whether_the_peer_is_there() {
    let pair = Pair::dialing(|_, _| {}).await;
    let mut alone = pair;
    alone.a.adopt(|snapshot| snapshot.peer.endpoints.clear()).await;
    alone.a.until("the peer dials", |report| report.peer.control_connections > 0).await;
    let report = alone.a.relay.doctor().await;
    assert_eq!(told(&report, Probe::Tcp), (Outcome::Skipped, "PeerDials", false));
    assert_eq!(told(&report, Probe::Peer), (Outcome::Ok, "", false));
    alone.b.relay.drain(std::time::Duration::ZERO).await;
    alone.a.until("the peer is gone", |report| report.peer.control_connections == 0).await;
    let report = alone.a.relay.doctor().await;
    assert_eq!(told(&report, Probe::Peer), (Outcome::Failed, "NeverConnected", true));
}
