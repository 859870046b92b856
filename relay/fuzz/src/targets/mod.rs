//! Targets that need no more than the relay and what is below it.

pub mod chain;
pub mod connect;
pub mod frames;
pub mod identity;
pub mod records;
mod script;
pub mod session;
pub mod snapshot;
