//! The securelink command: standalone runtime, demo, and kubectl-securelink.

pub mod state;
