//! What is wrong with a document, for a person and for a program.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DEFAULT_NAMESPACE;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// One of the four kinds.
    pub kind: String,
    /// Absent for a `LinkPolicy`, which belongs to no namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// From an object's metadata; nothing if it has no name.
    pub(super) fn of(kind: &str, metadata: &Value) -> Option<Self> {
        let text = |name: &str| metadata[name].as_str().filter(|text| !text.is_empty());
        let namespace = || text("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned();
        Some(Self {
            kind: kind.to_owned(),
            namespace: (kind != "LinkPolicy").then(namespace),
            name: text("name")?.to_owned(),
        })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{}/", namespace.escape_default())?;
        }
        write!(f, "{}", self.name.escape_default())
    }
}

/// What is wrong and what to do. Nothing in it can forge a line: values are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file's name.
    pub source: String,
    /// Which document of the file, from 1; 0 is the whole file.
    pub document: usize,
    /// Line of the file, from 1, where the reader knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Which object, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectId>,
    /// Which field, such as `spec.exports[0].name`; empty for the whole document.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), remedy: remedy.into(), ..Self::default() }
    }

    /// Of an error that reads `what is wrong; what to do`, as all our messages do.
    pub(super) fn of(error: &impl fmt::Display) -> Self {
        let text = error.to_string();
        let (message, remedy) = text.split_once("; ").unwrap_or((&text, "mend the document"));
        Self::new("", message, remedy)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.source.is_empty() {
            write!(f, "{}", self.source.escape_debug())?;
            if self.document > 0 {
                write!(f, ", document {}", self.document)?;
            }
            if let Some(line) = self.line {
                write!(f, ", line {line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// Longest part of a value shown in a message, in characters.
const SHOWN: usize = 48;

/// A text as it is shown: quoted, short, and with everything that is not ASCII escaped, so that look-alike letters and
/// direction marks are seen.
pub(super) fn shown(text: &str) -> String {
    let head: String = text.chars().take(SHOWN).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", head.escape_default())
}
