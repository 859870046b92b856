//! How the peer reaches our relays.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{forms, kubernetes};

/// How the peer reaches our relays.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.nodePort) || self.type == 'NodePort'")
        .message("nodePort is only for type NodePort; remove nodePort or set type: NodePort"),
    validation = Rule::new("!has(self.loadBalancerClass) || self.type == 'LoadBalancer'")
        .message("loadBalancerClass is only for type LoadBalancer; remove it or set type: LoadBalancer"),
    validation = Rule::new("self.type != 'ClusterIP' || !has(self.externalTrafficPolicy)")
        .message("type ClusterIP has no external traffic; remove externalTrafficPolicy"),
    validation = Rule::new("!has(self.allowedSources) || size(self.allowedSources) == 0 || \
        (self.type != 'ClusterIP' && has(self.externalTrafficPolicy) && self.externalTrafficPolicy == 'Local')")
        .message("allowedSources needs the callers' own addresses; set externalTrafficPolicy: Local on type LoadBalancer or NodePort, or remove allowedSources")
)]
pub struct Expose {
    /// Kind of the Service: LoadBalancer, NodePort, or ClusterIP behind a gateway that passes TLS through by name.
    #[serde(rename = "type")]
    pub kind: ExposeType,

    /// The name in the agreement's annex; goes into our certificate. Default: the address the Service gets.
    /// Example: link.interpol.example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::host")]
    pub hostname: Option<String>,

    /// TCP port in the agreement's annex, 1 to 65535. Default: 443.
    #[serde(default = "https")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Port on every node, for type NodePort; 1 to 65535, usually 30000 to 32767. Default: the cluster picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<u16>,

    /// Annotations for the Service, as the cloud's load balancer wants them. Default: none. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes::annotations")]
    pub annotations: BTreeMap<String, String>,

    /// The load balancer's implementation, for type LoadBalancer. Default: the cluster's. Example: example.com/internal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub load_balancer_class: Option<String>,

    /// Local preserves the callers' addresses, Cluster spreads evenly. Default: Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,

    /// Networks the peer dials from; others are shut out. Needs externalTrafficPolicy Local. Default: anywhere. At most 64.
    /// Example: 192.0.2.0/24.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "forms::cidrs")]
    pub allowed_sources: Vec<String>,
}

/// Kind of the Service in front of the relays.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExposeType {
    /// The cloud's load balancer.
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// Inside of the cluster, behind a gateway that passes TLS through by name.
    ClusterIP,
}

/// Whether callers' addresses are preserved.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalTrafficPolicy {
    /// Any node forwards to any relay; addresses are lost.
    Cluster,
    /// Only nodes with a relay answer; addresses are preserved.
    Local,
}

fn https() -> u16 {
    443
}
