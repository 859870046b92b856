//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures how the operator scales: many links made at once, the rest after that, and a cut that reaches many relays.
///
/// It starts a control plane of its own (etcd, an API server, controllers, a scheduler; kwok plays the nodes) and the operator
/// of this checkout as it ships, once for the links and once for the relays. Nothing else of the machine is touched. How far
/// it is stands on standard error, the result on standard output.
#[derive(Clone, Debug, Parser)]
#[command(name = "scale", after_help = EXAMPLES)]
pub struct Options {
    /// Links that are made at once; 0 leaves this part out. Each has one export, one import and two relays: eight objects.
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    pub links: usize,
    /// Namespaces over which links are spread.
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub namespaces: u16,
    /// For how long the operator is watched at rest.
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = time)]
    pub rest: Duration,
    /// Relays, one of each link, to which configurations and one cut are pushed; 0 leaves this part out.
    #[arg(long, default_value_t = 500, value_name = "COUNT")]
    pub relays: usize,
    /// How the result is written: `table` is Markdown.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Measures this program instead of the operator of this checkout, as one of a release before.
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const EXAMPLES: &str = "\
Examples:
  make scale                                                       everything: about twenty minutes
  cargo bench -p securelink-e2e --bench scale -- --links 100 --rest 30s --relays 50      two minutes
  cargo bench -p securelink-e2e --bench scale -- --relays 0 -o json | jq '.links.made_seconds'

What the figures mean: docs/scale.md";

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Markdown.
    Table,
    /// One object.
    Json,
}

/// A time as `30s` or `10m`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time as 30s, 10m or 1h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let count: u32 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(seconds) * count)
}
