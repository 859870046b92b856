//! The relay engine, as the runtime uses it.

pub use securelink_relay::Clock;
pub(crate) use securelink_relay::{Credentials, Memory, Metrics, Relay, Setup, Store};
