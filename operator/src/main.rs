//! `securelink-operator`: reads what it was installed with and runs until it is told to end.

use clap::Parser as _;
use securelink_operator::settings::{Arguments, Config, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::read(&arguments.config)?;
    log(config.log_format);
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
    Ok(securelink_operator::run(arguments, config, stop).await?)
}

fn log(format: LogFormat) {
    let filter = || EnvFilter::try_from_env("SECURELINK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    match format {
        LogFormat::Json => tracing_subscriber::fmt().json().with_env_filter(filter()).init(),
        LogFormat::Text => tracing_subscriber::fmt().with_env_filter(filter()).init(),
    }
}
