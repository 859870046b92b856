//! What the runtime answers: the same values in the process and over the control socket.

use std::time::Duration;

use securelink_crds::SecureLinkStatus;
use securelink_crds::load;
use securelink_relay_config::{LinkRef, LinkReport};
use serde::{Deserialize, Serialize};

/// One link as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// Which link.
    pub link: LinkRef,
    /// Our trust domain, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// The peer's trust domain, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The status an operator would write: conditions, our two lines, peer, certificate, exports, imports.
    pub status: SecureLinkStatus,
    /// What has to be mended, each as `what is wrong; what to do`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The relay's own report; absent where none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<LinkReport>,
}

/// What reading the files again brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadReport {
    /// What is wrong in the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<load::Problem>,
    /// What is wrong beyond one document, by link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<LinkProblem>,
    /// What has no effect here, and documents that were passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Links that run another configuration than before, or stopped or began to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<LinkRef>,
}

/// Something wrong with one link or identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkProblem {
    /// Which one, as `namespace/name`.
    pub about: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a cut did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutDone {
    /// Streams it ended.
    pub ended: u64,
    /// From the order until no stream was left.
    pub took: Duration,
    /// Whether the relay had not been cut by this order before.
    pub fresh: bool,
}

/// What a resume did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeDone {
    /// Cuts taken back.
    pub released: Vec<String>,
    /// Names of the `LinkCut` objects that still cut the link; remove them from the files.
    pub still_cut_by: Vec<String>,
}
