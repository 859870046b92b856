//! Laws of a link's objects: who reaches whom, what a pod may do, whose they are, what changes without a restart.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use securelink_crds::load::{Object, judge};
use securelink_plan::objects::{ACCEPTED_JSON, Objects, RELAY_JSON};
use securelink_plan::{
    Declared, Gathered, Installation, MAX_ACCEPTED_BYTES, Mode, Orders, Target, Verdict, names, snapshot, validate,
};
use securelink_relay_config::{Cut, CutScope, MAX_SNAPSHOT_BYTES, Millis, RecordLayer, Snapshot};
use serde_json::{Value, json};

use support::cluster::{Around, UID, all, leaf, objects, read, settle};
use support::policy::{Party, Pod, admits_egress, admits_ingress, is, labels};
use support::restricted::violations;
use support::{IDENTITY, LINK, file, gather, snapshot_of};

/// Longest `data` of a `ConfigMap`, keys included (Kubernetes' `MaxSecretSize`).
const MOST: usize = 1024 * 1024;

/// A link in a cluster, from its spec.
fn gathered(spec: &Value, ipv6: bool) -> Gathered {
    let mut written = json!({
        "apiVersion": "securelink.dev/v1alpha1",
        "kind": "SecureLink",
        "metadata": {"name": "europol", "namespace": "liaison", "uid": UID, "generation": 1},
        "spec": {"identityRef": {"name": "default"}, "peer": {
            "trustDomain": "europol.example",
            "fingerprints": ["sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e"],
        }},
    });
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "peer" => written["spec"]["peer"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone()),
            _ => written["spec"][field] = value.clone(),
        }
    }
    let Object::SecureLink(link) = judge(&written, None).unwrap() else { panic!() };
    let mut gathered = gather(IDENTITY);
    gathered.declared = Declared::Valid(link);
    let service = |namespace: &str, more: &str| -> Service {
        read(&format!(
            "{{metadata: {{name: notices, namespace: {namespace}, uid: {namespace}, resourceVersion: '7'{more}}},
               spec: {{selector: {{app: notices}}, ports: [{{port: 8443, targetPort: https}}]}}}}"
        ))
    };
    let services = [
        ("own".to_owned(), service("liaison", "")),
        ("foreign".to_owned(), service("records", ", annotations: {securelink.dev/export-to: liaison/europol}")),
        ("unwilling".to_owned(), service("vault", "")),
    ];
    settle(gathered, Around { ipv6, services: services.into(), ..Around::default() })
}

fn clients() -> Vec<Value> {
    vec![
        json!({"podSelector": {"matchLabels": {"app": "case-desk"}}}),
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "analysts"}}}),
        json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "research"}},
            "podSelector": {"matchExpressions": [{"key": "role", "operator": "In", "values": ["reader"]}]},
        }),
        json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}),
    ]
}

fn export(name: &str) -> Value {
    let target = match name {
        "own" => json!({"service": "notices", "port": 8443}),
        "foreign" => json!({"service": "notices", "namespace": "records", "port": 8443}),
        "unwilling" => json!({"service": "notices", "namespace": "vault", "port": 8443}),
        "address" => json!({"host": "10.20.1.1", "port": 9443}),
        _ => json!({"host": "archive.example", "port": 9444}),
    };
    json!({"name": name, "target": target, "dataClass": "strategic"})
}

fn imports() -> impl Strategy<Value = Value> {
    let import = (0..4_usize, subsequence(clients(), 1..=3));
    prop::collection::btree_map(select(vec!["a", "b", "c", "d"]), import, 0..=4).prop_map(|entries| {
        let imports = entries.into_iter().map(|(name, (port, clients))| {
            json!({"name": name, "port": 8000 + port, "dataClass": "operational", "clients": clients})
        });
        imports.collect()
    })
}

fn expose() -> impl Strategy<Value = Option<Value>> {
    select(vec![
        None,
        Some(json!({"type": "LoadBalancer", "hostname": "link.interpol.example"})),
        Some(
            json!({"type": "NodePort", "nodePort": 30_443, "externalTrafficPolicy": "Local", "allowedSources": ["198.51.100.9/24"]}),
        ),
        Some(json!({"type": "ClusterIP", "annotations": {"a": "b"}})),
    ])
}

