//! Two sets of threads: one for all that is short, one for streams that carry much at a time. A scheduler gives a thread that
//! mostly waits its turn at once, and one that works its share: whoever shared a thread with much would wait for it.
//!
//! A task goes from one runtime to the other between two polls, its sockets by [`replant`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd as _;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// So many bytes within [`QUICK`] are much at a time.
const MUCH: u64 = 1024 * 1024;
const QUICK: Duration = Duration::from_millis(100);
/// Who takes longer than that for [`MUCH`] carries little again.
const SLOW: Duration = Duration::from_secs(1);

/// Where a runtime is as tokio makes it, each has a thread for each processor.
pub(crate) const LANES: usize = 2;

/// Whose threads a task runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The runtime's in which the task was spawned.
    Short,
    /// Those of the process for streams that carry much.
    Bulk,
}

thread_local! {
    /// What the task that this thread polls wants, if it is one that can be moved.
    static WISH: Cell<Option<Wish>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
enum Wish {
    Stay,
    Go(Lane),
}

/// Spawns a task that may [`change`] lanes.
pub(crate) fn spawn(tasks: &TaskTracker, future: impl Future<Output = ()> + Send + 'static) {
    let home = Handle::current();
    let future = Box::pin(tasks.track_future(future));
    home.clone().spawn(Traveller { future: Some(future), home });
}

/// Goes on in `lane`. False where the task cannot be moved: it goes on where it is.
pub(crate) async fn change(lane: Lane) -> bool {
    if WISH.get().is_none() || lane == Lane::Bulk && bulk().is_none() {
        return false;
    }
    let mut asked = false;
    poll_fn(|_| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        // Polled next by the other runtime, which needs no waker for that.
        WISH.set(Some(Wish::Go(lane)));
        Poll::Pending
    })
    .await;
    true
}

/// Has `socket` watched by the runtime that runs this. Where that fails the one before goes on, which is slower.
pub(crate) fn replant(socket: &mut TcpStream) {
    let again = || -> io::Result<TcpStream> {
        TcpStream::from_std(std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?))
    };
    match again() {
        Ok(again) => *socket = again,
        Err(error) => tracing::debug!(%error, "a socket stays with the threads that it came from"),
    }
}

/// Makes the threads of [`Lane::Bulk`], where there are none yet: early, so that they lack nothing.
pub(crate) fn prepare() {
    bulk();
}

/// None where the system refused them: then all streams stay where they are.
fn bulk() -> Option<&'static Handle> {
    static BULK: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || Builder::new_multi_thread().thread_name("bulk").enable_all().build();
    let bulk = BULK.get_or_init(|| {
        // Of a thread that it is refused, tokio does not say so but panics.
        let outcome = catch_unwind(build).unwrap_or_else(|_| Err(io::Error::other("no threads")));
        outcome.inspect_err(|error| tracing::warn!(%error, "streams that carry much have no threads of their own")).ok()
    });
    bulk.as_ref().map(Runtime::handle)
}

/// See [`spawn`].
struct Traveller {
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    home: Handle,
}

impl Future for Traveller {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        /// Also where the task panics.
        struct Outside;
        impl Drop for Outside {
            fn drop(&mut self) {
                WISH.set(None);
            }
        }
        let Some(future) = &mut self.future else { return Poll::Ready(()) };
        let outside = Outside;
        WISH.set(Some(Wish::Stay));
        let polled = future.as_mut().poll(cx);
        let wish = WISH.get();
        drop(outside);
        if let Some(Wish::Go(lane)) = wish
            && polled.is_pending()
        {
            let (future, home) = (self.future.take(), self.home.clone());
            let there = if lane == Lane::Bulk { bulk() } else { None };
            there.unwrap_or(&self.home).spawn(Self { future, home });
            return Poll::Ready(());
        }
        polled
    }
}

/// How fast a stream carries, as far as its lane depends on it.
pub(crate) struct Tempo {
    lane: Lane,
    since: Instant,
    /// Bytes carried by then.
    bytes: u64,
}

impl Default for Tempo {
    fn default() -> Self {
        Self { lane: Lane::Short, since: Instant::now(), bytes: 0 }
    }
}

