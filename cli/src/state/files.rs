//! Files and folders of the state: durable whole-file writes, bounded reads, permissions. Knows no file by name.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::error::StateError;

/// Largest file that is read back: the bound of `relay.json`, the largest of them.
const MAX_FILE: u64 = 1024 * 1024;
/// What a folder of ours may grant: everything to its owner, nothing to others.
const FOLDER_MODE: u32 = 0o700;
/// What a key file may grant.
const KEY_MODE: u32 = 0o600;
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;
/// Begins the name of a file that is not written out yet.
pub(super) const UNFINISHED: &str = ".new-";

/// Joins names that come from objects; a name that could leave the folder is refused.
pub(super) fn below(dir: &Path, namespace: &str, name: &str) -> Result<PathBuf, StateError> {
    for part in [namespace, name] {
        let plain = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if part.is_empty() || part.len() > 253 || !plain || part.starts_with('.') {
            return Err(StateError::Name(part.to_owned()));
        }
    }
    Ok(dir.join(namespace).join(name))
}

/// Makes a folder and those above it, for their owner only.
pub(crate) fn make_folder(path: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(StateError::io("creating", path))
}

/// Refuses a folder that others may enter.
pub(super) fn check_folder(path: &Path) -> Result<(), StateError> {
    let mode = fs::metadata(path).map_err(StateError::io("reading", path))?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(StateError::TooOpen { path: path.to_owned(), mode, wanted: FOLDER_MODE });
    }
    Ok(())
}

/// Takes from others what they may do with a folder that has just become ours.
pub(super) fn close_folder(path: &Path) -> Result<(), StateError> {
    fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE))
        .map_err(StateError::io("setting the mode of", path))
}

/// Replaces a file as a whole: a temporary file of mode 0600, synced, renamed, and the folder synced.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    make_folder(dir)?;
    put(dir, path, bytes).map_err(StateError::io("writing", path))
}

fn put(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(dir)
}

/// Makes renames and removals in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a file durably; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> Result<bool, StateError> {
    match fs::remove_file(path) {
        Ok(()) => {
            let synced = sync_folder(path.parent().unwrap_or(Path::new(".")));
            synced.map(|()| true).map_err(StateError::io("removing", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StateError::io("removing", path)(error)),
    }
}

/// A file's text, or nothing where there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StateError> {
    Ok(open(path)?.map(|file| contents(path, &file)).transpose()?.map(|mut text| std::mem::take(&mut *text)))
}

/// A key file's text; refused where others can read it. Wiped when dropped.
pub(super) fn read_key(path: &Path) -> Result<Option<Zeroizing<String>>, StateError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let metadata = file.metadata().map_err(StateError::io("reading", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(StateError::TooOpen { path: path.to_owned(), mode, wanted: KEY_MODE });
    }
    contents(path, &file).map(Some)
}

/// A key file's text where its permissions are somebody else's affair, as those of a mounted Secret. Wiped when dropped.
pub(crate) fn read_mounted_key(path: &Path) -> Result<Option<Zeroizing<String>>, StateError> {
    open(path)?.map(|file| contents(path, &file)).transpose()
}

fn open(path: &Path) -> Result<Option<File>, StateError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io("reading", path)(error)),
    }
}

fn contents(path: &Path, file: &File) -> Result<Zeroizing<String>, StateError> {
    let size = file.metadata().map_err(StateError::io("reading", path))?.len();
    if size > MAX_FILE {
        return Err(StateError::damaged(path, &format!("it has {size} bytes, more than {MAX_FILE}")));
    }
    // Room for the whole file at once: a string that grows leaves copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(StateError::io("reading", path))?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(StateError::damaged(path, &"it is not text"))
        }
    }
}

/// A JSON file, or nothing where there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let place = |error: serde_json::Error| {
        format!("it is not the JSON it should be (line {}, column {})", error.line(), error.column())
    };
    serde_json::from_str(&text).map(Some).map_err(|error| StateError::damaged(path, &place(error)))
}

/// Replaces a JSON file.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| StateError::Io {
        action: "writing",
        path: path.to_owned(),
        source: error.into(),
    })?;
    write(path, &bytes)
}

/// Removes what a process that was killed left half written, keys among it. Only for who holds the lock; what cannot be
/// removed stays, it is in nobody's way.
pub(super) fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, is_folder) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        let _ = match (unfinished, is_folder) {
            (true, true) => fs::remove_dir_all(path),
            (true, false) => fs::remove_file(path),
            (false, true) => {
                sweep(&path);
                Ok(())
            }
            (false, false) => Ok(()),
        };
    }
}

/// Names of the folders in a folder; a file that somebody left there counts for nothing.
pub(super) fn folders(dir: &Path) -> Result<Vec<String>, StateError> {
    let mut names = names(dir)?;
    names.retain(|name| dir.join(name).is_dir());
    Ok(names)
}

/// Names in a folder, sorted, those of unfinished files left out; nothing where there is no folder.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StateError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StateError::io("reading", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StateError::io("reading", dir))?;
        names.extend(entry.file_name().into_string().ok().filter(|name| !name.starts_with(UNFINISHED)));
    }
    names.sort();
    Ok(names)
}
