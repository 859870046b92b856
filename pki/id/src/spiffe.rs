//! The identity in a relay's certificate: who it belongs to and for whose eyes it was made.

use std::fmt;
use std::str::FromStr;

use crate::trust_domain::{TrustDomain, TrustDomainError};

const SCHEME: &str = "spiffe://";
const PATH: &str = "/securelink/v1/to/";

/// Longest SPIFFE ID (SPIFFE ID specification, section 2.3).
const MAX_LENGTH: usize = 2048;

/// `spiffe://<owner>/securelink/v1/to/<audience>`: the relay of `owner` on its link to `audience`, and nobody else's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    owner: TrustDomain,
    audience: TrustDomain,
}

/// Why a URI is not the identity of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Over 2048 bytes.
    #[error("a SPIFFE ID has at most {MAX_LENGTH} bytes, this one has {0}")]
    TooLong(usize),
    /// Another scheme.
    #[error("a relay's identity begins with `spiffe://`")]
    Scheme,
    /// Another path: an identity of this organization, but not a relay's.
    #[error("a relay's identity has the path {PATH}<trust domain of the peer>")]
    Path,
    /// The owner's name is not a trust domain: user info, port, wildcard and percent-encoding end here.
    #[error("the owner in a relay's identity is not a trust domain: {0}")]
    Owner(TrustDomainError),
    /// The audience's name is not a trust domain.
    #[error("the audience in a relay's identity is not a trust domain: {0}")]
    Audience(TrustDomainError),
}

impl SpiffeId {
    /// The identity of `owner`'s relay on its link to `audience`.
    pub fn link(owner: TrustDomain, audience: TrustDomain) -> Self {
        Self { owner, audience }
    }

    /// Whose relay it is.
    pub fn owner(&self) -> &TrustDomain {
        &self.owner
    }

    /// Whom it may speak to.
    pub fn audience(&self) -> &TrustDomain {
        &self.audience
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_LENGTH {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (owner, path) = rest.split_at(rest.find('/').ok_or(SpiffeIdError::Path)?);
        let owner = owner.parse().map_err(SpiffeIdError::Owner)?;
        let audience = path.strip_prefix(PATH).ok_or(SpiffeIdError::Path)?;
        Ok(Self { owner, audience: audience.parse().map_err(SpiffeIdError::Audience)? })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{PATH}{}", self.owner, self.audience)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
