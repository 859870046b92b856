//! The other organization: its name, its pins and how to reach it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::forms;

/// The other organization.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.proxy) || (has(self.endpoints) && size(self.endpoints) > 0)")
    .message("proxy is only used for dialing out; add peer.endpoints or remove proxy"))]
pub struct Peer {
    /// The peer's trust domain, exactly as its certificates and the agreement say; never inferred. Immutable.
    /// Example: europol.example.
    #[schemars(schema_with = "forms::trust_domain")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("cannot be changed; create a new SecureLink for the other organization and delete this one"))]
    pub trust_domain: String,

    /// The peer's pinned root keys: SHA-256 of each root's SubjectPublicKeyInfo, as `securelink fingerprint` prints it on the
    /// other side. From 1 to 4; more than one only while a root rotates.
    #[schemars(schema_with = "forms::fingerprints", length(min = 1))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub fingerprints: Vec<String>,

    /// Where the peer's relays can be dialed; tried in turn. Default: nowhere, the peer dials us and `expose` is required.
    /// At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub endpoints: Vec<Endpoint>,

    /// Networks our relays may dial for this peer. Default: anywhere but link-local, metadata and the cluster's own.
    /// At most 64. Example: 198.51.100.0/24.
    #[serde(default, rename = "egressCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "forms::cidrs")]
    pub egress_cidrs: Vec<String>,

    /// HTTP CONNECT proxy for dialing out. User information is refused: everything here is public.
    /// Example: http://proxy.corp.example:3128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::proxy")]
    pub proxy: Option<String>,

    /// SecureLink, or Connect for a partner without our software (HTTP/1.1 CONNECT). Default: SecureLink.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A place where the peer's relays listen.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// DNS name, resolved again at every dial, or address. Example: link.europol.example or 2001:db8::1.
    #[schemars(schema_with = "forms::host")]
    pub host: String,

    /// TCP port, 1 to 65535. Example: 443.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// What the peer speaks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The protocol `securelink/1`, relay to relay.
    #[default]
    SecureLink,
    /// HTTP/1.1 CONNECT over mutual TLS: the partner dials us and imports nothing from us to it.
    Connect,
}
