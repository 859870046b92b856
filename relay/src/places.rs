//! How many connections a peer may keep here: each costs a task, a descriptor and some 40 KiB, carried stream or not.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::capacity;
use crate::capacity::shares::{Account, Taken};
use crate::failure::Failure;
use crate::wire::Role;

/// Control connections accepted at once: one from each replica of the peer, of which PEERS names at most as many
/// (contracts 1).
const CONTROLS: usize = 64;
/// Accepted connections at once that carry no stream: four replicas of the peer with all that each keeps at rest
/// ([`crate::pool::RESTING`]), some 40 MB.
const IDLE: usize = 1024;

/// See the module.
pub(crate) struct Places {
    controls: Arc<Semaphore>,
    idle: Arc<Semaphore>,
    /// What other links of this process leave of control connections.
    share: Arc<Account>,
}

/// Held as long as the connection counts.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Taken>,
}

impl Places {
    /// With the link's share of control connections.
    pub(crate) fn new(share: Arc<Account>) -> Self {
        Self { controls: Arc::new(Semaphore::new(CONTROLS)), idle: Arc::new(Semaphore::new(IDLE)), share }
    }

    /// A place for a connection whose caller has just said HELLO. For a control connection there is room also where there
    /// is none for more streams.
    pub(crate) fn admit(&self, role: Role, socket: &TcpStream) -> Result<Place, Failure> {
        if role != Role::Control {
            capacity::admit_idle(socket)?;
        }
        self.take(role).ok_or(Failure::TooMany)
    }

    /// A place for an accepted connection that carries no stream, if one is left.
    pub(crate) fn take(&self, role: Role) -> Option<Place> {
        let is_control = role == Role::Control;
        let places = if is_control { &self.controls } else { &self.idle };
        let permit = Arc::clone(places).try_acquire_owned().ok()?;
        let share = if is_control { Some(self.share.take()?) } else { None };
        Some(Place { _permit: permit, _share: share })
    }
}
