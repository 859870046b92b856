//! What is judged invalid, forbidden or cut, beside the cases.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use securelink_crds::LinkPolicy;
use securelink_crds::conditions::Reason;
use securelink_plan::{
    About, Accepted, AcceptedError, Base, Declared, Mode, Standalone, Taken, cut_orders, peer_names, policy_applies,
    salvage_cut, validate,
};
use securelink_relay_config::{CutScope, Endpoint, LinkRef};
use serde_json::json;

use support::cluster::{Around, read, settle};
use support::{IDENTITY, LINK, accept, edited, file, gather, link_ref};

fn policy(spec: &serde_json::Value) -> LinkPolicy {
    let object =
        json!({"apiVersion": "securelink.dev/v1alpha1", "kind": "LinkPolicy", "metadata": {"name": "p"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn under(policies: &[serde_json::Value]) -> securelink_plan::Verdict {
    let mut gathered = gather(&file(LINK));
    gathered.policies = policies.iter().map(policy).collect();
    validate(&gathered)
}

#[test]
fn a_policy_forbids_what_it_says_and_cuts_it() {
    let allow = |mut spec: serde_json::Value| {
        spec["allowHostTargets"] = json!(true);
        spec
    };
    let link = || BTreeSet::from([CutScope::Link]);
    let entries = |entries: &[&str]| entries.iter().map(|name| CutScope::Export((*name).to_owned())).collect();
    let rows: [(serde_json::Value, bool, BTreeSet<CutScope>); 8] = [
        (allow(json!({})), true, BTreeSet::new()),
        (json!({}), true, entries(&["notices", "diffusions"])),
        (
            allow(json!({"allowedTrustDomains": {"own": ["*.example"], "peer": ["europol.example"]}})),
            true,
            BTreeSet::new(),
        ),
        (allow(json!({"allowedTrustDomains": {"own": ["europol.example"]}})), false, link()),
        (allow(json!({"allowedTrustDomains": {"peer": ["*.europol.example"]}})), false, link()),
        (allow(json!({"allowedTrustDomains": {"peer": ["*bad*"]}})), false, link()),
        (allow(json!({"requireAgreement": true})), true, BTreeSet::new()),
        (allow(json!({"maxDataClass": "strategic"})), true, [CutScope::Import("siena".to_owned())].into()),
    ];
    for (spec, accepted, cuts) in rows {
        let verdict = under(std::slice::from_ref(&spec));
        assert_eq!(verdict.is_accepted(), accepted, "{spec}");
        assert_eq!(verdict.cuts.iter().map(|cut| cut.scope.clone()).collect::<BTreeSet<_>>(), cuts, "{spec}");
        assert!(matches!(verdict.base, Base::New(_)) && !verdict.no_policy, "{spec}");
    }
}

#[test]
fn what_one_of_two_policies_forbids_is_forbidden() {
    let generous = json!({"allowHostTargets": true, "limits": {"connections": 900, "bytesPerSecond": "1Mi"}});
    let strict = json!({"limits": {"connections": 1000, "bytesPerSecond": "1Ki"}});
    for pair in [[generous.clone(), strict.clone()], [strict, generous]] {
        let link = under(&pair).validated().unwrap().clone();
        assert!(link.exports.is_empty());
        assert_eq!((link.limits.connections, link.limits.bytes_per_second), (Some(900), Some(1024)));
    }
}

#[test]
fn a_forbidden_classical_key_exchange_is_off_and_the_link_goes_on() {
    let mut gathered = gather(&file(&edited(&[("maxStaleness: 1h", "crypto: {allowClassicalKeyExchange: true}")])));
    assert!(validate(&gathered).validated().unwrap().allow_classical_key_exchange);
    gathered.policies = vec![policy(&json!({"allowHostTargets": true}))];
    let verdict = validate(&gathered);
    assert!(!verdict.validated().unwrap().allow_classical_key_exchange);
    assert!(!verdict.is_accepted() && verdict.cuts.is_empty());
    assert_eq!(verdict.refusal().unwrap().reason, Reason::Forbidden);
}

#[test]
fn policies_apply_again_to_what_was_accepted_last() {
    let mut gathered = gather(&file(&edited(&[("maxStaleness: 1h", "maxStalenes: 1h")])));
    gathered.last_accepted = accept(&file(LINK)).accepted;
    gathered.policies =
        vec![policy(&json!({"allowHostTargets": true, "allowedTrustDomains": {"peer": ["eurojust.example"]}}))];
    let verdict = validate(&gathered);
    assert!(matches!(verdict.base, Base::LastAccepted(_)) && verdict.whole_cut().is_some());
    let reasons: Vec<Reason> = verdict.problems.iter().map(|problem| problem.reason).collect();
    assert_eq!(reasons, [Reason::Forbidden, Reason::Invalid]);
}

#[test]
fn a_selector_on_unknown_labels_counts_as_matching() {
    let applies = |selector: serde_json::Value, labels: Option<&BTreeMap<String, String>>| {
        policy_applies(&policy(&json!({"namespaceSelector": selector})), "liaison", labels)
    };
    let tier: BTreeMap<String, String> = [("tier".to_owned(), "liaison".to_owned())].into();
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let name = "kubernetes.io/metadata.name";
    // Selector, without labels, with tier=liaison.
    for (selector, unknown, known) in [
        (json!({}), true, true),
        (json!({"matchLabels": {"tier": "liaison"}}), true, true),
        (json!({"matchLabels": {"tier": "other"}}), true, false),
        (json!({"matchLabels": {name: "liaison"}}), true, true),
        (json!({"matchLabels": {name: "records"}}), false, false),
        (json!({"matchLabels": {name: "records", "tier": "liaison"}}), false, false),
        (expression(name, "In", &["a", "liaison"]), true, true),
        (expression(name, "In", &["a"]), false, false),
        (expression(name, "NotIn", &["liaison"]), false, false),
        (expression(name, "Exists", &[]), true, true),
        (expression(name, "DoesNotExist", &[]), false, false),
        (expression("tier", "NotIn", &["liaison"]), true, false),
        (expression("zone", "NotIn", &["x"]), true, true),
        (expression("zone", "Exists", &[]), true, false),
        (expression("zone", "DoesNotExist", &[]), true, true),
        (expression("tier", "Sideways", &["liaison"]), true, true),
    ] {
        assert_eq!(applies(selector.clone(), None), unknown, "{selector}");
        assert_eq!(applies(selector.clone(), Some(&tier)), known, "{selector}");
    }
}

#[test]
fn a_cut_hits_by_name_or_by_organization_in_its_namespace() {
    let cut = |namespace: &str, spec: serde_json::Value| -> securelink_crds::LinkCut {
        let metadata = json!({"name": "c", "namespace": namespace});
        serde_json::from_value(
            json!({"apiVersion": "securelink.dev/v1alpha1", "kind": "LinkCut", "metadata": metadata, "spec": spec}),
        )
        .unwrap()
    };
    let peers = peer_names(&gather(&file(LINK)).declared, None);
    let named = json!({"linkRef": {"name": "europol"}, "reason": "r"});
    for (namespace, spec, hits) in [
        ("liaison", named.clone(), true),
        ("partners", named, false),
        ("liaison", json!({"linkRef": {"name": "eurojust"}, "reason": "r"}), false),
        ("liaison", json!({"trustDomain": "europol.example", "reason": "r"}), true),
        ("liaison", json!({"trustDomain": "eurojust.example", "reason": "r"}), false),
        ("partners", json!({"trustDomain": "europol.example", "reason": "r"}), false),
    ] {
        let orders = cut_orders(&[cut(namespace, spec.clone())], &link_ref(), &peers);
        assert_eq!(!orders.is_empty(), hits, "{namespace} {spec}");
        let salvaged = salvage_cut(&json!({"spec": spec}), (namespace, "c"), &link_ref(), &peers);
        assert_eq!(salvaged.map(|order| order.id), hits.then(|| "LinkCut/liaison/c".to_owned()));
    }
}

#[test]
fn a_cut_with_a_slip_still_cuts_and_forges_nothing() {
    let peers = BTreeSet::from(["europol.example".to_owned()]);
    let value = json!({"spec": {"linkRef": {"name": "europol"}, "trustDomain": 7, "reason": "one\nReady"}});
    let order = salvage_cut(&value, ("liaison", "c"), &link_ref(), &peers).unwrap();
    assert_eq!(order.reason, "oneReady");
    assert!(salvage_cut(&json!({"spec": []}), ("liaison", "c"), &link_ref(), &peers).is_none());
}

#[test]
fn a_cut_meets_the_peer_that_was_accepted_even_if_the_edit_renames_it() {
    let renamed = gather(&file(&edited(&[("trustDomain: europol.example", "trustDomain: eurojust.example")])));
    let accepted = accept(&file(LINK)).accepted;
    let names = peer_names(&renamed.declared, accepted.as_ref());
    assert_eq!(names, ["europol.example", "eurojust.example"].map(str::to_owned).into());
}

#[test]
fn two_listeners_on_one_address_are_invalid() {
    let judge = |edits: &[(&str, &str)], here: Standalone| {
        let mut gathered = gather(&file(&edited(edits)));
        gathered.mode = Mode::Standalone(here);
        validate(&gathered).problems.iter().map(|problem| problem.field.clone()).collect::<Vec<_>>()
    };
    let taken = |address: &str| Standalone {
        taken: vec![Taken {
            address: address.parse().unwrap(),
            by: LinkRef { namespace: "a".to_owned(), name: "b".to_owned() },
        }],
        ..Standalone::default()
    };
    assert_eq!(judge(&[], Standalone::default()), Vec::<String>::new());
    assert_eq!(judge(&[("port: 8444", "port: 8443")], Standalone::default()), ["spec.imports[1].port"]);
    assert_eq!(judge(&[("port: 8444", "port: 443")], Standalone::default()), ["spec.imports[1].port"]);
    assert_eq!(judge(&[], taken("127.0.0.1:8443")), ["spec.imports[0].port"]);
    assert_eq!(judge(&[], taken("0.0.0.0:443")), ["spec.expose.port"]);
    assert_eq!(judge(&[], taken("192.0.2.1:8443")), Vec::<String>::new());
    let listen = Standalone { listen: Some("127.0.0.1:8444".parse().unwrap()), ..Standalone::default() };
    assert_eq!(judge(&[], listen), ["spec.imports[1].port"]);
    let any = Standalone { listen: Some("127.0.0.1:0".parse().unwrap()), ..taken("127.0.0.1:0") };
    assert_eq!(judge(&[], any), Vec::<String>::new());
}

#[test]
fn a_link_to_ourselves_is_invalid() {
    let verdict =
        validate(&gather(&file(&edited(&[("trustDomain: europol.example", "trustDomain: interpol.example")]))));
    assert_eq!(verdict.base, Base::None);
    assert_eq!(verdict.refusal().unwrap().field, "spec.peer.trustDomain");
}

#[test]
fn an_identity_must_be_there_valid_and_usable_here() {
    let rows = [
        (None, false, "there is no LinkIdentity"),
        (None, true, "the LinkIdentity is invalid"),
        (Some(IDENTITY.replace("builtIn: {}", "secret: {name: link-issuer}")), false, "needs a cluster"),
    ];
    for (identity, invalid, words) in rows {
        let text = identity.map_or_else(|| LINK.to_owned(), |identity| format!("{identity}---{LINK}"));
        let mut gathered = gather(&text);
        gathered.identity_invalid = invalid;
        let verdict = validate(&gathered);
        let problem = verdict.refusal().unwrap();
        assert!(problem.reason == Reason::IdentityNotReady && problem.message.contains(words), "{problem}");
        assert_eq!(verdict.base, Base::None);
    }
}

#[test]
fn of_two_links_to_one_peer_one_is_accepted_and_none_that_runs_is_ended() {
    let mut gathered = gather(&file(LINK));
    gathered.preferred = Some(LinkRef { namespace: "liaison".to_owned(), name: "old".to_owned() });
    let verdict = validate(&gathered);
    assert_eq!((verdict.refusal().unwrap().reason, &verdict.base), (Reason::DuplicatePeer, &Base::None));
    gathered.last_accepted = accept(&file(LINK)).accepted;
    let verdict = validate(&gathered);
    assert_eq!(verdict.refusal().unwrap().reason, Reason::DuplicatePeer);
    assert!(matches!(verdict.base, Base::LastAccepted(_)) && verdict.cuts.is_empty());
}

#[test]
fn nothing_runs_for_a_deleted_link() {
    let mut gathered = gather(IDENTITY);
    assert!(matches!(gathered.declared, Declared::Deleted));
    gathered.last_accepted = accept(&file(LINK)).accepted;
    let verdict = validate(&gathered);
    assert!(verdict.base == Base::None && !verdict.is_accepted() && verdict.accepted.is_none());
}

#[test]
fn in_a_cluster_a_service_must_be_resolved() {
    let mut gathered =
        gather(&file(&edited(&[("{host: notices.records.example, port: 8443}", "{service: notices, port: 8443}")])));
    gathered = settle(gathered, Around::default());
    let verdict = validate(&gathered);
    assert!(verdict.is_accepted());
    assert_eq!(verdict.problems[0].about, About::Export("notices".to_owned()));
    let service = read(
        "{metadata: {name: notices, namespace: liaison}, spec: {selector: {app: notices}, ports: [{port: 8443}]}}",
    );
    let to = Endpoint { host: "notices.liaison.svc.cluster.local".to_owned(), port: 8443 };
    gathered = settle(gathered, Around { services: [("notices".to_owned(), service)].into(), ..Around::default() });
    let verdict = validate(&gathered);
    let link = verdict.validated().unwrap();
    let export = link.exports.iter().find(|export| export.name == "notices").unwrap();
    assert_eq!((export.target.endpoint(), link.replicas), (&to, 2));
    assert!(verdict.problems.is_empty());
}

#[test]
fn accepted_json_is_read_strictly() {
    let bytes = accept(&file(LINK)).accepted.unwrap().to_bytes();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        Accepted::from_bytes(value.to_string().as_bytes(), &link_ref())
    };
    assert!(changed(&|_| {}).is_ok());
    assert!(matches!(changed(&|value| value["format"] = json!(2)), Err(AcceptedError::Format(2))));
    assert!(matches!(changed(&|value| value["format"] = json!("1")), Err(AcceptedError::Malformed(_))));
    assert!(matches!(changed(&|value| value["more"] = json!(1)), Err(AcceptedError::Malformed(_))));
    assert!(matches!(changed(&|value| value["narrowing"]["more"] = json!(1)), Err(AcceptedError::Malformed(_))));
    assert!(matches!(changed(&|value| value["spec"]["more"] = json!(1)), Err(AcceptedError::Invalid(_))));
    assert!(matches!(
        changed(&|value| value["spec"]["exports"][0]["target"]["host"] = json!("169.254.169.254")),
        Err(AcceptedError::Invalid(_))
    ));
    let large = vec![b' '; securelink_plan::MAX_ACCEPTED_BYTES + 1];
    assert!(matches!(Accepted::from_bytes(&large, &link_ref()), Err(AcceptedError::TooLarge(_))));
}
