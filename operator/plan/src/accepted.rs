//! `accepted.json`: what was accepted last, so that an invalid edit or a restart loses nothing (contracts 4).
//!
//! It is input, not truth: reading it back judges the spec again, and policies and consents are applied to it again.

use securelink_crds::load::{self, Object};
use securelink_crds::{Contact, GROUP, SecureLinkSpec, VERSION};
use securelink_id::TrustDomain;
use securelink_relay_config::LinkRef;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::narrowing::Narrowing;

/// The format this code writes and reads.
const FORMAT: u32 = 1;

/// Largest `accepted.json` that is read, in bytes: with `relay.json` beside it, one ConfigMap (1 MiB) holds both.
pub const MAX_ACCEPTED_BYTES: usize = 512 * 1024;

/// The last accepted spec with its resolved inputs. Where its Services lead is not among them: what a Service says, its
/// owner's consent included, counts only as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accepted {
    /// The file's format.
    format: u32,
    /// `metadata.generation` it was accepted at; absent without a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// As it was accepted.
    pub spec: SecureLinkSpec,
    /// What invalid edits have narrowed since.
    #[serde(default)]
    pub narrowing: Narrowing,
    /// Who we were.
    pub identity: AcceptedIdentity,
}

/// Who we were when a link was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptedIdentity {
    /// Our trust domain.
    pub trust_domain: TrustDomain,
    /// Whom partners call.
    #[serde(default)]
    pub contacts: Vec<Contact>,
}

/// Why an `accepted.json` cannot be used. The link then needs a valid spec to run.
#[derive(Debug, thiserror::Error)]
pub enum AcceptedError {
    /// Over [`MAX_ACCEPTED_BYTES`].
    #[error("accepted.json has {0} bytes, more than {MAX_ACCEPTED_BYTES}; remove it and apply the SecureLink again")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("accepted.json does not parse: {0}; remove it and apply the SecureLink again")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error("accepted.json has format {0}, this program reads {FORMAT}; run the version that wrote it, or remove it")]
    Format(u64),
    /// A spec that would not be accepted today.
    #[error("accepted.json holds a spec that is not valid any more: {0}")]
    Invalid(Box<load::Problem>),
}

impl Accepted {
    pub(crate) fn new(spec: SecureLinkSpec, generation: Option<i64>, identity: AcceptedIdentity) -> Self {
        Self { format: FORMAT, generation, spec, narrowing: Narrowing::default(), identity }
    }

    /// Reads the file of `link` and judges its spec as if it had just been applied.
    pub fn from_bytes(bytes: &[u8], link: &LinkRef) -> Result<Self, AcceptedError> {
        if bytes.len() > MAX_ACCEPTED_BYTES {
            return Err(AcceptedError::TooLarge(bytes.len()));
        }
        let value: Value = serde_json::from_slice(bytes)?;
        if let Some(format) = value["format"].as_u64().filter(|format| *format != u64::from(FORMAT)) {
            return Err(AcceptedError::Format(format));
        }
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "SecureLink",
            "metadata": {"namespace": link.namespace, "name": link.name},
            "spec": value["spec"],
        });
        let mut accepted: Self = serde_json::from_value(value)?;
        match load::judge(&object, None) {
            Ok(Object::SecureLink(judged)) => accepted.spec = judged.spec,
            Ok(_) => {}
            Err(problems) => {
                return Err(AcceptedError::Invalid(Box::new(problems.into_iter().next().unwrap_or_default())));
            }
        }
        Ok(accepted)
    }

    /// Reads a file that was judged before, and to which the judgment added nothing.
    pub fn from_judged(bytes: &[u8]) -> Result<Self, AcceptedError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps have text keys: serialization has no failing case.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}
