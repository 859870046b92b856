//! The relay engine, as the runtime uses it.

pub use securelink_relay::Clock;
pub(crate) use securelink_relay::{Capacity, Credentials, Memory, Metrics, Relay, Setup, Store};
