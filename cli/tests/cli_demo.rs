//! The demo, from beginning to end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use std::path::Path;

use cli_support::{Ran, command, securelink};

#[test]
fn every_step_of_the_demo_does_what_it_should() {
    let demo = securelink(&["demo", "--size", "8MiB", "-o", "json"]).expect(0).json();
    assert_eq!(demo["ok"], true);
    let steps = demo["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "identities",
            "lines",
            "ready",
            "greet",
            "transfer",
            "wrongRoot",
            "wrongAudience",
            "agreementEnds",
            "agreementRestored",
            "cut",
            "resume"
        ]
    );
    assert!(steps.iter().all(|step| step["ok"] == true && step["millis"].is_u64() && step["title"].is_string()));
    let figures = |name: &str| &steps.iter().find(|step| step["name"] == name).unwrap()["figures"];
    assert_eq!(figures("transfer")["bytes"], 8 << 20);
    assert_eq!(figures("wrongRoot")["reason"], "WrongRoot");
    assert_eq!(figures("wrongAudience")["reason"], "WrongAudience");
    assert_eq!(figures("agreementEnds")["bytesAfterPromise"], 0);
    assert_eq!((&figures("cut")["ended"], &figures("cut")["bytesAfterCut"]), (&50.into(), &0.into()));
    for organization in demo["organizations"].as_array().unwrap() {
        assert!(organization["fingerprint"].as_str().unwrap().starts_with("sha256:"));
        assert!(organization["endpoint"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    assert!(demo["folder"].is_null());
}

#[test]
fn the_demo_is_plain_when_piped_and_keeps_its_folder_when_asked() {
    let ran = securelink(&["demo", "--size", "64KiB", "--keep"]).expect(0);
    assert!(!ran.out.contains('\u{1b}') && ran.err.is_empty(), "{}", ran.err);
    assert!(ran.out.contains("all 11 steps did what they should in "), "{}", ran.out);
    let kept = Path::new(ran.out.lines().last().unwrap().strip_prefix("kept: ").unwrap());
    for organization in ["interpol", "europol", "stranger"] {
        let checked = securelink(&["check", "-f", kept.join(organization).to_str().unwrap()]).expect(0);
        assert!(checked.out.starts_with("ok 2 objects"), "{}", checked.out);
    }
    std::fs::remove_dir_all(kept).unwrap();
}

#[test]
fn a_demo_that_cannot_go_on_says_what_failed_and_tries_nothing_that_needs_it() {
    // A control socket's path has at most some 100 bytes.
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let ran = Ran::of(command(&["demo", "--size", "64KiB", "-o", "json"]).env("TMPDIR", &deep), "").expect(1);
    let demo = ran.json();
    assert_eq!((&demo["ok"], demo["steps"].as_array().unwrap().len()), (&false.into(), 11));
    assert!(demo["steps"][0]["error"].as_str().unwrap().contains("control socket"), "{demo}");
    assert!(demo["steps"][10]["error"].as_str().unwrap().starts_with("not tried"));
    assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0, "the folder was left behind");
}
