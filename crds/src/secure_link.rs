//! `SecureLink`: the peering with one organization.

mod agreement;
mod expose;
mod peer;
mod relay;
mod services;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use agreement::{Agreement, NextAgreement};
pub use expose::{Expose, ExposeType, ExternalTrafficPolicy};
pub use peer::{Endpoint, Peer, Protocol};
pub use relay::RelayPods;
pub use services::{DataClass, Export, ExportTarget, Import, StreamLimits};
pub use status::{
    AgreementStatus, CertificateStatus, ExportStatus, ImportStatus, LastRequest, PeerStatus, RequestState,
    SecureLinkStatus,
};

use crate::duration::LinkDuration;
use crate::forms;

/// The peering with one organization: whom we trust, under which agreement, what each side may reach, and how.
/// Traffic flows only while both organizations declare it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "securelink.dev",
    version = "v1alpha1",
    kind = "SecureLink",
    plural = "securelinks",
    shortname = "slink",
    category = "securelink",
    namespaced,
    derive = "PartialEq",
    status = "SecureLinkStatus",
    doc = "The peering with one organization: whom we trust, under which agreement, what each side may reach, and how. Traffic flows only while both organizations declare it.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("the link's name becomes the name of Services; use at most 40 characters a-z, 0-9 and `-`, beginning with a letter and not ending with `-`"),
    validation = Rule::new("!has(self.spec.imports) || self.spec.imports.all(i, has(i.serviceName) || size(self.metadata.name) + size(i.name) < 63)")
        .message("the Service name LINK-IMPORT of an import exceeds 63 characters; set serviceName on that import"),
    printcolumn(name = "Peer", type_ = "string", json_path = ".spec.peer.trustDomain", description = "The other organization"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether bytes make the round trip"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why, or why not"),
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state", priority = 1, description = "Active or Suspended"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1, description = "Where the peer reaches us"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Since when the object exists")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.expose) || (has(self.peer.endpoints) && size(self.peer.endpoints) > 0)")
        .message("neither side can dial; list the peer's endpoints under peer.endpoints, or set expose so that the peer can dial us"),
    validation = Rule::new("self.peer.protocol != 'Connect' || (has(self.expose) && has(self.expose.hostname))")
        .message("a Connect partner always dials us; set expose with a hostname, which goes into our certificate"),
    validation = Rule::new("self.peer.protocol != 'Connect' || !has(self.peer.endpoints) || size(self.peer.endpoints) == 0")
        .message("a Connect partner cannot be dialed; remove peer.endpoints"),
    validation = Rule::new("self.peer.protocol != 'Connect' || !has(self.imports) || size(self.imports) == 0")
        .message("a Connect partner offers nothing to import; remove imports")
)]
pub struct SecureLinkSpec {
    /// Who we are to this peer: a `LinkIdentity` in this namespace. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("cannot be changed; create a new SecureLink for the other identity and delete this one"))]
    pub identity_ref: IdentityRef,

    /// The other organization: its name, its pinned root keys and how to reach it.
    pub peer: Peer,

    /// The memorandum the link is gated on. Absent: the link needs none (a `LinkPolicy` may require one), and the peer must
    /// have none either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,

    /// Active or Suspended. Suspended stops all traffic as planned work; for the emergency create a `LinkCut`.
    /// Default: Active.
    #[serde(default)]
    pub state: LinkState,

    /// What the peer may reach here. Default: nothing. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exports: Vec<Export>,

    /// What we may reach at the peer, and who here may. Default: nothing. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub imports: Vec<Import>,

    /// How the peer reaches our relays. Absent: we only dial out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,

    /// Weaker cryptography, where both sides allow it.
    #[serde(default)]
    pub crypto: Crypto,

    /// How long traffic may go on without a fresh word from the peer. Default: 1h. From 5s to 8760h. Example: 15m.
    #[serde(default = "default_staleness")]
    pub max_staleness: LinkDuration,

    /// How many relays carry this link, and where they run.
    #[serde(default)]
    pub relay: RelayPods,
}

/// A `LinkIdentity` in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRef {
    /// The `LinkIdentity`'s name. Example: default.
    #[schemars(schema_with = "forms::object_name")]
    pub name: String,
}

/// Whether the link is meant to carry traffic.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Traffic flows while both sides agree.
    #[default]
    Active,
    /// Nothing flows; the peer stays authenticated and is told.
    Suspended,
}

/// Weaker cryptography, where both sides allow it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Crypto {
    /// Whether a key exchange without a post-quantum part is accepted; it is used only if both sides set this.
    /// Default: false.
    #[serde(default)]
    pub allow_classical_key_exchange: bool,
}

fn default_staleness() -> LinkDuration {
    LinkDuration("1h".to_owned())
}
