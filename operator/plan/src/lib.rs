//! The pure core: verdicts, certificate decisions, relay configuration and status, without clock, client or randomness.
//!
//! The way of one link: [`Gathered`] -> [`validate`] -> [`Verdict`] over a [`ValidatedLink`] -> [`certificate`],
//! [`snapshot`] -> [`objects`](objects::Objects) -> [`status`]. Time is an argument everywhere, in [`Millis`](securelink_relay_config::Millis) where it goes
//! to a relay and as a timestamp where it goes to a person. Operator and standalone runtime run the same functions.

mod accepted;
mod ahead;
pub mod certificate;
mod consent;
pub mod drift;
mod gathered;
mod guard;
mod hosting;
pub mod identity;
pub mod names;
mod narrowing;
mod obeyed;
pub mod objects;
pub mod relays;
pub mod rotation;
mod selection;
mod service;
mod snapshot;
mod status;
mod validated;
mod verdict;
mod widened;

pub use accepted::{Accepted, AcceptedError, AcceptedIdentity, MAX_ACCEPTED_BYTES};
pub use ahead::{Sight, cut_of_deleted, cuts_ahead, cuts_in_sight};
pub use gathered::{Cluster, CutOrder, Declared, Denied, DnsServers, Gathered, Installation, Mode, Standalone, Taken};
pub use names::ObjectKind;
pub use narrowing::Narrowing;
pub use obeyed::{CutHits, CutRelay, cut_status};
pub use selection::{cut_orders, peer_names, policy_applies, salvage_cut};
pub use service::ServiceTarget;
pub use snapshot::{Orders, above, listeners, snapshot, unordered};
pub use status::words::without_local_ports;
pub use status::{Certificate, LeafInUse, Observed, PROBE_FRESH, next_deadline, status};
pub use validated::{Target, ValidatedExport, ValidatedExpose, ValidatedImport, ValidatedLink};
pub use verdict::{About, Base, Problem, Verdict, validate};
pub use widened::{selects_only, widened_by};
