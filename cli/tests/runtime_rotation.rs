//! A root is followed by another while a link runs: the peer, which pins the first one, does nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod runtime_support;

use runtime_support::{Pair, exchange};
use securelink_crds::conditions::{ConditionType, find};

/// Replaces the root of `a`; returns the fingerprint of the new one, as a person reads it.
async fn rotate(pair: &Pair, plain: &str) -> String {
    let old = pair.a.fingerprint();
    let order = format!("metadata: {{annotations: {{securelink.dev/replace-root: \"{old}\"}}, ");
    let annotated = plain.replace("metadata: {", &order);
    assert_ne!(annotated, plain, "{plain}");
    pair.a.write("identity.yaml", &annotated);
    let report = pair.a.runtime().reload().await;
    assert_eq!((report.problems, report.refused), (vec![], vec![]));
    assert_eq!(pair.a.fingerprint(), old, "announced only");
    let note = report.notes.iter().find(|note| note.contains("is to follow")).expect("it is said").clone();
    let next = note.split('`').nth(1).unwrap().strip_prefix("expectedFingerprint: ").unwrap().to_owned();
    // The order stays in the file, as it would in a repository.
    pair.a.write("identity.yaml", &annotated.replace("spec:\n", &format!("spec:\n  expectedFingerprint: {next}\n")));
    let report = pair.a.runtime().reload().await;
    assert_eq!((report.problems, report.refused), (vec![], vec![]));
    assert_eq!(pair.a.fingerprint(), next);
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f39_twenty_four_roots_follow_each_other_under_streams_and_the_peer_does_nothing() {
    let pair = Pair::new().await;
    let plain = pair.a.read("identity.yaml");
    let mut stream = pair.connect().await;
    let pinned = pair.a.fingerprint();
    for turn in 1..=24 {
        let new = rotate(&pair, &plain).await;
        let seen = |status: &securelink::runtime::LinkStatus| {
            let peer = status.report.as_ref().map(|report| &report.peer);
            peer.is_some_and(|peer| peer.root.as_ref() == Some(&new) && peer.pin_used.as_ref() == Some(&pinned))
        };
        exchange(&mut stream, "the old stream").await;
        exchange(&mut pair.connect().await, "a new stream").await;
        // The peer sees each as connections are made anew, which takes seconds: the first and the last are enough.
        if turn != 1 && turn != 24 {
            continue;
        }
        pair.b.until(&format!("root {turn}"), seen).await;
        pair.b.until_reason(ConditionType::PinOutdated, "PinOutdated").await;
        let conditions = pair.b.status().status.conditions;
        let message = &find(&conditions, ConditionType::PinOutdated).unwrap().message;
        assert!(message.contains(&format!("put `{new}` into peer.fingerprints")), "{message}");
    }
    pair.until_ready().await;
    exchange(&mut stream, "after all").await;
}
