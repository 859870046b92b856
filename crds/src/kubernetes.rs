//! Bounded schemas of the Kubernetes types that a SecureLink embeds.
//!
//! The types themselves come from k8s-openapi. Its schemas have no bounds, without which an API server refuses CEL rules
//! for their cost, so the shapes are written here.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Longest key of a label or annotation: a prefix of 253, a slash, a name of 63.
const KEY: u32 = 317;

fn text(max: u32, description: &str) -> Value {
    json!({"type": "string", "maxLength": max, "description": description})
}

fn map(max_properties: u32, max_value: u32, description: &str) -> Value {
    json!({
        "type": "object",
        "maxProperties": max_properties,
        "additionalProperties": {"type": "string", "maxLength": max_value},
        "description": description,
    })
}

fn selector(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "properties": {
            "matchLabels": map(16, 63, "Labels that must have exactly these values. Default: none. Example: {app: case-desk}."),
            "matchExpressions": {
                "type": "array",
                "maxItems": 16,
                "description": "Conditions on labels, all of which must hold. Default: none.",
                "items": {
                    "type": "object",
                    "description": "A condition on one label.",
                    "required": ["key", "operator"],
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : \
                                 !has(self.values) || size(self.values) == 0",
                        "message": "has values that its operator does not take, or lacks those it needs; give In and NotIn at least one value, Exists and DoesNotExist none",
                    }],
                    "properties": {
                        "key": text(KEY, "The label's key. Example: tier."),
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label relates to the values: In, NotIn, Exists or DoesNotExist.",
                        },
                        "values": {
                            "type": "array",
                            "maxItems": 16,
                            "items": {"type": "string", "maxLength": 63},
                            "description": "The values for In and NotIn; empty for the others.",
                        },
                    },
                },
            },
        },
    })
}

/// `LabelSelector` over namespaces.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    schema(selector("Labels to match; an empty selector matches everything."))
}

/// `NetworkPolicyPeer`, at most 16 (contracts 8).
pub(crate) fn network_policy_peers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 16,
        "items": {
            "type": "object",
            "description": "Pods or addresses that may connect, in the shape of a NetworkPolicy's peer.",
            "x-kubernetes-validations": [{
                "rule": "has(self.ipBlock) ? !has(self.podSelector) && !has(self.namespaceSelector) : \
                         has(self.podSelector) || has(self.namespaceSelector)",
                "message": "names no client, or mixes addresses with selectors; write a podSelector, a namespaceSelector or both, or an ipBlock alone",
            }],
            "properties": {
                "podSelector": selector("Pods by label; in this namespace unless namespaceSelector is set. Example: {matchLabels: {app: case-desk}}."),
                "namespaceSelector": selector("Namespaces by label. Example: {matchLabels: {kubernetes.io/metadata.name: analysts}}."),
                "ipBlock": {
                    "type": "object",
                    "description": "Addresses outside of the cluster.",
                    "required": ["cidr"],
                    "x-kubernetes-validations": [{
                        "rule": "!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, !isCIDR(e) || \
                                 (cidr(self.cidr).containsCIDR(e) && cidr(self.cidr).prefixLength() < cidr(e).prefixLength()))",
                        "message": "excepts a network that is not a part of cidr; write parts of cidr only, smaller than all of it",
                    }],
                    "properties": {
                        "cidr": cidr("The network. Example: 192.0.2.0/24."),
                        "except": {
                            "type": "array",
                            "maxItems": 16,
                            "items": cidr("A network inside of cidr."),
                            "description": "Networks inside of cidr that stay shut out. Default: none.",
                        },
                    },
                },
            },
        },
    })
}

fn cidr(description: &str) -> Value {
    json!({
        "type": "string",
        "maxLength": 43,
        "description": description,
        "x-kubernetes-validations": [{
            "rule": "isCIDR(self)",
            "message": "is not a network; write an address and a prefix length, such as 192.0.2.0/24",
        }],
    })
}

