//! The folder of one link: its leaf, its configuration, and what must not be forgotten: ends that were seen, and cuts.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use securelink_pki::Leaf;
use securelink_relay_config::{Cut, CutScope, Latch, Millis, Snapshot};
use serde::{Deserialize, Serialize};

use super::error::StateError;
use super::files;

/// Longest reason that is kept, in characters: as much as a peer reads.
const MAX_REASON: usize = 256;

/// Begins the identifier of an order by command.
const BY_COMMAND: &str = "Command/";

/// Who ordered a cut, and so who can take it back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CutOrigin {
    /// `securelink cut`; `securelink resume` takes it back.
    Command,
    /// A `LinkCut` of this name in the link's namespace; its removal takes it back.
    Object(String),
}

/// `cuts/ID.json`: an order in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredCut {
    /// The order, as the relay gets it.
    #[serde(flatten)]
    pub cut: Cut,
    /// Who gave it.
    pub origin: CutOrigin,
    /// Since when.
    pub since: Millis,
}

impl StoredCut {
    /// A new order by `securelink cut`. Its identifier is new each time: one that was released is never obeyed again.
    pub fn by_command(reason: &str) -> Self {
        Self::new(format!("{BY_COMMAND}{:016x}", fastrand::u64(..)), 1, reason, CutOrigin::Command)
    }

    /// The order of the `LinkCut` `name`.
    pub fn by_object(name: &str, id: &str, revision: u64, reason: &str) -> Self {
        Self::new(id.to_owned(), revision, reason, CutOrigin::Object(name.to_owned()))
    }

    fn new(id: String, revision: u64, reason: &str, origin: CutOrigin) -> Self {
        let reason = reason.chars().filter(|c| !is_hidden(*c)).take(MAX_REASON).collect();
        let cut = Cut { id, revision, scope: CutScope::Link, reason };
        Self { cut, origin, since: Timestamp::now().into() }
    }

    /// Whether an order of this identifier was given by a command.
    pub fn is_command_id(id: &str) -> bool {
        id.starts_with(BY_COMMAND)
    }

    /// Whether a command ordered it.
    pub fn is_command(&self) -> bool {
        self.origin == CutOrigin::Command
    }
}

/// Whether a character is not seen, or changes how others are seen: it has no place in a line for people.
pub fn is_hidden(c: char) -> bool {
    let marks = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}', '\u{feff}'..='\u{feff}'];
    c.is_control() || marks.iter().any(|range| range.contains(&c))
}

/// `links/NS/NAME`.
#[derive(Clone, Debug)]
pub struct LinkDir {
    path: PathBuf,
}

impl LinkDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The leaf with its key; nothing where one of its files is gone.
    pub fn leaf(&self) -> Result<Option<Leaf>, StateError> {
        let path = self.path.join("leaf.pem");
        let key = files::read_key(&self.path.join("leaf.key"))?;
        let Some((key, pem)) = key.zip(files::read(&path)?) else { return Ok(None) };
        Leaf::from_pem(&key, &pem).map(Some).map_err(|error| StateError::damaged(&path, &error))
    }

    /// Keeps a new leaf. A crash in between leaves a pair that does not match, which is read as damage.
    pub fn save_leaf(&self, leaf: &Leaf) -> Result<(), StateError> {
        files::write(&self.path.join("leaf.key"), leaf.key().to_pem().as_bytes())?;
        files::write(&self.path.join("leaf.pem"), leaf.chain_pem().as_bytes())
    }

    /// The last `relay.json`.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, StateError> {
        let path = self.path.join("relay.json");
        let read = |text: String| Snapshot::from_bytes(text.as_bytes());
        files::read(&path)?.map(read).transpose().map_err(|error| StateError::damaged(&path, &error))
    }

    /// Keeps a `relay.json`.
    pub fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        files::write(&self.path.join("relay.json"), &snapshot.to_bytes())
    }

    /// What was last accepted, in the planner's format.
    pub fn accepted(&self) -> Result<Option<String>, StateError> {
        files::read(&self.accepted_path())
    }

    /// Keeps what was accepted.
    pub fn save_accepted(&self, accepted: &[u8]) -> Result<(), StateError> {
        files::write(&self.accepted_path(), accepted)
    }

    /// Where what was accepted is kept.
    pub fn accepted_path(&self) -> PathBuf {
        self.path.join("accepted.json")
    }

    /// Forgets what was accepted: the link is gone. Its cuts and ends stay, for one made later under its name.
    pub fn forget_accepted(&self) -> Result<bool, StateError> {
        files::remove(&self.accepted_path())
    }

    /// Ends of agreements that were seen.
    pub fn latch(&self) -> Result<Latch, StateError> {
        Ok(files::read_json(&self.path.join("latch.json"))?.unwrap_or_default())
    }

    /// Keeps the ends.
    pub fn save_latch(&self, latch: &Latch) -> Result<(), StateError> {
        files::write_json(&self.path.join("latch.json"), latch)
    }

    /// Every order in force, by file name.
    pub fn cuts(&self) -> Result<Vec<StoredCut>, StateError> {
        let dir = self.path.join("cuts");
        let mut cuts = Vec::new();
        for name in files::names(&dir)?.iter().filter(|name| name.strip_suffix(".json").is_some()) {
            cuts.extend(files::read_json::<StoredCut>(&dir.join(name))?);
        }
        Ok(cuts)
    }

    /// Keeps an order.
    pub fn save_cut(&self, cut: &StoredCut) -> Result<(), StateError> {
        files::write_json(&self.cut_path(&cut.cut.id)?, cut)
    }

    /// Takes an order back; false where there is none.
    pub fn remove_cut(&self, id: &str) -> Result<bool, StateError> {
        files::remove(&self.cut_path(id)?)
    }

    fn cut_path(&self, id: &str) -> Result<PathBuf, StateError> {
        // No name of an object holds `_`, so no two identifiers share a file.
        let stem = id.replace('/', "_");
        let plain = stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !plain || stem.is_empty() || stem.len() > 250 || stem.starts_with('.') {
            return Err(StateError::Name(id.to_owned()));
        }
        Ok(self.path.join("cuts").join(format!("{stem}.json")))
    }
}