fn peer() -> impl Strategy<Value = Value> {
    let endpoints = json!([{"host": "link.europol.example", "port": 443}, {"host": "2001:db8::5", "port": 4443}]);
    select(vec![
        json!({"endpoints": endpoints}),
        json!({"endpoints": endpoints, "egressCIDRs": ["198.51.100.0/24"]}),
        json!({"endpoints": endpoints, "proxy": "http://proxy.corp.example:3128"}),
    ])
}

fn relay() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"replicas": 1, "priorityClassName": "high"}),
        json!({"replicas": 16, "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
        ]}),
    ])
}

/// The spec of a link, and whether its pods have IPv6.
fn link() -> impl Strategy<Value = (Value, bool)> {
    let exports = subsequence(vec!["own", "foreign", "unwilling", "address", "name"], 0..=5);
    (imports(), exports, expose(), peer(), any::<bool>(), relay(), any::<bool>()).prop_map(
        |(imports, exports, expose, peer, dials, relay, ipv6)| {
            let exports: Vec<Value> = exports.into_iter().map(export).collect();
            let mut spec = json!({"imports": imports, "exports": exports, "relay": relay});
            // One side must be able to dial.
            if dials || expose.is_none() {
                spec["peer"] = peer;
            }
            if let Some(expose) = expose {
                spec["expose"] = expose;
            }
            (spec, ipv6)
        },
    )
}

struct Built {
    verdict: Verdict,
    snapshot: Snapshot,
    objects: Objects,
}

fn build((spec, ipv6): &(Value, bool), previous: Option<&Snapshot>) -> Built {
    let gathered = gathered(spec, *ipv6);
    let verdict = validate(&gathered);
    assert!(verdict.is_accepted(), "{:?}", verdict.problems);
    let snapshot = snapshot_of(&verdict, previous).unwrap();
    let objects = objects(&verdict, &snapshot, &gathered.mode);
    Built { verdict, snapshot, objects }
}

/// Everybody who might knock or be called.
fn parties() -> Vec<Party> {
    let addresses = [
        "192.0.2.5",
        "192.0.2.200",
        "198.51.100.7",
        "10.20.1.1",
        "10.20.1.2",
        "8.8.8.8",
        "169.254.169.254",
        "172.18.0.2",
        "10.96.0.1",
        "10.96.7.7",
        "2001:db8::5",
        "fe80::1",
        "fd00:ec2::254",
        "fd00:10:96::1",
    ];
    let outside = addresses.iter().map(|address| Party { address: address.parse().unwrap(), pod: None });
    let kinds = [
        labels([("app", "case-desk")]),
        labels([("role", "reader")]),
        labels([("app", "notices")]),
        labels([("k8s-app", "kube-dns")]),
        labels([("app.kubernetes.io/name", "securelink"), ("app.kubernetes.io/component", "operator")]),
        names::labels("europol", names::Component::Relay),
        names::labels("eurojust", names::Component::Relay),
        labels([]),
    ];
    let namespaces =
        ["liaison", "analysts", "research", "records", "vault", "securelink-system", "monitoring", "kube-system", "x"];
    let pod = |namespace: &str, kind| {
        let pod = Pod {
            namespace: namespace.to_owned(),
            namespace_labels: labels([("kubernetes.io/metadata.name", namespace)]),
            labels: kind,
            ports: [("https".to_owned(), 443)].into(),
        };
        Party { address: "10.244.3.4".parse().unwrap(), pod: Some(pod) }
    };
    let pods = namespaces.iter().flat_map(|namespace| kinds.clone().map(|kind| pod(namespace, kind)));
    outside.chain(pods).collect()
}

fn is_pod(party: &Party, namespace: &str, label: (&str, &str)) -> bool {
    let labelled = |pod: &Pod| pod.labels.get(label.0).map(String::as_str) == Some(label.1);
    party.pod.as_ref().is_some_and(|pod| pod.namespace == namespace && labelled(pod))
}

fn within(party: &Party, network: &str) -> bool {
    network.parse::<ipnet::IpNet>().unwrap().contains(&party.address)
}

