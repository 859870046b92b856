//! The figures as a picture: a panel for each, a bar for each system with its lowest and highest round.

use std::fmt::Write as _;

use crate::figures::{Column, Results, to_f64};
use crate::systems::Kind;

const PANEL_WIDTH: f64 = 380.0;
const PANELS_IN_ROW: usize = 3;
const BAR: f64 = 16.0;
const HEAD: f64 = 34.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 78.0;
const LONGEST: f64 = 220.0;

/// The whole picture.
pub fn svg(results: &Results) -> String {
    // What has no relay is only a limit, and would make all others small.
    let systems: Vec<Kind> = results.systems.iter().copied().filter(|kind| *kind != Kind::Direct).collect();
    let panel_height = HEAD + BAR * to_f64(systems.len() as u64) + 14.0;
    let rows = results.columns.len().div_ceil(PANELS_IN_ROW);
    let width = PANEL_WIDTH * to_f64(PANELS_IN_ROW as u64);
    let height = panel_height * to_f64(rows as u64);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (at, column) in results.columns.iter().enumerate() {
        let (x, y) =
            (to_f64((at % PANELS_IN_ROW) as u64) * PANEL_WIDTH, to_f64((at / PANELS_IN_ROW) as u64) * panel_height);
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">");
        panel(&mut text, results, column, &systems);
        text += "</g>\n";
    }
    text + "</svg>\n"
}

fn panel(text: &mut String, results: &Results, column: &Column, systems: &[Kind]) {
    let better = if column.is_more_better { "more is better" } else { "less is better" };
    let title = column.title;
    let _ = writeln!(
        text,
        "<text x=\"10\" y=\"22\" font-weight=\"bold\" fill=\"#222222\">{title} <tspan font-weight=\"normal\" fill=\"#777777\">{better}</tspan></text>"
    );
    let highest = systems.iter().filter_map(|kind| results.of(*kind, column)).map(|found| found.high);
    let highest = highest.fold(0.0, f64::max);
    let scale = if highest > 0.0 { LONGEST / highest } else { 0.0 };
    for (at, kind) in systems.iter().enumerate() {
        let y = HEAD + BAR * to_f64(at as u64);
        let (name, base) = (kind.name(), y + 11.0);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\" fill=\"#444444\">{name}</text>",
            LEFT - 6.0
        );
        let Some(found) = results.of(*kind, column) else { continue };
        let (bar, low, high) = (found.median * scale, LEFT + found.low * scale, LEFT + found.high * scale);
        let (middle, color, digits) = (y + 7.0, color(*kind), column.digits);
        let _ = writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"{bar:.1}\" height=\"12\" fill=\"{color}\"/>\
             <path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"#222222\"/>\
             <text x=\"{:.1}\" y=\"{base}\" fill=\"#222222\">{:.digits$}</text>",
            y + 1.0,
            high + 5.0,
            found.median
        );
    }
}

const fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours | Kind::Again | Kind::InPlace => "#2f6fb3",
        Kind::Copy | Kind::Direct => "#c9c9c9",
        _ => "#d98b3a",
    }
}
