//! A cluster around a link: what the operator was installed with, the Services behind exports, and the objects that come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use securelink_plan::objects::{Inputs, Objects};
use securelink_plan::{Cluster, Gathered, Installation, Mode, ObjectKind, Verdict};
use securelink_relay_config::control::LeafPem;
use securelink_relay_config::{RecordLayer, Snapshot};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The link's uid in its namespace.
pub const UID: &str = "6c2f3a52-0d6e-4f0b-9a39-0d9f8c1f7e11";

/// `cluster.yaml` of a case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Around {
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
    /// By export: the Service that it names.
    pub services: BTreeMap<String, Service>,
    /// By namespace: what was denied there.
    pub unreadable: BTreeMap<String, String>,
    /// By `KIND/NAME`: whose object that is.
    pub foreign: BTreeMap<String, String>,
}

pub fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

/// A cluster of 10.244.0.0/16 and 10.96.0.0/16, and their counterparts in IPv6.
pub fn installation(ipv6: bool) -> Installation {
    let networks = |v4: &[&str], v6: &[&str]| {
        let v6 = v6.iter().filter(|_| ipv6);
        v4.iter().chain(v6).map(|network| network.parse().unwrap()).collect()
    };
    Installation {
        image: "ghcr.io/securelink/securelink:0.1.0".to_owned(),
        image_pull_policy: None,
        resources: read("{requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 256Mi}}"),
        records: RecordLayer::default(),
        operator: read(
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: securelink-system}},
              podSelector: {matchLabels: {app.kubernetes.io/name: securelink, app.kubernetes.io/component: operator}}}",
        ),
        monitoring: read("[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]"),
        dns: vec![securelink_plan::DnsServers {
            peers: read(
                "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}},
                   podSelector: {matchLabels: {k8s-app: kube-dns}}}]",
            ),
            port: 53,
        }],
        control_cas: vec!["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned()],
        denied: networks(&["172.18.0.2/32", "10.96.0.1/32"], &["fd00:10:96::1/128"]),
        ranges: networks(&["10.244.0.0/16", "10.96.0.0/16"], &["fd00:10:244::/56", "fd00:10:96::/112"]),
        domain: "cluster.local".to_owned(),
        ipv6,
    }
}

/// The same link, in a cluster.
pub fn settle(mut gathered: Gathered, around: Around) -> Gathered {
    let installation = Arc::new(installation(around.ipv6));
    let place = |(place, holder): (String, String)| {
        let (kind, name) = place.split_once('/').unwrap();
        let kind = ObjectKind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap();
        ((kind, name.to_owned()), holder)
    };
    let foreign = around.foreign.into_iter().map(place).collect();
    let Around { services, unreadable, .. } = around;
    gathered.mode = Mode::Cluster(Cluster { services, unreadable, foreign, installation });
    gathered
}

/// What an issuer would have made: the builder only carries it.
pub fn leaf() -> LeafPem {
    LeafPem {
        chain: "-----BEGIN CERTIFICATE-----\nleaf, intermediate, root\n-----END CERTIFICATE-----\n".to_owned(),
        key: "-----BEGIN PRIVATE KEY-----\nnot to be seen anywhere else\n-----END PRIVATE KEY-----\n".to_owned(),
        transitions: String::new(),
    }
}

pub fn objects(verdict: &Verdict, snapshot: &Snapshot, mode: &Mode) -> Objects {
    let Mode::Cluster(cluster) = mode else { panic!("not in a cluster") };
    Objects::build(&Inputs {
        uid: UID,
        link: verdict.validated().unwrap(),
        accepted: verdict.accepted.as_ref().unwrap(),
        snapshot,
        leaf: Some(&leaf()),
        installation: &cluster.installation,
    })
}

/// All of them, as they are sent. Taken apart without `..`: a kind that is added is not forgotten here.
pub fn all(objects: &Objects) -> Vec<Value> {
    let Objects {
        service_account,
        secret,
        config_map,
        network_policy,
        peer_service,
        import_services,
        pod_disruption_budget,
        deployment,
    } = objects;
    let mut all = vec![serde_json::to_value(service_account)];
    all.extend(secret.iter().map(serde_json::to_value));
    all.extend([serde_json::to_value(config_map), serde_json::to_value(network_policy)]);
    all.extend(peer_service.iter().chain(import_services).map(serde_json::to_value));
    all.extend([serde_json::to_value(pod_disruption_budget), serde_json::to_value(deployment)]);
    all.into_iter().map(Result::unwrap).collect()
}