fn ingress_is_as_declared(built: &Built, policy: &NetworkPolicy, party: &Party) {
    let link = built.verdict.validated().unwrap();
    for slot in 0..8_u16 {
        let import = built.snapshot.imports.iter().find(|import| import.slot == slot);
        let declared = import.map(|import| link.imports.iter().find(|entry| entry.name == import.name).unwrap());
        let is_client = |client: &NetworkPolicyPeer| is(client, "liaison", party);
        let named = declared.is_some_and(|entry| entry.declared.clients.iter().any(is_client));
        assert_eq!(admits_ingress(policy, party, 20_000 + slot), named, "slot {slot} {party:?}");
    }
    let operator = is_pod(party, "securelink-system", ("app.kubernetes.io/component", "operator"));
    let monitoring = party.pod.as_ref().is_some_and(|pod| pod.namespace == "monitoring");
    let peer = link
        .expose
        .as_ref()
        .is_some_and(|expose| expose.declared.allowed_sources.is_empty() || within(party, "198.51.100.0/24"));
    assert_eq!(admits_ingress(policy, party, 15_444), operator, "control {party:?}");
    assert_eq!(admits_ingress(policy, party, 15_445), operator || monitoring, "metrics {party:?}");
    assert_eq!(admits_ingress(policy, party, 15_443), peer, "peer {party:?}");
    for other in [22, 443, 8443, 19_999, 20_064] {
        assert!(!admits_ingress(policy, party, other), "{other} {party:?}");
    }
}

/// Whether a party is out of the cluster and no metadata service, as far as `ipv6` lets pods go.
fn is_outside(party: &Party, ipv6: bool) -> bool {
    let own = ["10.244.0.0/16", "10.96.0.0/16", "172.18.0.2/32", "169.254.0.0/16", "fe80::/10", "fd00::/8"];
    (ipv6 || party.address.is_ipv4()) && !own.iter().any(|network| within(party, network))
}

fn egress_is_as_declared(built: &Built, policy: &NetworkPolicy, ipv6: bool, party: &Party) {
    let link = built.verdict.validated().unwrap();
    let exported = |namespace: &str| {
        let leads = |target: &Target| matches!(target, Target::Service(service) if service.namespace == namespace);
        link.exports.iter().any(|export| leads(&export.target)) && is_pod(party, namespace, ("app", "notices"))
    };
    let has = |name: &str| link.exports.iter().any(|export| export.name == name);
    let dials = |port: u16| {
        let proxied = link.peer.proxy.as_ref().map(|proxy| proxy.port == port);
        proxied.unwrap_or_else(|| link.peer.endpoints.iter().any(|endpoint| endpoint.port == port))
    };
    let out = if link.egress.is_empty() { is_outside(party, ipv6) } else { within(party, "198.51.100.0/24") };
    let dns = is_pod(party, "kube-system", ("k8s-app", "kube-dns"));
    for port in [22, 53, 80, 443, 3128, 4443, 6443, 8443, 9443, 9444, 10_250, 15_443, 15_444, 20_000] {
        let expected = (dns && port == 53)
            || (port == 443 && (exported("liaison") || exported("records")))
            || (port == 9443 && has("address") && party.address == "10.20.1.1".parse::<IpAddr>().unwrap())
            || (port == 9444 && has("name") && is_outside(party, ipv6))
            || (dials(port) && out);
        assert_eq!(admits_egress(policy, party, "TCP", port), expected, "{port} {party:?}");
        assert_eq!(admits_egress(policy, party, "UDP", port), dns && port == 53, "udp {port} {party:?}");
    }
}

fn everything_is_ours_and_only_here(built: &Built) {
    let all = all(&built.objects);
    let mut names = BTreeSet::new();
    for object in &all {
        let (metadata, kind) = (&object["metadata"], object["kind"].as_str().unwrap());
        assert!(object["apiVersion"].is_string() && metadata["namespace"] == "liaison", "{object}");
        let name = metadata["name"].as_str().unwrap();
        assert!(name.len() <= 63 && names.insert((kind.to_owned(), name.to_owned())), "{kind} {name}");
        let owners = json!([{"apiVersion": "securelink.dev/v1alpha1", "kind": "SecureLink", "name": "europol",
            "uid": UID, "controller": true}]);
        assert_eq!(metadata["ownerReferences"], owners);
        for (label, value) in [
            ("securelink.dev/link", "europol"),
            ("app.kubernetes.io/managed-by", "securelink-operator"),
            ("app.kubernetes.io/name", "securelink"),
        ] {
            assert_eq!(metadata["labels"][label], value, "{kind} {name}");
        }
        assert!(metadata["labels"]["app.kubernetes.io/component"].is_string());
        let text = object.to_string();
        for secret in [&leaf().key, &leaf().chain] {
            let encoded = serde_json::to_value(k8s_openapi::ByteString(secret.as_bytes().to_vec())).unwrap();
            let holds = text.contains(secret.lines().nth(1).unwrap()) || text.contains(encoded.as_str().unwrap());
            assert_eq!(holds, kind == "Secret", "{kind} {name}");
        }
    }
    let shown = format!("{:?}", built.objects);
    assert!(!shown.contains("not to be seen"), "{shown}");
}

