//! The commands, one file each: its arguments, its help, what it does.

pub mod check;
pub mod completion;
pub mod digest;
pub mod fingerprint;

use crate::args::Command;
use crate::output::{Failure, Out};

/// Does what was asked.
pub fn run(command: Command, out: Out) -> Result<(), Failure> {
    match command {
        Command::Digest(args) => digest::run(&args, out),
        Command::Fingerprint(args) => fingerprint::run(&args, out),
        Command::Check(args) => check::run(&args, out),
        Command::Completion(args) => completion::run(&args, out),
    }
}
