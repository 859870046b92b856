//! `LinkPolicy`: the platform owner's guard rails. Several apply together; the narrowest wins.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::quantity::ByteRate;
use crate::secure_link::DataClass;
use crate::{forms, kubernetes};

/// The platform owner's guard rails for the links in some namespaces. Several apply together: what one forbids is forbidden.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "securelink.dev",
    version = "v1alpha1",
    kind = "LinkPolicy",
    plural = "linkpolicies",
    shortname = "slpol",
    category = "securelink",
    derive = "PartialEq",
    doc = "The platform owner's guard rails for the links in some namespaces. Several apply together: what one forbids is forbidden.",
    printcolumn(
        name = "Agreement",
        type_ = "boolean",
        json_path = ".spec.requireAgreement",
        description = "Whether links need an agreement"
    ),
    printcolumn(
        name = "Max Class",
        type_ = "string",
        json_path = ".spec.maxDataClass",
        description = "The most sensitive class allowed"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when the object exists"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct LinkPolicySpec {
    /// Namespaces it applies to. Default: all. Example: {matchLabels: {tier: liaison}}.
    #[serde(default)]
    #[schemars(schema_with = "kubernetes::label_selector")]
    pub namespace_selector: LabelSelector,

    /// Which organizations may be linked. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_trust_domains: Option<AllowedTrustDomains>,

    /// Whether a link must name an agreement. Default: false.
    #[serde(default)]
    pub require_agreement: bool,

    /// The most sensitive class that exports and imports may have; it admits itself and what is less sensitive.
    /// Default: operational, which is everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data_class: Option<DataClass>,

    /// Whether exports may target hosts instead of Services. Default: false.
    #[serde(default)]
    pub allow_host_targets: bool,

    /// Whether links may allow a key exchange without a post-quantum part. Default: false.
    #[serde(default)]
    pub allow_classical_key_exchange: bool,

    /// The most that one link may carry. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
}

/// Which organizations may be linked. An absent list allows all, so that an empty one cannot be a slip.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(!has(self.own) || size(self.own) > 0) && (!has(self.peer) || size(self.peer) > 0)")
    .message("an empty list would forbid every link; name trust domains, or remove the list to allow all"))]
pub struct AllowedTrustDomains {
    /// Our side: trust domains, or `*.x` for everything below x. Default: all. At most 64. Example: interpol.example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::trust_domain_patterns")]
    pub own: Option<Vec<String>>,

    /// The peer's side: trust domains, or `*.x` for everything below x. Default: all. At most 64. Example: *.example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::trust_domain_patterns")]
    pub peer: Option<Vec<String>>,
}

/// The most that one link may carry.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLimits {
    /// Connections at one time over all exports, 1 to 1000000. Example: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<u32>,

    /// New connections in one second over all exports, 1 to 1000000. Example: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub new_connections_per_second: Option<u32>,

    /// Bytes per second in each direction, 1k to 1Ti. Example: 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteRate>,
}
