//! The securelink command.
fn main() {}
