//! The scratch folder: what a relay must not forget when its container is started again. No key is ever written here.
//!
//! A thread writes; who wants to know whether it did waits a moment, and not behind a write that hangs. A disk that is full or
//! hangs must hold up neither a cut nor a stream: what could not be written is in force all the same, is said, and is tried
//! again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use securelink_relay::{Memory, Store};
use securelink_relay_config::{Cut, CutBook, CutScope, ErrorReport, Latch, Snapshot};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::state::files;

/// The last `relay.json` that was adopted.
const SNAPSHOT: &str = "relay.json";
/// Cuts that no snapshot has acknowledged.
const CUTS: &str = "cuts.json";
/// Ends of agreements that were seen.
const LATCH: &str = "latch.json";
/// How long a write is waited for: a fraction of the second in which a cut is promised.
const DISK: Duration = Duration::from_millis(250);
/// When what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Why something is wrong with the folder.
pub(crate) const FAULT: &str = "ScratchFailed";

/// The folder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scratch(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    desk: Mutex<Desk>,
    /// Something is to be written.
    handed: Condvar,
    /// Something was tried.
    turns: watch::Sender<()>,
    /// The version of the snapshot that is on disk.
    kept: AtomicU64,
}

/// What is to be written, and what the writer does.
#[derive(Default)]
struct Desk {
    sheets: BTreeMap<&'static str, Sheet>,
    /// Since when it writes what it is at.
    writing: Option<Instant>,
}

impl Desk {
    fn hangs(&self) -> bool {
        self.writing.is_some_and(|since| since.elapsed() >= DISK)
    }
}

/// What a file is to hold, and does not yet.
struct Sheet {
    bytes: Vec<u8>,
    /// Of a snapshot, its version.
    version: Option<u64>,
    /// Why the last try failed.
    fault: Option<ErrorReport>,
    /// These very bytes were tried.
    tried: bool,
    /// Not before.
    due: Instant,
}

