//! What this process may still take from the machine: file descriptors and memory. Before either runs out, what is new is
//! refused, so that what lives can go on (fault F64). Why so: docs/decisions/0019.

pub(crate) mod descriptors;
mod memory;
pub(crate) mod shares;

use std::sync::Arc;

use tokio::net::TcpStream;

use self::shares::{Account, Budget};

pub(crate) use memory::{Carried, is_ample, look, spare};

/// What the relays of a process share of its table of descriptors: each has a part that no other uses up. Made once, given to
/// each; cheap to clone.
#[derive(Clone)]
pub struct Capacity(Arc<Budgets>);

struct Budgets {
    handshakes: Arc<Budget>,
    strangers: Arc<Budget>,
    proved: Arc<Budget>,
    controls: Arc<Budget>,
}

/// A link's accounts.
pub(crate) struct Shares {
    /// Handshakes in flight on its listener.
    pub(crate) handshakes: Arc<Account>,
    /// Callers that wait for one: only those from where the peer proved itself, and any.
    pub(crate) proved: Arc<Account>,
    pub(crate) strangers: Arc<Account>,
    /// Control connections accepted.
    pub(crate) controls: Arc<Account>,
}

impl Capacity {
    /// For all relays of a process that may open as many files as this one.
    pub fn of_process() -> Self {
        let parts = descriptors::parts();
        Self(Arc::new(Budgets {
            handshakes: Budget::new(parts.handshakes),
            strangers: Budget::new(parts.strangers),
            proved: Budget::new(parts.proved),
            controls: Budget::new(parts.controls),
        }))
    }

    /// One more link takes part.
    pub(crate) fn open(&self) -> Shares {
        let Budgets { handshakes, strangers, proved, controls } = &*self.0;
        Shares {
            handshakes: handshakes.open(),
            proved: proved.open(),
            strangers: strangers.open(),
            controls: controls.open(),
        }
    }
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shortage {
    /// File descriptors.
    #[error(
        "this process may open {0} files and has nearly as many; raise its limit (LimitNOFILE, ulimit -n) or set limits.connections"
    )]
    Descriptors(usize),
    /// Memory.
    #[error(
        "this process is near the memory limit of its control group, {0} bytes; raise it (relay.resources) or set limits.connections"
    )]
    Memory(u64),
}

impl Shortage {
    /// A metric's label.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Descriptors(_) => "TooFewDescriptors",
            Self::Memory(_) => "TooLittleMemory",
        }
    }
}

/// Whether one more stream may begin.
pub(crate) fn admit() -> Result<(), Shortage> {
    descriptors::admit()?;
    memory::admit()
}

/// The same where its socket is there already.
pub(crate) fn admit_socket(socket: &TcpStream) -> Result<(), Shortage> {
    descriptors::admit_socket(socket)?;
    memory::admit()
}

/// Whether a connection for streams, which carries none yet, may stay.
pub(crate) fn admit_idle(socket: &TcpStream) -> Result<(), Shortage> {
    descriptors::admit_idle(socket)?;
    memory::admit()
}
