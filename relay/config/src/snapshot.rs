//! `relay.json`: everything a relay needs to know about its one link, versioned (contracts 4).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use securelink_id::{Fingerprint, TrustDomain};
use serde::{Deserialize, Serialize};

use crate::cut::Cut;
use crate::declaration::{AgreementTerm, Contact, DataClass, Declaration, DeclaredService, Digest, Head, LinkState};

/// The format this code writes and reads.
pub const FORMAT: u32 = 1;

/// Largest `relay.json` that is read, in bytes: the bound of a Kubernetes ConfigMap.
pub const MAX_SNAPSHOT_BYTES: usize = 1024 * 1024;

/// Restrictions this relay knows how to enforce; an unknown one keeps the last good snapshot.
const KNOWN_REQUIREMENTS: &[&str] = &[];

/// Most roots of the control port (contracts 4): the one in use and the one that replaces it.
pub const MAX_CONTROL_CAS: usize = 2;

/// One version of a link's configuration. Immutable once adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: u32,
    /// Raised by every change; also the sequence of the declaration. `max(previous + 1, unix milliseconds)`.
    pub version: u64,
    /// Restrictions a relay must understand to run this snapshot.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Which `SecureLink`.
    pub link: LinkRef,
    /// Our trust domain.
    pub own: TrustDomain,
    /// The one organization this link trusts.
    pub peer: Peer,
    /// Where the peer reaches us; absent when we only dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// How open we declare ourselves, cuts aside.
    #[serde(default)]
    pub state: LinkState,
    /// The agreements we declare.
    #[serde(default)]
    pub agreements: Agreements,
    /// What the peer may reach here.
    #[serde(default)]
    pub exports: Vec<Export>,
    /// What we reach there.
    #[serde(default)]
    pub imports: Vec<Import>,
    /// Whether we opt out of post-quantum key exchange; the peer must too.
    #[serde(default)]
    pub allow_classical_key_exchange: bool,
    /// Who makes the records of TLS.
    #[serde(default, skip_serializing_if = "RecordLayer::is_default")]
    pub records: RecordLayer,
    /// How long the peer's last word holds without a control connection, in seconds.
    pub max_staleness_seconds: u64,
    /// Addresses never dialed, whatever a name resolves to.
    #[serde(default)]
    pub dial: DialRules,
    /// Limits of the whole link, per replica.
    #[serde(default)]
    pub limits: Limits,
    /// Whom the peer may call.
    #[serde(default)]
    pub contacts: Vec<Contact>,
    /// What is cut now.
    #[serde(default)]
    pub cuts_in_force: Vec<Cut>,
    /// Highest revision of each cutting object this snapshot has taken into account.
    #[serde(default)]
    pub seen: BTreeMap<String, u64>,
    /// Cuts whose object is gone.
    #[serde(default)]
    pub released: Vec<String>,
    /// Roots of the control port, PEM, at most two.
    #[serde(default)]
    pub control_cas: Vec<String>,
}

/// A `SecureLink` by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for LinkRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The organization on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its trust domain, exact.
    pub trust_domain: TrustDomain,
    /// Pins of its root keys.
    pub fingerprints: Vec<Fingerprint>,
    /// Where it listens; empty when it only dials.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// HTTP CONNECT proxy for dialing out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Endpoint>,
    /// What it speaks.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Re-resolved on every dial.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// `securelink/1`.
    #[default]
    SecureLink,
    /// `http/1.1` CONNECT, for a partner without our software.
    Connect,
}

/// Who makes the records of TLS after a handshake, which is always rustls'. The peer cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordLayer {
    /// rustls too.
    #[default]
    Rustls,
    /// The relay's own code, with less copying.
    InPlace,
}

impl RecordLayer {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The agreement in force and its renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreements {
    /// In force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Agreement>,
    /// Takes over when both sides have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Agreement>,
}

/// An agreement by its name on paper and its terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// What people call it.
    pub reference: String,
    /// What the gate compares.
    #[serde(flatten)]
    pub term: AgreementTerm,
}

/// A service the peer may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Its name on the wire.
    pub name: String,
    /// Where it is, re-resolved on every dial.
    pub target: Endpoint,
    /// What it carries.
    pub data_class: DataClass,
    /// Its own limits, per replica.
    #[serde(default)]
    pub limits: Limits,
}