impl Scratch {
    /// Takes the folder. Whether it can be written shows when something has to be.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            desk: Mutex::default(),
            handed: Condvar::new(),
            turns: watch::Sender::default(),
            kept: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("scratch".to_owned()).spawn(move || writer.write())?;
        Ok(Self(shared))
    }

    /// The last snapshot that was adopted, if it can still be read.
    pub(crate) fn snapshot(&self) -> Result<Option<Snapshot>, ErrorReport> {
        let read = files::read(&self.0.dir.join(SNAPSHOT)).map_err(|error| fault(&error))?;
        read.map(|text| Snapshot::from_bytes(text.as_bytes()))
            .transpose()
            .map_err(|error| fault(&format!("the last configuration kept in scratch is not used: {error}")))
    }

    /// What a relay starts with, and what of it could not be read. A record of cuts that cannot be read counts as a cut of the
    /// whole link: what was forbidden must not be carried because a disk failed.
    pub(crate) fn memory(&self) -> (Memory, Vec<ErrorReport>) {
        let mut faults = Vec::new();
        let cuts = files::read_json::<CutBook>(&self.0.dir.join(CUTS)).unwrap_or_else(|error| {
            faults.push(fault(&format!(
                "{error}; the link stays cut until this relay begins with an empty scratch folder"
            )));
            Some(unreadable())
        });
        let latch = files::read_json::<Latch>(&self.0.dir.join(LATCH)).unwrap_or_else(|error| {
            faults.push(fault(&format!("{error}; ends of agreements seen before are judged by the clock again")));
            None
        });
        (Memory { latch: latch.unwrap_or_default(), cuts: cuts.unwrap_or_default() }, faults)
    }

    /// Keeps a snapshot that was adopted, and waits a moment for it.
    pub(crate) async fn save_snapshot(&self, snapshot: &Snapshot) {
        self.hand(SNAPSHOT, snapshot.to_bytes(), Some(snapshot.version));
        // What went wrong is among the faults.
        self.written(|name| name == SNAPSHOT).await;
    }

    /// The version of the last snapshot that was written; 0 before the first.
    pub(crate) fn kept(&self) -> u64 {
        self.0.kept.load(Ordering::Acquire)
    }

    /// Whether every cut is on disk, after a moment for those that were handed over just now.
    pub(crate) async fn keeps_cuts(&self) -> bool {
        self.written(|name| name == CUTS).await
    }

    /// Waits a moment for everything that was handed over.
    pub(crate) async fn flush(&self) {
        self.written(|_| true).await;
    }

    /// What is not written yet, and why.
    pub(crate) fn faults(&self) -> Vec<ErrorReport> {
        self.0.desk().sheets.values().filter_map(|sheet| sheet.fault.clone()).collect()
    }

    /// Gives bytes to the writer.
    fn hand(&self, name: &'static str, bytes: Vec<u8>, version: Option<u64>) {
        let mut desk = self.0.desk();
        let fault = desk.sheets.remove(name).and_then(|sheet| sheet.fault);
        desk.sheets.insert(name, Sheet { bytes, version, fault, tried: false, due: Instant::now() });
        self.0.handed.notify_all();
    }

    /// Whether what `meant` is on disk once it was tried, or after a moment. Behind a write that hangs already nobody waits.
    async fn written(&self, meant: impl Fn(&str) -> bool) -> bool {
        let mut turns = self.0.turns.subscribe();
        let tried = || self.0.desk().sheets.iter().all(|(name, sheet)| !meant(name) || sheet.tried);
        let trying = async { while !tried() && turns.changed().await.is_ok() {} };
        if !self.0.desk().hangs() {
            // What it brings is looked at below.
            let _ = timeout(DISK, trying).await;
        }
        let mut desk = self.0.desk();
        let mut left = desk.sheets.iter_mut().filter(|(name, _)| meant(name)).peekable();
        let written = left.peek().is_none();
        for (name, sheet) in left.filter(|(_, sheet)| !sheet.tried) {
            let late = || fault(&format!("{name} is still being written to scratch; see what holds up the disk"));
            sheet.fault.get_or_insert_with(late);
        }
        written
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is due, as long as the process lives.
    fn write(&self) {
        let mut desk = self.desk();
        loop {
            let now = Instant::now();
            let next = desk.sheets.iter().min_by_key(|(_, sheet)| sheet.due).map(|(name, sheet)| (*name, sheet.due));
            desk = match next {
                None => self.handed.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some((_, due)) if due > now => {
                    self.handed.wait_timeout(desk, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Some((name, _)) => self.put(name, desk),
            };
        }
    }

    fn put<'a>(&'a self, name: &'static str, mut desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        let bytes = desk.sheets.get(name).map(|sheet| sheet.bytes.clone()).unwrap_or_default();
        desk.writing = Some(Instant::now());
        drop(desk);
        let written = files::write(&self.dir.join(name), &bytes);
        let mut desk = self.desk();
        desk.writing = None;
        // Other bytes may have come meanwhile: they are due themselves.
        if let Some(sheet) = desk.sheets.get_mut(name).filter(|sheet| sheet.bytes == bytes) {
            match written {
                Ok(()) => {
                    if let Some(version) = sheet.version {
                        self.kept.store(version, Ordering::Release);
                    }
                    desk.sheets.remove(name);
                }
                Err(error) => {
                    if sheet.fault.is_none() {
                        tracing::error!(%error, "scratch cannot be written; what it should hold is in force until this process ends");
                    }
                    (sheet.fault, sheet.tried, sheet.due) = (Some(fault(&error)), true, Instant::now() + RETRY);
                }
            }
        }
        self.turns.send_replace(());
        desk
    }
}

impl Store for Scratch {
    fn save_latch(&self, latch: &Latch) -> io::Result<()> {
        self.hand(LATCH, serde_json::to_vec_pretty(latch)?, None);
        Ok(())
    }

    fn save_cuts(&self, cuts: &CutBook) -> io::Result<()> {
        self.hand(CUTS, serde_json::to_vec_pretty(cuts)?, None);
        Ok(())
    }
}

/// What stands for cuts that cannot be read.
fn unreadable() -> CutBook {
    let mut book = CutBook::default();
    book.restore(Cut {
        id: format!("Scratch/{CUTS}"),
        revision: u64::MAX,
        scope: CutScope::Link,
        reason: "this relay cannot read which cuts were in force".to_owned(),
    });
    book
}

fn fault(message: &impl ToString) -> ErrorReport {
    ErrorReport { reason: FAULT.to_owned(), message: message.to_string(), at: Timestamp::now().into() }
}
