//! The data plane: carries TCP streams between organizations over mutual TLS. Knows nothing of Kubernetes.
//!
//! The way of a byte here: `listeners` → `open` → `pool` or `handshake` (`dial`, TLS, HELLO) → OPEN → `copy`; and there:
//! `listeners` → `handshake` → `serve` (authorize by `judge`, limits, dial) → ACCEPT → `copy`. What is known and in force
//! is in `link`; every change there re-judges every stream. A partner without our software comes in by `connect`, between
//! `handshake` and `serve`.

mod acknowledged;
mod acquire;
mod callers;
mod capacity;
mod chains;
pub mod connect;
mod connection;
mod control;
mod copy;
mod dial;
mod doctor;
mod early;
mod end;
mod failure;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod housekeeping;
mod judge;
mod lanes;
mod limits;
mod link;
mod listeners;
mod metrics;
mod open;
mod peer;
mod places;
mod pool;
mod records;
mod relay;
mod replicas;
mod report;
mod reserved;
mod reverse;
mod scratch;
mod serve;
mod stream;
mod streams;
mod supervise;
mod view;
mod ways;
pub mod wire;

pub use capacity::Capacity;
pub use listeners::BindError;
pub use metrics::Metrics;
pub use relay::{AdoptError, CutReceipt, Memory, Relay, Setup, StartError, Store};
pub use reserved::GreetError;
pub use securelink_pki::tls::{Clock, TlsError};
pub use view::Credentials;
