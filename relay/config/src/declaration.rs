//! What a side declares to its peer, and the short head of it that rides on every connection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// Largest declaration that is sent or accepted, in bytes (contracts 1: DECLARE at most 64 KiB).
pub const MAX_DECLARATION_BYTES: usize = 64 * 1024;

/// SHA-256 of something, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub [u8; 32]);

/// Why a text is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hexadecimal digits; compute one with `securelink digest FILE`")]
pub struct DigestError;

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
        Self(out)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(DigestError)?.as_bytes();
        if hex.len() != 64 {
            return Err(DigestError);
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(DigestError),
        };
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(out))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

/// One agreement as the gate sees it: which text, and when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementTerm {
    /// Of the signed text; must equal the peer's.
    pub digest: Digest,
    /// First instant it holds.
    #[serde(default)]
    pub from: Millis,
    /// First instant it no longer holds; absent for an agreement without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
}

/// How open a side says it is. The order is the order of narrowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkState {
    /// Streams may flow.
    #[default]
    Active,
    /// Planned pause, written in the specification.
    Suspended,
    /// Emergency cut.
    Cut,
}

/// The head of a declaration: all the gate needs, small enough for every HELLO (contracts 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Version of the snapshot it comes from; only a higher one may widen.
    pub sequence: u64,
    /// Agreement in force, absent where none is declared.
    pub current: Option<AgreementTerm>,
    /// Renewal that takes over when both sides have it.
    pub next: Option<AgreementTerm>,
    /// How open this side is.
    pub state: LinkState,
    /// SHA-256 of the DECLARE payload this head belongs to.
    pub hash: Digest,
}

impl Head {
    /// The agreements declared, none standing for "no agreement".
    pub(crate) fn terms(&self) -> impl Iterator<Item = Option<&AgreementTerm>> {
        let bare = self.current.is_none() && self.next.is_none();
        [self.current.as_ref(), self.next.as_ref()].into_iter().filter(move |term| bare || term.is_some()).take(2)
    }
}

/// How sensitive what a service carries is; a class admits itself and what is below it (contracts 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataClass {
    /// Names no people and no cases.
    Strategic,
    /// Names people and cases.
    Operational,
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strategic => "strategic",
            Self::Operational => "operational",
        })
    }
}

/// An export offered or an import wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredService {
    /// The export's name, the only thing about a service that crosses the wire.
    pub name: String,
    /// Of an export what it carries, of an import the widest accepted.
    pub data_class: DataClass,
}

/// Somebody to call when the link misbehaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Who answers.
    pub name: String,
    /// Where.
    pub email: String,
}

/// The full declaration, carried by DECLARE on the control connection.
///
/// Its bytes are JSON with the fields in this order and services sorted by name, so that one declaration has one hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declaration {
    /// Lowest and highest protocol version spoken.
    pub versions: (u16, u16),
    /// Whether the peer can dial us.
    pub dialable: bool,
    /// Whether we dial the peer: if not, it parks reverse connections for us. A declaration without the field says yes.
    #[serde(default = "yes")]
    pub dials: bool,
    /// Whether we accept a key exchange without a post-quantum part (both sides must).
    pub classical_key_exchange: bool,
    /// What the peer may reach here.
    pub exports: Vec<DeclaredService>,
    /// What we want to reach there.
    pub imports: Vec<DeclaredService>,
    /// Whom to call.
    pub contacts: Vec<Contact>,
    /// Why the link is suspended or cut, for the people on the other side; at most 256 characters are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

const fn yes() -> bool {
    true
}

/// Why declaration bytes were refused.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// Over [`MAX_DECLARATION_BYTES`].
    #[error("the peer's declaration has {0} bytes, more than {MAX_DECLARATION_BYTES}")]
    TooLarge(usize),
    /// Not the JSON this version knows.
    #[error("the peer's declaration does not parse: line {line}, column {column}")]
    Malformed {
        /// Line of the error.
        line: usize,
        /// Column of the error.
        column: usize,
    },
    /// More entries than a `SecureLink` can hold (contracts 8).
    #[error("the peer declares {0} services, more than 64 exports and 64 imports")]
    TooMany(usize),
}

impl Declaration {
    /// The bytes DECLARE carries and [`Head::hash`] covers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sorted = self.clone();
        sorted.exports.sort_by(|a, b| a.name.cmp(&b.name));
        sorted.imports.sort_by(|a, b| a.name.cmp(&b.name));
        // A struct of strings, numbers and lists: serialization has no failing case.
        serde_json::to_vec(&sorted).unwrap_or_default()
    }

    /// Reads a peer's declaration; unknown fields are ignored so that later versions may add some.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DeclarationError> {
        if bytes.len() > MAX_DECLARATION_BYTES {
            return Err(DeclarationError::TooLarge(bytes.len()));
        }
        let declaration: Self = serde_json::from_slice(bytes)
            .map_err(|error| DeclarationError::Malformed { line: error.line(), column: error.column() })?;
        let services = declaration.exports.len().max(declaration.imports.len());
        if services > 64 { Err(DeclarationError::TooMany(services)) } else { Ok(declaration) }
    }
}