impl Tempo {
    /// The lane to go to, for a stream that has carried so many bytes in all.
    pub(crate) fn look(&mut self, bytes: u64, now: impl Fn() -> Instant) -> Option<Lane> {
        let is_much = bytes - self.bytes >= MUCH;
        if !is_much && self.lane == Lane::Short {
            return None;
        }
        let (now, lane) = (now(), self.lane);
        let took = now - self.since;
        if is_much || took > SLOW {
            (self.since, self.bytes) = (now, bytes);
        }
        match lane {
            Lane::Short if took <= QUICK => self.lane = Lane::Bulk,
            Lane::Bulk if took > SLOW => self.lane = Lane::Short,
            _ => {}
        }
        (self.lane != lane).then_some(self.lane)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::thread;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    fn runs_on() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_task_goes_to_the_other_threads_and_back() {
        let home = Builder::new_multi_thread().worker_threads(1).thread_name("home").enable_all().build().unwrap();
        home.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut socket, _) = listener.accept().await.unwrap();
            let (tasks, (tell, told)) = (TaskTracker::new(), oneshot::channel());
            let (inside, moving) = (tasks.clone(), async move {
                let mut places = vec![runs_on()];
                for lane in [Lane::Bulk, Lane::Short, Lane::Bulk] {
                    assert!(change(lane).await);
                    replant(&mut socket);
                    places.push(runs_on());
                    // Waits, and is woken where it is.
                    let byte = socket.read_u8().await.unwrap();
                    socket.write_u8(byte).await.unwrap();
                    places.push(runs_on());
                }
                tell.send(places).unwrap();
            });
            home.spawn(async move { spawn(&inside, moving) }).await.unwrap();
            tasks.close();
            let asking = async {
                for byte in 1..=3 {
                    assert_eq!(tasks.len(), 1);
                    client.write_u8(byte).await.unwrap();
                    assert_eq!(client.read_u8().await.unwrap(), byte);
                }
            };
            tokio::time::timeout(Duration::from_mins(1), asking).await.unwrap();
            assert_eq!(told.await.unwrap(), ["home", "bulk", "bulk", "home", "home", "bulk", "bulk"]);
            tasks.wait().await;
        });
    }

    #[test]
    fn a_socket_that_is_replanted_outlives_the_runtime_that_it_came_from() {
        let runtime = || Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (old, new) = (runtime(), runtime());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = old.block_on(TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        new.block_on(async { replant(&mut client) });
        old.shutdown_background();
        new.block_on(async {
            client.write_all(b"?").await.unwrap();
            there.read_exact(&mut [0]).unwrap();
            there.write_all(b"!").unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'!');
        });
    }

    #[tokio::test]
    async fn who_cannot_be_moved_goes_on_where_it_is() {
        assert!(!change(Lane::Bulk).await);
    }

    #[test]
    fn only_who_carries_much_at_a_time_changes_lanes_and_only_who_slows_down_comes_back() {
        let start = Instant::now();
        // Milliseconds, bytes in all, the lane to go to.
        for (what, looks) in [
            ("little", &[(10, MUCH - 1, None), (5_000, MUCH - 1, None)][..]),
            ("much, slowly", &[(101, MUCH, None), (202, 2 * MUCH, None), (400, 3 * MUCH, None)]),
            ("much, at last", &[(5_000, MUCH, None), (5_100, 2 * MUCH, Some(Lane::Bulk))]),
            (
                "much, and ever less",
                &[
                    (100, MUCH, Some(Lane::Bulk)),
                    (1_000, 2 * MUCH, None),
                    (2_000, 3 * MUCH - 1, None),
                    (2_001, 3 * MUCH - 1, Some(Lane::Short)),
                    (2_002, 4 * MUCH, Some(Lane::Bulk)),
                ],
            ),
            ("much, and nothing for long", &[(1, 9 * MUCH, Some(Lane::Bulk)), (9_000, 9 * MUCH, Some(Lane::Short))]),
        ] {
            let mut tempo = Tempo { lane: Lane::Short, since: start, bytes: 0 };
            for (after, bytes, lane) in looks {
                let now = start + Duration::from_millis(*after);
                assert_eq!(tempo.look(*bytes, || now), *lane, "{what}: after {after} ms");
            }
        }
    }
}
