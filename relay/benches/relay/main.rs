//! What the relay costs, beside a plain copy relay, no relay at all and, if asked, the relays of others: `make bench`,
//! `make bench-short`, `make bench-peers`; `-- --help` teaches the rest.
//!
//! A client and a service of the bench's own talk through each *system*. The systems take turns in every round, each relay
//! is a process of its own, and every byte is checked. Nothing is asserted about time.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod counts;
mod figures;
mod guard;
mod measures;
mod options;
mod place;
mod plot;
mod process;
mod roles;
mod systems;
mod table;
mod traffic;

use std::process::ExitCode;

use options::{Asked, Options};
use systems::install;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((role, rest)) = arguments.split_first().filter(|(first, _)| first.starts_with("role:")) {
        roles::play(&role["role:".len()..], rest);
        return ExitCode::SUCCESS;
    }
    let options = match options::parse(&arguments) {
        Ok(Asked::Measure(options)) => options,
        Ok(Asked::Count) => return count(),
        Ok(Asked::Help(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}; --help says what there is");
            return ExitCode::FAILURE;
        }
    };
    if !place::is_own() {
        // Before the move: the other network leads nowhere.
        if let Err(lacking) = install::all(&options.systems) {
            eprintln!("{lacking}");
            return ExitCode::FAILURE;
        }
        if place::move_into_own(&arguments) {
            return ExitCode::SUCCESS;
        }
    }
    if run(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Counts instructions; a failure where a bound does not hold.
fn count() -> ExitCode {
    match counts::judge() {
        Ok((lines, all_hold)) => {
            println!("{}", lines.join("\n"));
            if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(lacking) => {
            eprintln!("{lacking}");
            ExitCode::FAILURE
        }
    }
}

/// False where a bound does not hold.
fn run(options: &Options) -> bool {
    place::raise_open_files();
    let mut head = place::describe();
    head.extend(options.systems.iter().filter_map(|kind| kind.version()));
    for line in &head {
        println!("{line}");
    }
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let results = threads.block_on(measures::all(options));
    head.push(format!("load after: {}", place::load()));
    head.push(place::aes_cost());
    let text = table::markdown(&results);
    println!("\n{text}");
    if let Some(folder) = &options.write {
        table::write(folder, &head, &text);
        std::fs::write(folder.join("peers.svg"), plot::svg(&results)).unwrap();
        println!("written to {}", folder.display());
    }
    if !options.guard {
        return true;
    }
    let (lines, all_hold) = guard::judge(&results);
    println!("{}", lines.join("\n"));
    all_hold
}
