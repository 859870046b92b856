//! `run`: one organization's half of its links, until told to stop.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

use super::fingerprint::{Annex, of_state, show};
use super::process::{Told, no_threads};
use crate::args::{FilesArgs, MachineArgs, OutputArgs, StateArgs, teach};
use crate::output::{Colour, Failure, Out, Style, Tone, clean, plural};
use crate::runtime::{DEFAULT_LOCAL, Options, Runtime};

/// How long streams may go on after SIGTERM (product: relays drain at most 30 s).
const DRAIN: Duration = Duration::from_secs(30);

/// Run one organization's half of its links, from the YAML a cluster would get
///
/// Makes what is missing (the first start, with --init, the root), keeps certificates fresh, reads the files again when
/// they change or SIGHUP arrives, and drains on SIGTERM or SIGINT. A mistake in a file never ends a link that works.
/// Imports listen on 127.0.0.1; the peer's listener on expose.port, or where --listen says.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  The first start; the folder becomes the state of this organization:
    securelink run -f link/ --state-dir ./state --init

  From then on:
    securelink run -f link/ --state-dir ./state

  Behind a port forward, and the second organization on the same machine:
    securelink run -f link/ --listen europol=0.0.0.0:15443 --local 127.0.0.1:15446 --allow-loopback-peers

  As a service, with logs for a collector:
    securelink run -f /etc/securelink --log-format json 2>> /var/log/securelink.log",
    "  0  it ran, and was told to stop
  1  it could not start: the files, the state or a port
  2  the command line is wrong
  3  there is no state; check --state-dir, or add --init the first time",
    "  {version, stateDir, local, links: [NAME], identities: as of `securelink fingerprint`}, once, when it runs"
))]
pub struct RunArgs {
    #[command(flatten)]
    files: FilesArgs,

    #[command(flatten)]
    state: StateArgs,

    /// Make a new state folder, and with it a new root that every partner has to pin; on existing state it does nothing
    #[arg(long)]
    init: bool,

    #[command(flatten)]
    machine: MachineArgs,

    /// Where metrics and status are served, on this machine only
    #[arg(long, value_name = "ADDR:PORT|off", default_value_t = Local(Some(DEFAULT_LOCAL)))]
    local: Local,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// What a process that runs says on standard error.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,

    /// Log more; twice for everything. SECURELINK_LOG says it in detail, such as securelink_relay=debug
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl LogArgs {
    /// Begins to log.
    pub(super) fn begin(&self) {
        log(self.log_format, self.verbose);
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// An address, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local(pub(super) Option<SocketAddr>);

impl std::str::FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse();
        address
            .map(|address| Self(Some(address)))
            .map_err(|_| "is not ADDR:PORT or off; write for example 127.0.0.1:15445".to_owned())
    }
}

impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    version: &'static str,
    state_dir: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    links: Vec<String>,
    identities: Vec<Annex>,
}

/// Runs until a signal.
pub fn run(args: &RunArgs, out: Out) -> Result<(), Failure> {
    args.log.begin();
    let state_dir = args.state.dir()?;
    let options = Options {
        files: args.files.files.clone(),
        state_dir: state_dir.clone(),
        init: args.init,
        listen: args.machine.listen.iter().cloned().collect(),
        allow_loopback_peers: args.machine.allow_loopback_peers,
        records: args.machine.records.into(),
        local: args.local.0,
        watch: true,
    };
    let threads = Builder::new_multi_thread().enable_all().build().map_err(|error| no_threads(&error))?;
    threads.block_on(async {
        let mut told = Told::listen()?;
        let runtime = tokio::select! {
            started = Runtime::start(options) => started?,
            _ = told.next() => return Ok(()),
        };
        if let Err(failure) = started(args, &runtime, &state_dir, out) {
            // Links run; that nobody could be told is no reason to stop them.
            let message = failure.message().unwrap_or("its reader is gone");
            tracing::warn!(message, "what runs could not be shown on standard output");
        }
        told.drain(DRAIN, runtime.shutdown(DRAIN)).await;
        Ok(())
    })
}

/// Says what runs, and what the partner needs.
fn started(args: &RunArgs, runtime: &Runtime, state_dir: &Path, out: Out) -> Result<(), Failure> {
    // A link may well run without a root at hand, on the certificate it has.
    let identities = of_state(state_dir).unwrap_or_default();
    let links: Vec<_> = runtime.status().iter().map(|link| link.link.to_string()).collect();
    let local = runtime.local_addr();
    if args.output.is_json() {
        let version = env!("CARGO_PKG_VERSION");
        return out.json(&Started { version, state_dir, local, links, identities });
    }
    let style = out.style();
    let state = clean(&state_dir.display().to_string());
    let count = plural(links.len(), "link");
    out.line(format!(
        "{} {} runs {count}, state in {state}",
        style.paint(Tone::Strong, "securelink"),
        env!("CARGO_PKG_VERSION")
    ))?;
    out.line("")?;
    for annex in &identities {
        show(annex, out)?;
        out.line("")?;
    }
    let status = format!("securelink status --state-dir {state}");
    out.line(format!("status: {}", style.paint(Tone::Value, &status)))?;
    match local {
        Some(address) => {
            out.line(format!("metrics: {}", style.paint(Tone::Value, &format!("http://{address}/metrics"))))
        }
        None => Ok(()),
    }
}

/// Log lines go to standard error: standard output is the answer's.
pub(super) fn log(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => "warn,securelink=info,securelink_relay=info",
        1 => "info,securelink=debug,securelink_relay=debug",
        _ => "debug,securelink=trace,securelink_relay=trace",
    };
    let filter = EnvFilter::try_from_env("SECURELINK_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A line that cannot be written is lost. Complaining about it on the same standard error would panic.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let colour = Style::new(Colour::Auto, io::stderr().is_terminal()).colours();
    // A second subscriber in one process is refused; the first goes on.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colour).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
