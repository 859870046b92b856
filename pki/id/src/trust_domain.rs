//! Names of organizations, and the patterns a policy writes about them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest trust domain name (SPIFFE ID specification, section 2.1).
const MAX_LENGTH: usize = 255;
/// Longest label (RFC 1123): our relays' names are DNS names too.
const MAX_LABEL: usize = 63;

/// The name of an organization: a SPIFFE trust domain, held to DNS labels so that it reads the same everywhere.
///
/// Only `a-z`, `0-9`, `-` and `.`: homoglyphs, upper case, ports, user info and percent-encoding never get this far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TrustDomain(String);

/// Why a text is not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// Nothing at all.
    #[error("a trust domain must not be empty; write the organization's DNS name, such as europol.example")]
    Empty,
    /// Over 255 characters.
    #[error("a trust domain has at most {MAX_LENGTH} characters, this one has {0}")]
    TooLong(usize),
    /// A scheme in front.
    #[error("write the bare trust domain, without `spiffe://` or a path")]
    NotBare,
    /// Something outside the alphabet.
    #[error("a trust domain holds only a-z, 0-9, `-` and `.`, not {}", .0.escape_unicode())]
    Character(char),
    /// An empty label, one over 63 characters, or one that begins or ends with `-`.
    #[error(
        "each part of a trust domain between dots has 1 to {MAX_LABEL} characters and neither begins nor ends with `-`"
    )]
    Label,
}

impl TrustDomain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_labels(text: &str) -> Result<(), TrustDomainError> {
    for label in text.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL || label.starts_with('-') || label.ends_with('-') {
            return Err(TrustDomainError::Label);
        }
    }
    Ok(())
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(text: &str) -> Result<Self, TrustDomainError> {
        if text.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(TrustDomainError::TooLong(text.chars().count()));
        }
        if text.contains('/') {
            return Err(TrustDomainError::NotBare);
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
            return Err(TrustDomainError::Character(bad));
        }
        check_labels(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TrustDomain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = TrustDomainError;

    fn try_from(text: String) -> Result<Self, TrustDomainError> {
        text.parse()
    }
}

/// A trust domain, or `*.` and a suffix: one or more labels before it (contracts 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum TrustDomainPattern {
    /// Exactly this one.
    Exact(TrustDomain),
    /// Anything below this one, not itself.
    Below(TrustDomain),
}

impl TrustDomainPattern {
    /// Whether `domain` is meant.
    pub fn matches(&self, domain: &TrustDomain) -> bool {
        match self {
            Self::Exact(exact) => exact == domain,
            Self::Below(suffix) => {
                domain.as_str().strip_suffix(suffix.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
        }
    }
}

impl FromStr for TrustDomainPattern {
    type Err = TrustDomainError;

    fn from_str(text: &str) -> Result<Self, TrustDomainError> {
        match text.strip_prefix("*.") {
            Some(suffix) => suffix.parse().map(Self::Below),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for TrustDomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => write!(f, "{domain}"),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl From<TrustDomainPattern> for String {
    fn from(pattern: TrustDomainPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for TrustDomainPattern {
    type Error = TrustDomainError;

    fn try_from(text: String) -> Result<Self, TrustDomainError> {
        text.parse()
    }
}
