//! A volume as the kubelet writes it: files in a folder of their own, `..data` swapped to it in one step, and one link a file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Volume {
    dir: PathBuf,
    writes: AtomicU32,
}

impl Volume {
    pub fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        Self { dir, writes: AtomicU32::new(0) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces all files at once.
    pub fn swap(&self, files: &[(&str, &[u8])]) {
        let before = fs::read_link(self.dir.join("..data")).ok();
        let new = format!("..written_{}", self.writes.fetch_add(1, Ordering::SeqCst));
        fs::create_dir(self.dir.join(&new)).unwrap();
        for (name, bytes) in files {
            fs::write(self.dir.join(&new).join(name), bytes).unwrap();
        }
        symlink(&new, self.dir.join("..data_tmp")).unwrap();
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        for (name, _) in files {
            if self.dir.join(name).symlink_metadata().is_err() {
                symlink(Path::new("..data").join(name), self.dir.join(name)).unwrap();
            }
        }
        if let Some(before) = before {
            fs::remove_dir_all(self.dir.join(before)).unwrap();
        }
    }
}
