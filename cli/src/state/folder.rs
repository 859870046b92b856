//! The state folder as a whole: whether it is ours, how it begins, and what it holds.

use std::env;
use std::path::{Path, PathBuf};

use securelink_crds::LinkPolicy;
use securelink_id::{Fingerprint, TrustDomain};
use securelink_relay_config::LinkRef;
use serde::{Deserialize, Serialize};

use super::error::StateError;
use super::files;
use super::identity::IdentityDir;
use super::link::{LinkDir, StoredCut};
use super::lock::Lock;

/// The format this program reads and writes.
const FORMAT: u32 = 1;
/// The file that makes a folder a state folder.
const MARKER: &str = "securelink-state.json";

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
}

/// `$XDG_STATE_HOME/securelink`, or `~/.local/state/securelink`; nothing without a home.
pub fn default_dir() -> Option<PathBuf> {
    // The base directory specification ignores a relative path.
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("securelink"))
}

/// A state folder that is ours. Reading needs no lock; whoever writes holds [`StateDir::lock`].
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// An identity by its root, as partners pin it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityEntry {
    /// Namespace of the `LinkIdentity`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Fingerprint of its root.
    pub fingerprint: Fingerprint,
}

impl StateDir {
    /// Opens a folder. A mistyped one is refused: without `init` no folder becomes a state folder, and with it only a
    /// new or an empty one does. On a state folder `init` changes nothing.
    pub fn open(dir: &Path, init: bool) -> Result<Self, StateError> {
        let marker = dir.join(MARKER);
        match files::read_json::<Marker>(&marker)? {
            Some(Marker { format: FORMAT }) => files::check_folder(dir)?,
            Some(Marker { format: found }) => {
                return Err(StateError::Format { path: marker, found, known: FORMAT });
            }
            None if !init => return Err(StateError::NoState(dir.to_owned())),
            None if !files::names(dir)?.is_empty() => return Err(StateError::Foreign(dir.to_owned())),
            None => {
                files::make_folder(dir)?;
                files::close_folder(dir)?;
                files::write_json(&marker, &Marker { format: FORMAT })?;
            }
        }
        Ok(Self { path: dir.to_owned() })
    }

    /// Takes the folder for this process, and tidies up after one that was killed.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let lock = Lock::take(&self.path)?;
        files::sweep(&self.path);
        Ok(lock)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket of the process that holds the lock is.
    pub fn socket(&self) -> PathBuf {
        Self::socket_in(&self.path)
    }

    /// Where it is in a folder that need not be one of ours.
    pub fn socket_in(dir: &Path) -> PathBuf {
        dir.join("control.sock")
    }

    /// The folder of one identity; it need not exist yet.
    pub fn identity(&self, namespace: &str, name: &str) -> Result<IdentityDir, StateError> {
        files::below(&self.path.join("identities"), namespace, name).map(IdentityDir::new)
    }

    /// The folder of one link; it need not exist yet.
    pub fn link(&self, link: &LinkRef) -> Result<LinkDir, StateError> {
        files::below(&self.path.join("links"), &link.namespace, &link.name).map(LinkDir::new)
    }

    /// The guard rails that were known last, so that one that cannot be read holds over a restart; nothing before any
    /// reading.
    pub fn policies(&self) -> Result<Option<Vec<LinkPolicy>>, StateError> {
        files::read_json(&self.path.join("policies.json"))
    }

    /// Keeps the guard rails.
    pub fn save_policies(&self, policies: &[LinkPolicy]) -> Result<(), StateError> {
        files::write_json(&self.path.join("policies.json"), &policies)
    }

    /// Every link that has a folder, sorted.
    pub fn links(&self) -> Result<Vec<LinkRef>, StateError> {
        let found = self.entries("links")?;
        Ok(found.into_iter().map(|(namespace, name)| LinkRef { namespace, name }).collect())
    }

    /// Every identity that has a root, sorted, from public files only.
    pub fn fingerprints(&self) -> Result<Vec<IdentityEntry>, StateError> {
        let mut entries = Vec::new();
        for (namespace, name) in self.entries("identities")? {
            if let Some(record) = self.identity(&namespace, &name)?.record()? {
                let (trust_domain, fingerprint) = (record.trust_domain, record.fingerprint);
                entries.push(IdentityEntry { namespace, name, trust_domain, fingerprint });
            }
        }
        Ok(entries)
    }

    /// The root by which leaves for this trust domain were issued, for an identity of which nothing else is left.
    pub fn root_of_leaves(&self, namespace: &str, owner: &str) -> Option<Fingerprint> {
        let links = self.links().ok()?.into_iter().filter(|link| link.namespace == namespace);
        let mut leaves = links.filter_map(|link| self.link(&link).ok()?.leaf().ok()?);
        leaves.find(|leaf| leaf.identity().owner().as_str() == owner).map(|leaf| leaf.root())
    }

    /// Orders a cut while no process runs: the next one starts with the link cut. Holds the lock meanwhile.
    pub fn write_cut(&self, link: &LinkRef, reason: &str) -> Result<StoredCut, StateError> {
        let _held = self.lock()?;
        let folder = self.link(link)?;
        if let Some(same) = folder.cuts()?.into_iter().find(StoredCut::is_command) {
            return Ok(same);
        }
        let cut = StoredCut::by_command(reason);
        folder.save_cut(&cut)?;
        Ok(cut)
    }

    /// Takes back what [`StateDir::write_cut`] or a running process was told; returns the identifiers taken back.
    pub fn remove_cut(&self, link: &LinkRef) -> Result<Vec<String>, StateError> {
        let _held = self.lock()?;
        let folder = self.link(link)?;
        let mut removed = Vec::new();
        for stored in folder.cuts()?.into_iter().filter(StoredCut::is_command) {
            folder.remove_cut(&stored.cut.id)?;
            removed.push(stored.cut.id);
        }
        Ok(removed)
    }

    fn entries(&self, kind: &str) -> Result<Vec<(String, String)>, StateError> {
        let top = self.path.join(kind);
        let mut found = Vec::new();
        for namespace in files::folders(&top)? {
            let names = files::folders(&top.join(&namespace))?;
            found.extend(names.into_iter().map(|name| (namespace.clone(), name)));
        }
        Ok(found)
    }
}
