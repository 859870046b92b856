//! Two runtimes in one process, linked over loopback: real files, real keys, real sockets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod runtime_support;

use std::fs;
use std::time::Duration;

use jiff::SignedDuration;
use runtime_support::{PATIENCE, Pair, Side, ended, exchange, link};
use securelink::runtime::LinkStatus;
use securelink_crds::conditions::ConditionType;
use securelink_relay_config::{DataClass, Millis, Snapshot};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runtimes_link_up_by_their_files_and_carry_bytes() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "over the line").await;
    let reply = pair.b.runtime().greet(&link(), "Best wishes").await.unwrap();
    assert_eq!(reply.peer, "a.example");
    assert_eq!(pair.a.status().status.fingerprint, Some(pair.a.fingerprint()));
    assert_eq!(pair.b.status().trust_domain.as_deref(), Some("b.example"));
}

type Edit = fn(&str) -> String;

/// Edits of `b`'s files that are wrong, and a word of what a person is told.
const BAD_EDITS: [(&str, Edit, &str); 12] = [
    ("a tab instead of spaces", |yaml| yaml.replace("  peer:", "\tpeer:"), "YAML"),
    ("an unclosed bracket", |yaml| yaml.replace("{name: default}", "{name: default"), "YAML"),
    ("an empty file", |_| String::from("kind: SecureLink\n"), "apiVersion"),
    ("not an object", |_| String::from("- one\n- two\n"), "not an object"),
    ("an unknown field", |yaml| yaml.replace("  state:", "  sate:"), "sate"),
    ("a list for a word", |yaml| yaml.replace("state: Active", "state: [Active]"), "state"),
    ("a word that is not one", |yaml| yaml.replace("state: Active", "state: Actve"), "Actve"),
    ("a port too high", |yaml| yaml.replace("port: ", "port: 9"), "port"),
    ("a pin that is none", |yaml| yaml.replace("sha256:", "sha256:zz"), "fingerprint"),
    ("another partner", |yaml| yaml.replace("a.example", "c.example"), "cannot be changed"),
    ("another identity", |yaml| yaml.replace("{name: default}", "{name: other}"), "cannot be changed"),
    ("the same link twice", |yaml| format!("{yaml}---\n{yaml}"), "twice"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_edit_is_reported_and_a_running_link_stays_up() {
    let pair = Pair::new().await;
    let good = pair.b.read("link.yaml");
    let mut stream = pair.connect().await;
    for (what, edit, word) in BAD_EDITS {
        let bad = edit(&good);
        assert_ne!(bad, good, "{what}: not an edit");
        pair.b.write("link.yaml", &bad);
        let report = pair.b.runtime().reload().await;
        let said: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|text| text.contains(word) && text.contains("link.yaml")), "{what}: {said:?}");
        assert_eq!(report.changed, vec![], "{what}");
        exchange(&mut stream, what).await;
        exchange(&mut pair.connect().await, what).await;
        assert!(pair.b.status().report.is_some(), "{what}: the relay runs");
    }
    pair.b.write("link.yaml", &good);
    assert_eq!(pair.b.runtime().reload().await.problems, vec![]);
    assert_eq!(pair.b.reason(ConditionType::Accepted), "Accepted");
    exchange(&mut stream, "mended").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_document_deletes_nothing_also_over_a_restart() {
    let mut pair = Pair::new().await;
    let mut stream = pair.connect().await;
    pair.b.remove("link.yaml");
    pair.b.write("other.yaml", "}{");
    let report = pair.b.runtime().reload().await;
    assert!(!report.problems.is_empty());
    exchange(&mut stream, "still there").await;
    pair.b.stop().await;
    pair.b.start().await;
    pair.until_ready_data().await;
    assert_eq!(pair.b.reason(ConditionType::Accepted), "Invalid");
    // Once everything can be read, what is not there is gone.
    pair.b.remove("other.yaml");
    assert_eq!(pair.b.runtime().reload().await.changed, vec![link()]);
    assert!(pair.b.runtime().status().is_empty());
    TcpStream::connect(pair.import).await.expect_err("nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_link_carries_nothing_any_more() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    pair.b.remove("link.yaml");
    pair.b.runtime().reload().await;
    ended(stream).await;
    TcpStream::connect(pair.import).await.expect_err("nobody listens any more");
    // Nor does it come back when something cannot be read: it was gone before.
    pair.b.write("other.yaml", "}{");
    pair.b.runtime().reload().await;
    assert!(pair.b.runtime().status().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowing_inside_an_invalid_edit_takes_effect() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let good = pair.a.read("link.yaml");
    pair.a.write("link.yaml", &good.replace("state: Active", "state: Suspended").replace("8760h", "an hour"));
    let report = pair.a.runtime().reload().await;
    assert!(report.problems.iter().any(|problem| problem.field == "spec.maxStaleness"), "{report:?}");
    ended(stream).await;
    assert_eq!(pair.a.reason(ConditionType::Accepted), "Invalid");
    assert_eq!(pair.a.reason(ConditionType::Agreed), "SuspendedHere");
    pair.b.until_reason(ConditionType::Agreed, "SuspendedByPeer").await;
    // A valid edit widens again.
    pair.a.write("link.yaml", &good);
    pair.a.runtime().reload().await;
    pair.until_ready().await;
    exchange(&mut pair.connect().await, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_export_beside_a_mistake_cuts_its_streams() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let good = pair.a.read("link.yaml");
    let at = good.find("  exports:").unwrap();
    pair.a.write("link.yaml", &format!("{}  exports: []\n", good[..at].replace("8760h", "an hour")));
    pair.a.runtime().reload().await;
    ended(stream).await;
}

const CUT: &str = "apiVersion: securelink.dev/v1alpha1\nkind: LinkCut\nmetadata: {name: brake}\nspec:\n  linkRef: {name: link}\n  reason: incident 114\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linkcut_in_the_folder_cuts_and_its_removal_resumes() {
    let mut pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    pair.a.write("cut.yaml", CUT);
    pair.a.runtime().reload().await;
    ended(stream).await;
    assert_eq!(pair.a.reason(ConditionType::Accepted), "Accepted", "a cut leaves the spec alone");
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    pair.b.until_reason(ConditionType::Agreed, "CutByPeer").await;
    // Neither a command, nor a broken document, nor both with a restart, takes it back.
    let done = pair.a.runtime().resume(&link()).await.unwrap();
    assert_eq!((done.released.len(), done.still_cut_by), (0, vec!["brake".to_owned()]));
    pair.a.write("cut.yaml", "}{");
    pair.a.runtime().reload().await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    pair.a.stop().await;
    pair.a.start().await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    pair.a.remove("cut.yaml");
    pair.a.runtime().reload().await;
    pair.rejoin().await;
    exchange(&mut pair.connect().await, "after").await;
    // And the same brake works again.
    let mut stream = pair.connect().await;
    exchange(&mut stream, "again").await;
    pair.a.write("cut.yaml", CUT);
    pair.a.runtime().reload().await;
    ended(stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linkcut_with_a_mistake_in_it_cuts_all_the_same() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    pair.a.write("cut.yaml", &CUT.replace("  reason:", "  reasn:"));
    let report = pair.a.runtime().reload().await;
    assert!(report.problems.iter().any(|problem| problem.to_string().contains("reasn")), "{report:?}");
    ended(stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_by_command_survives_a_restart_and_ends_with_resume() {
    let mut pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let done = pair.a.runtime().cut(&link(), "incident 114").await.unwrap();
    assert_eq!((done.ended, done.fresh), (1, true));
    assert!(done.took < Duration::from_secs(1), "promise P4: {:?}", done.took);
    ended(stream).await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    pair.a.stop().await;
    pair.a.start().await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
    let done = pair.a.runtime().resume(&link()).await.unwrap();
    assert_eq!((done.released.len(), done.still_cut_by.len()), (1, 0));
    pair.rejoin().await;
    exchange(&mut pair.connect().await, "after").await;
    // A second cut is a new order.
    assert!(pair.a.runtime().cut(&link(), "incident 115").await.unwrap().fresh);
    let done = pair.a.runtime().resume(&link()).await.unwrap();
    assert_eq!(done.released.len(), 1);
    pair.until_ready_data().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brake_works_whatever_is_wrong_with_the_state_folder() {
    let pair = Pair::new().await;
    let mut first = pair.connect().await;
    exchange(&mut first, "before").await;
    let folder = pair.a.state().join("links/default/link");
    fs::write(folder.join("accepted.json"), "}{").unwrap();
    pair.a.write("cut.yaml", CUT);
    let report = pair.a.runtime().reload().await;
    assert!(report.refused.iter().any(|problem| problem.message.contains("accepted.json")), "{report:?}");
    ended(first).await;
    assert_eq!(pair.a.reason(ConditionType::Agreed), "CutHere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_cannot_be_written_down_cuts_and_says_so() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    // A file where the folder should be: no order can be written.
    fs::write(pair.a.state().join("links/default/link/cuts"), "").unwrap();
    let error = pair.a.runtime().cut(&link(), "incident").await.unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
    ended(stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_link_writes_nothing() {
    let pair = Pair::new().await;
    let written = |side: &Side| {
        let mut files = Vec::new();
        let mut folders = vec![side.state()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::metadata(&path).unwrap();
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                files.push((path, metadata.modified().unwrap()));
            }
        }
        files.sort();
        files
    };
    let before = (written(&pair.a), written(&pair.b));
    for side in [&pair.a, &pair.b] {
        assert_eq!(
            side.runtime().reload().await,
            securelink::runtime::ReloadReport { notes: side.runtime().reload().await.notes, ..Default::default() }
        );
    }
    assert_eq!((written(&pair.a), written(&pair.b)), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reads_the_files_again() {
    // The link's file is elsewhere, reached by a symbolic link: the system tells nothing of changes there.
    let elsewhere = tempfile::tempdir().unwrap();
    let pair = Pair::watched().await;
    let (file, target) = (pair.a.files().join("link.yaml"), elsewhere.path().join("link.yaml"));
    let good = pair.a.read("link.yaml");
    fs::write(&target, &good).unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    pair.a.runtime().reload().await;
    fs::write(&target, good.replace("state: Active", "state: Suspended")).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    pair.a.until_reason(ConditionType::Agreed, "SuspendedHere").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_said_and_the_link_starts_once_it_is_free() {
    let mut pair = Pair::new().await;
    pair.b.stop().await;
    let squatter = tokio::net::TcpListener::bind(pair.import).await.unwrap();
    pair.b.start().await;
    let status = pair.b.status();
    assert!(status.report.is_none());
    let port = pair.import.port().to_string();
    assert!(status.problems.iter().any(|problem| problem.contains(&port)), "{:?}", status.problems);
    drop(squatter);
    pair.b.runtime().reload().await;
    pair.until_ready().await;
    exchange(&mut pair.connect().await, "free again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_others_may_read_is_not_used_but_what_runs_goes_on_and_can_be_narrowed() {
    use std::os::unix::fs::PermissionsExt as _;
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    let key = pair.a.state().join("links/default/link/leaf.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    pair.a.runtime().reload().await;
    assert_eq!(pair.a.reason(ConditionType::CertificateReady), "IssuerFailed");
    exchange(&mut stream, "still there").await;
    pair.a.write("link.yaml", &pair.a.read("link.yaml").replace("state: Active", "state: Suspended"));
    pair.a.runtime().reload().await;
    ended(stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_installs_a_new_leaf_and_drops_no_stream() {
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let serial = |status: securelink::runtime::LinkStatus| status.status.certificate.unwrap().serial;
    let before = (serial(pair.a.status()), serial(pair.b.status()));
    // Past the renewal of both leaves; the 72 h of the old ones are not over.
    for side in [&pair.a, &pair.b] {
        side.clock.step(SignedDuration::from_hours(25));
    }
    for side in [&pair.a, &pair.b] {
        let report = side.runtime().reload().await;
        assert_eq!((report.problems, report.refused), (vec![], vec![]));
    }
    assert_ne!(serial(pair.a.status()), before.0);
    assert_ne!(serial(pair.b.status()), before.1);
    let shown = pair.a.status().report.unwrap().certificate.unwrap().serial;
    assert_eq!(shown, serial(pair.a.status()), "the relay presents it");
    exchange(&mut stream, "after").await;
    pair.until_ready_data().await;
    // Months of renewals, the intermediate's among them, one day at a time.
    let intermediate =
        || fs::read_to_string(pair.a.state().join("identities/default/default/intermediate.pem")).unwrap();
    let first = intermediate();
    for _ in 0..31 {
        for side in [&pair.a, &pair.b] {
            side.clock.step(SignedDuration::from_hours(24));
            assert_eq!(side.runtime().reload().await.refused, vec![]);
        }
        // A stream outlives the leaf it began under while the peer shows a current one.
        for (side, peer) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            let end = Millis::from(peer.status().status.certificate.unwrap().not_after.0);
            let shown = |status: &LinkStatus| status.report.as_ref()?.peer.certificate_not_after;
            side.until("the new leaf", |status| shown(status) == Some(end)).await;
        }
    }
    assert_ne!(intermediate(), first);
    exchange(&mut stream, "a month later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_root_key_nothing_is_minted_and_the_link_keeps_running() {
    let mut pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "before").await;
    let identity = pair.a.state().join("identities/default/default");
    let kept = fs::read(identity.join("root.key")).unwrap();
    let fingerprint = pair.a.fingerprint();
    fs::remove_file(identity.join("root.key")).unwrap();
    let report = pair.a.runtime().reload().await;
    let said = report.refused.iter().find(|problem| problem.about.contains("LinkIdentity")).expect("it is said");
    assert!(said.message.contains("restore") && said.message.contains(&fingerprint), "{said:?}");
    assert_eq!(pair.a.reason(ConditionType::Stalled), "RootMissing");
    exchange(&mut stream, "still there").await;
    exchange(&mut pair.connect().await, "and new ones").await;
    // Also after a restart: the intermediate and the leaf are still good.
    pair.a.stop().await;
    pair.a.start().await;
    assert!(!identity.join("root.key").exists(), "nothing was minted");
    assert_eq!(pair.a.fingerprint(), fingerprint);
    pair.rejoin_data().await;
    exchange(&mut pair.connect().await, "after a restart").await;
    put_back(&identity.join("root.key"), &kept);
    assert_eq!(pair.a.runtime().reload().await.refused, vec![]);
    assert_eq!(pair.a.reason(ConditionType::Stalled), "");
}

/// Puts a key back as a careful person would.
fn put_back(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_noticed() {
    let pair = Pair::watched().await;
    let good = pair.a.read("link.yaml");
    pair.a.write("link.yaml", &good.replace("state: Active", "state: Suspended"));
    pair.a.until_reason(ConditionType::Agreed, "SuspendedHere").await;
    // As an editor does: a new file, renamed over the old one.
    pair.a.write(".link.yaml.swp", &good);
    fs::rename(pair.a.files().join(".link.yaml.swp"), pair.a.files().join("link.yaml")).unwrap();
    pair.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_rail_that_cannot_be_read_lets_nothing_through() {
    let mut pair = Pair::new().await;
    let policy = "apiVersion: securelink.dev/v1alpha1\nkind: LinkPolicy\nmetadata: {name: rail}\nspec:\n  namespaceSelector: {}\n  maxDataClass: strategic\n  allowHostTargets: true\n";
    pair.a.write("policy.yaml", policy);
    assert_eq!(pair.a.runtime().reload().await.refused, vec![]);
    let good = pair.a.read("link.yaml");
    let wider = good.replace("dataClass: strategic", "dataClass: operational");
    let exported = |pair: &Pair| {
        let path = pair.a.state().join("links/default/link/relay.json");
        let snapshot = Snapshot::from_bytes(&fs::read(path).unwrap()).unwrap();
        snapshot.exports.iter().any(|export| export.data_class == DataClass::Operational)
    };
    // Gone unreadable while it runs, and found unreadable at the start.
    pair.a.write("policy.yaml", "}{");
    pair.a.write("link.yaml", &wider);
    pair.a.runtime().reload().await;
    assert!(!exported(&pair));
    pair.a.stop().await;
    pair.a.start().await;
    assert!(!exported(&pair));
    // The person who removes it means it.
    pair.a.remove("policy.yaml");
    pair.a.runtime().reload().await;
    assert!(exported(&pair));
}

impl Pair {
    /// After `a` was started anew: it listens on another port, which `b` is told.
    async fn rejoin(&self) {
        self.point_b_to_a().await;
        self.until_ready().await;
    }

    async fn rejoin_data(&self) {
        self.point_b_to_a().await;
        self.until_ready_data().await;
    }

    async fn point_b_to_a(&self) {
        let yaml = self.b.read("link.yaml");
        let port = self.a.listener().port();
        let lines = yaml.lines().map(|line| match line.find("endpoints:") {
            Some(_) => format!("    endpoints: [{{host: 127.0.0.1, port: {port}}}]"),
            None => line.to_owned(),
        });
        let text: Vec<_> = lines.collect();
        self.b.write("link.yaml", &(text.join("\n") + "\n"));
        self.b.runtime().reload().await;
    }

    /// Waits until both relays agree and are connected, whatever else the status says.
    async fn until_ready_data(&self) {
        for side in [&self.a, &self.b] {
            side.until("agreement", |status| {
                status
                    .report
                    .as_ref()
                    .is_some_and(|report| report.agreed.disagreement.is_none() && report.peer.control_connections > 0)
            })
            .await;
        }
        timeout(PATIENCE, async { exchange(&mut self.connect().await, "probe").await }).await.expect("bytes pass");
    }
}
