//! What can be wrong with the state folder, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No state there, and nobody asked for a new one.
    #[error(
        "{} holds no SecureLink state; check --state-dir, or add --init to begin anew with a new root, which every partner has to pin",
        .0.display()
    )]
    NoState(PathBuf),
    /// Asked to begin anew among other people's files.
    #[error("{} is not empty and holds no SecureLink state; give --init an empty or a new folder", .0.display())]
    Foreign(PathBuf),
    /// Another process works on it.
    #[error("{} is held by {holder}; stop that process first, or talk to it with `securelink status`", .dir.display())]
    Held {
        /// The folder.
        dir: PathBuf,
        /// `process 123`, or `another process` where the lock file does not say.
        holder: String,
    },
    /// A secret others can read, or a folder others can enter.
    #[error("{} may be used by others (mode {mode:04o}); run `chmod {wanted:o} {}`, and think of who may have read it", .path.display(), .path.display())]
    TooOpen {
        /// Which file or folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// A file that is not what it should be.
    #[error("{} is damaged: {why}; restore it from a backup or move it away, nothing was overwritten", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never its contents.
        why: String,
    },
    /// Written by a later version.
    #[error("{} has format {found}, this program reads {known}; use the version of securelink that wrote it", .path.display())]
    Format {
        /// The state file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A name that would lead out of the folder.
    #[error("`{}` cannot name a folder; names have the characters a-z, 0-9, `-` and `.`", .0.escape_debug())]
    Name(String),
    /// The system refused.
    #[error("{action} {} failed: {source}; check the folder's owner, permissions and free space", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, why: &impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.to_string() }
    }

    /// Whether a file was readable but is not what it should be: a certificate so lost can be issued again.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
