//! Reads what `check` is given: files, folders, standard input. A file that cannot be read is a problem like any other.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use securelink_crds::load::Problem;

use crate::output::{Failure, clean};

/// Largest file that is read; the loader refuses what is over 1 MiB with a problem of its own.
const MAX_FILE: u64 = 2 * 1024 * 1024;
/// Deepest folder: a link that leads back up must end somewhere.
const MAX_DEPTH: usize = 32;

/// What was read.
#[derive(Default)]
pub(super) struct Files {
    /// Name and text of each file.
    pub(super) texts: Vec<(String, String)>,
    /// Files that could not be read.
    pub(super) problems: Vec<Problem>,
}

/// Reads `paths`. One that does not exist is a slip on the command line.
pub(super) fn read(paths: &[PathBuf], recursive: bool) -> Result<Files, Failure> {
    let mut read = Files::default();
    for path in paths {
        if path.as_os_str() == "-" {
            read.take("standard input", text(io::stdin().lock()));
            continue;
        }
        let shown = || clean(&path.display().to_string());
        let metadata = fs::metadata(path)
            .map_err(|error| Failure::usage(format!("{} cannot be read: {error}; check -f", shown())))?;
        if metadata.is_dir() {
            read.folder(path, recursive, 0);
        } else {
            read.file(path);
        }
    }
    Ok(read)
}

impl Files {
    fn folder(&mut self, folder: &Path, recursive: bool, depth: usize) {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut paths: Vec<_> = match entries {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
            Err(error) => return self.problems.push(problem(&folder.display().to_string(), &error)),
        };
        paths.sort();
        for path in paths {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            match path.is_dir() {
                _ if hidden => {}
                true if recursive && depth < MAX_DEPTH => self.folder(&path, recursive, depth + 1),
                false if yaml => self.file(&path),
                _ => {}
            }
        }
    }

    fn file(&mut self, path: &Path) {
        self.take(&path.display().to_string(), fs::File::open(path).and_then(text));
    }

    fn take(&mut self, name: &str, text: io::Result<String>) {
        match text {
            Ok(text) => self.texts.push((name.to_owned(), text)),
            Err(error) => self.problems.push(problem(name, &error)),
        }
    }
}

fn text(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn problem(name: &str, error: &io::Error) -> Problem {
    Problem {
        source: name.to_owned(),
        message: format!("cannot be read: {error}"),
        remedy: "check that it exists, is text and may be read by this user".to_owned(),
        ..Problem::default()
    }
}
