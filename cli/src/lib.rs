//! The securelink command: standalone runtime, demo, and kubectl-securelink.

pub mod args;
pub mod cluster;
pub mod commands;
pub mod control;
pub mod demo;
pub mod output;
pub mod relay;
pub mod runtime;
pub mod state;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;
use crate::output::{Out, Tone};

/// The name under which kubectl finds a plugin.
const PLUGIN: &str = "kubectl-securelink";

/// Does what the command line says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, on standard output and with exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let out = Out::new(cli.color);
    let Err(failure) = commands::run(cli.command, &cli.cluster, out) else { return ExitCode::SUCCESS };
    if let Some(message) = failure.message() {
        out.complain("error", Tone::Bad, message);
    }
    failure.code()
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let called = arguments.first().map(Path::new).and_then(Path::file_stem);
    let plugin = called.is_some_and(|name| name == PLUGIN);
    let mut command = Cli::command();
    if plugin {
        command = command.bin_name("kubectl securelink").display_name("kubectl securelink");
    }
    let matches = command.try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.cluster.plugin = plugin;
    cli.cluster.state_dir = matches.subcommand().is_some_and(|(_, verb)| {
        let given = verb.try_contains_id("state_dir").unwrap_or(false);
        given && verb.value_source("state_dir") == Some(ValueSource::CommandLine)
    });
    Ok(cli)
}
