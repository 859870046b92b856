//! Roots, issuing, pins, root transitions and the peer verifier. No Kubernetes, no sockets.

pub mod certificate;
pub mod control;
pub mod issue;
pub mod key;
pub mod leaf;
pub mod lifetimes;
pub mod refusal;
mod template;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod transitions;
pub mod verify;

pub use certificate::fingerprint_of;
pub use issue::{Intermediate, Root};
pub use key::PrivateKey;
pub use leaf::Leaf;
pub use refusal::Refusal;
pub use transitions::Transitions;
pub use verify::{PeerTrust, VerifiedPeer, verify};
