//! How the operator scales, on a control plane without real nodes: `make scale`, and in small by flags (`--help`).
//!
//! Measures and asserts nothing: what is to be held against what is in docs/scale.md.
#![allow(missing_docs, unreachable_pub, clippy::print_stdout)]

mod figures;
mod installation;
mod links;
mod options;
mod ports;
mod progress;
mod relays;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser as _;
use securelink_e2e::Lab;
use securelink_e2e::plane::harness::keep_logs;
use securelink_e2e::plane::{Plane, Tools};

use figures::Figures;
use options::{Options, Output};

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let figures = runtime.block_on(measure(&options))?;
    match options.output {
        Output::Table => println!("{figures}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(())
}

async fn measure(options: &Options) -> Result<Figures> {
    ensure!(options.links + options.relays > 0, "nothing is to be measured; give --links or --relays");
    let tools = tokio::task::spawn_blocking(|| Tools::with_nodes(&Lab::default())).await?;
    let tools = tools.map_err(|why| anyhow!("no control plane can be started here: {why}"))?;
    let (mut links, mut relays) = (None, None);
    if options.links > 0 {
        let plane = Plane::start(&tools).await.context("a control plane")?;
        links = Some(kept(&plane, links::measure(options, &plane).await)?);
    }
    if options.relays > 0 {
        let plane = Plane::start(&tools).await.context("a control plane")?;
        relays = Some(kept(&plane, relays::measure(options, &plane).await)?);
    }
    Ok(Figures { machine: figures::Machine::look(), links, relays })
}

/// Keeps what the programs said where something failed.
fn kept<T>(plane: &Plane, measured: Result<T>) -> Result<T> {
    measured.or_else(|error| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-logs").join("scale");
        keep_logs(plane.folder(), &folder)?;
        Err(error.context(format!("logs: {}", folder.display())))
    })
}
