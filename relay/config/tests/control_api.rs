//! The control API in JSON, as relays and operators of other versions read it: `control_api.json` beside this file is the
//! contract, and both ways of it are held to it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fmt::Debug;

use securelink_relay_config::control::{
    CutOrder, CutReply, DoctorRequest, GreetRequest, LeafPem, Push, PushReply, Refused, Refusing, RelayStatus, path,
};
use securelink_relay_config::{DoctorReport, GreetReply, LinkRef, Snapshot, SnapshotError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const CONTRACT: &str = include_str!("control_api.json");

/// What the contract has under `name`, read and written again: nothing is lost and nothing is added.
fn kept<T: Serialize + DeserializeOwned + Debug>(name: &str) -> T {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let written = &contract[name];
    let read: T = serde_json::from_value(written.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_value(&read).unwrap(), *written, "{name}");
    read
}

#[test]
fn bodies_are_as_the_contract_writes_them() {
    let push: Push = kept("push");
    assert_eq!(push.leaf.as_ref().unwrap().transitions, "");
    kept::<PushReply>("pushReply");
    let order: CutOrder = kept("cutOrder");
    assert_eq!(order.cut.id, "LinkCut/5f0c");
    kept::<CutReply>("cutReply");
    kept::<GreetRequest>("greetRequest");
    kept::<GreetReply>("greetReply");
    kept::<DoctorRequest>("doctorRequest");
    let report: DoctorReport = kept("doctorReport");
    assert!(!report.is_well());
    kept::<Refused>("refused");
    let status: RelayStatus = kept("status");
    assert_eq!(status.report.link, LinkRef { namespace: "liaison".into(), name: "europol".into() });
}

#[test]
fn paths_are_as_the_contract_writes_them() {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let paths = json!({
        "status": path::STATUS, "snapshot": path::SNAPSHOT, "cut": path::CUT, "greet": path::GREET, "doctor": path::DOCTOR,
    });
    assert_eq!(contract["paths"], paths);
}

#[test]
fn every_refusal_has_the_http_status_of_the_contract() {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let statuses = contract["httpStatus"].as_object().unwrap();
    for (word, status) in statuses {
        let reason: Refusing = serde_json::from_value(json!(word)).unwrap_or_else(|_| panic!("{word} is no reason"));
        assert_eq!(u64::from(reason.http_status()), status.as_u64().unwrap(), "{word}");
    }
    assert_eq!(statuses.len(), 19, "the contract names every reason");
}

#[test]
fn a_leaf_never_prints_its_key() {
    let leaf = LeafPem { key: "SECRET".into(), chain: "CHAIN".into(), transitions: String::new() };
    let push = Push { snapshot: None, leaf: Some(leaf) };
    assert!(!format!("{push:?}").contains("SECRET"), "{push:?}");
}

#[test]
fn another_format_and_an_unknown_requirement_are_named_whatever_shape_the_rest_has() {
    let format = Snapshot::from_bytes(br#"{"format": 2, "links": "elsewhere"}"#).unwrap_err();
    assert!(matches!(format, SnapshotError::Format(2)), "{format}");
    let requires = Snapshot::from_bytes(br#"{"format": 1, "requires": ["quorum"], "state": "Frozen"}"#).unwrap_err();
    assert!(matches!(&requires, SnapshotError::UnknownRequirement(word) if word == "quorum"), "{requires}");
    assert_eq!((format.reason(), requires.reason()), ("UnsupportedSnapshot", "UnsupportedSnapshot"));
}

#[test]
fn a_third_control_ca_is_refused() {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let mut snapshot = contract["push"]["snapshot"].clone();
    snapshot["controlCas"] = json!(["a", "b"]);
    Snapshot::from_bytes(snapshot.to_string().as_bytes()).unwrap();
    snapshot["controlCas"] = json!(["a", "b", "c"]);
    let error = Snapshot::from_bytes(snapshot.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, SnapshotError::ControlCas(3)), "{error}");
    assert_eq!(error.reason(), "MalformedSnapshot");
}
