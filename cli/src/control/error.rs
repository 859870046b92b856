//! Why a running process could not be reached or did not do what it was asked.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a control request failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no process runs on {}; start one with `securelink run`, or check --state-dir", .0.display())]
    NotRunning(PathBuf),
    /// Somebody else's socket.
    #[error("the control socket {} cannot be opened: {source}; run the command as the user who runs securelink", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It answers, but not in time.
    #[error("the running process did not answer within {0} s; see its log")]
    TimedOut(u64),
    /// The connection broke, or the answer is not ours.
    #[error("the running process broke off: {0}; see its log")]
    Broken(String),
    /// It was asked and said no.
    #[error("{0}")]
    Refused(String),
    /// The socket cannot be made.
    #[error("the control socket {} cannot be made: {source}; a state folder's path has at most some 90 characters", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The local port is not local.
    #[error(
        "{0} is not a loopback address; metrics and status are served on this machine only, for example on 127.0.0.1:15445"
    )]
    NotLoopback(SocketAddr),
    /// A port cannot be had.
    #[error("the port {address} cannot be opened: {source}; another process may have it, choose another or none")]
    Port {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
