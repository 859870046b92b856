//! Several relays of one link: why none answers (faults F28, F31), and what all their reports say together.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use proptest::sample::select;
use securelink_crds::conditions::Reason;
use securelink_plan::relays::{combine, hindrance};
use securelink_relay_config::{
    AgreedReport, DataClass, Digest, Disagreement, EntryReport, ErrorReport, LinkRef, LinkReport, Millis, PeerReport,
    ProbeReport, SideReport, Snapshot, StreamReport,
};
use support::cluster::read;
use support::{LINK, accept, file, link_ref, snapshot_of};

fn pod(status: &str) -> Pod {
    read(&format!("{{metadata: {{name: europol-relay-6f7d9c5b4-x2x2x}}, status: {status}}}"))
}

/// A pod on its node, whose container is as `container` says.
fn container(container: &str) -> Pod {
    pod(&format!(
        "{{phase: Running, conditions: [{{type: PodScheduled, status: 'True'}}], containerStatuses: [
            {{name: relay, image: 'ghcr.io/securelink/securelink:0.1.0', imageID: '', ready: false, restartCount: 7,
              {container}}}]}}"
    ))
}

fn said(deployment: Option<&Deployment>, pods: &[Pod]) -> (Reason, String) {
    let there: Vec<&Pod> = pods.iter().collect();
    let back: Vec<&Pod> = pods.iter().rev().collect();
    let found = hindrance(deployment, &there);
    assert_eq!(found, hindrance(deployment, &back));
    found.unwrap()
}

const UNSCHEDULABLE: &str = "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable,
    message: '0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available.'}]}";

fn failure(message: &str) -> Deployment {
    read(&format!(
        "{{status: {{conditions: [{{type: ReplicaFailure, status: 'True', reason: FailedCreate, message: '{message}'}}]}}}}"
    ))
}

#[test]
fn f31_a_container_that_does_not_come_up_is_named_by_its_cause_with_the_remedy() {
    let rows: [(&str, Reason, &[&str]); 13] = [
        (
            "state: {waiting: {reason: ErrImagePull, message: 'rpc error: code = NotFound desc = not found'}}",
            Reason::ImagePull,
            &[
                "image ghcr.io/securelink/securelink:0.1.0 cannot be pulled: rpc error: code = NotFound",
                "imagePullSecrets",
            ],
        ),
        (
            "state: {waiting: {reason: ImagePullBackOff, message: 'Back-off pulling image \"a\": ErrImagePull: rpc error: code = NotFound desc = not found'}}",
            Reason::ImagePull,
            &["0.1.0 cannot be pulled: rpc error: code = NotFound desc = not found;"],
        ),
        (
            "state: {waiting: {reason: ImagePullBackOff, message: Back-off pulling image}}",
            Reason::ImagePull,
            &["pulled;"],
        ),
        ("state: {waiting: {reason: InvalidImageName}}", Reason::ImagePull, &["pulled;"]),
        (
            "state: {waiting: {reason: CrashLoopBackOff, message: back-off 5m0s}}, lastState: {terminated: {exitCode: 3, reason: Error, message: no config}}",
            Reason::Crashing,
            &["exit code 3, saying: no config;", "kubectl logs --previous"],
        ),
        ("state: {terminated: {exitCode: 3, reason: Error}}", Reason::Crashing, &["exit code 3;"]),
        (
            "started: false, state: {running: {}}, lastState: {terminated: {exitCode: 3, reason: Error}}",
            Reason::Crashing,
            &["exit code 3;"],
        ),
        (
            "state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 137, reason: OOMKilled}}",
            Reason::Crashing,
            &["more memory than its limit; raise spec.relay.resources.limits.memory"],
        ),
        (
            "state: {waiting: {reason: CreateContainerConfigError, message: container has runAsNonRoot and image will run as root}}",
            Reason::Crashing,
            &["runAsNonRoot"],
        ),
        ("state: {waiting: {reason: ContainerCreating}}", Reason::Pending, &["is being started"]),
        ("started: false, state: {running: {}}", Reason::Pending, &["is being started"]),
        ("started: true, state: {running: {}}", Reason::Pending, &["does not answer the operator", "NetworkPolicy"]),
        (
            "started: true, state: {running: {}}, lastState: {terminated: {exitCode: 3}}",
            Reason::Pending,
            &["does not answer the operator"],
        ),
    ];
    for (state, reason, words) in rows {
        let (found, message) = said(None, &[container(state)]);
        assert_eq!(found, reason, "{state}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{state}: {message}");
        // A restart counts, a back-off waits, a pod has another name each time: none of it may write a status.
        assert!(!message.contains("5m0s") && !message.contains('7') && !message.contains("6f7d9c5b4"), "{message}");
    }
}

