//! Trust domains, SPIFFE IDs and fingerprints: pure values everyone shares. No I/O, no X.509.

mod fingerprint;
mod spiffe;
mod trust_domain;

pub use fingerprint::{Fingerprint, FingerprintError};
pub use spiffe::{SpiffeId, SpiffeIdError};
pub use trust_domain::{TrustDomain, TrustDomainError, TrustDomainPattern};
