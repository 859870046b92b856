//! Reads the YAML files and folders a person gave. Judges nothing.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use securelink_crds::load::{Loaded, ObjectId, Problem, Source, load_over};
use serde_json::Value;

use super::error::RuntimeError;

/// Largest file that is read; the loader refuses what is over 1 MiB with a problem of its own.
const MAX_FILE: u64 = 2 * 1024 * 1024;
/// Most files of one folder: a person with more has given the wrong folder.
const MAX_FILES: usize = 1000;

/// Refuses what cannot be read twice: a pipe would be waited for at the second reading.
pub(crate) fn check_lasting(paths: &[PathBuf]) -> Result<(), RuntimeError> {
    let passing = |path: &&PathBuf| !fs::metadata(path).is_ok_and(|found| found.is_file() || found.is_dir());
    match paths.iter().find(passing) {
        Some(path) => Err(RuntimeError::NoFile(path.clone())),
        None => Ok(()),
    }
}

/// Refuses a path that is not there: a slip on the command line, not an edit.
pub(crate) fn check(paths: &[PathBuf]) -> Result<(), RuntimeError> {
    paths.iter().try_for_each(|path| {
        fs::metadata(path).map(drop).map_err(|source| RuntimeError::Path { path: path.clone(), source })
    })
}

/// Reads all documents. A file that cannot be read is a problem, and nothing counts as deleted then.
pub(crate) fn read(paths: &[PathBuf], old: impl Fn(&ObjectId) -> Option<Value>) -> Loaded {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match expand(path) {
            Ok(files) => {
                for file in files {
                    match plain(&file, path).and_then(|()| text(&file)) {
                        Ok(text) => texts.push((file.display().to_string(), text)),
                        Err(error) => problems.push(problem(&file, &error)),
                    }
                }
            }
            Err(error) => problems.push(problem(path, &error)),
        }
    }
    let sources: Vec<_> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let mut loaded = load_over(&sources, old);
    loaded.incomplete |= !problems.is_empty();
    loaded.problems.splice(0..0, problems);
    loaded
}

/// A file as it is; of a folder its `*.yaml` and `*.yml`, sorted, hidden ones left out.
fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if yaml && !hidden && !file.is_dir() {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("the folder has more than {MAX_FILES} YAML files")));
        }
    }
    files.sort();
    Ok(files)
}

/// Refuses what a folder holds that is no file: opening a pipe waits for a writer.
fn plain(file: &Path, given: &Path) -> io::Result<()> {
    if file == given || fs::metadata(file)?.is_file() {
        return Ok(());
    }
    Err(io::Error::other("it is not a file; remove it, or give it another ending than .yaml"))
}

/// A file of white space only is one that is being written, or was cut off by a full disk: it deletes nothing.
fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return Err(io::Error::other("it is empty; fill it, or remove it if nothing is to be declared"));
    }
    Ok(text)
}

fn problem(path: &Path, error: &io::Error) -> Problem {
    let text = error.to_string();
    let (why, remedy) =
        text.split_once("; ").unwrap_or((&text, "check that it exists, is text and may be read by this user"));
    Problem {
        source: path.display().to_string(),
        message: format!("cannot be read: {why}"),
        remedy: remedy.to_owned(),
        ..Problem::default()
    }
}
