//! File descriptors. A new one gets the lowest free number: so the number itself says how many are in use, whoever in this
//! process uses them, and numbers near the limit are kept for what is no stream.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::LazyLock;

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpStream;

use super::Shortage;

/// Of all descriptors, a quarter is kept for callers, control connections and files, but no more than so many: the callers
/// below, 64 control connections each way, and what is written down.
const MOST_KEPT: usize = 2048;
/// Handshakes in flight on all listeners: each costs a millisecond of CPU and some 100 KiB.
const HANDSHAKES: usize = 256;
/// Callers that wait for a place there: as many as the kernel lets wait before one.
const WAITING: usize = 1024;

/// How many may be open.
static LIMIT: LazyLock<usize> =
    LazyLock::new(|| getrlimit(Resource::Nofile).current.and_then(|most| most.try_into().ok()).unwrap_or(usize::MAX));

/// Duplicated to see which number is the lowest free one.
static PROBE: LazyLock<Option<File>> = LazyLock::new(|| File::open("/dev/null").ok());

fn kept(limit: usize) -> usize {
    (limit / 4).min(MOST_KEPT)
}

/// A stream's descriptors have numbers below this one.
fn first_kept(limit: usize) -> usize {
    limit - kept(limit)
}

fn number(fd: RawFd) -> usize {
    usize::try_from(fd).unwrap_or(usize::MAX)
}

/// Whether a stream may open one more.
pub(super) fn admit() -> Result<(), Shortage> {
    let Some(probe) = &*PROBE else { return Ok(()) };
    judge(probe.try_clone().map_or(usize::MAX, |lowest| number(lowest.as_raw_fd())))
}

/// Whether a stream may keep this one.
pub(crate) fn admit_socket(socket: &TcpStream) -> Result<(), Shortage> {
    judge(number(socket.as_raw_fd()))
}

fn judge(number: usize) -> Result<(), Shortage> {
    if number < first_kept(*LIMIT) { Ok(()) } else { Err(Shortage::Descriptors(*LIMIT)) }
}

/// Whether a connection that carries no stream yet may stay: a few may where no more streams may begin, so that one is at
/// rest for probes and greetings, and clients are refused on it without a handshake each.
pub(crate) fn admit_idle(socket: &TcpStream) -> Result<(), Shortage> {
    if number(socket.as_raw_fd()) < first_kept(*LIMIT) + idle_of(*LIMIT) {
        Ok(())
    } else {
        Err(Shortage::Descriptors(*LIMIT))
    }
}

fn idle_of(limit: usize) -> usize {
    kept(limit) / 8
}

/// What the listeners of this process may use of what is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Handshakes in flight, with the callers that wait for one some half of it.
    pub(super) handshakes: usize,
    /// Callers that wait, wherever they come from.
    pub(super) strangers: usize,
    /// More of them from where the peer proved itself: a quarter of all that wait.
    pub(super) proved: usize,
    /// Control connections accepted: as many as are kept for connections without a stream.
    pub(super) controls: usize,
}

pub(super) fn parts() -> Parts {
    parts_of(*LIMIT)
}

fn parts_of(limit: usize) -> Parts {
    let part = (limit / 16).max(1);
    let waiting = part.min(WAITING);
    let proved = (waiting / 4).max(1);
    Parts { handshakes: part.min(HANDSHAKES), strangers: waiting - proved, proved, controls: idle_of(limit).max(1) }
}

/// Whether so few are left that no more callers may be inside than there are.
pub(crate) fn is_last(socket: &TcpStream) -> bool {
    number(socket.as_raw_fd()) >= first_kept(*LIMIT) + kept(*LIMIT) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_and_callers_and_control_connections_do_not_fill_it() {
        for (limit, streams, [handshakes, strangers, proved, controls]) in [
            (64, 48, [4, 3, 1, 2]),
            (256, 192, [16, 12, 4, 8]),
            (1024, 768, [64, 48, 16, 32]),
            (20_000, 17_952, [256, 768, 256, 256]),
            (usize::MAX, usize::MAX - 2048, [256, 768, 256, 256]),
        ] {
            let parts = Parts { handshakes, strangers, proved, controls };
            assert_eq!((first_kept(limit), parts_of(limit)), (streams, parts), "{limit}");
            assert!(handshakes + strangers + proved + controls + idle_of(limit) < kept(limit));
        }
    }

    #[test]
    fn the_lowest_free_number_is_seen() {
        admit().expect("a test has few files open");
        assert!(judge(*LIMIT - 1).is_err() && judge(usize::MAX).is_err());
    }
}