/// `ResourceRequirements` without claims: relays use no devices.
pub(crate) fn resources(_: &mut SchemaGenerator) -> Schema {
    let amounts = |description: &str| {
        json!({
            "type": "object",
            "maxProperties": 8,
            "description": description,
            "additionalProperties": {
                "x-kubernetes-int-or-string": true,
                "maxLength": 32,
                "x-kubernetes-validations": [{
                    "rule": "isQuantity(string(self)) && !quantity(string(self)).isLessThan(quantity('0'))",
                    "message": "is not a quantity; write one such as 500m or 256Mi",
                }],
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "limits": amounts("The most a relay may use. Example: {memory: 512Mi}."),
            "requests": amounts("What a relay is promised. Example: {cpu: 500m, memory: 256Mi}."),
        },
    })
}

/// A map of node labels.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    schema(map(16, 63, "Node labels."))
}

/// A map of annotations for a Service.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    schema(map(32, 2048, "Annotations."))
}

/// `Toleration`, at most 16 (contracts 8).
pub(crate) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "description": "A node taint that relays put up with.",
            "properties": {
                "key": text(KEY, "The taint's key; empty with operator Exists means every key."),
                "operator": {"type": "string", "enum": ["Equal", "Exists"], "description": "Equal (default) compares the value, Exists does not."},
                "value": text(63, "The taint's value, for Equal."),
                "effect": {
                    "type": "string",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                    "description": "The taint's effect; absent means every effect.",
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "description": "Seconds a relay stays on a node with a NoExecute taint. Default: for ever.",
                },
            },
        },
    })
}

/// `TopologySpreadConstraint`.
pub(crate) fn topology_spread(_: &mut SchemaGenerator) -> Schema {
    let policy = |description: &str| json!({"type": "string", "enum": ["Honor", "Ignore"], "description": description});
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": {
            "type": "object",
            "description": "How relays spread over parts of the cluster.",
            "required": ["maxSkew", "topologyKey", "whenUnsatisfiable"],
            "properties": {
                "maxSkew": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 100, "description": "How many relays more one part may have than another. Example: 1."},
                "minDomains": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 1000, "description": "The fewest parts to spread over."},
                "topologyKey": text(KEY, "The node label that tells parts apart. Example: topology.kubernetes.io/zone."),
                "whenUnsatisfiable": {"type": "string", "enum": ["DoNotSchedule", "ScheduleAnyway"], "description": "What to do with a relay that fits nowhere."},
                "labelSelector": selector("The pods that are counted. Default: this link's relays."),
                "matchLabelKeys": {
                    "type": "array",
                    "maxItems": 8,
                    "items": {"type": "string", "maxLength": KEY},
                    "description": "Labels whose values must agree for pods to be counted together.",
                },
                "nodeAffinityPolicy": policy("Whether node affinity decides which nodes count. Default: Honor."),
                "nodeTaintsPolicy": policy("Whether node taints decide which nodes count. Default: Ignore."),
            },
        },
    })
}

/// `LocalObjectReference`, for image pull secrets.
pub(crate) fn object_references(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": {
            "type": "object",
            "description": "A Secret in this namespace.",
            "required": ["name"],
            "properties": {"name": text(253, "The Secret's name. Example: registry.")},
        },
    })
}

/// `metav1.Condition`, merged by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the state: whether it holds, why, and what to do.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": text(KEY, "The aspect. Example: Ready."),
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "reason": text(128, "Why, in one word that does not change. Example: WrongRoot."),
                "message": text(4096, "Why, for a person: whose fault it is and what to do."),
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 35,
                    "description": "When the status last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The generation of the spec this speaks of.",
                },
            },
        },
    })
}

fn schema(value: Value) -> Schema {
    // Only objects come in here, and an object is a schema.
    Schema::try_from(value).unwrap_or_default()
}
