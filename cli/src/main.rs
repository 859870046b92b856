//! The securelink command.

use std::process::ExitCode;

fn main() -> ExitCode {
    securelink::main(std::env::args_os())
}