#[test]
fn f31_a_relay_that_no_node_takes_says_what_the_scheduler_says() {
    let (reason, message) = said(None, &[pod(UNSCHEDULABLE)]);
    assert_eq!(reason, Reason::Unschedulable);
    assert!(message.contains("3 Insufficient memory"), "{message}");
    assert!(message.contains("spec.relay"), "{message}");
}

#[test]
fn f28_a_quota_that_is_exhausted_is_told_from_other_refusals() {
    let name = "pods \"europol-relay-6f7d9c5b4-x2x2x\" is forbidden: ";
    for (message, reason) in [
        ("exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4", Reason::Quota),
        ("failed quota: small: must specify limits.cpu for: relay", Reason::Quota),
        ("violates PodSecurity \"restricted:latest\": host namespaces", Reason::Pending),
        ("maximum memory usage per Container is 64Mi, but limit is 256Mi", Reason::Pending),
    ] {
        let (found, told) = said(Some(&failure(&format!("{name}{message}"))), &[]);
        assert_eq!(found, reason, "{message}");
        assert!(told.contains(message) && !told.contains("6f7d9c5b4"), "{told}");
    }
}

#[test]
fn f31_the_gravest_of_several_is_said() {
    let pulled = container("state: {waiting: {reason: ErrImagePull}}");
    let silent = container("started: true, state: {running: {}}");
    let quota = failure("exceeded quota: small");
    let updating: Deployment =
        read("{metadata: {generation: 2}, status: {replicas: 2, updatedReplicas: 1, observedGeneration: 2}}");
    for (deployment, pods, reason) in [
        (Some(&quota), vec![silent.clone(), pod(UNSCHEDULABLE), pulled.clone()], Reason::ImagePull),
        (Some(&quota), vec![silent.clone(), pod(UNSCHEDULABLE)], Reason::Unschedulable),
        (Some(&quota), vec![silent.clone()], Reason::Quota),
        (Some(&updating), vec![silent.clone()], Reason::Updating),
        (None, vec![silent], Reason::Pending),
    ] {
        assert_eq!(said(deployment, &pods).0, reason);
    }
}

#[test]
fn what_ends_or_is_unknown_hinders_nothing() {
    let mut ending = container("state: {waiting: {reason: ErrImagePull}}");
    ending.metadata.deletion_timestamp = Some(read("2026-11-24T12:00:00Z"));
    let evicted = pod("{phase: Failed, reason: Evicted}");
    let quiet: Deployment =
        read("{metadata: {generation: 2}, status: {replicas: 2, updatedReplicas: 2, observedGeneration: 2}}");
    assert_eq!(hindrance(Some(&quiet), &[&ending, &evicted]), None);
    assert_eq!(hindrance(Some(&Deployment::default()), &[&Pod::default()]), None);
    assert_eq!(hindrance(None, &[]), None);
}

#[test]
fn f51_what_a_container_says_is_one_plain_line_of_bounded_length() {
    let long = "x".repeat(5_000);
    let state = format!("state: {{terminated: {{exitCode: 1, message: \"a\\n{}; rm -rf\\u202e {long}\"}}}}", "b");
    let (_, message) = said(None, &[container(&state)]);
    assert!(message.len() < 1_024 && !message.contains(['\n', '\u{202e}']), "{message}");
    assert_eq!(message.matches(';').count(), 1, "{message}");
}

fn error(reason: &str, at: u64) -> ErrorReport {
    ErrorReport { reason: reason.to_owned(), message: format!("{reason} it is"), at: Millis(at) }
}

fn entry(name: &str, unusable: Option<&str>) -> EntryReport {
    EntryReport {
        name: name.to_owned(),
        data_class: DataClass::Strategic,
        address: None,
        unusable: unusable.map(str::to_owned),
    }
}

