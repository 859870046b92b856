//! How many relays carry a link, and where they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes;

/// How many relays carry a link, and where they run. Without a cluster only one runs and this is not used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayPods {
    /// Number of relays, 1 to 16. Default: 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: u16,

    /// CPU and memory of each relay. Default: what the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kubernetes::resources")]
    pub resources: Option<ResourceRequirements>,

    /// Labels a node must have to run a relay. Default: none. Example: {tier: edge}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes::node_selector")]
    pub node_selector: BTreeMap<String, String>,

    /// Node taints relays put up with. Default: none. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::tolerations")]
    pub tolerations: Vec<Toleration>,

    /// How relays spread over nodes and zones. Default: over nodes where possible. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::topology_spread")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The relays' PriorityClass. Default: the cluster's. Example: business-critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,

    /// Secrets in this namespace for pulling the relay's image. Default: none. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::object_references")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

impl Default for RelayPods {
    fn default() -> Self {
        Self {
            replicas: two(),
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            topology_spread_constraints: Vec::new(),
            priority_class_name: None,
            image_pull_secrets: Vec::new(),
        }
    }
}

fn two() -> u16 {
    2
}
