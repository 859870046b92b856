//! What is drift and what is none: what others take away, change and add is found and can be taken out again; what an API
//! server fills in is not, or every look would write (faults F26, F27, F29, F81).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::LazyLock;

use securelink_plan::drift::{Differences, differences, without_surplus};
use securelink_plan::validate;
use serde_json::{Value, json};

use support::cluster::{Around, all, objects, settle};
use support::stored::{merge, stored};
use support::{LINK, file, gather, snapshot_of};

static DESIRED: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let gathered = settle(gather(&file(LINK)), Around::default());
    let verdict = validate(&gathered);
    all(&objects(&verdict, &snapshot_of(&verdict, None).unwrap(), &gathered.mode))
});

/// The object `KIND/NAME`.
fn desired(place: &str) -> &'static Value {
    let named = |object: &&Value| {
        format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap()) == place
    };
    DESIRED.iter().find(named).unwrap()
}

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// `live` with `value` at a JSON pointer; `-` at its end is one more entry of a list.
fn put(live: &mut Value, pointer: &str, value: Value) {
    let pointer = pointer.replace("CONTAINER", CONTAINER);
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    match live.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")) {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value,
        fields => fields[last.as_str()] = value,
    }
}

fn missing(paths: &[&str]) -> Differences {
    Differences { missing: paths.iter().map(|path| (*path).to_owned()).collect(), surplus: Vec::new() }
}

fn surplus(paths: &[&str]) -> Differences {
    Differences { surplus: paths.iter().map(|path| (*path).to_owned()).collect(), missing: Vec::new() }
}

#[test]
fn an_object_as_an_api_server_stores_it_differs_in_nothing() {
    let kinds: Vec<&str> = DESIRED.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 9, "{kinds:?}");
    for object in DESIRED.iter() {
        let live = stored(object);
        assert_eq!(differences(&live, object), Differences::default(), "{}", object["kind"]);
        assert_eq!(without_surplus(&live, object), live);
        assert_eq!(differences(object, object), Differences::default());
    }
}

/// Every leaf of what is applied, as JSON pointers.
fn leaves(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| leaves(field, &format!("{at}/{}", name.replace('/', "~1")), all));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| leaves(item, &format!("{at}/{i}"), all)),
        _ => all.push(at.to_owned()),
    }
}

#[test]
fn f26_whatever_is_changed_or_taken_away_is_found() {
    for object in DESIRED.iter() {
        let mut all = Vec::new();
        leaves(object, "", &mut all);
        all.retain(|place| !["/apiVersion", "/kind"].contains(&place.as_str()));
        assert!(all.len() > 10, "{all:?}");
        for place in &all {
            let mut live = stored(object);
            *live.pointer_mut(place).unwrap() = json!("something else");
            assert!(!differences(&live, object).missing.is_empty(), "{} {place}", object["kind"]);
            let (parent, last) = place.rsplit_once('/').unwrap();
            let mut live = stored(object);
            match live.pointer_mut(parent).unwrap() {
                Value::Array(items) => drop(items.remove(last.parse().unwrap())),
                fields => drop(fields.as_object_mut().unwrap().remove(&last.replace("~1", "/"))),
            }
            let found = differences(&live, object);
            // What is assumed where it is not written is the same as written.
            let assumed = object["kind"] == "NetworkPolicy" && object.pointer(place) == Some(&json!("TCP"));
            assert_eq!(found.missing.is_empty(), assumed, "{} {place} {found:?}", object["kind"]);
        }
    }
}

#[test]
fn f26_an_edit_by_hand_is_named_by_its_path() {
    for (object, place, value, path) in [
        ("Deployment/europol-relay", "/spec/replicas", json!(5), "spec.replicas"),
        ("Deployment/europol-relay", "CONTAINER/image", json!("evil:1"), "spec.template.spec.containers[relay].image"),
        (
            "Deployment/europol-relay",
            "CONTAINER/ports/1/name",
            json!("ctl"),
            "spec.template.spec.containers[relay].ports[15444/TCP].name",
        ),
        (
            "Deployment/europol-relay",
            "CONTAINER/args/8",
            json!("[::]:1"),
            "spec.template.spec.containers[relay].args[8]",
        ),
        (
            "Deployment/europol-relay",
            "/spec/template/spec/volumes/2/emptyDir/sizeLimit",
            json!("1Gi"),
            "spec.template.spec.volumes[scratch].emptyDir.sizeLimit",
        ),
        ("Service/europol-siena", "/spec/ports/0/targetPort", json!(1), "spec.ports[8443/TCP].targetPort"),
        ("ConfigMap/europol-relay", "/data/relay.json", json!("{}"), "data[relay.json]"),
        (
            "ServiceAccount/europol-relay",
            "/metadata/labels/securelink.dev~1link",
            json!("other"),
            "metadata.labels[securelink.dev/link]",
        ),
        (
            "Secret/europol-leaf",
            "/metadata/ownerReferences/0/controller",
            json!(false),
            "metadata.ownerReferences[6c2f3a52-0d6e-4f0b-9a39-0d9f8c1f7e11].controller",
        ),
        (
            "PodDisruptionBudget/europol-relay",
            "/metadata/ownerReferences",
            json!([]),
            "metadata.ownerReferences[6c2f3a52-0d6e-4f0b-9a39-0d9f8c1f7e11]",
        ),
        ("NetworkPolicy/europol-relay", "/spec/policyTypes", json!(["Ingress"]), "spec.policyTypes[1]"),
    ] {
        let mut live = stored(desired(object));
        put(&mut live, place, value);
        assert_eq!(differences(&live, desired(object)), missing(&[path]), "{object} {place}");
    }
}

