//! API types of SecureLink: the four kinds, their schema and CEL rules, conditions and well-known keys.
//!
//! Types hold what a person wrote, as plain text where another crate parses it (trust domains, fingerprints): an object
//! that was stored under an older schema must still decode. No I/O and no async here.

// `KubeSchema` copies each struct, `pub` included, into a function body.
#![allow(unreachable_pub)]
// A field's doc comment is its description in the schema, read in a terminal: names of our own need no backticks there.
#![allow(clippy::doc_markdown, rustdoc::bare_urls)]
// Two printer columns may well have one type.
#![allow(clippy::duplicated_attributes)]

pub mod conditions;
mod definitions;
pub mod duration;
mod forms;
pub mod keys;
mod kubernetes;
mod link_cut;
mod link_identity;
mod link_policy;
pub mod load;
pub mod quantity;
pub mod secure_link;

pub use definitions::definitions;
pub use duration::LinkDuration;
pub use link_cut::{LinkCut, LinkCutSpec, LinkCutStatus, LinkRef, RelayCut};
pub use link_identity::{
    BuiltInIssuer, CertManagerIssuer, Contact, IssuerRef, IssuerSpec, LinkIdentity, LinkIdentitySpec,
    LinkIdentityStatus, RootState, RootStatus, SecretIssuer,
};
pub use link_policy::{AllowedTrustDomains, LinkPolicy, LinkPolicySpec, PolicyLimits};
pub use quantity::ByteRate;
pub use secure_link::{
    Agreement, AgreementStatus, CertificateStatus, Crypto, DataClass, Endpoint, Export, ExportStatus, ExportTarget,
    Expose, ExposeType, ExternalTrafficPolicy, IdentityRef, Import, ImportStatus, LastRequest, LinkState,
    NextAgreement, Peer, PeerStatus, Protocol, RelayPods, RequestState, SecureLink, SecureLinkSpec, SecureLinkStatus,
    StreamLimits,
};

/// API group of the four kinds (product: "The four kinds").
pub const GROUP: &str = "securelink.dev";
/// The version served and stored.
pub const VERSION: &str = "v1alpha1";
