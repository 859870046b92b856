//! Tells when files may have changed: by the system's events, gathered for a moment, and by SIGHUP.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// How long events are to be gathered after the first: an editor writes a file in several steps.
pub(crate) const DEBOUNCE: Duration = Duration::from_millis(100);

/// What watches; stops when dropped.
pub(crate) struct Watch {
    _watcher: Option<RecommendedWatcher>,
    touched: Arc<Notify>,
    hangup: Option<Signal>,
}

impl Watch {
    /// Watches the folders of `paths`, not the files themselves: an editor replaces a file by renaming another over it.
    /// Where the system refuses, a line says so and files are read again from time to time only.
    pub(crate) fn new(paths: &[PathBuf]) -> Self {
        let touched = Arc::new(Notify::new());
        let watcher = Self::watcher(paths, Arc::clone(&touched));
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "the system does not watch the files; they are read again every minute, or send SIGHUP");
        });
        Self { _watcher: watcher.ok(), touched, hangup: signal(SignalKind::hangup()).ok() }
    }

    /// Watches nothing.
    pub(crate) fn off() -> Self {
        Self { _watcher: None, touched: Arc::new(Notify::new()), hangup: None }
    }

    fn watcher(paths: &[PathBuf], touched: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an access; an error may hide a change.
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                return;
            }
            touched.notify_one();
        })?;
        let folders: BTreeSet<_> = paths.iter().map(|path| folder(path)).collect();
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// Returns when files may have changed. Loses nothing where it is given up.
    pub(crate) async fn changed(&mut self) {
        let hangup = async {
            let received = match &mut self.hangup {
                Some(signal) => signal.recv().await,
                None => None,
            };
            if received.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = hangup => {}
            () = self.touched.notified() => {}
        }
    }
}

fn folder(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
