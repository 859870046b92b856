//! A file's documents, apart before they are parsed, so that a broken one hides no other.

use serde_json::Value;
use serde_saphyr::{budget, options};

use super::lines::Lines;

/// Longest file that is read, in bytes: as much as an object may have in a cluster's store.
const MAX_FILE: usize = 1 << 20;
/// Most documents in one file.
const MAX_DOCUMENTS: usize = 256;
/// Deepest nesting: the schema's own is 12.
const MAX_DEPTH: usize = 32;
/// Most values in one document: 64 exports and 64 imports with 16 clients each stay far below.
const MAX_NODES: usize = 50_000;
/// Most aliases in one document: a person repeats a block a few times.
const MAX_ALIASES: usize = 64;

/// Why a file or a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("the file has {0} bytes, more than {MAX_FILE}; split it")]
    FileSize(usize),
    #[error("the file has more than {MAX_DOCUMENTS} documents; split it")]
    Documents,
    #[error("is not YAML: {message}; mend it near the line given")]
    Yaml { line: Option<u64>, message: String },
}

impl DocumentError {
    pub(super) fn line(&self) -> Option<u64> {
        match self {
            Self::Yaml { line, .. } => *line,
            _ => None,
        }
    }
}

/// One document and the line of the file, from 0, where it begins.
pub(super) struct Document<'a> {
    text: &'a str,
    start: u64,
}

/// Splits at lines that begin with `---`: at the left margin that marker ends even a block of text.
pub(super) fn split(text: &str) -> Result<Vec<Document<'_>>, DocumentError> {
    if text.len() > MAX_FILE {
        return Err(DocumentError::FileSize(text.len()));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut begin, mut start, mut offset) = (0, 0, 0);
    for (number, line) in (0_u64..).zip(text.split_inclusive('\n')) {
        if is_marker(line) {
            documents.push(Document { text: &text[begin..offset], start });
            // What follows the marker on its line belongs to the document it opens.
            (begin, start) = (offset + 3, number);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[begin..], start });
    documents.retain(|document| !document.is_blank());
    if documents.len() > MAX_DOCUMENTS {
        return Err(DocumentError::Documents);
    }
    Ok(documents)
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

impl Document<'_> {
    fn is_blank(&self) -> bool {
        self.text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "...")
    }

    /// Where its fields stand. Only for a document that has been parsed.
    pub(super) fn lines(&self) -> Lines {
        Lines::of(self.text)
    }

    /// The line of the file that is line `line` of this document, both from 1.
    pub(super) fn line(&self, line: u64) -> u64 {
        self.start + line
    }

    /// Parses it under a budget that stops documents which grow by their aliases.
    pub(super) fn parse(&self) -> Result<Value, DocumentError> {
        let budget = budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_documents: 1,
            max_total_scalar_bytes: MAX_FILE,
        };
        let mut options = options! { budget: budget };
        options.alias_limits.max_total_replayed_events = MAX_NODES;
        serde_saphyr::from_str_with_options(self.text, options).map_err(|error| {
            let line = error.location().map(|at| at.line()).filter(|line| *line > 0).map(|line| self.line(line));
            let text = error.without_snippet().to_string();
            let message = text.lines().next().unwrap_or_default().replace(';', ",");
            DocumentError::Yaml { line, message: message.escape_debug().to_string() }
        })
    }
}
