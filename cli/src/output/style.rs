//! Colour, where a person sees it and wants it.

#![allow(clippy::doc_markdown, reason = "a doc comment here is help on a terminal: names need no backticks")]

use std::env;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a text is, to the eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Wrong.
    Bad,
    /// Worth a look.
    Warn,
    /// A heading, or what matters most.
    Strong,
    /// What matters least.
    Dim,
    /// A value to copy.
    Value,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Of a stream.
    pub fn new(colour: Colour, terminal: bool) -> Self {
        let unwanted = || {
            let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
            set("NO_COLOR") || env::var_os("TERM").is_some_and(|term| term == "dumb")
        };
        let colour = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !unwanted(),
        };
        Self { colour }
    }

    /// Whether it colours.
    pub fn colours(self) -> bool {
        self.colour
    }

    /// `text` in `tone`.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => "",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Warn => "33",
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Value => "36",
        };
        if self.colour && !code.is_empty() && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
