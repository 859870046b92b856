//! What is true about a link. Values that move by themselves live in metrics, so a quiet link writes nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{forms, kubernetes};

/// What is true about a link.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecureLinkStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, CertificateReady, RelayAvailable, PeerConnected, Agreed, Ready; and others only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::conditions")]
    pub conditions: Vec<Condition>,

    /// Our line for the agreement's annex: where the peer reaches us. Example: link.interpol.example:443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub endpoint: Option<String>,

    /// Our line for the agreement's annex: what the peer pins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub fingerprint: Option<String>,

    /// The peer as our relays see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerStatus>,

    /// The certificate our relays present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,

    /// The agreement in force, and the window both sides give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementStatus>,

    /// Each export: usable, or why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exports: Vec<ExportStatus>,

    /// Each import: usable, or why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub imports: Vec<ImportStatus>,

    /// The answer to the last `securelink.dev/request` annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<LastRequest>,
}

/// The peer as our relays see it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The trust domain in its certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub trust_domain: Option<String>,

    /// Number of its relays we have a live control connection with.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub replicas: u32,

    /// Protocol version in use. Example: securelink/1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub protocol_version: Option<String>,

    /// Negotiated key exchange. Example: X25519MLKEM768.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tls_group: Option<String>,

    /// Which of our fingerprints the peer pins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub pinned_fingerprint: Option<String>,

    /// The last error on the way to the peer, for a person; absent while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::sentence")]
    pub last_error: Option<String>,
}

/// The certificate our relays present.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// When it expires.
    #[schemars(schema_with = "forms::instant")]
    pub not_after: Time,
    /// When it will be renewed.
    #[schemars(schema_with = "forms::instant")]
    pub renew_at: Time,
    /// Serial number in lower-case hexadecimal.
    #[schemars(length(max = 40))]
    pub serial: String,
}

/// The agreement in force, and the window both sides give it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgreementStatus {
    /// What it is called on paper.
    #[schemars(schema_with = "forms::sentence")]
    pub reference: String,
    /// SHA-256 of the text.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// The later start of both sides.
    #[schemars(schema_with = "forms::instant")]
    pub effective_from: Time,
    /// The earlier end of both sides.
    #[schemars(schema_with = "forms::instant")]
    pub expires: Time,
}

/// Whether one export is usable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExportStatus {
    /// The export's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether the peer can use it now.
    pub usable: bool,
    /// Why not, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::word")]
    pub reason: Option<String>,
    /// Why not, for a person, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::sentence")]
    pub message: Option<String>,
}

/// Whether one import is usable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ImportStatus {
    /// The import's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether clients here can use it now.
    pub usable: bool,
    /// Where clients connect. Example: europol-siena.liaison:8443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::word")]
    pub address: Option<String>,
    /// Why not, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::word")]
    pub reason: Option<String>,
    /// Why not, for a person, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::sentence")]
    pub message: Option<String>,
}

/// The answer to the last `securelink.dev/request` annotation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastRequest {
    /// The annotation's value, `<verb>/<nonce>`, so that the asker knows the answer is meant.
    #[schemars(schema_with = "forms::word")]
    pub request: String,
    /// How far it is.
    pub state: RequestState,
    /// When this state was reached.
    #[schemars(schema_with = "forms::instant")]
    pub time: Time,
    /// What came out, for a person. At most 4096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "forms::answer")]
    pub answer: Option<String>,
}

/// How far a request is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// A relay is at it.
    Running,
    /// It did what was asked.
    Succeeded,
    /// It did not; the answer says why.
    Failed,
}