fn report(version: u64) -> LinkReport {
    LinkReport {
        link: link_ref(),
        version,
        hash: Digest::of(&version.to_be_bytes()),
        formats: vec![1],
        listener: None,
        certificate: None,
        peer: PeerReport::default(),
        agreed: AgreedReport {
            disagreement: Some(Disagreement::AwaitingDeclaration),
            peer_reason: None,
            digest: None,
            recheck: None,
            own: SideReport { sequence: version, ..SideReport::default() },
            peer: None,
        },
        probe: ProbeReport::default(),
        exports: vec![entry("notices", None)],
        imports: vec![entry("siena", Some("no replica of the peer"))],
        streams: StreamReport { live: 1, limit: 10, opened: 5, bytes_sent: 100, bytes_received: 200 },
        cuts: vec!["LinkCut/1".to_owned()],
        rejected: None,
    }
}

fn connected(mut report: LinkReport, sequence: u64, replica: &str) -> LinkReport {
    report.peer.control_connections = 1;
    report.peer.replicas = vec![replica.to_owned()];
    report.peer.tls_group = Some("X25519MLKEM768".to_owned());
    report.peer.root = Some("sha256:new".to_owned());
    report.agreed.disagreement = None;
    report.agreed.peer = Some(SideReport { sequence, ..SideReport::default() });
    report.imports[0].unusable = None;
    report
}

static WANTED: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut snapshot = snapshot_of(&accept(&file(LINK)), None).unwrap();
    snapshot.version = 5;
    snapshot
});

#[test]
fn one_connected_relay_connects_the_link_and_what_all_carry_adds_up() {
    let mut alone = report(5);
    alone.peer.last_error = Some(error("DnsFailed", 9));
    alone.peer.refused = [("WrongRoot".to_owned(), 2), ("TimedOut".to_owned(), 1)].into();
    let mut there = connected(report(5), 70, "b");
    there.peer.refused = [("WrongRoot".to_owned(), 3)].into();
    there.cuts.push("LinkCut/2".to_owned());
    let whole = combine(&[alone.clone(), there.clone(), connected(report(5), 70, "a")], None).unwrap();
    assert_eq!(whole.peer.control_connections, 2);
    assert_eq!(whole.peer.replicas, ["a", "b"]);
    assert_eq!(whole.peer.tls_group.as_deref(), Some("X25519MLKEM768"));
    assert_eq!(whole.peer.last_error, None);
    assert_eq!(whole.peer.refused, [("TimedOut".to_owned(), 1), ("WrongRoot".to_owned(), 5)].into());
    assert_eq!((whole.streams.live, whole.streams.limit, whole.streams.bytes_received), (3, 30, 600));
    assert!(whole.agreed.disagreement.is_none() && whole.imports[0].unusable.is_none());
    assert_eq!(whole.cuts, ["LinkCut/1"]);

    assert_eq!(combine(std::slice::from_ref(&there), None).as_ref(), Some(&there));
    assert_eq!(combine(&[], None), None);
}

#[test]
fn an_entry_counts_where_the_newest_version_runs() {
    let mut old = connected(report(4), 70, "a");
    old.exports.push(entry("diffusions", None));
    let mut new = report(5);
    new.exports[0].unusable = Some("the target does not answer".to_owned());
    let whole = combine(&[old.clone(), new.clone()], None).unwrap();
    assert_eq!((whole.version, whole.hash), (5, new.hash));
    assert_eq!(whole.exports, new.exports);
    new.exports[0].unusable = None;
    let both = combine(&[report(5), new, old], None).unwrap();
    assert!(both.exports[0].unusable.is_none());
}

#[test]
fn the_word_on_the_agreement_is_the_newest_versions_and_of_those_the_peers_newest() {
    let mut stale = connected(report(5), 70, "a");
    stale.agreed.digest = Some(Digest::of(b"old"));
    let mut fresh = connected(report(5), 71, "b");
    fresh.agreed.disagreement = Some(Disagreement::CutByPeer);
    let older = connected(report(4), 99, "c");
    let whole = combine(&[stale, older, fresh.clone()], None).unwrap();
    assert_eq!(whole.agreed, fresh.agreed);
}

#[test]
fn the_round_trip_is_the_newest_success() {
    let probed = |at: Option<u64>, error: Option<&str>| {
        let mut report = report(5);
        report.probe.last_success = at.map(Millis);
        report.probe.error = error.map(str::to_owned);
        report
    };
    let best = probed(Some(9), None);
    let whole = combine(&[probed(Some(8), Some("b")), best.clone(), probed(None, Some("a"))], None).unwrap();
    assert_eq!(whole.probe, best.probe);
    let none = combine(&[probed(None, None), probed(None, Some("a"))], None).unwrap();
    assert_eq!(none.probe.last_success, None);
}

