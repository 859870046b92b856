//! `LinkIdentity`: who we are to our peers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{forms, kubernetes};

/// Who we are to our peers: our trust domain and who signs for it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "securelink.dev",
    version = "v1alpha1",
    kind = "LinkIdentity",
    plural = "linkidentities",
    shortname = "slid",
    category = "securelink",
    namespaced,
    derive = "PartialEq",
    status = "LinkIdentityStatus",
    doc = "Who we are to our peers: our trust domain and who signs for it.",
    printcolumn(
        name = "Trust Domain",
        type_ = "string",
        json_path = ".spec.trustDomain",
        description = "Our name to peers"
    ),
    printcolumn(
        name = "Fingerprint",
        type_ = "string",
        json_path = ".status.fingerprint",
        description = "What peers pin"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether certificates can be issued"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when the object exists"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct LinkIdentitySpec {
    /// Our trust domain, as partners write it into their `SecureLink`. Immutable. Example: interpol.example.
    #[schemars(schema_with = "forms::trust_domain")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("cannot be changed, partners have pinned it; create a new LinkIdentity for another name"))]
    pub trust_domain: String,

    /// Who signs our relays' certificates: exactly one of builtIn, secret and certManager.
    pub issuer: IssuerSpec,

    /// The only root key this identity may have; with any other, nothing is issued. Default: the root made first.
    /// Set it after the first start, and before restoring from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::fingerprint")]
    pub expected_fingerprint: Option<String>,

    /// Whom partners call; sent to them in the declaration. Default: nobody. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub contacts: Vec<Contact>,
}

/// Who signs our relays' certificates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.builtIn), has(self.secret), has(self.certManager)].filter(set, set).size() == 1")
    .message("an identity has one issuer; set exactly one of builtIn, secret and certManager"))]
pub struct IssuerSpec {
    /// The operator keeps a root and an intermediate of its own. Write `builtIn: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_in: Option<BuiltInIssuer>,

    /// An intermediate of yours with its chain; the root stays offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretIssuer>,

    /// cert-manager signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManagerIssuer>,
}

/// The operator keeps the keys: nothing to set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BuiltInIssuer {}

/// An intermediate of yours.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretIssuer {
    /// A Secret in this namespace with tls.key, tls.crt (intermediate first) and ca.crt (the root). It is used only with the
    /// label `securelink.dev/issuer-of`, whose value is this identity's name: its owner's consent. Example: link-issuer.
    #[schemars(schema_with = "forms::object_name")]
    pub name: String,
}

/// cert-manager signs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertManagerIssuer {
    /// The issuer that signs.
    pub issuer_ref: IssuerRef,
}

/// A cert-manager issuer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// The issuer's name. Example: partner-ca.
    #[schemars(schema_with = "forms::object_name")]
    pub name: String,

    /// The issuer's kind: Issuer, ClusterIssuer, or that of an external issuer. Default: Issuer.
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,

    /// The issuer's API group. Default: cert-manager.io.
    #[serde(default = "issuer_group")]
    #[schemars(schema_with = "forms::object_name")]
    pub group: String,
}

/// Whom partners call.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// Who it is. Example: Duty desk.
    #[schemars(schema_with = "forms::plain")]
    pub name: String,

    /// Mail address. Example: noc@interpol.example.
    #[schemars(schema_with = "forms::email")]
    pub email: String,
}

/// What is true about an identity.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LinkIdentityStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What peers pin: SHA-256 of our current root's SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub fingerprint: Option<String>,

    /// Our roots, newest first. At most 32, as many as a chain of transitions may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["fingerprint".into()]))]
    pub roots: Vec<RootStatus>,

    /// CertificateReady and Ready, with the reasons of a link's CertificateReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::conditions")]
    pub conditions: Vec<Condition>,
}

/// One of our roots.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// SHA-256 of its SubjectPublicKeyInfo.
    #[schemars(length(max = 71))]
    pub fingerprint: String,
    /// When it expires.
    #[schemars(schema_with = "forms::instant")]
    pub not_after: Time,
    /// Its place in the rotation.
    pub state: RootState,
}

/// A root's place in the rotation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Announced, not signing yet.
    Next,
    /// Signing.
    Current,
    /// No longer signing; kept for peers that still pin it.
    Retired,
}

fn issuer_kind() -> String {
    "Issuer".to_owned()
}

fn issuer_group() -> String {
    "cert-manager.io".to_owned()
}
