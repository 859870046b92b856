//! `securelink-operator`: reads what it was installed with and runs until it is told to end.

use clap::Parser as _;
use securelink_operator::settings::{Arguments, Config, LogFormat};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Threads that tell cuts: one may look while the other tells.
const CUTTERS: usize = 2;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::read(&arguments.config)?;
    log(config.log_format);
    let cuts = Builder::new_multi_thread().worker_threads(CUTTERS).thread_name("cuts").enable_all().build()?;
    Runtime::new()?.block_on(run(arguments, config, cuts.handle().clone()))
}

async fn run(arguments: Arguments, config: Config, cuts: Handle) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        }
    });
    Ok(securelink_operator::run(arguments, config, cuts, stop).await?)
}

fn log(format: LogFormat) {
    let filter = || EnvFilter::try_from_env("SECURELINK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    match format {
        LogFormat::Json => tracing_subscriber::fmt().json().with_env_filter(filter()).init(),
        LogFormat::Text => tracing_subscriber::fmt().with_env_filter(filter()).init(),
    }
}