fn services_lead_to_the_relays(built: &Built) {
    let link = built.verdict.validated().unwrap();
    let pod = built.objects.deployment.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
    let pod = pod.labels.as_ref().unwrap();
    let Objects { peer_service, import_services, pod_disruption_budget, network_policy, deployment, .. } =
        &built.objects;
    for service in peer_service.iter().chain(import_services) {
        let spec = service.spec.as_ref().unwrap();
        assert!(spec.selector.as_ref().unwrap().iter().all(|(key, value)| pod.get(key) == Some(value)));
        assert_eq!(spec.publish_not_ready_addresses == Some(true), peer_service.as_ref() == Some(service));
    }
    for selector in [
        pod_disruption_budget.spec.as_ref().unwrap().selector.as_ref(),
        network_policy.spec.as_ref().unwrap().pod_selector.as_ref(),
        Some(&deployment.spec.as_ref().unwrap().selector),
    ] {
        assert!(support::policy::selects(selector.unwrap(), pod) && selector.unwrap().match_labels.is_some());
    }
    assert_eq!((peer_service.is_some(), import_services.len()), (link.expose.is_some(), link.imports.len()));
    for (import, service) in link.imports.iter().zip(import_services) {
        let slot = built.snapshot.imports.iter().find(|entry| entry.name == import.name).unwrap();
        let port = serde_json::to_value(&service.spec.as_ref().unwrap().ports).unwrap();
        assert_eq!(port[0]["port"], import.declared.port);
        assert_eq!(port[0]["targetPort"], slot.listen.port());
        assert_eq!(slot.listen.port(), 20_000 + slot.slot);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The second of two snapshots, so that slots are not simply in order.
    #[test]
    fn only_named_clients_reach_an_import_and_relays_reach_only_what_they_must(before in link(), link in link()) {
        let before = build(&before, None);
        let built = build(&link, Some(&before.snapshot));
        let policy = &built.objects.network_policy;
        for party in parties() {
            ingress_is_as_declared(&built, policy, &party);
            egress_is_as_declared(&built, policy, link.1, &party);
        }
        // An empty list would mean everybody: only the peer's port is open to all.
        let spec = policy.spec.as_ref().unwrap();
        let open = spec.ingress.iter().flatten().filter(|rule| rule.from.as_ref().is_none_or(Vec::is_empty));
        let exposed = built.verdict.validated().unwrap().expose.as_ref();
        let unbounded = exposed.is_some_and(|expose| expose.allowed_sources.is_empty());
        prop_assert_eq!(open.count(), usize::from(unbounded));
        prop_assert!(spec.egress.iter().flatten().all(|rule| rule.to.as_ref().is_some_and(|to| !to.is_empty())));
    }

    #[test]
    fn every_object_is_the_links_and_the_same_inputs_give_the_same(before in link(), link in link()) {
        let before = build(&before, None);
        let built = build(&link, Some(&before.snapshot));
        everything_is_ours_and_only_here(&built);
        services_lead_to_the_relays(&built);
        let again = build(&link, Some(&before.snapshot));
        prop_assert_eq!(all(&again.objects), all(&built.objects));
        let data = built.objects.config_map.data.as_ref().unwrap();
        let running = Snapshot::from_bytes(data[RELAY_JSON].as_bytes()).unwrap();
        prop_assert_eq!(&running, &built.snapshot);
        let kept = securelink_plan::Accepted::from_bytes(data[ACCEPTED_JSON].as_bytes(), &support::link_ref()).unwrap();
        prop_assert_eq!(Some(&kept), built.verdict.accepted.as_ref());
    }

    #[test]
    fn f30_every_pod_passes_the_restricted_profile(link in link()) {
        let template = build(&link, None).objects.deployment.spec.unwrap().template;
        let pod = serde_json::to_value(&template.spec).unwrap();
        prop_assert_eq!(violations(&pod), Vec::<String>::new());
        prop_assert_eq!(&pod["automountServiceAccountToken"], false);
        prop_assert_eq!(&pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    }

    /// What is pushed restarts nobody: another spec, another snapshot and another leaf, but the same `relay`.
    #[test]
    fn no_change_of_a_link_restarts_its_relays(one in link(), two in link()) {
        let mut two = two;
        two.0["relay"] = one.0["relay"].clone();
        two.1 = one.1;
        let one = build(&one, None);
        let two = build(&two, Some(&one.snapshot));
        let template = |built: &Built| built.objects.deployment.spec.as_ref().unwrap().template.clone();
        prop_assert_eq!(template(&one), template(&two));
    }
}

proptest! {
    #[test]
    fn names_of_different_links_never_meet(
        one in "[a-z]([-a-z0-9]{0,90}[a-z0-9])?",
        two in "[a-z]([-a-z0-9]{0,90}[a-z0-9])?",
        tail in "[a-z0-9]{1,30}",
    ) {
        let kinds = [names::relay, names::leaf, names::peer_service];
        // Names that differ only where they would be cut off, too.
        for (one, two) in [(&one, &two), (&one, &format!("{one}{tail}")), (&format!("{one}{two}"), &format!("{one}{two}{tail}"))] {
            for name in kinds {
                let is_label = |name: &str| name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-');
                prop_assert!(is_label(&name(one)) && is_label(&name(two)));
                prop_assert_eq!(name(one) == name(two), one == two);
            }
            prop_assert_eq!(names::selector(one) == names::selector(two), one == two);
            let own: BTreeSet<String> = kinds.iter().map(|name| name(one)).collect();
            prop_assert_eq!(own.len(), kinds.len());
        }
    }
}

#[test]
fn the_check_of_the_restricted_profile_finds_each_fault() {
    let pod = build(&(json!({"peer": {"endpoints": [{"host": "a.example", "port": 1}]}}), false), None);
    let pod = serde_json::to_value(&pod.objects.deployment.spec.unwrap().template.spec).unwrap();
    for (place, value) in [
        ("/hostNetwork", json!(true)),
        ("/hostPID", json!(true)),
        ("/securityContext/sysctls", json!([])),
        ("/securityContext/runAsNonRoot", Value::Null),
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/volumes/0", json!({"name": "config", "hostPath": {"path": "/"}})),
        ("/containers/0/ports/0/hostPort", json!(80)),
        ("/containers/0/securityContext/privileged", json!(true)),
        ("/containers/0/securityContext/allowPrivilegeEscalation", Value::Null),
        ("/containers/0/securityContext/capabilities/drop", json!(["NET_RAW"])),
        ("/containers/0/securityContext/capabilities/add", json!(["SYS_ADMIN"])),
        ("/containers/0/securityContext/procMount", json!("Unmasked")),
        ("/containers/0/livenessProbe/httpGet/host", json!("a.example")),
        ("/initContainers", json!([{"name": "more"}])),
    ] {
        let mut bad = pod.clone();
        let (parent, field) = place.rsplit_once('/').unwrap();
        let parent = bad.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
            other => other[field] = value,
        }
        assert!(!violations(&bad).is_empty(), "{place}");
    }
}

#[test]
fn a_single_relay_is_never_taken_away_by_a_rollout_and_always_by_a_drain() {
    for (replicas, unavailable) in [(1, 0), (2, 1), (16, 1)] {
        let spec = json!({"peer": {"endpoints": [{"host": "a.example", "port": 1}]}, "relay": {"replicas": replicas}});
        let objects = build(&(spec, false), None).objects;
        let deployment = serde_json::to_value(&objects.deployment).unwrap();
        let rolling = json!({"maxSurge": 1, "maxUnavailable": unavailable});
        assert_eq!(deployment["spec"]["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
        assert_eq!(deployment["spec"]["replicas"], replicas);
        let budget = serde_json::to_value(&objects.pod_disruption_budget).unwrap();
        assert_eq!(budget["spec"]["maxUnavailable"], 1);
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    }
}

#[test]
fn two_services_of_one_name_are_refused_with_the_field() {
    let import = |name: &str, service: Option<&str>| {
        let mut import = json!({"name": name, "port": 1, "dataClass": "strategic", "clients": clients()});
        if let Some(service) = service {
            import["serviceName"] = json!(service);
        }
        import
    };
    for imports in [
        json!([import("a", None), import("b", Some("europol-a"))]),
        json!([import("a", Some("siena")), import("b", Some("siena"))]),
        json!([import("a", None), import("peer", None)]),
    ] {
        let verdict = validate(&gathered(&json!({"imports": imports, "expose": {"type": "NodePort"}}), false));
        assert!(!verdict.is_accepted(), "{imports}");
        assert_eq!(verdict.problems[0].field, "spec.imports[1].serviceName");
    }
    let only_dials =
        json!({"imports": [import("peer", None)], "peer": {"endpoints": [{"host": "a.example", "port": 1}]}});
    assert!(validate(&gathered(&only_dials, false)).is_accepted());
}

#[test]
fn f90_relays_of_a_dual_stack_cluster_listen_and_dial_in_both_families() {
    let expose = json!({"type": "LoadBalancer", "hostname": "link.interpol.example"});
    let spec = json!({
        "expose": expose,
        "peer": {"endpoints": [{"host": "2001:db8:20::5", "port": 443}]},
        "imports": [{"name": "a", "port": 1, "dataClass": "strategic", "clients": clients()}],
    });
    for (ipv6, any, families) in [(false, "0.0.0.0", 1), (true, "[::]", 2)] {
        let built = build(&(spec.clone(), ipv6), None);
        assert_eq!(built.snapshot.listen.unwrap().to_string(), format!("{any}:15443"));
        assert_eq!(built.snapshot.imports[0].listen.to_string(), format!("{any}:20000"));
        let pod = built.objects.deployment.spec.unwrap().template.spec.unwrap();
        let args = pod.containers[0].args.as_ref().unwrap().join(" ");
        assert!(args.ends_with(&format!("--control {any}:15444 --metrics {any}:15445")), "{args}");
        let peers = built.objects.network_policy.spec.unwrap().egress.unwrap().pop().unwrap().to.unwrap();
        assert_eq!(peers.len(), families);
        for service in built.objects.peer_service.iter().chain(&built.objects.import_services) {
            assert_eq!(service.spec.as_ref().unwrap().ip_family_policy.as_deref(), Some("PreferDualStack"));
        }
    }
}

#[test]
fn who_makes_records_is_the_installations_choice_and_restarts_nothing() {
    let spec = json!({"expose": {"type": "NodePort"}});
    let mut gathered = gathered(&spec, false);
    let built = |gathered: &Gathered, previous: Option<&Snapshot>| {
        let verdict = validate(gathered);
        let snapshot = snapshot_of(&verdict, previous).unwrap();
        (objects(&verdict, &snapshot, &gathered.mode).deployment, snapshot)
    };
    let (deployment, snapshot) = built(&gathered, None);
    assert_eq!(snapshot.records, RecordLayer::Rustls);
    let Mode::Cluster(cluster) = &mut gathered.mode else { panic!() };
    cluster.installation =
        Arc::new(Installation { records: RecordLayer::InPlace, ..cluster.installation.as_ref().clone() });
    let (same, changed) = built(&gathered, Some(&snapshot));
    assert_eq!((changed.records, changed.version), (RecordLayer::InPlace, snapshot.version + 1));
    assert_eq!(same, deployment);
}

/// Text of the longest kind, different for each number.
fn long(number: usize, length: usize) -> String {
    format!("a{number:04}{}", "x".repeat(length - 5))
}

fn host(number: usize) -> String {
    format!("{}.{}.{}.{}", long(number, 63), long(1, 63), long(2, 63), long(3, 61))
}

/// A client by `count` labels, each as long as it may be.
fn client(count: usize) -> Value {
    let label = |n| (format!("{}/{}", long(n, 253), long(n, 63)), json!(long(n, 63)));
    let labels: serde_json::Map<String, Value> = (0..count).map(label).collect();
    json!({"podSelector": {"matchLabels": labels}})
}

/// A link at every bound of contracts 8, each text as long as it may be; every import has these clients.
fn at_all_bounds(clients: &[Value]) -> Value {
    json!({
        "peer": {
            "endpoints": (0..8).map(|n| json!({"host": host(n), "port": 65_535})).collect::<Vec<_>>(),
            "fingerprints": (0..4).map(|n| format!("sha256:{n:064x}")).collect::<Vec<_>>(),
            "egressCIDRs": (0..64).map(|n| format!("2001:db8:{n:x}::/48")).collect::<Vec<_>>(),
        },
        "exports": (0..64).map(|n| json!({
            "name": long(n, 63), "target": {"host": host(n), "port": 65_535}, "dataClass": "operational",
            "limits": {"connections": 1_000_000, "newConnectionsPerSecond": 1_000_000, "bytesPerSecond": "1Ti"},
        })).collect::<Vec<_>>(),
        "imports": (0..64).map(|n| json!({
            "name": long(n, 63), "port": 65_535, "serviceName": long(n, 63), "dataClass": "operational",
            "clients": clients,
        })).collect::<Vec<_>>(),
        "expose": {"type": "NodePort", "hostname": host(9), "externalTrafficPolicy": "Local",
            "allowedSources": (0..64).map(|n| format!("2001:db8:{n:x}::/48")).collect::<Vec<_>>()},
    })
}

fn released_at_all_bounds(verdict: &Verdict) -> Snapshot {
    let cut = |n: usize| Cut {
        id: format!("Service/6c2f3a52-0d6e-4f0b-9a39-0d9f8c1f7e11#exports/{}", long(n, 63)),
        revision: u64::MAX,
        scope: CutScope::Export(long(n, 63)),
        reason: "r".repeat(256),
    };
    let before: BTreeSet<Cut> = (1_000..1_300).map(cut).collect();
    let now: BTreeSet<Cut> = (0..128).map(cut).collect();
    let link = verdict.validated().unwrap();
    let seen = &verdict.seen;
    let first = snapshot(link, Orders { cuts: &before, seen, withdrawn: &BTreeSet::new() }, None, Millis(u64::MAX - 9));
    snapshot(link, Orders { cuts: &now, seen, withdrawn: &BTreeSet::new() }, Some(&first), Millis(u64::MAX - 9))
}

#[test]
fn f50_a_link_at_all_bounds_fits_its_config_map_and_a_larger_one_is_refused_and_loses_nothing() {
    let gathered_at = |clients: &[Value]| {
        let mut gathered = gathered(&at_all_bounds(clients), true);
        let identity = gathered.identity.as_mut().unwrap();
        let contact = identity.spec.contacts[0].clone();
        identity.spec.contacts = vec![contact; 8];
        for (n, contact) in identity.spec.contacts.iter_mut().enumerate() {
            contact.name = long(n, 256);
            contact.email = format!("{}@{}", long(n, 60), long(n, 190));
        }
        gathered
    };
    let mut clients = vec![client(1), client(2)];
    let small = gathered_at(&clients);
    let verdict = validate(&small);
    assert!(verdict.is_accepted(), "{}", verdict.problems[0]);
    let snapshot = released_at_all_bounds(&verdict);
    assert_eq!((snapshot.released.len(), snapshot.cuts_in_force.len()), (256, 128));
    let config = objects(&verdict, &snapshot, &small.mode).config_map.data.unwrap();
    assert!(config[RELAY_JSON].len() < MAX_SNAPSHOT_BYTES / 4, "{}", config[RELAY_JSON].len());
    // The rest is accepted.json's, at its own bound.
    assert!(config[RELAY_JSON].len() + MAX_ACCEPTED_BYTES < MOST);
    assert!(config.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() < MOST);

    clients.resize(16, client(16));
    let mut large = gathered_at(&clients);
    large.last_accepted.clone_from(&verdict.accepted);
    let refused = validate(&large);
    assert!(!refused.is_accepted() && refused.validated() == verdict.validated());
    assert!(refused.problems[0].message.contains("too large to be kept"), "{}", refused.problems[0]);
}

#[test]
fn without_a_leaf_yet_there_is_no_secret_and_the_rest_is_the_same() {
    let gathered = gather(&file(LINK));
    let gathered = settle(gathered, Around::default());
    let verdict = validate(&gathered);
    let snapshot = snapshot_of(&verdict, None).unwrap();
    let with = objects(&verdict, &snapshot, &gathered.mode);
    let Mode::Cluster(cluster) = &gathered.mode else { panic!() };
    let without = Objects::build(&securelink_plan::objects::Inputs {
        uid: UID,
        link: verdict.validated().unwrap(),
        accepted: verdict.accepted.as_ref().unwrap(),
        snapshot: &snapshot,
        leaf: None,
        installation: &cluster.installation,
    });
    assert!(without.secret.is_none() && with.secret.is_some());
    assert_eq!(Objects { secret: None, ..with }, without);
}
