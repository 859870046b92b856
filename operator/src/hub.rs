//! Who is to look at what again: one stream of changes from the caches and relays to whoever works on them.

use securelink_relay_config::LinkRef;
use tokio::sync::broadcast;

/// Changes that may wait for a slow reader. One that falls behind looks at everything.
const WAITING: usize = 4096;

/// Something that was seen to change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Something made for a link, or what its relays say.
    Link(LinkRef),
    /// A `SecureLink` itself: what it declares, or its status.
    Declared(LinkRef),
    /// A `SecureLink` is gone.
    Gone(Gone),
    /// A `LinkCut` over one link, by its name, or over any link of the namespace.
    Brake {
        /// Its namespace.
        namespace: String,
        /// The link that it names.
        link: Option<String>,
    },
    /// An identity, or its keys.
    Identity(LinkRef),
    /// Something in a namespace that any link there may depend on.
    Namespace(String),
    /// A `LinkCut`'s relays have answered.
    Cut(LinkRef),
    /// Anything.
    Everything,
}

/// A `SecureLink` that was deleted, as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gone {
    /// Which.
    pub link: LinkRef,
    /// Its uid.
    pub uid: String,
    /// Its last generation.
    pub generation: u64,
    /// The organization on its other side.
    pub peer: String,
}

/// Tells changes to all who listen.
#[derive(Clone, Debug)]
pub struct Hub(broadcast::Sender<Change>);

impl Default for Hub {
    fn default() -> Self {
        Self(broadcast::channel(WAITING).0)
    }
}

impl Hub {
    /// Tells a change.
    pub fn tell(&self, change: Change) {
        // Nobody listens yet, or any more: who begins to listen looks at everything first.
        let _ = self.0.send(change);
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// Hears changes.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Change>);

impl Listener {
    /// The next change. What was missed comes as [`Change::Everything`]; `None` when the hub is gone.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Everything),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// A change that has come already.
    pub fn waiting(&mut self) -> Option<Change> {
        match self.0.try_recv() {
            Ok(change) => Some(change),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Change::Everything),
            Err(_) => None,
        }
    }
}