#[test]
fn f27_replicas_that_another_controller_changed_are_one_difference_for_apply_to_mend() {
    let mut live = stored(desired("Deployment/europol-relay"));
    live["spec"]["replicas"] = json!(7);
    assert_eq!(differences(&live, desired("Deployment/europol-relay")), missing(&["spec.replicas"]));
    assert_eq!(without_surplus(&live, desired("Deployment/europol-relay")), live);
}

#[test]
fn f81_what_is_added_by_hand_is_found_and_taken_out_and_nothing_else() {
    let pod = "spec.template.spec";
    let rows = [
        ("/spec/template/spec/containers/-", json!({"name": "sidecar", "image": "tap:1"}), "containers[sidecar]"),
        ("/spec/template/spec/initContainers", json!([{"name": "first", "image": "tap:1"}]), "initContainers[first]"),
        ("/spec/template/spec/volumes/-", json!({"name": "host", "hostPath": {"path": "/"}}), "volumes[host]"),
        ("/spec/template/spec/volumes/2/hostPath", json!({"path": "/"}), "volumes[scratch].hostPath"),
        ("/spec/template/spec/hostNetwork", json!(true), "hostNetwork"),
        ("/spec/template/spec/hostAliases", json!([{"ip": "10.0.0.1", "hostnames": ["a"]}]), "hostAliases[0]"),
        ("/spec/template/spec/nodeSelector", json!({"tier": "other"}), "nodeSelector"),
        ("/spec/template/spec/tolerations", json!([{"operator": "Exists"}]), "tolerations[0]"),
        ("/spec/template/spec/dnsConfig/nameservers", json!(["10.0.0.9"]), "dnsConfig.nameservers[0]"),
        ("/spec/template/spec/securityContext/runAsUser", json!(0), "securityContext.runAsUser"),
        (
            "CONTAINER/volumeMounts/-",
            json!({"name": "scratch", "mountPath": "/x"}),
            "containers[relay].volumeMounts[/x]",
        ),
        ("CONTAINER/ports/-", json!({"containerPort": 80}), "containers[relay].ports[80/TCP]"),
        ("CONTAINER/env", json!([{"name": "DEBUG", "value": "1"}]), "containers[relay].env[DEBUG]"),
        ("CONTAINER/envFrom", json!([{"secretRef": {"name": "s"}}]), "containers[relay].envFrom[0]"),
        ("CONTAINER/args/-", json!("--allow-everything"), "containers[relay].args[11]"),
        ("CONTAINER/command", json!(["sh"]), "containers[relay].command[0]"),
        ("CONTAINER/lifecycle", json!({"preStop": {"sleep": {"seconds": 9}}}), "containers[relay].lifecycle"),
        ("CONTAINER/securityContext/privileged", json!(true), "containers[relay].securityContext.privileged"),
        (
            "CONTAINER/securityContext/capabilities/add",
            json!(["SYS_ADMIN"]),
            "containers[relay].securityContext.capabilities.add[0]",
        ),
        ("CONTAINER/livenessProbe/exec", json!({"command": ["false"]}), "containers[relay].livenessProbe.exec"),
    ];
    let deployment =
        rows.into_iter().map(|(at, value, path)| ("Deployment/europol-relay", at, value, format!("{pod}.{path}")));
    let policy = json!({"from": [{"podSelector": {}}]});
    let others = [
        ("Deployment/europol-relay", "/spec/paused", json!(true), "spec.paused"),
        ("ConfigMap/europol-relay", "/data/more.json", json!("{}"), "data[more.json]"),
        ("ConfigMap/europol-relay", "/binaryData", json!({"a": "AA=="}), "binaryData"),
        ("Secret/europol-leaf", "/data/ca.crt", json!("AA=="), "data[ca.crt]"),
        ("Service/europol-peer", "/spec/ports/-", json!({"port": 22, "targetPort": 22}), "spec.ports[22/TCP]"),
        ("Service/europol-peer", "/spec/selector/tier", json!("other"), "spec.selector.tier"),
        ("Service/europol-siena", "/spec/externalIPs", json!(["192.0.2.1"]), "spec.externalIPs[0]"),
        ("Service/europol-siena", "/spec/publishNotReadyAddresses", json!(true), "spec.publishNotReadyAddresses"),
        ("NetworkPolicy/europol-relay", "/spec/ingress/-", policy, "spec.ingress[5]"),
        (
            "NetworkPolicy/europol-relay",
            "/spec/podSelector/matchLabels/tier",
            json!("x"),
            "spec.podSelector.matchLabels.tier",
        ),
        (
            "NetworkPolicy/europol-relay",
            "/spec/podSelector/matchExpressions",
            json!([{"key": "never", "operator": "Exists"}]),
            "spec.podSelector.matchExpressions[0]",
        ),
    ]
    .map(|(object, at, value, path)| (object, at, value, path.to_owned()));
    for (object, at, value, path) in deployment.chain(others) {
        let before = stored(desired(object));
        let mut live = before.clone();
        put(&mut live, at, value);
        assert_eq!(differences(&live, desired(object)), surplus(&[&path]), "{object} {at}");
        let mut cleaned = without_surplus(&live, desired(object));
        // A list that was not there before may stay behind, empty.
        if let (Some(parent), None) = (cleaned.pointer_mut(&at.replace("CONTAINER", CONTAINER)), before.pointer(at)) {
            assert_eq!(parent, &json!([]), "{object} {at}");
            let at = at.replace("CONTAINER", CONTAINER);
            let (parent, last) = at.rsplit_once('/').unwrap();
            cleaned.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(last);
        }
        assert_eq!(cleaned, before, "{object} {at}");
    }
}

