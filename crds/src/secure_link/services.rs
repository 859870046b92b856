//! What each side may reach: exports and imports.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ByteRate;
use crate::{forms, kubernetes};

/// A service here that the peer may reach.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// The name the peer imports it by: a DNS label, unique in this link. Example: notices.
    #[schemars(schema_with = "forms::name")]
    pub name: String,

    /// Where it is.
    pub target: ExportTarget,

    /// How sensitive what it carries is: strategic, or operational (names people and cases).
    pub data_class: DataClass,

    /// How much of it the peer may use. Default: only the limits of a `LinkPolicy`, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<StreamLimits>,
}

/// Where an exported service is: a Kubernetes Service, or a host.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.service) != has(self.host)")
        .message("a target is a Service or a host; set exactly one of service and host"),
    validation = Rule::new("!has(self.__namespace__) || has(self.service)")
        .message("a host has no namespace; remove namespace, or set service instead of host")
)]
pub struct ExportTarget {
    /// A Service. It needs the annotation `securelink.dev/export-to` if it is in another namespace. Example: notices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::service_name")]
    pub service: Option<String>,

    /// The Service's namespace. Default: this one. Example: records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::name")]
    pub namespace: Option<String>,

    /// A DNS name or address: without a cluster, or where a `LinkPolicy` allows it. Example: 10.1.2.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::host")]
    pub host: Option<String>,

    /// TCP port of the Service or host, 1 to 65535. Example: 8443.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// How sensitive data is. The order is by sensitivity (contracts 8).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum DataClass {
    /// Situations, trends, statistics.
    Strategic,
    /// Names people and cases.
    Operational,
}

impl DataClass {
    /// Whether an import or a policy of this class admits data of class `data`: its own and what is less sensitive.
    pub fn admits(self, data: Self) -> bool {
        data <= self
    }
}

/// The most that all relays together carry for one export.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StreamLimits {
    /// Connections at one time, 1 to 1000000. Example: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<u32>,

    /// New connections in one second, 1 to 1000000. Example: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub new_connections_per_second: Option<u32>,

    /// Bytes per second in each direction, 1k to 1Ti. Example: 100Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteRate>,
}

/// A service of the peer that we may reach.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The export's name on the other side: a DNS label, unique in this link. Example: siena.
    #[schemars(schema_with = "forms::name")]
    pub name: String,

    /// TCP port of the Service here, 1 to 65535. Example: 8443.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Name of the Service here. Default: LINK-IMPORT. Example: europol-siena.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::service_name")]
    pub service_name: Option<String>,

    /// The most sensitive class we accept: strategic or operational; a class admits itself and what is less sensitive.
    pub data_class: DataClass,

    /// Who here may connect, in the shape of a NetworkPolicy's peers. From 1 to 16; without a cluster it is not used.
    #[schemars(schema_with = "kubernetes::network_policy_peers")]
    pub clients: Vec<NetworkPolicyPeer>,
}
