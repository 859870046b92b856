//! Changes of the view: snapshots, leaves and cuts taken in, one writer at a time.

use std::sync::Arc;

use securelink_pki::tls::TlsError;
use securelink_relay_config::{Cut, CutBook, CutScope, ErrorReport, Snapshot};

use super::{Link, Written, locked};
use crate::judge::Direction;
use crate::peer::PeerState;
use crate::streams::Entry;
use crate::view::{Credentials, View};

impl Link {
    /// Takes a snapshot in; the caller has checked its version and bound its listeners.
    pub(crate) fn replace(&self, snapshot: Snapshot) -> Result<(), TlsError> {
        let mut written = locked(&self.writing);
        let snapshot = Arc::new(snapshot);
        written.book.reconcile(&snapshot);
        self.metrics.version.set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        if snapshot.peer.protocol != self.view().snapshot.peer.protocol {
            // What was heard by one protocol says nothing in the other.
            *self.peer() = PeerState::default();
        }
        written.rejected = None;
        self.publish(&written, snapshot)
    }

    /// The snapshot of this version will be read back after a restart: if it is still in force, no cut that it acknowledges
    /// has to be kept beside it. Until then a restart may find an older one, under which they have to hold.
    pub(crate) fn kept(&self, version: u64) {
        let mut written = locked(&self.writing);
        if self.view().snapshot.version == version && written.stored != written.book {
            written.stored = written.book.clone();
            self.save_cuts(&written.stored);
        }
    }

    /// Takes another leaf in.
    pub(crate) fn install(&self, credentials: Credentials) -> Result<(), TlsError> {
        let mut written = locked(&self.writing);
        written.credentials = credentials;
        let snapshot = Arc::clone(&self.view().snapshot);
        self.publish(&written, snapshot)
    }

    /// Records why a snapshot or a leaf was not taken in.
    pub(crate) fn reject(&self, reason: &str, message: String) {
        let at = self.now();
        locked(&self.writing).rejected = Some(ErrorReport { reason: reason.to_owned(), message, at });
        self.changed();
    }

    /// Cuts, hands the cut to the store, and returns once no stream it forbids is left: whether it was news, and how many ended.
    pub(crate) async fn cut(&self, cut: Cut) -> (bool, u64) {
        let scope = cut.scope.clone();
        let forbidden = |entry: &Entry| match &scope {
            CutScope::Link => true,
            CutScope::Export(name) => entry.direction == Direction::Incoming && *entry.service == **name,
            CutScope::Import(name) => entry.direction == Direction::Outgoing && *entry.service == **name,
            CutScope::Pin(pin) => entry.pin == *pin,
        };
        let ended = self.streams.count(forbidden);
        let fresh = {
            let mut written = locked(&self.writing);
            let snapshot = Arc::clone(&self.view().snapshot);
            let fresh = written.book.admit(cut.clone(), &snapshot);
            if fresh {
                if let Err(error) = self.publish(&written, snapshot) {
                    tracing::error!(link = %self.name, %error, "the cut could not be put in force");
                }
                written.stored.restore(cut);
                self.save_cuts(&written.stored);
            }
            fresh
        };
        // Also an order that is no news is acknowledged no sooner than it holds; one that was released since holds nothing.
        if self.view().cuts.iter().any(|held| held.scope == scope) {
            self.streams.none(forbidden).await;
            self.reserved.none(forbidden).await;
        }
        (fresh, u64::try_from(ended).unwrap_or(u64::MAX))
    }

    fn publish(&self, written: &Written, snapshot: Arc<Snapshot>) -> Result<(), TlsError> {
        let cuts = written.book.effective(&snapshot);
        let view = View::new(snapshot, cuts, &written.credentials, &self.clock, Some(&self.view()))?;
        self.view.store(Arc::new(view));
        self.bump();
        Ok(())
    }

    fn save_cuts(&self, book: &CutBook) {
        if let Err(error) = self.store.save_cuts(book) {
            tracing::error!(link = %self.name, %error, "cuts could not be handed to the store; they hold until this process ends");
        }
    }
}
