//! The figures as Markdown: medians, how far rounds lie apart, and ours beside the best peer.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::figures::{Column, Results, Summary};
use crate::systems::Kind;

/// Both tables.
pub fn markdown(results: &Results) -> String {
    let mut text = format!(
        "Medians of {} rounds; behind each half of what lies between the lowest and the highest, in percent.\n\n",
        results.rounds
    );
    row(&mut text, "", results.systems.iter().map(|kind| kind.name().to_owned()));
    row(&mut text, "---", results.systems.iter().map(|_| "---:".to_owned()));
    for column in &results.columns {
        let cells = results.systems.iter().map(|kind| results.of(*kind, column));
        row(&mut text, column.title, cells.map(|found| found.map_or("-".to_owned(), |found| cell(column, found))));
    }
    for failure in &results.failures {
        let _ = writeln!(text, "\nFailed: {failure}.");
    }
    if results.systems.iter().any(|kind| kind.is_peer()) {
        text += "\nOurs to the best peer of this run. *again* is how far the same pair twice lies apart: less than that is no difference.\n\n";
        let head = ["best peer", "ours / best", "again", "", "in-place / best"];
        row(&mut text, "", head.iter().map(|title| (*title).to_owned()));
        row(&mut text, "---", ["---", "---:", "---:", "---", "---:"].iter().map(|rule| (*rule).to_owned()));
        for column in &results.columns {
            if let Some(cells) = beside_best(results, column) {
                row(&mut text, column.title, cells.into_iter());
            }
        }
    }
    text
}

fn row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

fn cell(column: &Column, Summary { median, low, high }: Summary) -> String {
    let digits = column.digits;
    if high <= low || median <= 0.0 {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ±{:.0}", (high - low) / 2.0 / median * 100.0)
}

fn beside_best(results: &Results, column: &Column) -> Option<[String; 5]> {
    let (best, theirs) = results.best_peer(column)?;
    let ours = results.of(Kind::Ours, column)?;
    let noise = results.noise(column);
    let ratio = ours.median / theirs.median;
    let verdict = match noise {
        _ if !ratio.is_finite() => "",
        Some(noise) if (ratio - 1.0).abs() <= noise => "equal",
        _ if (ratio > 1.0) == column.is_more_better => "better",
        _ => "worse",
    };
    let show = |ratio: f64| if ratio.is_finite() { format!("{ratio:.2}") } else { "-".to_owned() };
    let in_place = results.of(Kind::InPlace, column).map_or("-".to_owned(), |it| show(it.median / theirs.median));
    let noise = noise.map_or("-".to_owned(), |noise| format!("{:.1} %", noise * 100.0));
    Some([best.name().to_owned(), show(ratio), noise, verdict.to_owned(), in_place])
}

/// Writes the page: what it was measured on, and the tables.
pub fn write(folder: &Path, head: &[String], tables: &str) {
    fs::create_dir_all(folder).unwrap();
    let about = head.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n");
    let page = format!(
        "# The relay beside others\n\nWritten by `make bench-peers`; what each line means: [benchmarks](../benchmarks.md).\n\n{about}\n\n![]\
         (peers.svg)\n\n{tables}"
    );
    fs::write(folder.join("peers.md"), page).unwrap();
}
