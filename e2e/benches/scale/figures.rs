//! What was measured, for people and for programs. Names in JSON end in their unit.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub machine: Machine,
    pub links: Option<Links>,
    pub relays: Option<Relays>,
}

/// On what.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub load_after: String,
}

/// Links made at once.
#[derive(Debug, Serialize)]
pub struct Links {
    pub count: usize,
    pub namespaces: u16,
    /// Until the API server had taken all links.
    pub declared_seconds: f64,
    /// From then until the last object of a link was made.
    pub made_seconds: f64,
    /// From then until nothing was written any more.
    pub settled_seconds: f64,
    pub writes_per_link: f64,
    /// The same by what was written.
    pub writes: BTreeMap<String, f64>,
    pub gets: usize,
    pub reconciles_per_link: f64,
    /// Of the operator, until all was made.
    pub processor_seconds: f64,
    pub settled_processor_seconds: f64,
    /// Of everything else: API server, etcd, controllers, scheduler, kwok; until all was made.
    pub others_processor_seconds: f64,
    pub idle_bytes: u64,
    pub made_bytes: u64,
    pub peak_bytes: u64,
    pub rest: Rest,
    pub again: Again,
}

/// Nothing to do.
#[derive(Debug, Serialize)]
pub struct Rest {
    pub seconds: u64,
    pub writes: usize,
    pub reads: usize,
    pub processor_seconds: f64,
    pub bytes: u64,
}

/// An operator that is started when all is there.
#[derive(Debug, Serialize)]
pub struct Again {
    /// Until it leads.
    pub leads_seconds: f64,
    pub writes: usize,
    pub processor_seconds: f64,
    pub bytes: u64,
    pub peak_bytes: u64,
}

/// Relays that are told.
#[derive(Debug, Serialize)]
pub struct Relays {
    pub count: usize,
    pub namespaces: u16,
    pub answering: f64,
    pub configured_seconds: f64,
    pub cut_one_seconds: f64,
    pub cut_all_seconds: f64,
    pub idle_bytes: u64,
    pub resting_bytes: u64,
    pub peak_bytes: u64,
}

impl Machine {
    pub fn look() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_after = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Self { cores: std::thread::available_parallelism().map_or(0, usize::from), load_after }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, load_after } = &self.machine;
        writeln!(f, "{cores} cores; load after: {load_after}\n")?;
        if let Some(links) = &self.links {
            links.show(f)?;
        }
        if let Some(relays) = &self.relays {
            relays.show(f)?;
        }
        Ok(())
    }
}

impl Links {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(f, &format!("{} links in {} namespaces", self.count, self.namespaces))?;
        row(f, "the API server takes all links, s", self.declared_seconds, "")?;
        row(f, "from the last link until all objects are made, s", self.made_seconds, "30")?;
        row(f, "from the last link until nothing is written any more, s", self.settled_seconds, "")?;
        row(f, "writes of the operator a link, Events included", self.writes_per_link, "12")?;
        for (what, count) in &self.writes {
            row(f, &format!("— {what}"), *count, "")?;
        }
        whole(f, "objects it asks for by name (GET)", self.gets as u64, "0")?;
        row(f, "reconciles a link", self.reconciles_per_link, "")?;
        row(f, "processor time of the operator until all is made, s", self.processor_seconds, "")?;
        row(f, "the same until nothing is written any more, s", self.settled_processor_seconds, "")?;
        row(
            f,
            "processor time of API server, etcd, controllers, scheduler and kwok until all is made, s",
            self.others_processor_seconds,
            "",
        )?;
        memory(f, "memory of the operator before, MiB", self.idle_bytes, "")?;
        memory(f, "when all is made, MiB", self.made_bytes, "")?;
        memory(f, "at most, MiB", self.peak_bytes, "")?;
        let rest = &self.rest;
        whole(f, "at rest: seconds watched", rest.seconds, "")?;
        whole(f, "at rest: writes, but of the lease", rest.writes as u64, "0")?;
        whole(f, "at rest: lists and watches begun anew, and GETs", rest.reads as u64, "")?;
        row(f, "at rest: processor time, s", rest.processor_seconds, "")?;
        memory(f, "at rest: memory, MiB", rest.bytes, "64")?;
        let again = &self.again;
        row(f, "started anew: until it leads, s", again.leads_seconds, "")?;
        whole(f, "started anew: writes, but of the lease", again.writes as u64, "0")?;
        row(f, "started anew: processor time until nothing is to be done, s", again.processor_seconds, "")?;
        memory(f, "started anew: memory, MiB", again.bytes, "64")?;
        memory(f, "started anew: at most, MiB", again.peak_bytes, "")?;
        writeln!(f)
    }
}

impl Relays {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(f, &format!("{} relays of as many links in {} namespaces", self.count, self.namespaces))?;
        row(f, "relays that answer the operator", self.answering, "")?;
        row(f, "a LinkPolicy sets a limit: until all relays have it, s", self.configured_seconds, "")?;
        row(f, "a LinkCut of one link: until its relay is cut, s", self.cut_one_seconds, "")?;
        row(f, "a LinkPolicy forbids all peers: until all relays are cut, s", self.cut_all_seconds, "")?;
        memory(f, "memory of the operator before, MiB", self.idle_bytes, "")?;
        memory(f, "when all relays answer, MiB", self.resting_bytes, "")?;
        memory(f, "at most, MiB", self.peak_bytes, "")
    }
}

fn head(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "| {title} | measured | at most |\n|---|---|---|")
}

fn row(f: &mut fmt::Formatter<'_>, what: &str, value: f64, goal: &str) -> fmt::Result {
    writeln!(f, "| {what} | {value:.2} | {goal} |")
}

fn whole(f: &mut fmt::Formatter<'_>, what: &str, value: u64, goal: &str) -> fmt::Result {
    writeln!(f, "| {what} | {value} | {goal} |")
}

#[allow(clippy::cast_precision_loss)] // mebibytes
fn memory(f: &mut fmt::Formatter<'_>, what: &str, bytes: u64, goal: &str) -> fmt::Result {
    writeln!(f, "| {what} | {:.1} | {goal} |", bytes as f64 / 1_048_576.0)
}
