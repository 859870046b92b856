//! What is measured of a system, in rounds in which the systems take turns.

mod bulk;
mod cut;
mod flooded;
mod pings;
mod stalled;
mod streams;

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::figures::{Column, Results};
use crate::options::Options;
use crate::systems::{Kind, Service, System};
use crate::traffic::{self, Way};

/// A system that has not finished a measure by then never will.
const PATIENCE: Duration = Duration::from_mins(2);

/// How much of everything.
pub struct Plan {
    pub rounds: usize,
    bulk_mib: u64,
    pings: u64,
    time: Duration,
    idle: usize,
    cut: usize,
}

impl Plan {
    pub const SHORT: Self =
        Self { rounds: 3, bulk_mib: 256, pings: 2_000, time: Duration::from_millis(500), idle: 500, cut: 1_000 };
    pub const LONG: Self =
        Self { rounds: 5, bulk_mib: 1024, pings: 20_000, time: Duration::from_secs(2), idle: 5_000, cut: 10_000 };
}

/// Something that is measured. Aims are ratios to the best peer.
pub struct Measure {
    pub name: &'static str,
    pub about: &'static str,
    what: What,
    columns: &'static [Column],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Bulk,
    Ping,
    Pings,
    Beside,
    Paced,
    Streams,
    Stalled,
    Flooded,
    Renewal,
    Idle,
    Cut,
}

pub const MEASURES: &[Measure] = &[
    Measure {
        name: "bulk",
        about: "MiB/s and CPU of both relays, 1, 16 and 64 streams at once, client to service (up) and back (down)",
        what: What::Bulk,
        columns: &[
            Column::more("1 up MiB/s", 0).aims(1.0, 1.25),
            Column::less("1 up CPU s/GiB", 2).aims(1.0, 0.75),
            Column::more("1 down MiB/s", 0).aims(1.0, 1.25),
            Column::less("1 down CPU s/GiB", 2).aims(1.0, 0.75),
            Column::more("16 up MiB/s", 0).aims(1.0, 1.25),
            Column::more("16 down MiB/s", 0).aims(1.0, 1.25),
            Column::more("64 up MiB/s", 0).aims(1.0, 1.25),
            Column::more("64 down MiB/s", 0).aims(1.0, 1.25),
        ],
    },
    Measure {
        name: "ping",
        about: "64 bytes there and back on one connection",
        what: What::Ping,
        columns: &[Column::less("ping p50 us", 0).aims(1.0, 1.0), Column::less("ping p99 us", 0)],
    },
    Measure {
        name: "pings",
        about: "the same on 64 connections at once",
        what: What::Pings,
        columns: &[
            Column::more("64 pings krps", 1).aims(0.9, 0.9),
            Column::less("64 pings p50 us", 0),
            Column::less("64 pings p99 us", 0).aims(1.0, 1.0),
        ],
    },
    Measure {
        name: "beside",
        about: "ping on one connection while another one uploads",
        what: What::Beside,
        columns: &[
            Column::less("ping beside bulk p50 us", 0).aims(1.0, 1.0),
            Column::less("ping beside bulk p99 us", 0).aims(1.0, 1.0),
            Column::more("MiB/s meanwhile", 0),
        ],
    },
    Measure {
        name: "paced",
        about: "the same beside an upload of 200 MiB/s, which every system can carry",
        what: What::Paced,
        columns: &[
            Column::less("ping beside 200 MiB/s p50 us", 0).aims(1.0, 1.0),
            Column::less("ping beside 200 MiB/s p99 us", 0).aims(1.0, 1.0),
        ],
    },
    Measure {
        name: "streams",
        about: "16 clients, each: connect, a byte there and back, both ends finish",
        what: What::Streams,
        columns: &[Column::more("new streams/s", 0).aims(2.5, 2.5), Column::less("CPU us/new stream", 0)],
    },
    Measure {
        name: "stalled",
        about: "a download, and pings, beside 8 clients that read nothing",
        what: What::Stalled,
        columns: &[
            Column::more("down beside 8 stalled, % of alone", 0),
            Column::less("ping beside 8 stalled p99 us", 0),
        ],
    },
    Measure {
        name: "flooded",
        about: "pings, and new streams one after the other, beside strangers at the listener to which the other relay comes",
        what: What::Flooded,
        columns: &[
            Column::less("ping p99 beside a flood us", 0),
            Column::less("ping p99 beside a flood, % of alone", 0),
            Column::less("new stream p99 beside a flood us", 0),
            Column::less("new stream p99 beside a flood, % of alone", 0),
        ],
    },
    Measure {
        name: "renewal",
        about: "new streams beside an upload while both relays get another certificate every half second",
        what: What::Renewal,
        columns: &[Column::less("failed while certificates change", 0), Column::more("new streams/s meanwhile", 0)],
    },
    Measure {
        name: "idle",
        about: "memory of the costlier relay by streams that carried a byte and rest, in fresh relays",
        what: What::Idle,
        columns: &[Column::less("idle KiB/stream", 1)],
    },
    Measure {
        name: "cut",
        about: "two pairs of this relay, half of the streams each: until the last client sees its reset",
        what: What::Cut,
        columns: &[Column::less("cut: last of all streams reset, ms", 0)],
    },
];

