//! One process at a time works on a state folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::StateError;

/// Name of the lock file. It is never removed: a lock on a removed file would hold nobody off.
const NAME: &str = "lock";
/// Longest decimal process id.
const MAX_PID: u64 = 20;

/// Held while a process works on the folder; let go when dropped, also by a crash.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "closing the file lets the lock go")] File);

impl Lock {
    /// Takes the lock of `dir`, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StateError::io("opening", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateError::Held { dir: dir.to_owned(), holder: holder(&file) });
            }
            Err(TryLockError::Error(error)) => return Err(StateError::io("locking", &path)(error)),
        }
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(StateError::io("writing", &path))?;
        Ok(Self(file))
    }
}

fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(MAX_PID).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(pid) if read.is_ok() => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}
