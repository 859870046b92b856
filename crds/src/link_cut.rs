//! `LinkCut`: the emergency brake. Its presence cuts, deleting it resumes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::forms;

/// The emergency brake: while it exists, the links it names carry nothing. Deleting it resumes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "securelink.dev",
    version = "v1alpha1",
    kind = "LinkCut",
    plural = "linkcuts",
    shortname = "slcut",
    category = "securelink",
    namespaced,
    derive = "PartialEq",
    status = "LinkCutStatus",
    doc = "The emergency brake: while it exists, the links it names carry nothing. Deleting it resumes.",
    validation = Rule::new("self.spec == oldSelf.spec")
        .message("a LinkCut cannot be changed; create another one, and delete this one to resume what it cut"),
    printcolumn(name = "Link", type_ = "string", json_path = ".spec.linkRef.name", description = "The link that is cut"),
    printcolumn(name = "Trust Domain", type_ = "string", json_path = ".spec.trustDomain", description = "The organization that is cut"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending", description = "Relays that have not obeyed yet"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", description = "Why"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Since when it is cut")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.linkRef) != has(self.trustDomain)")
    .message("a cut names one link or one organization; set exactly one of linkRef and trustDomain"))]
pub struct LinkCutSpec {
    /// The `SecureLink` to cut, in this namespace; also one that is made later under this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_ref: Option<LinkRef>,

    /// The organization to cut off: every link to it in this namespace, also those made later. Example: europol.example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::trust_domain")]
    pub trust_domain: Option<String>,

    /// Why, in one line; the peer is told. Example: incident 2026-114.
    #[schemars(schema_with = "forms::plain")]
    pub reason: String,
}

/// A `SecureLink` in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkRef {
    /// The `SecureLink`'s name. Example: europol.
    #[schemars(schema_with = "forms::name")]
    pub name: String,
}

/// When each relay obeyed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LinkCutStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Number of relays that have not obeyed yet; 0 means nothing flows. Absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub pending: Option<u32>,

    /// Why it is not known how many relays have not obeyed; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::plain")]
    pub unknown: Option<String>,

    /// When each relay obeyed. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["link".into(), "relay".into()]))]
    pub relays: Vec<RelayCut>,
}

/// A relay that obeyed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayCut {
    /// The link it carries.
    #[schemars(length(max = 63))]
    pub link: String,
    /// The relay: its pod's name.
    #[schemars(length(max = 253))]
    pub relay: String,
    /// When it acknowledged that no stream is left.
    #[schemars(schema_with = "forms::instant")]
    pub obeyed_at: Time,
}
