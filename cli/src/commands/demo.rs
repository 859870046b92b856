//! `demo`: two organizations link up on this machine, and are shown what the link refuses.

use clap::Args;

use crate::args::{OutputArgs, teach};
use crate::demo::{Demo, Plan};
use crate::output::{Failure, Out};

/// Smallest file that is carried: less shows no rate.
const MIN_SIZE: u64 = 64 * 1024;

/// Show two organizations linking up on this machine, in under a minute
///
/// Makes two organizations in a temporary folder, each with its own YAML, root and state, and links them over loopback as
/// two machines would be: the two lines are exchanged, a first message is signed for, a file is carried and compared;
/// strangers are refused; an agreement ends; a link is cut and resumed. Needs no root and no network.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Look on:
    securelink demo

  A larger file, and keep the two organizations' files to look at:
    securelink demo --size 1GiB --keep

  In a pipeline:
    securelink demo -o json | jq '.ok, (.steps[] | select(.ok | not))'",
    "  0  every step did what it should
  1  some step did not; it says which and why
  2  the command line is wrong",
    "  {ok, millis, organizations: [{name, trustDomain, endpoint, fingerprint}], folder,
   steps: [{name, title, ok, millis, error, figure, figures}]}"
))]
pub struct DemoArgs {
    /// Size of the file that is carried, from 64KiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    size: u64,

    /// Keep the folder with both organizations' files, and say where it is
    #[arg(long)]
    keep: bool,

    /// Log to standard error what the relays do; twice for more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(flatten)]
    output: OutputArgs,
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || "is not a size; write for example 256MiB, 1GiB or 1000000".to_owned();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let shift = match text[digits.len()..].trim() {
        "" | "B" => 0,
        "K" | "Ki" | "KiB" => 10,
        "M" | "Mi" | "MiB" => 20,
        "G" | "Gi" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < MIN_SIZE { Err("is too small to show anything; from 64KiB".to_owned()) } else { Ok(bytes) }
}

/// Runs the demo.
pub fn run(args: &DemoArgs, out: Out) -> Result<(), Failure> {
    if args.verbose > 0 {
        super::run::log(super::run::LogFormat::Text, args.verbose - 1);
    }
    let plan = Plan { size: args.size, keep: args.keep, json: args.output.is_json() };
    Demo::run(&plan, out)
}
