//! What a relay reports about its link, over the control API: facts, from which the planner makes conditions.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::declaration::{AgreementTerm, Contact, DataClass, Digest, LinkState};
use crate::gate::Disagreement;
use crate::snapshot::LinkRef;
use crate::time::Millis;

/// A relay's report on its link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkReport {
    /// Which link.
    pub link: LinkRef,
    /// Version of the snapshot in force.
    pub version: u64,
    /// Its hash.
    pub hash: Digest,
    /// Formats of `relay.json` this relay reads.
    pub formats: Vec<u32>,
    /// The peer's listener, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerReport>,
    /// The leaf in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateReport>,
    /// The organization on the other side, as far as it has been seen.
    pub peer: PeerReport,
    /// The gate.
    pub agreed: AgreedReport,
    /// The last round trip over the data path.
    pub probe: ProbeReport,
    /// Our exports.
    pub exports: Vec<EntryReport>,
    /// Our imports.
    pub imports: Vec<EntryReport>,
    /// Streams now and so far.
    pub streams: StreamReport,
    /// Identifiers of the cuts in force.
    pub cuts: Vec<String>,
    /// The last snapshot or certificate that was refused; the one before stays in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<ErrorReport>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// The bound address, with the real port where 0 was asked for.
    pub address: SocketAddr,
}

/// The certificate presented to the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateReport {
    /// Serial number in hexadecimal.
    pub serial: String,
    /// End of validity.
    pub not_after: Millis,
}

/// What is known of the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// Live control connections, in either direction; of a partner without our software its tunnels.
    pub control_connections: u32,
    /// Replica identifiers seen on them.
    pub replicas: Vec<String>,
    /// When the first of the live ones came up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Millis>,
    /// Negotiated protocol version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u16>,
    /// Negotiated key exchange group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_group: Option<String>,
    /// End of validity of the peer's leaf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Millis>,
    /// The pin by which we know its root, and whether a newer root than the pinned one was reached through transitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_used: Option<String>,
    /// Its newest root; differs from `pin_used` once it rotated (`PinOutdated`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Which pin the peer used for us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_us_by: Option<String>,
    /// Whom to call there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contact>,
    /// Why our last attempt failed, or where we cannot dial, why the last caller was refused; absent once connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorReport>,
    /// When a partner without our software was last here: asked for a tunnel, or held one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Millis>,
    /// Why the last caller was refused. Anybody can call: it says nothing about the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refused: Option<ErrorReport>,
    /// Connections refused so far, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
}

/// A failure with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// A reason of contracts 7.
    pub reason: String,
    /// Cause and remedy, for people.
    pub message: String,
    /// When.
    pub at: Millis,
}

/// The gate's verdict and both sides' heads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgreedReport {
    /// Why nothing flows; absent while agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<Disagreement>,
    /// Reason the peer gave for a cut or a suspension of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_reason: Option<String>,
    /// The agreement both are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When the verdict can change by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recheck: Option<Millis>,
    /// Our side's word.
    pub own: SideReport,
    /// The peer's word, once heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SideReport>,
}

/// One side's head, for people who compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideReport {
    /// Sequence of the declaration.
    pub sequence: u64,
    /// How open it says it is.
    pub state: LinkState,
    /// Agreement in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<AgreementTerm>,
    /// Renewal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<AgreementTerm>,
}

/// The `_probe` round trip: the only thing that makes a link Ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// Last success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Millis>,
    /// Its duration in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_micros: Option<u64>,
    /// Why the last one failed; absent after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One export or import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryReport {
    /// Its name.
    pub name: String,
    /// What it carries or accepts.
    pub data_class: DataClass,
    /// Where clients connect (imports), once listening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Why it cannot be used; absent while it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

/// Counts of streams and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamReport {
    /// Live now.
    pub live: u64,
    /// Streams from the peer that may live at once: `limits.connections`, else what one relay carries at the most.
    #[serde(default)]
    pub limit: u64,
    /// Opened since start.
    pub opened: u64,
    /// Payload bytes carried to the peer.
    pub bytes_sent: u64,
    /// Payload bytes carried from the peer.
    pub bytes_received: u64,
}

/// The proof a `greet` brings back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GreetReply {
    /// SHA-256 of the text as the receiver saw it; equals the sender's.
    pub digest: Digest,
    /// The receiver's trust domain.
    pub peer: String,
    /// Its signature over the greeting by its leaf key, hexadecimal; already verified.
    pub signature: String,
    /// Round trip in microseconds.
    pub round_trip_micros: u64,
}
