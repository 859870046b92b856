//! What of our objects is ours as a whole, and how the entries of a list are told apart.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// By kind: fields that nobody else has a say in. A `*` is any field of that depth, so that a map is ours key by key. Only
/// what an API server never fills in stands here, or what it added to our objects would be taken out at every look.
const OURS: [(&str, &[&str]); 6] = [
    ("ConfigMap", &["data", "data.*", "binaryData"]),
    ("Secret", &["data", "data.*", "stringData"]),
    ("Service", &["spec.ports", "spec.selector.*", "spec.externalIPs", "spec.publishNotReadyAddresses"]),
    ("NetworkPolicy", &["spec.ingress", "spec.egress", "spec.podSelector.*", "spec.podSelector.matchLabels.*"]),
    ("PodDisruptionBudget", &["spec.minAvailable", "spec.selector.*", "spec.selector.matchLabels.*"]),
    (
        "Deployment",
        &[
            "spec.paused",
            "spec.template.spec.initContainers",
            "spec.template.spec.ephemeralContainers",
            "spec.template.spec.volumes",
            // Beside the source of a volume that we name, another one.
            "spec.template.spec.volumes.*",
            "spec.template.spec.hostNetwork",
            "spec.template.spec.hostPID",
            "spec.template.spec.hostIPC",
            "spec.template.spec.hostAliases",
            "spec.template.spec.shareProcessNamespace",
            "spec.template.spec.nodeName",
            "spec.template.spec.nodeSelector",
            "spec.template.spec.nodeSelector.*",
            "spec.template.spec.affinity",
            "spec.template.spec.tolerations",
            "spec.template.spec.imagePullSecrets",
            "spec.template.spec.topologySpreadConstraints.labelSelector.*",
            "spec.template.spec.topologySpreadConstraints.labelSelector.matchLabels.*",
            "spec.template.spec.dnsConfig.nameservers",
            "spec.template.spec.dnsConfig.searches",
            "spec.template.spec.runtimeClassName",
            "spec.template.spec.securityContext.runAsUser",
            "spec.template.spec.securityContext.runAsGroup",
            "spec.template.spec.securityContext.fsGroup",
            "spec.template.spec.securityContext.supplementalGroups",
            "spec.template.spec.securityContext.sysctls",
            "spec.template.spec.containers.command",
            "spec.template.spec.containers.args",
            "spec.template.spec.containers.env",
            "spec.template.spec.containers.envFrom",
            "spec.template.spec.containers.ports",
            "spec.template.spec.containers.volumeMounts",
            "spec.template.spec.containers.volumeMounts.subPath",
            "spec.template.spec.containers.volumeDevices",
            "spec.template.spec.containers.lifecycle",
            "spec.template.spec.containers.securityContext.privileged",
            "spec.template.spec.containers.securityContext.procMount",
            "spec.template.spec.containers.securityContext.runAsUser",
            "spec.template.spec.containers.securityContext.runAsGroup",
            "spec.template.spec.containers.securityContext.runAsNonRoot",
            "spec.template.spec.containers.securityContext.seccompProfile",
            "spec.template.spec.containers.securityContext.capabilities.add",
            "spec.template.spec.containers.startupProbe.exec",
            "spec.template.spec.containers.startupProbe.tcpSocket",
            "spec.template.spec.containers.startupProbe.grpc",
            "spec.template.spec.containers.livenessProbe.exec",
            "spec.template.spec.containers.livenessProbe.tcpSocket",
            "spec.template.spec.containers.livenessProbe.grpc",
            "spec.template.spec.containers.readinessProbe.exec",
            "spec.template.spec.containers.readinessProbe.tcpSocket",
            "spec.template.spec.containers.readinessProbe.grpc",
        ],
    ),
];