impl Measure {
    /// Whether it needs fresh relays, since what earlier measures left would count too.
    fn is_apart(&self) -> bool {
        matches!(self.what, What::Idle | What::Cut)
    }

    /// Whether it says anything about `kind`.
    fn fits(&self, kind: Kind) -> bool {
        match self.what {
            What::Cut => kind.is_ours(),
            What::Idle => kind != Kind::Direct,
            What::Renewal | What::Flooded => !matches!(kind, Kind::Direct | Kind::Copy),
            _ => true,
        }
    }
}

/// Measures everything that was asked for.
pub async fn all(options: &Options) -> Results {
    let (plan, service) = (&options.plan, Service::start());
    let columns = options.measures.iter().flat_map(|measure| measure.columns).collect();
    let mut results = Results::new(plan.rounds, options.systems.clone(), columns);
    let (apart, together): (Vec<_>, Vec<_>) = options.measures.iter().partition(|measure| measure.is_apart());
    if !together.is_empty() {
        rounds(options, &service, &together, &mut results).await;
    }
    for kind in &options.systems {
        for measure in apart.iter().filter(|measure| measure.fits(*kind)) {
            let mut systems = vec![System::start(*kind, service.address).await];
            if measure.what == What::Cut {
                systems.push(System::start(*kind, service.address).await);
            }
            take(measure, plan, &mut systems, &mut results).await;
        }
    }
    results
}

async fn rounds(options: &Options, service: &Service, measures: &[&'static Measure], results: &mut Results) {
    let mut systems = Vec::new();
    for kind in &options.systems {
        let system = System::start(*kind, service.address).await;
        // Not counted: caches, allocators, windows.
        traffic::bulk(system.address, Way::Up, 64).await.unwrap();
        systems.push(system);
    }
    for round in 0..options.plan.rounds {
        eprintln!("round {} of {}", round + 1, options.plan.rounds);
        for measure in measures {
            // Whoever comes first in one round comes last in the next. By measure, so that those who are compared are near.
            let mut turn: Vec<&mut System> = systems.iter_mut().filter(|system| measure.fits(system.kind)).collect();
            if round % 2 == 1 {
                turn.reverse();
            }
            for system in turn {
                take(measure, &options.plan, std::slice::from_mut(system), results).await;
            }
        }
    }
}

async fn take(measure: &'static Measure, plan: &Plan, systems: &mut [System], results: &mut Results) {
    let kind = systems[0].kind;
    let taken = timeout(PATIENCE, figures(measure.what, plan, systems)).await;
    match taken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(values) => {
            eprintln!("  {} of {}: {values:.2?}", measure.name, kind.name());
            results.add(kind, measure.columns, &values);
        }
        Err(error) => {
            eprintln!("  {} of {} failed: {error}", measure.name, kind.name());
            results.failures.push(format!("{}: {}: {error}", kind.name(), measure.name));
        }
    }
}

/// In the order of the measure's columns.
async fn figures(what: What, plan: &Plan, systems: &mut [System]) -> io::Result<Vec<f64>> {
    let system = &mut systems[0];
    match what {
        What::Bulk => bulk::measure(plan, system).await,
        What::Ping => pings::one(plan, system).await,
        What::Pings => pings::many(plan, system).await,
        What::Beside => pings::beside(plan, system).await,
        What::Paced => pings::beside_paced(plan, system).await,
        What::Streams => streams::opening(plan, system).await,
        What::Stalled => stalled::measure(plan, system).await,
        What::Flooded => flooded::measure(plan, system).await,
        What::Renewal => streams::renewal(plan, system).await,
        What::Idle => streams::idle(plan, system).await,
        What::Cut => cut::measure(plan, systems).await,
    }
}
