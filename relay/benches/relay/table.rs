//! The figures as a table: medians, how far rounds lie apart, and how far the same system twice lies apart.

use crate::measures::{Figures, Plan, Results};

struct Column {
    title: &'static str,
    of: fn(&Figures) -> f64,
    digits: usize,
}

const COLUMNS: &[Column] = &[
    Column { title: "bulk MiB/s", of: |f| f.bulk, digits: 0 },
    Column { title: "CPU s/GiB", of: |f| f.cpu, digits: 2 },
    Column { title: "16 streams MiB/s", of: |f| f.several, digits: 0 },
    Column { title: "ping p50 us", of: |f| f.ping, digits: 0 },
    Column { title: "64 pings krps", of: |f| f.pings, digits: 1 },
    Column { title: "64 pings p99 us", of: |f| f.pings_p99, digits: 0 },
    Column { title: "new streams/s", of: |f| f.streams, digits: 0 },
    Column { title: "idle KiB/stream", of: |f| f.idle, digits: 1 },
];

/// Prints Markdown: fit for a results page as it is.
pub fn print(plan: &Plan, results: &Results) {
    println!("medians of {} rounds (lowest to highest)\n", plan.rounds);
    row("system", COLUMNS.iter().map(|column| column.title.to_owned()));
    row("---", COLUMNS.iter().map(|_| "---".to_owned()));
    for (name, rounds) in results {
        let cells = COLUMNS.iter().map(|column| {
            let values = sorted(rounds, column);
            let (low, high) = (values[0], values[values.len() - 1]);
            match column.digits {
                _ if high <= 0.0 => "-".to_owned(),
                digits if low >= high => format!("{high:.digits$}"),
                digits => format!("{:.digits$} ({low:.digits$}-{high:.digits$})", median(&values)),
            }
        });
        row(name, cells);
    }
    let [ours, again] = ["ours", "again"].map(|wanted| &results.iter().find(|(name, _)| *name == wanted).unwrap().1);
    let apart = COLUMNS.iter().map(|column| {
        let [ours, again] = [ours, again].map(|rounds| median(&sorted(rounds, column)));
        format!("{:+.1} %", (again / ours - 1.0) * 100.0)
    });
    row("*again against ours: noise*", apart);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nEvery byte was checked. Load after: {}", load.trim());
}

fn row(name: &str, cells: impl Iterator<Item = String>) {
    println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

fn sorted(rounds: &[Figures], column: &Column) -> Vec<f64> {
    let mut values: Vec<f64> = rounds.iter().map(column.of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
