//! The folder of one identity: its root, its intermediate and the transitions between its roots.

use std::fs;
use std::path::{Path, PathBuf};

use securelink_id::{Fingerprint, TrustDomain};
use securelink_pki::{Intermediate, Root, Transitions};
use serde::{Deserialize, Serialize};

use super::error::StateError;
use super::files;

/// What was minted, kept apart from the keys: while it names a root, no other is ever minted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRecord {
    /// Whose root it is.
    pub trust_domain: TrustDomain,
    /// What partners pin.
    pub fingerprint: Fingerprint,
}

/// `identities/NS/NAME`.
#[derive(Clone, Debug)]
pub struct IdentityDir {
    path: PathBuf,
}

impl IdentityDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was minted; nothing before.
    pub fn record(&self) -> Result<Option<IdentityRecord>, StateError> {
        files::read_json(&self.path.join("status.json"))
    }

    /// Whether anything was ever kept here: then a root was, too.
    pub fn is_begun(&self) -> Result<bool, StateError> {
        files::names(&self.path).map(|names| !names.is_empty())
    }

    /// The root with its key; nothing where the key is gone.
    pub fn root(&self) -> Result<Option<Root>, StateError> {
        let Some((key, pem)) = self.pair("root")? else { return Ok(None) };
        let found = Root::from_pem(&key, &pem);
        found.map(Some).map_err(|error| StateError::damaged(&self.path.join("root.pem"), &error))
    }

    /// The intermediate with its key; nothing where one of its files is gone.
    pub fn intermediate(&self) -> Result<Option<Intermediate>, StateError> {
        let Some((key, pem)) = self.pair("intermediate")? else { return Ok(None) };
        let found = Intermediate::from_pem(&key, &pem);
        found.map(Some).map_err(|error| StateError::damaged(&self.path.join("intermediate.pem"), &error))
    }

    /// The root that was announced to follow.
    pub fn next(&self) -> Result<Option<Root>, StateError> {
        let Some((key, pem)) = self.pair("next")? else { return Ok(None) };
        let found = Root::from_pem(&key, &pem);
        found.map(Some).map_err(|error| StateError::damaged(&self.path.join("next.pem"), &error))
    }

    /// The way from older roots.
    pub fn transitions(&self) -> Result<Transitions, StateError> {
        let path = self.path.join("transitions.pem");
        let text = files::read(&path)?.unwrap_or_default();
        Transitions::from_pem(&text).map_err(|error| StateError::damaged(&path, &error))
    }

    /// Keeps a first root. The folder appears whole or not at all, and one that holds anything is never replaced: a
    /// root is minted once.
    pub fn save_first_root(&self, root: &Root) -> Result<(), StateError> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        files::make_folder(parent)?;
        let staged = tempfile::Builder::new()
            .prefix(files::UNFINISHED)
            .tempdir_in(parent)
            .map_err(StateError::io("creating a folder in", parent))?;
        files::close_folder(staged.path())?;
        let record = IdentityRecord { trust_domain: root.trust_domain().clone(), fingerprint: root.fingerprint() };
        files::write(&staged.path().join("root.key"), root.key().to_pem().as_bytes())?;
        files::write(&staged.path().join("root.pem"), root.certificate_pem().as_bytes())?;
        files::write_json(&staged.path().join("status.json"), &record)?;
        // Renaming onto a folder succeeds only if that folder is empty.
        fs::rename(staged.path(), &self.path).map_err(StateError::io("creating", &self.path))?;
        let _moved = staged.keep();
        files::sync_folder(parent).map_err(StateError::io("creating", &self.path))
    }

    /// Keeps a new intermediate. A crash in between leaves a pair that does not match, which is read as damage.
    pub fn save_intermediate(&self, intermediate: &Intermediate) -> Result<(), StateError> {
        files::write(&self.path.join("intermediate.key"), intermediate.key().to_pem().as_bytes())?;
        files::write(&self.path.join("intermediate.pem"), intermediate.chain_pem().as_bytes())
    }

    /// Keeps a root to announce.
    pub fn save_next(&self, next: &Root) -> Result<(), StateError> {
        files::write(&self.path.join("next.key"), next.key().to_pem().as_bytes())?;
        files::write(&self.path.join("next.pem"), next.certificate_pem().as_bytes())
    }

    /// Lets the announced root take over. `transitions` lead to it: once they are written, the rest follows, also after a
    /// crash ([`IdentityDir::finish_switch`]). The old root's key is of no use any more but to a thief.
    pub fn switch(&self, transitions: &Transitions, next: &Root) -> Result<(), StateError> {
        files::write(&self.path.join("transitions.pem"), transitions.to_pem().as_bytes())?;
        self.take_over(next)
    }

    /// Ends a switch that was interrupted.
    pub fn finish_switch(&self) -> Result<(), StateError> {
        match (self.next(), self.transitions()) {
            (Ok(Some(next)), Ok(way)) if way.leads_to() == Some(next.fingerprint()) => self.take_over(&next),
            // What is damaged is the affair of whoever reads it next.
            _ => Ok(()),
        }
    }

    fn take_over(&self, next: &Root) -> Result<(), StateError> {
        files::write(&self.path.join("root.key"), next.key().to_pem().as_bytes())?;
        files::write(&self.path.join("root.pem"), next.certificate_pem().as_bytes())?;
        let record = IdentityRecord { trust_domain: next.trust_domain().clone(), fingerprint: next.fingerprint() };
        files::write_json(&self.path.join("status.json"), &record)?;
        // A certificate that stayed would not fit the key of the next announcement.
        files::remove(&self.path.join("next.pem"))?;
        files::remove(&self.path.join("next.key")).map(drop)
    }

    fn pair(&self, stem: &str) -> Result<Option<(zeroize::Zeroizing<String>, String)>, StateError> {
        let key = files::read_key(&self.path.join(format!("{stem}.key")))?;
        Ok(key.zip(files::read(&self.path.join(format!("{stem}.pem")))?))
    }
}
