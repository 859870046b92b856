//! The memorandum a link is gated on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::forms;

/// The memorandum a link is gated on: traffic flows only while both sides name the same text and it is in force.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.expires > self.effectiveFrom")
    .message("the agreement expires before it begins; set expires later than effectiveFrom").field_path(".expires"))]
pub struct Agreement {
    /// What the text is called on paper. Example: MoU-2011-10-11.
    #[schemars(schema_with = "forms::plain")]
    pub reference: String,

    /// SHA-256 of the signed text (`securelink digest FILE`); must equal the peer's. Example: sha256:77ab….
    #[schemars(schema_with = "forms::digest")]
    pub digest: String,

    /// Since when it is in force, RFC 3339. The later start of both sides counts. Example: 2026-01-01T00:00:00Z.
    #[schemars(schema_with = "forms::instant")]
    pub effective_from: Time,

    /// When it ends, RFC 3339. The earlier end of both sides counts. Example: 2028-01-01T00:00:00Z.
    #[schemars(schema_with = "forms::instant")]
    pub expires: Time,

    /// The renewal: takes over as soon as both sides have it and it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextAgreement>,
}

/// The renewal of an agreement.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.expires > self.effectiveFrom")
    .message("the agreement expires before it begins; set expires later than effectiveFrom").field_path(".expires"))]
pub struct NextAgreement {
    /// What the text is called on paper. Example: MoU-2027-12-01.
    #[schemars(schema_with = "forms::plain")]
    pub reference: String,

    /// SHA-256 of the signed text (`securelink digest FILE`); must equal the peer's. Example: sha256:88ab….
    #[schemars(schema_with = "forms::digest")]
    pub digest: String,

    /// Since when it is in force, RFC 3339. Example: 2027-12-01T00:00:00Z.
    #[schemars(schema_with = "forms::instant")]
    pub effective_from: Time,

    /// When it ends, RFC 3339. Example: 2030-01-01T00:00:00Z.
    #[schemars(schema_with = "forms::instant")]
    pub expires: Time,
}
