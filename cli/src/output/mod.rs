//! What commands show: lines and tables for people, one JSON object for programs. Asks nobody and decides nothing.

mod failure;
mod style;
mod table;
mod text;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

pub use failure::{Exit, Failure};
pub use style::{Colour, Style, Tone};
pub use table::{Cell, Table};
pub use text::{bytes, clean, in_words, plural, span, wrap};

/// How a command answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one object.
    Json,
}

/// Standard output and standard error, for one command.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    colour: Colour,
    style: Style,
    terminal: bool,
}

impl Out {
    /// Looks at where standard output goes.
    pub fn new(colour: Colour) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { colour, style: Style::new(colour, terminal), terminal }
    }

    /// How to colour.
    pub fn style(self) -> Style {
        self.style
    }

    /// Whether a person looks on while it is written.
    pub fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Columns of the terminal; none where lines need no end.
    pub fn width(self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| self.terminal)?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// Writes `text` and a line end.
    pub fn line(self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.raw(&format!("{}\n", text.as_ref()))
    }

    /// Writes a table.
    pub fn table(self, table: &Table) -> Result<(), Failure> {
        self.raw(&table.render(self.style))
    }

    /// Writes one JSON object.
    pub fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed(format!("the answer cannot be written as JSON: {error}; report it")))?;
        self.line(text)
    }

    /// Writes `text` as it is.
    pub fn raw(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
    }

    /// Writes a line for people to standard error: a warning or an error, cleaned of what a terminal would obey. A reader that is gone is not worth failing for.
    pub fn complain(self, word: &str, tone: Tone, text: &str) {
        let style = Style::new(self.colour, io::stderr().is_terminal());
        let word = style.paint(tone, &format!("{word}:"));
        let _ = writeln!(io::stderr().lock(), "{word} {}", clean(text));
    }
}
