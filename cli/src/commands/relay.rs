//! `relay`: one link in one process, as it runs in a pod.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::runtime::Builder;

use super::process::{Told, no_threads};
use super::run::{Local, LogArgs};
use crate::args::{OutputArgs, teach};
use crate::output::{Failure, Out};
use crate::relay::{Options, Process};

/// How long streams may go on after SIGTERM (product: relays drain at most 30 s).
const DRAIN: Duration = Duration::from_secs(30);

/// Run one link's relay from mounted files, under a controller
///
/// This is what the operator runs in a pod. It reads relay.json from one folder and the leaf from another, follows both when
/// the kubelet swaps them, and takes newer ones over its control port by mutual TLS. Whatever comes, the last good ones stay
/// in force. SIGTERM drains.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  In a pod:
    securelink relay --config /etc/securelink/config --leaf /etc/securelink/leaf --scratch /var/lib/securelink

  To try it on one machine:
    securelink relay --config config --leaf leaf --scratch scratch --control 127.0.0.1:0 --metrics 127.0.0.1:0 -o json",
    "  0  it ran, and was told to stop
  1  it could not start: a folder or a port
  2  the command line is wrong",
    "  {version, control, metrics}, once, when its ports are open"
))]
pub struct RelayArgs {
    /// The folder with relay.json, such as a mounted ConfigMap
    #[arg(long, value_name = "DIR")]
    config: PathBuf,

    /// The folder with tls.crt, tls.key and, after a root was replaced, transitions.pem, such as a mounted Secret
    #[arg(long, value_name = "DIR")]
    leaf: PathBuf,

    /// The folder that outlives the container, such as an emptyDir; no key is written to it
    #[arg(long, value_name = "DIR")]
    scratch: PathBuf,

    /// Where controllers ask, by mutual TLS
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:15444")]
    control: SocketAddr,

    /// Where /metrics, /livez and /readyz are served
    #[arg(long, value_name = "ADDR:PORT|off", default_value = "0.0.0.0:15445")]
    metrics: Local,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Started {
    version: &'static str,
    control: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
}

/// Runs until a signal.
pub fn run(args: &RelayArgs, out: Out) -> Result<(), Failure> {
    args.log.begin();
    let options = Options {
        config: args.config.clone(),
        leaf: args.leaf.clone(),
        scratch: args.scratch.clone(),
        control: args.control,
        metrics: args.metrics.0,
    };
    let threads = Builder::new_multi_thread().enable_all().build().map_err(|error| no_threads(&error))?;
    threads.block_on(async {
        let mut told = Told::listen()?;
        let process = Process::start(options).await.map_err(|error| Failure::failed(error.to_string()))?;
        if let Err(failure) = started(args, &process, out) {
            let message = failure.message().unwrap_or("its reader is gone");
            tracing::warn!(message, "what runs could not be shown on standard output");
        }
        told.drain(DRAIN, process.shutdown(DRAIN)).await;
        Ok(())
    })
}

fn started(args: &RelayArgs, process: &Process, out: Out) -> Result<(), Failure> {
    let (version, control, metrics) = (env!("CARGO_PKG_VERSION"), process.control_addr(), process.metrics_addr());
    if args.output.is_json() {
        return out.json(&Started { version, control, metrics });
    }
    let what = process
        .link()
        .map_or_else(|| "waits for a configuration and a leaf".to_owned(), |link| format!("relays {link}"));
    out.line(format!("securelink {version} {what}, control {control}"))
}
