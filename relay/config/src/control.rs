//! The control API: what a relay is asked over its control port, and what it answers (contracts 4). The same paths, bodies
//! and refusals serve the socket of the standalone runtime. Plain values; who asks and who answers is elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroize as _;

use crate::cut::Cut;
use crate::declaration::Digest;
use crate::snapshot::{LinkRef, MAX_SNAPSHOT_BYTES};
use crate::status::{ErrorReport, LinkReport};
use crate::time::Millis;

/// Where each verb lives.
pub mod path {
    /// GET: [`RelayStatus`](super::RelayStatus).
    pub const STATUS: &str = "/v1/status";
    /// PUT: [`Push`](super::Push), answered by [`PushReply`](super::PushReply).
    pub const SNAPSHOT: &str = "/v1/snapshot";
    /// POST: [`CutOrder`](super::CutOrder), answered by [`CutReply`](super::CutReply).
    pub const CUT: &str = "/v1/cut";
    /// POST: [`GreetRequest`](super::GreetRequest), answered by [`GreetReply`](crate::GreetReply).
    pub const GREET: &str = "/v1/greet";
    /// POST: [`DoctorRequest`](super::DoctorRequest), answered by [`DoctorReport`](crate::DoctorReport).
    pub const DOCTOR: &str = "/v1/doctor";
}

/// Largest body of [`path::SNAPSHOT`]: a `relay.json`, and a leaf with its chain and all its transitions in PEM.
pub const MAX_PUSH_BYTES: usize = MAX_SNAPSHOT_BYTES + 256 * 1024;
/// Largest body of any other request: a greeting of 4 KiB, escaped, and its frame.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// A new configuration, a new leaf, or both. Each is taken or refused by itself: a bad one holds up no good one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// A `relay.json` as it is in the ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Value>,
    /// A leaf as it is in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<LeafPem>,
}

/// A leaf with its key. Never printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafPem {
    /// The private key, `tls.key`.
    pub key: String,
    /// Leaf, intermediates and self-signed root, `tls.crt`.
    pub chain: String,
    /// The way from older roots, `transitions.pem`; empty before the first rotation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub transitions: String,
}

impl fmt::Debug for LeafPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafPem(..)")
    }
}

impl Drop for LeafPem {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// What a push did. What was pushed before, and is in force, counts as taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushReply {
    /// Version in force now.
    pub version: u64,
    /// Its hash.
    pub hash: Digest,
    /// Serial number of the leaf in use now, in hexadecimal.
    pub serial: String,
    /// End of that leaf.
    pub not_after: Millis,
}

/// An order to cut, with the link it is for: an address may have come to another relay since it was looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOrder {
    /// Which link.
    pub link: LinkRef,
    /// What to cut.
    pub cut: Cut,
}

/// What a cut did. When it is told, not one stream that it forbids is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutReply {
    /// Whether it was news to this relay.
    pub fresh: bool,
    /// Streams that it ended.
    pub ended: u64,
    /// Whether it will be in force after a restart too; if not, the status says why.
    pub stored: bool,
}

/// What `greet` is asked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GreetRequest {
    /// Which link.
    pub link: LinkRef,
    /// The message, 1 to 4096 bytes.
    pub text: String,
}

/// What `doctor` is asked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorRequest {
    /// Which link.
    pub link: LinkRef,
}

/// A relay process, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// The link's.
    #[serde(flatten)]
    pub report: LinkReport,
    /// Whether it can carry a stream: what `/readyz` says.
    pub ready: bool,
    /// What is wrong with its files and could not be put right yet: mounted ones, and those in scratch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ErrorReport>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In one word, for programs.
    pub reason: Refusing,
    /// For people: what is wrong and what to do.
    pub error: String,
}

impl Refused {
    /// A refusal.
    pub fn new(reason: Refusing, error: &impl ToString) -> Self {
        Self { reason, error: error.to_string() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

/// The reasons of [`Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusing {
    /// The body is no request of this kind.
    Malformed,
    /// No such path or method in this version.
    UnknownRequest,
    /// The body is over its bound.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The control CA that let the caller in is no longer trusted.
    Withdrawn,
    /// The link is not here.
    UnknownLink,
    /// The link is here and has no relay at the moment.
    NotRunning,
    /// The snapshot is older than the one in force: a controller that was paused sent it.
    OlderSnapshot,
    /// The version in force, with other contents: two controllers write it.
    ConflictingSnapshot,
    /// Another link's, or another pair of organizations.
    OtherLink,
    /// A format, a requirement or a feature this relay does not have.
    UnsupportedSnapshot,
    /// It is no `relay.json`.
    MalformedSnapshot,
    /// A port it names cannot be had.
    BindFailed,
    /// TLS cannot be made of it.
    TlsFailed,
    /// The leaf begins earlier than the one in use.
    OlderLeaf,
    /// The leaf is damaged, or not this link's, or the peer would refuse it.
    UnusableLeaf,
    /// The peer did not sign for the greeting.
    GreetFailed,
    /// It was done, and could not be written down.
    NotKept,
    /// A fault of the program or of its machine.
    Internal,
}

impl Refusing {
    /// The HTTP status it is answered with.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Withdrawn => 403,
            Self::UnknownRequest | Self::UnknownLink => 404,
            Self::TooSlow => 408,
            Self::OlderSnapshot | Self::ConflictingSnapshot | Self::OtherLink | Self::OlderLeaf | Self::NotRunning => {
                409
            }
            Self::TooLarge => 413,
            Self::UnsupportedSnapshot | Self::MalformedSnapshot | Self::UnusableLeaf => 422,
            Self::GreetFailed => 502,
            Self::BindFailed | Self::TlsFailed | Self::NotKept | Self::Internal => 500,
        }
    }
}
