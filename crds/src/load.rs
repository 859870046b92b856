//! Reads YAML files into objects with an API server's judgment but without an API server: for `check` and for the
//! standalone runtime.
//!
//! Nothing is lost to a mistake elsewhere: one broken document hides no other, and an object that does not validate is
//! handed back as it was written, so that what it narrows can still take effect (product: "What keeps, what cuts").
//! No I/O: the caller reads the files.

mod documents;
mod judge;
mod lines;
mod problem;
mod spelling;
mod structure;
mod texts;

use std::collections::BTreeSet;

use serde_json::Value;

pub use judge::judge;
pub use problem::{ObjectId, Problem};

use crate::{GROUP, LinkCut, LinkIdentity, LinkPolicy, SecureLink, VERSION};

/// Namespace of an object in a file that names none, as for `kubectl`.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Most problems reported of one document: a person mends a few and asks again.
const MAX_PROBLEMS: usize = 64;

/// A file's name, for messages, and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file's name, as the person knows it.
    pub name: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// What a set of files declares.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The valid objects, with defaults applied, in the order of the files.
    pub objects: Vec<Object>,
    /// Objects of ours that are invalid, as they were written: input for narrowing, never for widening.
    pub invalid: Vec<Salvaged>,
    /// Everything that has to be mended.
    pub problems: Vec<Problem>,
    /// Documents of other kinds, and why they were passed over.
    pub notes: Vec<String>,
    /// Some document could not be read: nothing counts as deleted (contracts 5).
    pub incomplete: bool,
}

/// An object that is invalid but says who it is.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// Which object.
    pub id: ObjectId,
    /// As it was written, without defaults.
    pub value: Value,
}

/// A valid object of one of the four kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A peering.
    SecureLink(Box<SecureLink>),
    /// Who we are.
    LinkIdentity(Box<LinkIdentity>),
    /// A guard rail.
    LinkPolicy(Box<LinkPolicy>),
    /// An emergency brake.
    LinkCut(Box<LinkCut>),
}

/// Reads files. Immutable fields are not compared with anything.
pub fn load(sources: &[Source<'_>]) -> Loaded {
    load_over(sources, |_| None)
}

/// Reads files that replace what was there: `old` gives the object as it is now, if there is one, and a change of an
/// immutable field is a problem.
pub fn load_over(sources: &[Source<'_>], old: impl Fn(&ObjectId) -> Option<Value>) -> Loaded {
    let mut loaded = Loaded::default();
    let mut seen = BTreeSet::new();
    for source in sources {
        match documents::split(source.text) {
            Ok(documents) => {
                for (index, document) in documents.iter().enumerate() {
                    let mut reader =
                        Reader { source: source.name, document: index + 1, seen: &mut seen, loaded: &mut loaded };
                    reader.read(document, &old);
                }
            }
            Err(error) => {
                loaded.incomplete = true;
                loaded.problems.push(Problem { source: source.name.to_owned(), ..Problem::of(&error) });
            }
        }
    }
    loaded
}

/// Reads one document into what was loaded so far.
struct Reader<'a> {
    source: &'a str,
    document: usize,
    seen: &'a mut BTreeSet<ObjectId>,
    loaded: &'a mut Loaded,
}

impl Reader<'_> {
    fn read(&mut self, document: &documents::Document<'_>, old: &impl Fn(&ObjectId) -> Option<Value>) {
        let value = match document.parse() {
            Ok(Value::Null) => return,
            Ok(value) => value,
            Err(error) => {
                self.loaded.incomplete = true;
                return self.report(None, Problem { line: error.line(), ..Problem::of(&error) });
            }
        };
        match Header::of(&value) {
            Header::Ours(id) if self.seen.contains(&id) => {
                let message = "is declared twice";
                self.report(Some(&id), Problem::new("metadata.name", message, "keep one of the two documents"));
            }
            Header::Ours(id) => self.keep(id, value, old, document),
            Header::Foreign(what) => {
                let note = format!(
                    "{}, document {}: {what} is not a kind of {GROUP}; passed over",
                    self.source, self.document
                );
                self.loaded.notes.push(note);
            }
            Header::Broken(problem) => {
                self.loaded.incomplete = true;
                self.report(None, problem);
            }
        }
    }

    fn keep(
        &mut self,
        id: ObjectId,
        value: Value,
        old: &impl Fn(&ObjectId) -> Option<Value>,
        document: &documents::Document<'_>,
    ) {
        self.seen.insert(id.clone());
        match judge(&value, old(&id).as_ref()) {
            Ok(object) => self.loaded.objects.push(object),
            Err(problems) => {
                let lines = document.lines();
                for problem in problems {
                    let line = lines.find(&problem.field).map(|line| document.line(line));
                    self.report(Some(&id), Problem { line, ..problem });
                }
                self.loaded.invalid.push(Salvaged { id, value });
            }
        }
    }

    fn report(&mut self, id: Option<&ObjectId>, problem: Problem) {
        self.loaded.problems.push(Problem {
            source: self.source.to_owned(),
            document: self.document,
            object: id.cloned(),
            ..problem
        });
    }
}

/// What a document is, from its first lines.
enum Header {
    Ours(ObjectId),
    Foreign(String),
    Broken(Problem),
}

impl Header {
    fn of(value: &Value) -> Self {
        let Some(fields) = value.as_object() else {
            return Self::Broken(Problem::new("", "is not an object", "begin it with `apiVersion:` and `kind:`"));
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            let remedy = format!("begin it with `apiVersion: {GROUP}/{VERSION}` and `kind:`");
            return Self::Broken(Problem::new("apiVersion", "apiVersion or kind is missing", remedy));
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if group != GROUP {
            return Self::other_group(api_version, kind);
        }
        let remedy = |found: &str, known: &[&str]| spelling::remedy(found, known.iter().copied());
        if !judge::KINDS.contains(&kind) {
            let message = format!("{} is not a kind of {GROUP}", problem::shown(kind));
            return Self::Broken(Problem::new("kind", message, remedy(kind, &judge::KINDS)));
        }
        if version != VERSION {
            let message = format!("{} is not a version this program reads", problem::shown(api_version));
            return Self::Broken(Problem::new("apiVersion", message, format!("write {GROUP}/{VERSION}")));
        }
        match ObjectId::of(kind, &value["metadata"]) {
            Some(id) => Self::Ours(id),
            None => Self::Broken(Problem::new("metadata.name", "the object has no name", "set metadata.name")),
        }
    }

    /// A kind of ours under a group that is not: a slip worth a word, not a foreign object.
    fn other_group(api_version: &str, kind: &str) -> Self {
        let shown = problem::shown(api_version);
        if judge::KINDS.contains(&kind) {
            let message = format!("{kind} is not in {shown}");
            return Self::Broken(Problem::new("apiVersion", message, format!("write {GROUP}/{VERSION}")));
        }
        if api_version == "v1" && kind == "List" {
            let remedy = "write each object as a document of its own, with `---` between them";
            return Self::Broken(Problem::new("kind", "a List is not read", remedy));
        }
        Self::Foreign(format!("{} of {shown}", problem::shown(kind)))
    }
}
