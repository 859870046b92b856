//! What is mounted into a relay's pod: `relay.json` from a ConfigMap, the leaf from a Secret. Reads and parses, judges nothing.
//!
//! The kubelet writes the files of a volume into a new folder and then swaps the link `..data` to it. All files of one reading
//! are taken from one such folder, so that a key is never read beside the certificate that replaced its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use securelink_pki::issue::IssueError;
use securelink_pki::{Leaf, Transitions};
use securelink_relay::Credentials;
use securelink_relay_config::control::LeafPem;

use crate::state::{StateError, files};

/// The link that the kubelet swaps.
const CURRENT: &str = "..data";
/// The key of the ConfigMap.
const CONFIG: &str = "relay.json";
/// The names that a Secret of type `kubernetes.io/tls` gives its keys.
const KEY: &str = "tls.key";
/// Leaf, intermediates and self-signed root.
const CHAIN: &str = "tls.crt";
/// The way from older roots, beside them; absent before the first rotation.
const TRANSITIONS: &str = "transitions.pem";

/// Why what is mounted cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountedError {
    /// Not there.
    #[error("{} is not there; see that the ConfigMap and the Secret exist and have it", .0.display())]
    Missing(PathBuf),
    /// The system refused, or the file is too large.
    #[error(transparent)]
    Read(#[from] StateError),
    /// A leaf that is none.
    #[error("the leaf cannot be used: {0}")]
    Leaf(#[from] IssueError),
}

/// The bytes of `relay.json`.
pub(crate) fn config(dir: &Path) -> Result<Vec<u8>, MountedError> {
    let path = current(dir).join(CONFIG);
    files::read(&path)?.map(String::into_bytes).ok_or(MountedError::Missing(path))
}

/// The leaf, its key, and the way to its root.
pub(crate) fn leaf(dir: &Path) -> Result<Credentials, MountedError> {
    let dir = current(dir);
    let (key, chain) = (dir.join(KEY), dir.join(CHAIN));
    let pem = LeafPem {
        key: std::mem::take(&mut *files::read_mounted_key(&key)?.ok_or(MountedError::Missing(key))?),
        chain: files::read(&chain)?.ok_or(MountedError::Missing(chain))?,
        transitions: files::read(&dir.join(TRANSITIONS))?.unwrap_or_default(),
    };
    Ok(parse(&pem)?)
}

/// Takes a leaf apart, mounted or pushed.
pub(crate) fn parse(pem: &LeafPem) -> Result<Credentials, IssueError> {
    let leaf = Arc::new(Leaf::from_pem(&pem.key, &pem.chain)?);
    Ok(Credentials { leaf, transitions: Transitions::from_pem(&pem.transitions)? })
}

/// The folder the files are in now.
fn current(dir: &Path) -> PathBuf {
    fs::canonicalize(dir.join(CURRENT)).unwrap_or_else(|_| dir.to_owned())
}