#[test]
fn f81_a_rule_that_was_widened_is_ours_no_more() {
    let policy = desired("NetworkPolicy/europol-relay");
    let mut live = stored(policy);
    // A client that is named by its pod and, in the same namespace, is anybody's now.
    merge(&mut live["spec"]["ingress"][0]["from"][0], &json!({"namespaceSelector": {}}));
    let found = differences(&live, policy);
    assert_eq!(
        (found.missing, found.surplus),
        (vec!["spec.ingress[0]".to_owned()], vec!["spec.ingress[0]".to_owned()])
    );
    let cleaned = without_surplus(&live, policy);
    assert_eq!(cleaned["spec"]["ingress"].as_array().unwrap().len(), 4);
}

#[test]
fn what_others_write_into_metadata_is_theirs() {
    for object in DESIRED.iter() {
        let mut live = stored(object);
        merge(
            &mut live["metadata"],
            &json!({"labels": {"team": "liaison"}, "annotations": {"a.example/b": "c"}, "finalizers": ["x.example/y"]}),
        );
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "n", "uid": "u"});
        live["metadata"]["ownerReferences"].as_array_mut().unwrap().insert(0, theirs);
        if object["kind"] == "Deployment" {
            merge(
                &mut live["spec"]["template"]["metadata"],
                &json!({"labels": {"team": "x"}, "annotations": {"a": "b"}}),
            );
        }
        assert_eq!(differences(&live, object), Differences::default(), "{}", object["kind"]);
        let kept = without_surplus(&live, object);
        assert_eq!(kept["metadata"]["labels"], live["metadata"]["labels"]);
        assert_eq!(kept["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn f29_amounts_that_are_written_otherwise_are_the_same() {
    let mut object = desired("Deployment/europol-relay").clone();
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": 1}});
    let mut live = stored(&object);
    live["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "1", "memory": "1073741824"}, "requests": {"cpu": "1", "memory": "64Mi"}});
    live["spec"]["template"]["spec"]["volumes"][2]["emptyDir"]["sizeLimit"] = json!("16384Ki");
    assert_eq!(differences(&live, &object), Differences::default());
    live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("2");
    assert_eq!(differences(&live, &object), missing(&["spec.template.spec.containers[relay].resources.limits.cpu"]));
}

#[test]
fn the_order_of_entries_that_have_a_name_does_not_matter() {
    let object = desired("Deployment/europol-relay");
    let mut live = stored(object);
    for list in ["volumes", "containers/0/ports", "containers/0/volumeMounts"] {
        live.pointer_mut(&format!("/spec/template/spec/{list}")).unwrap().as_array_mut().unwrap().reverse();
    }
    assert_eq!(differences(&live, object), Differences::default());
}

#[test]
fn an_object_that_is_none_of_ours_in_shape_is_all_missing() {
    for live in [Value::Null, json!({}), json!([]), json!({"metadata": null, "spec": []})] {
        let found = differences(&live, desired("Deployment/europol-relay"));
        assert!(found.surplus.is_empty());
        assert!(found.missing.iter().any(|path| path == "spec" || path == "spec.replicas"), "{live} {found:?}");
    }
}
