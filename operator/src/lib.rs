//! The SecureLink operator: all Kubernetes I/O of the product. What is to be done is decided by `securelink-plan`; here it is
//! gathered for, carried out and told.
//!
//! Every replica watches, follows the relays and carries cuts to them (`cut`). One of them, which holds the lease, also
//! drives (`controller`): `gather`, `issue`, `apply`, `update_status`, each stage a file.

pub mod apply;
pub mod ask;
pub mod caches;
pub mod control;
pub mod controller;
mod counted;
pub mod cut;
pub mod cut_status;
pub mod gather;
pub mod http;
pub mod hub;
pub mod identity;
pub mod issue;
mod keyed;
pub mod keys;
pub mod lease;
pub mod metrics;
pub mod newest;
pub mod relays;
pub mod requests;
mod run;
pub mod settings;
mod sound;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
pub mod traces;
pub mod update_status;
pub mod withdrawn;
pub mod world;

pub use run::{RunError, run};
