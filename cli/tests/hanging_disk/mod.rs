//! A disk that hangs: for a process that is started with it, nothing that it writes is on disk until the disk goes on.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// Takes the place of the system's call.
const FSYNC: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int fsync(int file) {
    const char *hangs = getenv("SECURELINK_TEST_DISK_HANGS");
    while (hangs && access(hangs, F_OK) == 0) usleep(1000);
    return syscall(SYS_fsync, file);
}
"#;

pub(crate) struct HangingDisk(TempDir);

impl HangingDisk {
    /// It works yet. The C compiler is one that this build needed before.
    pub(crate) fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let (source, library) = (disk.below("fsync.c"), disk.below("fsync.so"));
        fs::write(&source, FSYNC).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([library, source]).status().unwrap();
        assert!(built.success());
        disk
    }

    fn below(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The environment of a process that has this disk.
    pub(crate) fn env(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.below("fsync.so")), ("SECURELINK_TEST_DISK_HANGS", self.below("hangs"))]
    }

    pub(crate) fn hang(&self) {
        fs::write(self.below("hangs"), "").unwrap();
    }

    pub(crate) fn go_on(&self) {
        fs::remove_file(self.below("hangs")).unwrap();
    }
}
