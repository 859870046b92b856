//! Targets that need no more than the relay and what is below it.

pub mod chain;
pub mod connect;
pub mod frames;
pub mod identity;
mod script;
pub mod session;
pub mod snapshot;
