//! The exported service of each organization: gives its file, or bytes without end; and the clients that ask for them.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes at a time; as much as the relay reads.
pub(super) const CHUNK: usize = 256 * 1024;
/// A live stream's beat, and what comes with each: a steady trickle shows the moment it stops.
const BEAT: Duration = Duration::from_millis(2);
const BEAT_BYTES: usize = 1024;
/// What a client asks for.
const FILE: u8 = b'f';
const TRICKLE: u8 = b't';

/// A TCP service on loopback.
pub(super) struct Service {
    port: u16,
    file: PathBuf,
    task: JoinHandle<()>,
}

impl Service {
    /// Starts one that gives `file`.
    pub(super) async fn start(file: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let given = file.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let file = given.clone();
                // A client that goes away ends its own stream and nothing else.
                tokio::spawn(async move { answer(stream, &file).await });
            }
        });
        Ok(Self { port, file, task })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it gives.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, file: &Path) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if stream.read_u8().await? == FILE {
        let mut file = File::open(file).await?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).await?;
            if read == 0 {
                return stream.shutdown().await;
            }
            stream.write_all(&chunk[..read]).await?;
        }
    }
    let mut beat = tokio::time::interval(BEAT);
    loop {
        beat.tick().await;
        stream.write_all(&[b'.'; BEAT_BYTES]).await?;
    }
}

/// Asks for the file through the import on `port`, and closes its own direction: the answer comes nevertheless.
pub(super) async fn ask_for_file(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_u8(FILE).await?;
    stream.shutdown().await?;
    Ok(stream)
}

/// A client that takes bytes as long as they come.
pub(super) struct Trickle {
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    began: OnceLock<Instant>,
    bytes: AtomicU64,
    /// Of the last byte, in microseconds after `began`.
    last: AtomicU64,
    ended: OnceLock<End>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As if everything had been sent. For a stream that was cut it would be a lie.
    Clean,
    /// By a reset.
    Reset,
}

impl Trickle {
    /// Connects to an import and takes what comes.
    pub(super) fn start(port: u16) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let end = take(port, &shared).await;
            shared.ended.set(if end.is_ok() { End::Clean } else { End::Reset }).ok();
        });
        Self { state, task }
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Acquire)
    }

    /// When the last byte came, if any did.
    pub(super) fn last(&self) -> Option<Instant> {
        let began = self.state.began.get().filter(|_| self.bytes() > 0)?;
        Some(*began + Duration::from_micros(self.state.last.load(Ordering::Acquire)))
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<End> {
        self.state.ended.get().copied()
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(port: u16, state: &State) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let began = *state.began.get_or_init(Instant::now);
    stream.write_u8(TRICKLE).await?;
    let mut chunk = vec![0; BEAT_BYTES * 16];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        let after = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        state.last.store(after, Ordering::Release);
        state.bytes.fetch_add(read as u64, Ordering::AcqRel);
    }
}