/// What an entry is known by in the lists that Kubernetes merges, and what is meant where it is not written.
const KEYS: [(&str, &[(&str, &str)]); 11] = [
    ("metadata.ownerReferences", &[("uid", "")]),
    ("spec.ports", &[("port", ""), ("protocol", "TCP")]),
    ("spec.template.spec.containers", &[("name", "")]),
    ("spec.template.spec.initContainers", &[("name", "")]),
    ("spec.template.spec.ephemeralContainers", &[("name", "")]),
    ("spec.template.spec.volumes", &[("name", "")]),
    ("spec.template.spec.imagePullSecrets", &[("name", "")]),
    ("spec.template.spec.topologySpreadConstraints", &[("topologyKey", ""), ("whenUnsatisfiable", "")]),
    ("spec.template.spec.containers.env", &[("name", "")]),
    ("spec.template.spec.containers.ports", &[("containerPort", ""), ("protocol", "TCP")]),
    ("spec.template.spec.containers.volumeMounts", &[("mountPath", "")]),
];

/// Rules that mean what they say only as a whole: a field more makes one wider.
const RULES: [&str; 2] = ["spec.ingress", "spec.egress"];

/// Maps that an API server does not store when they are empty.
const MAPS: [&str; 3] = ["limits", "requests", "matchLabels"];

/// Whether the field at that place is ours, whoever wrote it.
pub(super) fn is_ours(kind: &str, fields: &[String]) -> bool {
    let matches = |pattern: &&str| {
        let names: Vec<&str> = pattern.split('.').collect();
        names.len() == fields.len() && names.iter().zip(fields).all(|(name, field)| *name == "*" || name == field)
    };
    OURS.iter().any(|(of, patterns)| *of == kind && patterns.iter().any(matches))
}

/// Whether a desired value is stored by leaving it out.
pub(super) fn is_stored_as_nothing(field: &str, desired: &Value) -> bool {
    match desired {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty() && MAPS.contains(&field),
        _ => false,
    }
}

/// How the entries of a list are told apart.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// By these fields.
    Key(&'static [(&'static str, &'static str)]),
    /// By everything they say.
    Whole,
    /// By their places.
    Place,
}

/// How those of the list at that place are.
pub(super) fn order(kind: &str, fields: &[String]) -> Order {
    let place = fields.join(".");
    if kind == "NetworkPolicy" && RULES.contains(&place.as_str()) {
        return Order::Whole;
    }
    KEYS.iter().find(|(list, _)| *list == place).map_or(Order::Place, |(_, keys)| Order::Key(keys))
}

impl Order {
    /// Whether entries that are the same one differ in nothing.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Whether two entries are the same one. Without keys the next one always is.
    pub(super) fn is_same(self, live: &Value, desired: &Value) -> bool {
        match self {
            Self::Key(keys) => key(live, keys) == key(desired, keys),
            Self::Whole => stored(live) == stored(desired),
            Self::Place => true,
        }
    }

    /// What an entry is called.
    pub(super) fn name(self, entry: &Value, at: usize) -> String {
        match self {
            Self::Key(keys) => key(entry, keys).join("/"),
            Self::Whole | Self::Place => at.to_string(),
        }
    }
}

fn key(entry: &Value, keys: &[(&str, &str)]) -> Vec<String> {
    let part = |(field, unwritten): &(&str, &str)| match &entry[*field] {
        Value::Null => (*unwritten).to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    keys.iter().map(part).collect()
}

/// A rule as an API server stores it: without what is empty and means nothing, with the protocol that is meant.
fn stored(rule: &Value) -> Value {
    match rule {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, value)| !value.is_null() && !is_stored_as_nothing(name, value));
            let mut sorted: BTreeMap<String, Value> = kept.map(|(name, value)| (name.clone(), stored(value))).collect();
            if fields.contains_key("port") {
                sorted.entry("protocol".to_owned()).or_insert_with(|| Value::from("TCP"));
            }
            Value::Object(Map::from_iter(sorted))
        }
        Value::Array(items) => Value::Array(items.iter().map(stored).collect()),
        other => other.clone(),
    }
}
