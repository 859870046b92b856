//! Aligned columns. The last column is not padded, so that lines end where their text ends.

use super::style::{Style, Tone};
use super::text::wrap;

/// Spaces between columns, as in kubectl's tables.
const GAP: usize = 3;
/// Narrowest last column that is wrapped; below, the terminal breaks lines as it will.
const NARROW: usize = 24;

/// One field of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A field. `text` is one line, cleaned of what a terminal would obey.
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Rows under a heading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    heading: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
    width: Option<usize>,
}

impl Table {
    /// A table; an empty heading is not shown.
    pub fn new(heading: &[&str]) -> Self {
        let heading = heading.iter().map(|text| Cell::new(Tone::Dim, *text)).collect();
        Self { heading, ..Self::default() }
    }

    /// Moves it to the right.
    pub fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    /// Wraps the last column of every row at this width, if any.
    pub fn within(mut self, width: Option<usize>) -> Self {
        self.width = width;
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Its lines.
    pub fn render(&self, style: Style) -> String {
        let heading = Some(&self.heading).filter(|heading| !heading.is_empty());
        let rows: Vec<_> = heading.into_iter().chain(&self.rows).collect();
        let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        rows.into_iter().map(|row| self.line(row, &widths, style)).collect()
    }

    fn line(&self, row: &[Cell], widths: &[usize], style: Style) -> String {
        let Some((last, cells)) = row.split_last() else { return "\n".to_owned() };
        let mut line = " ".repeat(self.indent);
        let mut start = self.indent;
        for (cell, width) in cells.iter().zip(widths) {
            let missing = width.saturating_sub(cell.text.chars().count()) + GAP;
            line.push_str(&style.paint(cell.tone, &cell.text));
            line.push_str(&" ".repeat(missing));
            start += width + GAP;
        }
        let room = self.width.and_then(|width| width.checked_sub(start)).filter(|room| *room >= NARROW);
        let parts = room.map_or_else(|| vec![last.text.clone()], |room| wrap(&last.text, room));
        let mut text = String::new();
        for part in parts {
            line.push_str(&style.paint(last.tone, &part));
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(start);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::Colour;
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let mut table = Table::new(&["LINK", "READY"]).indented(2);
        table.row(["liaison/europol".into(), Cell::new(Tone::Good, "True")]);
        table.row(["a".into(), "".into()]);
        let plain = table.render(Style::new(Colour::Never, true));
        assert_eq!(plain, "  LINK              READY\n  liaison/europol   True\n  a\n");
    }

    #[test]
    fn a_long_last_column_hangs_under_itself() {
        let mut table = Table::new(&[]).within(Some(37));
        table.row(["INTERPOL".into(), "the agreement ended on the other side".into()]);
        let plain = table.render(Style::new(Colour::Never, true));
        assert_eq!(plain, "INTERPOL   the agreement ended on the\n           other side\n");
    }

    #[test]
    fn colour_does_not_move_a_column() {
        let mut table = Table::new(&[]);
        table.row([Cell::new(Tone::Good, "ok"), "x".into()]);
        assert_eq!(table.render(Style::new(Colour::Always, false)), "\x1b[32mok\x1b[0m   x\n");
    }
}
