//! What this process may still take from the machine: file descriptors and memory. Before either runs out, what is new is
//! refused, so that what lives can go on (fault F64). Why so: docs/decisions/0019.

pub(crate) mod descriptors;
mod memory;

use tokio::net::TcpStream;

pub(crate) use memory::{Carried, is_ample, look};

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