#[test]
fn relays_that_fail_each_in_their_own_way_take_no_turns_in_status() {
    let failing = |reason: &str, at: u64| {
        let mut report = report(5);
        report.peer.last_error = Some(error(reason, at));
        report
    };
    let first = combine(&[failing("DnsFailed", 1), failing("TimedOut", 2)], None).unwrap();
    let later = combine(&[failing("DnsFailed", 3), failing("TimedOut", 2)], None).unwrap();
    let said = |report: LinkReport| report.peer.last_error.unwrap().reason;
    assert_eq!(said(first), said(later));
}

#[test]
fn a_relay_that_runs_what_is_wanted_speaks_for_those_that_refused_it() {
    let refusing = |version: u64, reason: &str| {
        let mut report = report(version);
        report.rejected = Some(error(reason, 1));
        report
    };
    let rejected = |reports: &[LinkReport]| combine(reports, Some(&*WANTED)).unwrap().rejected.map(|it| it.reason);
    assert_eq!(rejected(&[report(5), refusing(4, "UnsupportedSnapshot")]), None);
    assert_eq!(rejected(&[refusing(5, "OlderSnapshot"), refusing(4, "UnsupportedSnapshot")]), None);
    let all = [report(4), refusing(4, "UnsupportedSnapshot")];
    assert_eq!(rejected(&all).as_deref(), Some("UnsupportedSnapshot"));
}

#[test]
fn a_report_on_another_link_is_left_out() {
    let mut other = report(9);
    other.link = LinkRef { namespace: "liaison".to_owned(), name: "other".to_owned() };
    assert_eq!(combine(&[other.clone(), report(5)], Some(&*WANTED)).unwrap().version, 5);
    assert_eq!(combine(&[other], Some(&*WANTED)), None);
}

fn any_report() -> impl Strategy<Value = LinkReport> {
    let word = || prop::option::of((select(vec!["DnsFailed", "TimedOut", "OlderSnapshot"]), 0..3_u64));
    let small = (0..3_u64, 0..3_u32, prop::option::of(0..3_u64), prop::option::of(0..3_u64));
    (small, word(), word(), any::<bool>(), any::<[bool; 2]>()).prop_map(
        |((version, connections, sequence, probe), failed, rejected, agreed, usable)| {
            let mut report = report(version);
            report.peer.control_connections = connections;
            report.peer.replicas = (0..connections).map(|n| format!("r{n}")).collect();
            report.peer.tls_group = sequence.map(|n| format!("group{n}"));
            report.peer.last_seen = probe.map(Millis);
            report.peer.last_error = failed.map(|(reason, at)| error(reason, at));
            report.peer.last_refused = rejected.map(|(reason, at)| error(reason, at));
            report.rejected = rejected.map(|(reason, at)| error(reason, at));
            report.agreed.peer = sequence.map(|sequence| SideReport { sequence, ..SideReport::default() });
            report.agreed.disagreement = (!agreed).then_some(Disagreement::Stale);
            report.probe.last_success = probe.map(Millis);
            report.probe.round_trip_micros = sequence;
            report.exports = vec![entry("notices", usable[0].then_some("closed")), entry("b", None)];
            report.imports = if usable[1] { Vec::new() } else { vec![entry("siena", Some("no"))] };
            report
        },
    )
}

proptest! {
    #[test]
    fn reports_say_the_same_in_whatever_order_they_come(
        (reports, shuffled) in prop::collection::vec(any_report(), 1..5)
            .prop_flat_map(|reports| (Just(reports.clone()), Just(reports).prop_shuffle())),
    ) {
        for snapshot in [None, Some(&*WANTED)] {
            let whole = combine(&reports, snapshot).unwrap();
            prop_assert_eq!(&combine(&shuffled, snapshot).unwrap(), &whole);
            let connected = reports.iter().any(|report| report.peer.control_connections > 0);
            prop_assert_eq!(whole.peer.control_connections > 0, connected);
            prop_assert_eq!(Some(whole.version), reports.iter().map(|report| report.version).max());
            prop_assert_eq!(whole.probe.last_success, reports.iter().filter_map(|report| report.probe.last_success).max());
            prop_assert_eq!(whole.streams.opened, 5 * u64::try_from(reports.len()).unwrap());
        }
    }
}
