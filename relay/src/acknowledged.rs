//! Whether anything that a connection sends is still acknowledged. Finds one whose packets the network swallows, and leaves
//! one alone whose reader is slow: that one's system answers, if only that it has no room. `TCP_USER_TIMEOUT` would end both.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Nothing acknowledged for so long while something waits for it: dead (relay, "Direction, replicas, death").
const SILENCE: Duration = Duration::from_secs(15);
/// Between looks, while bytes are sent and after a long time without: a look is one system call.
const LOOK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// The first words of Linux' `struct tcp_info`, which has only ever grown at its end.
type Words = [u32; 15];

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, Words);

/// What the system knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Knowledge {
    /// Segments without their acknowledgement.
    unacked: u32,
    /// Probes of a closed window, or of a silent connection, without their answer.
    probes: u8,
    /// Since the peer's system last acknowledged anything.
    silent: Duration,
}

impl Knowledge {
    fn of(socket: &TcpStream) -> Option<Self> {
        let words = getsockopt(socket, TcpInfo).ok()?;
        // state, congestion state, retransmits, probes; then from the 7th word on what is counted and timed.
        let [_, _, _, probes] = words[0].to_ne_bytes();
        Some(Self { unacked: words[6], probes, silent: Duration::from_millis(words[14].into()) })
    }

    /// Whether an answer is due.
    fn awaits(&self) -> bool {
        self.unacked > 0 || self.probes > 0
    }

    /// Whether none came although one was due since `sending` began. What was silent before there was anything to
    /// acknowledge says nothing.
    fn is_dead(&self, sending: Duration) -> bool {
        self.awaits() && self.silent.min(sending) >= SILENCE
    }
}

/// Watches one connection while it carries a stream.
#[derive(Default)]
pub(crate) struct Watch {
    look: Option<Pin<Box<Sleep>>>,
    wait: Duration,
    /// When what may still wait for its acknowledgement was sent at the earliest.
    sending: Option<Instant>,
}

impl Watch {
    /// Bytes were handed to the socket.
    pub(crate) fn sent(&mut self) {
        if self.sending.is_none() {
            self.sending = Some(Instant::now());
        }
        if self.wait != LOOK.0 {
            self.wait = LOOK.0;
            self.look = None;
        }
    }

    /// Ready once the connection is dead. Never before something was sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<()> {
        if self.wait.is_zero() {
            return Poll::Pending;
        }
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(self.wait)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
            match Knowledge::of(socket) {
                Some(known) if known.awaits() => {
                    let sending = self.sending.get_or_insert_with(Instant::now).elapsed();
                    if known.is_dead(sending) {
                        return Poll::Ready(());
                    }
                }
                // A closed window may still hold bytes back that nothing tells of: look again, less and less often.
                _ => {
                    self.sending = None;
                    self.wait = (self.wait * 2).min(LOOK.1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn only_who_owes_an_answer_for_long_enough_is_dead() {
        let known = |unacked, probes, silent| Knowledge { unacked, probes, silent };
        for (what, known, sending, dead) in [
            ("swallowed", known(3, 0, LONG), LONG, true),
            ("a closed window, and its probes swallowed", known(0, 1, LONG), LONG, true),
            ("not yet", known(3, 0, SILENCE / 2), LONG, false),
            ("idle for long, and just sent something", known(1, 0, LONG), Duration::from_secs(1), false),
            ("a closed window whose probes are answered", known(0, 0, LONG), LONG, false),
        ] {
            assert_eq!(known.is_dead(sending), dead, "{what}");
        }
    }

    /// The words are where the system puts them: a reader that takes nothing leaves no byte unacknowledged for long.
    #[tokio::test]
    async fn the_system_tells_of_a_slow_reader_that_it_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_reader, _) = listener.accept().await.unwrap();
        sender.write_all(b"byte").await.unwrap();
        let known = Knowledge::of(&sender).unwrap();
        assert!(known.silent < Duration::from_secs(10) && known.unacked <= 1 && known.probes == 0, "{known:?}");
        let block = vec![0; 65_536];
        let full = async { while sender.write(&block).await.is_ok() {} };
        assert!(tokio::time::timeout(Duration::from_secs(1), full).await.is_err(), "nobody reads");
        let known = Knowledge::of(&sender).unwrap();
        assert!(!known.is_dead(LONG), "{known:?}");
    }
}
