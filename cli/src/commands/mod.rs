//! The commands, one file each: its arguments, its help, what it does.

#![allow(clippy::doc_markdown, reason = "a doc comment here is help on a terminal: names need no backticks")]

pub mod check;
pub mod completion;
pub mod cut;
pub mod demo;
pub mod digest;
pub mod doctor;
pub mod fingerprint;
pub mod greet;
pub mod in_cluster;
mod process;
pub mod relay;
pub mod render;
pub mod resume;
pub mod run;
pub mod status;

use crate::args::{ClusterArgs, Command};
use crate::output::{Failure, Out};

/// Does what was asked.
pub fn run(command: Command, cluster: &ClusterArgs, out: Out) -> Result<(), Failure> {
    if let Some(done) = in_cluster::run(&command, cluster, out) {
        return done;
    }
    match command {
        Command::Demo(args) => demo::run(&args, out),
        Command::Run(args) => run::run(&args, out),
        Command::Relay(args) => relay::run(&args, out),
        Command::Status(args) => status::run(&args, out),
        Command::Greet(args) => greet::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Cut(args) => cut::run(&args, out),
        Command::Resume(args) => resume::run(&args, out),
        Command::Fingerprint(args) => fingerprint::run(&args, out),
        Command::Digest(args) => digest::run(&args, out),
        Command::Check(args) => check::run(&args, out),
        Command::Render(args) => render::run(&args, out),
        Command::Grant(args) => in_cluster::grant::run(&args, cluster, out),
        Command::Completion(args) => completion::run(&args, out),
    }
}
