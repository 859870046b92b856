//! What `doctor` found on a link: one line for each thing that has to work, with what to do where one does not.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::snapshot::LinkRef;
use crate::time::Millis;

/// What a relay found when it looked at its link step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// Which link.
    pub link: LinkRef,
    /// When it looked.
    pub at: Millis,
    /// In the order in which a stream needs them.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// Whether nothing that was looked at has failed.
    pub fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| finding.outcome != Outcome::Failed)
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub probe: Probe,
    /// Which one: an endpoint, a service, the peer.
    pub subject: String,
    /// How it went.
    pub outcome: Outcome,
    /// In one word, why it failed or was skipped, or what to know although it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people: what was found.
    pub message: String,
    /// For people: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What can be looked at, in the order in which a stream needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// The name of an endpoint, or of the proxy before it, has addresses.
    Dns,
    /// A connection can be made.
    Tcp,
    /// TLS 1.3 with a key exchange both sides allow.
    Tls,
    /// The other end is the peer, and takes us for ourselves.
    Peer,
    /// Both sides declare the same agreement, in force now.
    Agreement,
    /// Bytes come back over the data path.
    RoundTrip,
    /// The target of an export answers, and the peer wants it.
    Export,
    /// The peer offers what an import wants, and clients can connect here.
    Import,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Peer => "peer",
            Self::Agreement => "agreement",
            Self::RoundTrip => "round trip",
            Self::Export => "export",
            Self::Import => "import",
        })
    }
}

/// How a probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It works.
    Ok,
    /// It does not.
    Failed,
    /// It was not tried: something before it failed, or it does not apply.
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}