/// A service of the peer's, and where clients here reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The export's name on the other side.
    pub name: String,
    /// Stable number of this import; its port in a pod is 20000 + slot.
    pub slot: u16,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The widest data accepted.
    pub data_class: DataClass,
}

/// Upper bounds, absent where unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Streams at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Streams opened in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connections_per_second: Option<u32>,
    /// Bytes in a second, each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// Addresses that are never dialed (faults F46): checked after resolution, on the address itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DialRules {
    /// For the targets of exports and for the peer's endpoints.
    #[serde(default)]
    pub denied: Vec<IpNet>,
    /// For the peer's endpoints only.
    #[serde(default)]
    pub denied_endpoints: Vec<IpNet>,
}

/// Why a `relay.json` was not adopted. The last good snapshot stays in force.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Over [`MAX_SNAPSHOT_BYTES`].
    #[error("relay.json has {0} bytes, more than {MAX_SNAPSHOT_BYTES}")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("relay.json does not parse: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer controller than this relay can follow.
    #[error(
        "relay.json has format {0}, this relay reads {FORMAT}: upgrade the relay or let the operator render {FORMAT}"
    )]
    Format(u32),
    /// A restriction this relay cannot enforce.
    #[error("relay.json requires {0:?}, which this relay does not know: upgrade the relay")]
    UnknownRequirement(String),
    /// More than [`MAX_CONTROL_CAS`].
    #[error("relay.json trusts {0} control CAs, more than {MAX_CONTROL_CAS}; retire the oldest first")]
    ControlCas(usize),
}

/// What tells whether the rest can be read at all. Looked at first: what is of another format need not have this shape.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
    #[serde(default)]
    requires: Vec<String>,
}

impl SnapshotError {
    /// In one word: whether a newer relay could use it, or nobody.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) | Self::UnknownRequirement(_) => "UnsupportedSnapshot",
            Self::TooLarge(_) | Self::Malformed(_) | Self::ControlCas(_) => "MalformedSnapshot",
        }
    }
}

impl Snapshot {
    /// The file's bytes; one snapshot has one serialization, so one hash.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of plain values: serialization has no failing case.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Reads a file; unknown optional fields are ignored, unknown requirements are not.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > MAX_SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge(bytes.len()));
        }
        let envelope: Envelope = serde_json::from_slice(bytes)?;
        if envelope.format != FORMAT {
            return Err(SnapshotError::Format(envelope.format));
        }
        let unknown = |entry: &String| !KNOWN_REQUIREMENTS.contains(&entry.as_str());
        if let Some(unknown) = envelope.requires.into_iter().find(unknown) {
            return Err(SnapshotError::UnknownRequirement(unknown));
        }
        let snapshot: Self = serde_json::from_slice(bytes)?;
        match snapshot.control_cas.len() {
            0..=MAX_CONTROL_CAS => Ok(snapshot),
            many => Err(SnapshotError::ControlCas(many)),
        }
    }

    /// SHA-256 of [`Snapshot::to_bytes`]: a version is never reused with another hash.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// What we tell the peer about this link; `note` says why it is suspended or cut.
    pub fn declaration(&self, note: Option<String>) -> Declaration {
        let service = |name: &String, data_class| DeclaredService { name: name.clone(), data_class };
        Declaration {
            versions: (1, 1),
            dialable: self.listen.is_some(),
            dials: !self.peer.endpoints.is_empty(),
            classical_key_exchange: self.allow_classical_key_exchange,
            exports: self.exports.iter().map(|e| service(&e.name, e.data_class)).collect(),
            imports: self.imports.iter().map(|i| service(&i.name, i.data_class)).collect(),
            contacts: self.contacts.clone(),
            note,
        }
    }

    /// The head of that declaration; `cut` where the link as a whole is cut.
    pub fn head(&self, declaration: &[u8], cut: bool) -> Head {
        Head {
            sequence: self.version,
            current: self.agreements.current.as_ref().map(|agreement| agreement.term),
            next: self.agreements.next.as_ref().map(|agreement| agreement.term),
            state: if cut { LinkState::Cut } else { self.state },
            hash: Digest::of(declaration),
        }
    }
}
