//! What becomes of a link where the API server fails, the leader does, or others in the cluster get in the way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod others;
mod rights;
mod server;

use std::process::ExitCode;

use securelink_e2e::plane::harness;

/// Objects that a link has, beside its pods.
const OBJECTS: usize = 8;

/// The tests of a module, in that order.
macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) fn tests() -> Vec<securelink_e2e::plane::Test> {
            vec![$(securelink_e2e::plane::Test::new(stringify!($name), |plane| Box::pin($name(plane)))),*]
        }
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let tests = [server::tests(), others::tests(), rights::tests()].into_iter().flatten();
    harness::run_on(harness::MOST_PLANES, env!("CARGO_TARGET_TMPDIR"), tests.collect())
}
