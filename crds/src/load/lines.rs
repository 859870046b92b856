//! Where in a document's text a field stands, for messages only: the judgment never looks here.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser};

/// The line, from 1, of every field of a document, by its path.
pub(super) struct Lines(HashMap<String, u64>);

/// Longest path worth noting, in bytes: the API's own have at most 120.
const MAX_PATH: usize = 256;

/// A list or a group of fields that is being walked.
enum Frame {
    List { path: String, next: usize },
    Fields { path: String, key: Option<String> },
}

impl Lines {
    /// Of a document that has been parsed before, so that its size and depth are bounded.
    pub(super) fn of(text: &str) -> Self {
        let mut lines = HashMap::new();
        let mut stack: Vec<Frame> = Vec::new();
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            let line = span.start.line() as u64;
            match event {
                Event::Scalar(text, ..) if expects_key(&stack) => {
                    if let Some(Frame::Fields { path, key }) = stack.last_mut() {
                        lines.entry(join(path, &text)).or_insert(line);
                        *key = Some(text.into_owned());
                    }
                }
                Event::Scalar(..) | Event::Alias(..) => {
                    enter(&mut stack, &mut lines, line);
                }
                Event::SequenceStart(..) => {
                    let path = enter(&mut stack, &mut lines, line);
                    stack.push(Frame::List { path, next: 0 });
                }
                Event::MappingStart(..) => {
                    let path = enter(&mut stack, &mut lines, line);
                    stack.push(Frame::Fields { path, key: None });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    stack.pop();
                }
                _ => {}
            }
        }
        Self(lines)
    }

    /// The line of a field, or of the nearest one around it that stands in the text.
    pub(super) fn find(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

fn expects_key(stack: &[Frame]) -> bool {
    matches!(stack.last(), Some(Frame::Fields { key: None, .. }))
}

/// The path of the value that begins here. An entry of a list is noted; a field was noted with its key.
fn enter(stack: &mut [Frame], lines: &mut HashMap<String, u64>, line: u64) -> String {
    match stack.last_mut() {
        None => String::new(),
        Some(Frame::List { path, next }) => {
            let at = join(path, &format!("[{next}]"));
            *next += 1;
            lines.entry(at.clone()).or_insert(line);
            at
        }
        Some(Frame::Fields { path, key }) => key.take().map_or_else(|| path.clone(), |key| join(path, &key)),
    }
}

/// The path of a part, or the whole's if it would be longer than any of the API: keys are a person's text.
fn join(path: &str, part: &str) -> String {
    match (path.len() + part.len() > MAX_PATH, path.is_empty() || part.starts_with('[')) {
        (true, _) => path.to_owned(),
        (false, true) => format!("{path}{part}"),
        (false, false) => format!("{path}.{part}"),
    }
}
