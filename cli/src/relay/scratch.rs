//! The scratch folder: what a relay must not forget when its container is started again. No key is ever written here.
//!
//! A thread writes; who has something to keep waits for it a moment only. A disk that is full or hangs must hold up neither
//! a cut nor a stream: what could not be written is in force all the same, is said, and is tried again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use securelink_relay::{Memory, Store};
use securelink_relay_config::{Cut, CutBook, CutScope, ErrorReport, Latch, Snapshot};
use serde::Serialize;

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
    desk: Mutex<BTreeMap<&'static str, Sheet>>,
    moved: Condvar,
    /// The version of the snapshot that is on disk.
    kept: AtomicU64,
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
            moved: Condvar::new(),
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

    /// Keeps a snapshot that was adopted.
    pub(crate) fn save_snapshot(&self, snapshot: &Snapshot) {
        // What went wrong is among the faults.
        let _ = self.save(SNAPSHOT, snapshot.to_bytes(), Some(snapshot.version));
    }

    /// The version of the last snapshot that was written; 0 before the first.
    pub(crate) fn kept(&self) -> u64 {
        self.0.kept.load(Ordering::Acquire)
    }

    /// Whether every cut is on disk.
    pub(crate) fn keeps_cuts(&self) -> bool {
        !self.desk().contains_key(CUTS)
    }

    /// What is not written yet, and why.
    pub(crate) fn faults(&self) -> Vec<ErrorReport> {
        self.desk().values().filter_map(|sheet| sheet.fault.clone()).collect()
    }

    fn desk(&self) -> MutexGuard<'_, BTreeMap<&'static str, Sheet>> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save_json(&self, name: &'static str, value: &impl Serialize) -> io::Result<()> {
        self.save(name, serde_json::to_vec_pretty(value)?, None)
    }

    /// Gives bytes to the writer and waits a moment for it.
    fn save(&self, name: &'static str, bytes: Vec<u8>, version: Option<u64>) -> io::Result<()> {
        let mut desk = self.desk();
        let fault_before = desk.remove(name).and_then(|sheet| sheet.fault);
        desk.insert(name, Sheet { bytes, version, fault: fault_before, tried: false, due: Instant::now() });
        self.0.moved.notify_all();
        let waiting = |desk: &mut BTreeMap<&'static str, Sheet>| desk.get(name).is_some_and(|sheet| !sheet.tried);
        let (mut desk, late) =
            self.0.moved.wait_timeout_while(desk, DISK, waiting).unwrap_or_else(PoisonError::into_inner);
        let Some(sheet) = desk.get_mut(name) else { return Ok(()) };
        if late.timed_out() && sheet.fault.is_none() {
            sheet.fault = Some(fault(&format!("{name} is still being written to scratch; see what holds up the disk")));
        }
        let why = sheet.fault.as_ref().map(|fault| fault.message.clone()).unwrap_or_default();
        Err(io::Error::other(why))
    }
}

impl Shared {
    /// Writes what is due, as long as the process lives.
    fn write(&self) {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let next = desk.iter().min_by_key(|(_, sheet)| sheet.due).map(|(name, sheet)| (*name, sheet.due));
            desk = match next {
                None => self.moved.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some((_, due)) if due > now => {
                    self.moved.wait_timeout(desk, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Some((name, _)) => self.put(name, desk),
            };
        }
    }

    fn put<'a>(
        &'a self,
        name: &'static str,
        desk: MutexGuard<'a, BTreeMap<&'static str, Sheet>>,
    ) -> MutexGuard<'a, BTreeMap<&'static str, Sheet>> {
        let bytes = desk.get(name).map(|sheet| sheet.bytes.clone()).unwrap_or_default();
        drop(desk);
        let written = files::write(&self.dir.join(name), &bytes);
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        // Other bytes may have come meanwhile: they are due themselves.
        if let Some(sheet) = desk.get_mut(name).filter(|sheet| sheet.bytes == bytes) {
            match written {
                Ok(()) => {
                    if let Some(version) = sheet.version {
                        self.kept.store(version, Ordering::Release);
                    }
                    desk.remove(name);
                }
                Err(error) => {
                    if sheet.fault.is_none() {
                        tracing::error!(%error, "scratch cannot be written; what it should hold is in force until this process ends");
                    }
                    (sheet.fault, sheet.tried, sheet.due) = (Some(fault(&error)), true, Instant::now() + RETRY);
                }
            }
        }
        self.moved.notify_all();
        desk
    }
}

impl Store for Scratch {
    fn save_latch(&self, latch: &Latch) -> io::Result<()> {
        self.save_json(LATCH, latch)
    }

    fn save_cuts(&self, cuts: &CutBook) -> io::Result<()> {
        self.save_json(CUTS, cuts)
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
