//! The control socket: a file of mode 0600, for its owner only.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::ControlError;
use super::http;
use super::verbs::{Holder, answer};

/// The bound socket. Removed when dropped.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket. The caller holds the state folder's lock: a socket that is there is a dead process's.
    pub(crate) fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until `stop`. A caller beyond those who are served waits in the kernel's queue.
    pub(crate) async fn run(self, holder: impl Holder, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(http::CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            };
            let (holder, stop) = (holder.clone(), stop.clone());
            tokio::spawn(async move {
                http::serve(stream, http::BRIEF, &stop, |request| answer(holder.clone(), request)).await;
                drop(slot);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket left behind is removed by the next process that holds the lock.
        let _ = fs::remove_file(&self.path);
    }
}
