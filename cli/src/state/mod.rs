//! The folder of the standalone runtime (contracts 5): keys, certificates, what was accepted, what is cut.
//!
//! Every write is durable when it returns and replaces a file as a whole; a damaged file is reported and left alone.
//! Decides nothing: what to mint, keep or cut is the runtime's.

mod error;
pub(crate) mod files;
mod folder;
mod identity;
mod link;
mod lock;

pub use error::StateError;
pub use folder::{IdentityEntry, StateDir, default_dir};
pub use identity::{IdentityDir, IdentityRecord};
pub use link::{CutOrigin, LinkDir, StoredCut, is_hidden};
pub use lock::Lock;
