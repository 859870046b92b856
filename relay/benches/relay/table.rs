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
        text += "\nOurs to the best peer of this run. *again* is how far the same pair twice lies apart. A verdict has a question mark \
                 where the ratio is as near to its aim as that, or where one round of either would have turned it.\n\n";
        let head = ["best peer", "again", "ours / best", "aim", "", "in-place / best", "aim", ""];
        row(&mut text, "", head.iter().map(|title| (*title).to_owned()));
        let rules = ["---", "---:", "---:", "---:", "---", "---:", "---:", "---"];
        row(&mut text, "---", rules.iter().map(|rule| (*rule).to_owned()));
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

fn beside_best(results: &Results, column: &Column) -> Option<[String; 8]> {
    let (best, theirs) = results.best_peer(column)?;
    let noise = results.noise(column);
    let beside = |kind: Kind, aim: Option<f64>| {
        let Some(found) = results.of(kind, column).filter(|_| theirs.median > 0.0) else {
            return ["-", "-", ""].map(str::to_owned);
        };
        let (ratio, aimed) = (found.median / theirs.median, aim.map_or("-".to_owned(), |aim| format!("{aim}")));
        let verdict = aim.map_or("", |aim| verdict(column, (found, theirs), aim, noise.unwrap_or_default()));
        [format!("{ratio:.2}"), aimed, verdict.to_owned()]
    };
    let ([ours, aim, verdict], [in_place, faster, other]) =
        (beside(Kind::Ours, column.aim.map(|(aim, _)| aim)), beside(Kind::InPlace, column.aim.map(|(_, aim)| aim)));
    let noise = noise.map_or("-".to_owned(), |noise| format!("{:.1} %", noise * 100.0));
    Some([best.name().to_owned(), noise, ours, aim, verdict, in_place, faster, other])
}

/// Whether a ratio is what it is to be, and whether that is sure.
fn verdict(column: &Column, (ours, theirs): (Summary, Summary), aim: f64, noise: f64) -> &'static str {
    let ratio = ours.median / theirs.median;
    let (least, most) = (ours.low / theirs.high, ours.high / theirs.low);
    let is_unsure = (ratio / aim - 1.0).abs() <= noise || (least < aim && aim < most);
    match (if column.is_more_better { ratio >= aim } else { ratio <= aim }, is_unsure) {
        (true, false) => "met",
        (true, true) => "met?",
        (false, true) => "missed?",
        (false, false) => "missed",
    }
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
