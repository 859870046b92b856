//! Where a relay keeps what must survive its restart: the link's folder.

use std::io;

use securelink_relay_config::{CutBook, Latch};

use super::engine::Store;
use crate::state::{CutOrigin, LinkDir, StoredCut};

/// A link's folder as a relay's store.
pub(crate) struct FolderStore(pub(crate) LinkDir);

impl Store for FolderStore {
    fn save_latch(&self, latch: &Latch) -> io::Result<()> {
        self.0.save_latch(latch).map_err(io::Error::other)
    }

    /// The runtime writes an order down while the relay obeys it, and takes it back itself: here a disk that hangs would hold
    /// up the brake.
    fn save_cuts(&self, _: &CutBook) -> io::Result<()> {
        Ok(())
    }
}

/// The orders in force that a relay starts with.
pub(crate) fn book(stored: &[StoredCut]) -> CutBook {
    let mut book = CutBook::default();
    for order in stored {
        book.restore(order.cut.clone());
    }
    book
}

/// Names of the objects among the origins of orders.
pub(crate) fn objects(stored: &[StoredCut]) -> Vec<String> {
    let name = |order: &StoredCut| match &order.origin {
        CutOrigin::Object(name) => Some(name.clone()),
        CutOrigin::Command => None,
    };
    stored.iter().filter_map(name).collect()
}
