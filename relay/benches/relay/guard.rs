//! Whether this relay has become much slower: ours to a plain copy relay in the same run, which what else the machine does
//! hits alike. Bounds are wide, about half of what was ever measured: they find a mistake, no percents.

use crate::figures::{Column, Results};
use crate::systems::Kind;

pub const SYSTEMS: [Kind; 2] = [Kind::Ours, Kind::Copy];
pub const MEASURES: &str = "bulk,pings,streams,idle";

/// A column, and what of `copy` it may be at the least or, where less is better, at the most.
const BOUNDS: &[(&str, f64)] = &[
    ("1 up MiB/s", 0.25),
    ("1 down MiB/s", 0.25),
    ("1 up CPU s/GiB", 5.0),
    ("1 down CPU s/GiB", 5.0),
    ("16 up MiB/s", 0.25),
    ("64 pings krps", 0.3),
    ("new streams/s", 0.4),
    ("CPU us/new stream", 2.5),
    ("idle KiB/stream", 1.0),
];

/// A line for each bound, and whether all hold.
pub fn judge(results: &Results) -> (Vec<String>, bool) {
    let judged = BOUNDS.iter().map(|bound| judge_one(results, bound));
    let (lines, held): (Vec<_>, Vec<_>) = judged.unzip();
    (lines, held.into_iter().all(|held| held) && results.failures.is_empty())
}

fn judge_one(results: &Results, (title, bound): &(&str, f64)) -> (String, bool) {
    let column = results.columns.iter().find(|column| column.title == *title);
    let ratio = column.and_then(|column| ratio(results, column));
    let Some((column, ratio)) = column.zip(ratio) else { return (format!("{title}: not measured"), false) };
    let held = if column.is_more_better { ratio >= *bound } else { ratio <= *bound };
    let (word, verdict) =
        (if column.is_more_better { "at least" } else { "at most" }, if held { "holds" } else { "FAILS" });
    (format!("{title}: ours to copy {ratio:.2}, {word} {bound}: {verdict}"), held)
}

fn ratio(results: &Results, column: &Column) -> Option<f64> {
    Some(results.of(Kind::Ours, column)?.median / results.of(Kind::Copy, column)?.median)
}
