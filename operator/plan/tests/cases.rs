//! Whole links from YAML to verdict, snapshot and status, for a platform engineer to read: `tests/cases/<case>/`.
//!
//! `gathered.yaml` is what stands in the folder now, `before.yaml` (if any) what was accepted an hour ago, `report.yaml` (if
//! any) what the relay says. `objects.snap` is what comes out. With a `cluster.yaml` the link is in a cluster: it has what
//! surrounds the link there, and `objects.yaml` is what would be applied.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The cases are files; only the planner itself reads none.
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use securelink_crds::SecureLinkStatus;
use securelink_id::Fingerprint;
use securelink_plan::{Base, Certificate, LeafInUse, Observed, Verdict, next_deadline, snapshot, status, validate};
use securelink_relay_config::{Cut, LinkReport, Millis, Snapshot};
use serde::Serialize;
use serde_json::Value;

use support::cluster::{self, Around};

#[derive(Serialize)]
struct Objects<'a> {
    base: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cuts: Vec<&'a Cut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: &'a Vec<String>,
    snapshot: Option<Snapshot>,
    status: SecureLinkStatus,
    look_again: Option<Timestamp>,
}

fn read(case: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(case.join(file)).ok()
}

fn certificate() -> Certificate {
    Certificate {
        root: Some(Fingerprint::from_sha256([0x9f; 32])),
        leaf: Some(LeafInUse {
            serial: "5e1ec7".to_owned(),
            not_after: support::now() + SignedDuration::from_hours(60),
            renew_at: support::now() + SignedDuration::from_hours(12),
        }),
        failure: None,
    }
}

fn base(verdict: &Verdict) -> &'static str {
    match verdict.base {
        Base::New(_) => "New",
        Base::LastAccepted(_) => "LastAccepted",
        Base::None => "None",
    }
}

fn check(case: &Path) {
    let before = read(case, "before.yaml").map(|text| support::accept(&text));
    let an_hour_ago = Millis::from(support::now() - SignedDuration::from_hours(1));
    let previous = before
        .as_ref()
        .and_then(|verdict| verdict.validated().map(|link| snapshot(link, verdict.orders(), None, an_hour_ago)));
    let mut gathered = support::gather(&read(case, "gathered.yaml").unwrap());
    gathered.last_accepted = before.and_then(|verdict| verdict.accepted);
    let around: Option<Around> = read(case, "cluster.yaml").map(|text| cluster::read(&text));
    let in_cluster = around.is_some();
    if let Some(around) = around {
        gathered = cluster::settle(gathered, around);
    }
    let verdict = validate(&gathered);
    let snapshot = support::snapshot_of(&verdict, previous.as_ref());
    let report: Option<LinkReport> = read(case, "report.yaml").map(|text| serde_saphyr::from_str(&text).unwrap());
    let certificate = certificate();
    let observed = Observed {
        certificate: &certificate,
        snapshot: snapshot.as_ref(),
        report: report.as_ref(),
        hindrance: None,
        widened: &[],
    };
    let objects = Objects {
        base: base(&verdict),
        problems: verdict.problems.iter().map(|p| format!("{} {:?} {p}", p.reason, p.about)).collect(),
        cuts: verdict.cuts.iter().collect(),
        notes: &verdict.notes,
        status: status(&verdict, observed, &SecureLinkStatus::default(), support::now()),
        look_again: next_deadline(&verdict, observed, support::now()),
        snapshot: snapshot.clone(),
    };
    insta::with_settings!({snapshot_path => case, prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_yaml_snapshot!("objects", objects);
    });
    if let (true, Some(snapshot)) = (in_cluster, &snapshot) {
        let objects = cluster::all(&cluster::objects(&verdict, snapshot, &gathered.mode));
        let documents: Vec<String> = objects.iter().map(document).collect();
        applies(&case.join("objects.yaml"), &documents.join("---\n"));
    }
}

/// An object in the order in which people write it: what it is, whose, then the rest.
fn document(object: &Value) -> String {
    let mut fields: Vec<_> = object.as_object().unwrap().iter().collect();
    fields.sort_by_key(|(name, _)| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
    let field = |(name, value): (&String, &Value)| serde_saphyr::to_string(&BTreeMap::from([(name, value)])).unwrap();
    fields.into_iter().map(field).collect()
}

/// Plain YAML, so that `kubectl` takes it too; written anew as insta writes its snapshots.
fn applies(file: &Path, objects: &str) {
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(file, objects).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(written, objects, "{} is not what comes out", file.display());
}

#[test]
fn every_case_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 10, "{cases:?}");
    for case in &cases {
        check(case);
    }
}
