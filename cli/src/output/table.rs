//! Aligned columns. The last column is not padded, so that lines end where their text ends.

use super::style::{Style, Tone};

/// Spaces between columns, as in kubectl's tables.
const GAP: usize = 3;

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
        let mut text = String::new();
        for row in rows {
            let mut line = " ".repeat(self.indent);
            let mut missing = 0;
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&" ".repeat(missing));
                line.push_str(&style.paint(cell.tone, &cell.text));
                missing = width.saturating_sub(cell.text.chars().count()) + GAP;
            }
            text.push_str(line.trim_end());
            text.push('\n');
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
    fn colour_does_not_move_a_column() {
        let mut table = Table::new(&[]);
        table.row([Cell::new(Tone::Good, "ok"), "x".into()]);
        assert_eq!(table.render(Style::new(Colour::Always, false)), "\x1b[32mok\x1b[0m   x\n");
    }
}
