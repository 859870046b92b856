//! A relay process and its files: volumes swapped as the kubelet does, a scratch folder that outlives the process.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod relay_support;
mod skipped;

use std::fs;
use std::process::Command;

use relay_support::controller::ControlCa;
use relay_support::pod::{Pod, Relay, pair, pushed};
use relay_support::{Organization, exchange, next, serial, snapshot, until};
use securelink_relay_config::Snapshot;
use skipped::skipped;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

fn organizations() -> (Organization, Organization) {
    (Organization::new("a.example"), Organization::new("b.example"))
}

/// What the status says is wrong.
fn reasons(status: &securelink_relay_config::control::RelayStatus) -> Vec<&str> {
    status.faults.iter().map(|fault| fault.reason.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f67_a_config_swapped_mid_handshake_is_adopted_and_a_bad_one_keeps_the_last_good() {
    let (mut a, b) = pair().await;
    let mut stream = TcpStream::connect(b.import_address().await).await.unwrap();
    exchange(&mut stream, "before").await.unwrap();
    // Somebody is in the middle of a handshake all the while.
    let mut half = TcpStream::connect(a.listens_on().await).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();

    a.snapshot = next(&a.snapshot, |snapshot| snapshot.max_staleness_seconds = 1800);
    a.pod.mount(&a.snapshot);
    a.until("the swapped configuration", |status| status.report.version == 2).await;

    let unknown = next(&a.snapshot, |snapshot| snapshot.requires.push("quorum".to_owned()));
    let bad: [(&[u8], &str); 4] = [
        (b"{\"format\": 1, \"half\":", "MalformedSnapshot"),
        (b"", "MalformedSnapshot"),
        (b"{\"format\": 7}", "UnsupportedSnapshot"),
        (&unknown.to_bytes(), "UnsupportedSnapshot"),
    ];
    for (bytes, reason) in bad {
        a.pod.config.swap(&[("relay.json", bytes)]);
        let status = a.until(reason, |status| reasons(status) == [reason]).await;
        assert_eq!(status.report.version, 2, "the last good one stays");
        assert_eq!(status.report.rejected.unwrap().reason, reason, "and the operator reads why");
        exchange(&mut stream, "meanwhile").await.unwrap();
    }
    a.pod.config.swap(&[]);
    a.until("a file that is gone", |status| reasons(status) == ["ConfigFailed"]).await;

    a.snapshot = next(&a.snapshot, |snapshot| snapshot.max_staleness_seconds = 900);
    a.pod.mount(&a.snapshot);
    let mended = a.until("the mended configuration", |status| status.report.version == 3 && status.faults.is_empty());
    assert!(mended.await.report.rejected.is_none());
    exchange(&mut stream, "after").await.unwrap();
    drop(half);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_leaf_is_taken_from_its_volume_and_nothing_else_is() {
    let (own, peer) = organizations();
    let a = Relay::new(own, &peer, |_| {});
    let (newer, older, elsewhere) = (a.own.leaf(&peer, 0), a.own.leaf(&peer, 9), a.own.leaf(&a.own, 0));
    let held = serial(&a.leaf);
    let key = |leaf: &securelink_pki::Leaf| leaf.key().to_pem().as_bytes().to_vec();
    let chain = |leaf: &securelink_pki::Leaf| leaf.chain_pem().into_bytes();
    for (key, chain) in [(key(&newer), chain(&older)), (key(&elsewhere), chain(&elsewhere)), (vec![], chain(&newer))] {
        a.pod.leaf.swap(&[("tls.key", &key), ("tls.crt", &chain)]);
        let status = a.until("a leaf that is not used", |status| reasons(status) == ["LeafFailed"]).await;
        assert_eq!(status.report.certificate.unwrap().serial, held);
        // So that the next one is judged by itself.
        a.pod.mount_leaf(&a.leaf);
        a.until("the leaf in use again", |status| status.faults.is_empty()).await;
    }
    a.pod.mount_leaf(&newer);
    let controller = relay_support::controller::Controller::new(a.pod.control, a.ca.client(), &[&newer, &a.leaf]);
    let in_use = async |wanted: &str| {
        until("another leaf", async || {
            let status = controller.done("GET", "/v1/status", &()).await;
            (status["certificate"]["serial"] == wanted).then_some(status)
        })
        .await
    };
    in_use(&serial(&newer)).await;
    // The port shows the new one too.
    relay_support::controller::Controller::new(a.pod.control, a.ca.client(), &[&newer])
        .done("GET", "/v1/status", &())
        .await;
    // A Secret that lags says nothing: no fault, no change.
    a.pod.mount_leaf(&older);
    a.pod.mount(&next(&a.snapshot, |_| {}));
    until("a look after the swap", async || {
        let status = controller.done("GET", "/v1/status", &()).await;
        (status["version"] == 2).then_some(status)
    })
    .await;
    let status = in_use(&serial(&newer)).await;
    assert!(status.get("faults").is_none(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_boot_the_highest_version_of_scratch_and_volume_runs() {
    let (own, peer) = organizations();
    let mut a = Relay::new(own, &peer, |_| {});
    a.push(|snapshot| snapshot.max_staleness_seconds = 1800).await;
    a.push(|snapshot| snapshot.max_staleness_seconds = 900).await;
    a.until_kept().await;
    a.pod.kill();
    a.pod.start();
    assert_eq!(a.status().await.report.version, 3, "what was pushed is in scratch, the volume still has version 1");
    a.pod.kill();
    a.pod.mount(&next(&next(&a.snapshot, |_| {}), |_| {}));
    a.pod.start();
    assert_eq!(a.status().await.report.version, 5);
    // The same version with other contents: what was in force stays, and the conflict is said.
    a.pod.kill();
    let mut conflict = next(&next(&a.snapshot, |_| {}), |_| {});
    conflict.max_staleness_seconds = 7;
    a.pod.mount(&conflict);
    a.pod.start();
    let status = a.until("the conflict", |status| reasons(status) == ["ConflictingSnapshot"]).await;
    assert_eq!(status.report.rejected.unwrap().reason, "ConflictingSnapshot");
    assert_ne!(status.report.hash, conflict.hash());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_boot_no_older_version_runs_because_the_one_in_force_lacks_a_port() {
    let (own, peer) = organizations();
    let mut a = Relay::new(own, &peer, |_| {});
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    a.push(|snapshot| snapshot.listen = Some(port)).await;
    a.until_kept().await;
    a.pod.kill();
    let holder = std::net::TcpListener::bind(port).unwrap();
    a.pod.start();
    // Health is shown once the first start was tried.
    assert_eq!(a.pod.shown("/readyz").await.0, 503);
    let kept = Snapshot::from_bytes(&fs::read(a.pod.scratch().join("relay.json")).unwrap()).unwrap();
    assert_eq!(kept.version, 2);
    drop(holder);
    a.pod.until_shown("/readyz", 200).await;
    assert_eq!(a.status().await.report.version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_boot_a_bad_volume_or_a_bad_scratch_leaves_the_other() {
    let (own, peer) = organizations();
    let mut a = Relay::new(own, &peer, |_| {});
    a.pod.kill();
    a.pod.config.swap(&[("relay.json", b"{\"format\": 7}")]);
    a.pod.start();
    let status = a.until("the kept configuration", |status| reasons(status) == ["UnsupportedSnapshot"]).await;
    assert_eq!((status.report.version, status.report.rejected.unwrap().reason.as_str()), (1, "UnsupportedSnapshot"));
    a.pod.kill();
    a.pod.mount(&a.snapshot);
    fs::write(a.pod.scratch().join("relay.json"), "{").unwrap();
    a.pod.start();
    let status = a.status().await;
    assert_eq!((status.report.version, reasons(&status)), (1, vec!["ScratchFailed"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_configuration_or_a_leaf_it_waits_alive_and_not_ready() {
    let (own, peer) = organizations();
    let (mut pod, ca) = (Pod::new(), ControlCa::new());
    pod.start();
    assert_eq!(pod.shown("/livez").await.0, 200);
    let (status, body) = pod.shown("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("ConfigFailed") && body.contains("LeafFailed"), "{body}");
    pod.mount(&snapshot(&own, &peer, &[&ca]));
    pod.mount_leaf(&own.leaf(&peer, 1));
    pod.until_shown("/readyz", 200).await;
    let line = ["--config", "/nowhere", "--leaf", "/nowhere", "--scratch", "/nowhere"];
    let ran = Command::new(env!("CARGO_BIN_EXE_securelink")).arg("relay").args(line).output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "a folder that is not there is a slip");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("/nowhere"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_on_a_read_only_root_as_a_user_without_a_name() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can make the root file system read-only and become another user");
    }
    let (own, peer) = organizations();
    let (mut pod, ca) = (Pod::new(), ControlCa::new());
    let (first, leaf) = (snapshot(&own, &peer, &[&ca]), own.leaf(&peer, 1));
    pod.mount(&first);
    pod.mount_leaf(&leaf);
    let scratch = pod.scratch().display().to_string();
    // Others may read the volumes and enter the folder, as in a pod; scratch is the user's.
    let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(pod.path()).status().unwrap();
    let given = Command::new("chown").args(["54321:54321", &scratch]).status().unwrap();
    assert!(opened.success() && given.success());
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro / && exec setpriv --reuid 54321 --regid 54321 --clear-groups \"$@\"";
    pod.wrapper = ["unshare", "-m", "sh", "-c", script, &scratch].map(str::to_owned).to_vec();
    pod.start();
    let controller = relay_support::controller::Controller::new(pod.control, ca.client(), &[&leaf]);
    let push = pushed(Some(&next(&first, |_| {})), None);
    assert_eq!(controller.done("PUT", "/v1/snapshot", &push).await["version"], 2);
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(pod.scratch().join("relay.json")).unwrap()).unwrap();
    assert_eq!(kept["version"], 2);
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid())).unwrap();
    assert!(status.contains("Uid:\t54321\t54321"), "{status}");
}
