//! What the relay costs, beside a plain copy relay and no relay at all: `make bench`, and `make bench-short` in a minute.
//!
//! A client and a service of the bench's own talk through each *system*: `ours` and `again` (the same twice: what differs
//! between them is noise), `copy` (the same two hops without TLS, frames or gate) and `direct`. The systems take turns in
//! every round, each relay is a process of its own, and every byte is checked. Nothing is asserted about time.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod measures;
mod place;
mod roles;
mod systems;
mod table;
mod traffic;

use measures::Plan;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((role, rest)) = arguments.split_first().filter(|(first, _)| first.starts_with("role:")) {
        return roles::play(&role["role:".len()..], rest);
    }
    // `cargo bench` adds `--bench`.
    let short = arguments.iter().any(|argument| argument == "--short");
    if !place::is_own() && place::move_into_own(&arguments) {
        return;
    }
    place::describe();
    let plan = if short { Plan::SHORT } else { Plan::LONG };
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let results = threads.block_on(measures::all(&plan));
    table::print(&plan, &results);
}
