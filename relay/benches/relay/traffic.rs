//! The client and the service at the two ends: what they say to each other, checked.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes written at once.
pub const BLOCK: usize = 256 * 1024;

/// A sum that notices a byte that is lost, changed or in another place.
#[derive(Default)]
pub struct Sum {
    plain: u64,
    weighted: u64,
    rest: Vec<u8>,
}

impl Sum {
    pub fn add(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(8 - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() == 8 {
                let word = std::mem::take(&mut self.rest);
                self.words(&word);
            }
        }
        let (words, rest) = bytes.split_at(bytes.len() - bytes.len() % 8);
        self.words(words);
        self.rest.extend_from_slice(rest);
    }

    fn words(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            self.plain = self.plain.wrapping_add(u64::from_le_bytes(word.try_into().expect("8 bytes")));
            self.weighted = self.weighted.wrapping_add(self.plain);
        }
    }

    pub fn value(&self) -> u64 {
        let rest = self.rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.weighted.rotate_left(32) ^ self.plain ^ rest
    }
}

/// The block with that number: no two are alike.
pub fn block(number: u64, into: &mut [u8]) {
    for (at, word) in (0_u64..).zip(into.chunks_exact_mut(4096)) {
        word[..8].copy_from_slice(&(number << 8 | at).to_le_bytes());
    }
}

/// Serves until the process ends. A client's first byte says what it wants: `u` to send a length and that many bytes and
/// have their sum, `d` to send a length and have that many bytes and their sum, `e` to have back what it sends.
pub async fn serve(listener: TcpListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        // A client that goes away ends its own connection only.
        tokio::spawn(async move { answer(socket).await.ok() });
    }
}

async fn answer(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match socket.read_u8().await? {
        b'u' => {
            let length = socket.read_u64().await?;
            let sum = take(&mut socket, length).await?;
            part(socket, sum).await
        }
        b'd' => {
            let length = socket.read_u64().await?;
            let sum = give(&mut socket, length / BLOCK as u64).await?;
            part(socket, sum).await
        }
        _ => {
            let mut buffer = [0; 4096];
            while let count @ 1.. = socket.read(&mut buffer).await? {
                socket.write_all(&buffer[..count]).await?;
            }
            socket.shutdown().await
        }
    }
}

/// Says the sum and leaves only after the client: what is on its way when a service closes, Envoy loses in an HTTP/2 tunnel
/// (envoy#47378), and it is not to be measured by that.
async fn part(mut socket: TcpStream, sum: u64) -> io::Result<()> {
    socket.write_u64(sum).await?;
    socket.read(&mut [0]).await.map(drop)
}

/// Reads `left` bytes: their sum.
async fn take(socket: &mut TcpStream, mut left: u64) -> io::Result<u64> {
    let (mut sum, mut buffer) = (Sum::default(), vec![0; BLOCK]);
    while left > 0 {
        let most = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        let count = socket.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sum.add(&buffer[..count]);
        left -= count as u64;
    }
    Ok(sum.value())
}

/// Writes `blocks` blocks: their sum.
async fn give(socket: &mut TcpStream, blocks: u64) -> io::Result<u64> {
    let (mut sum, mut bytes) = (Sum::default(), vec![0x5a; BLOCK]);
    for number in 0..blocks {
        block(number, &mut bytes);
        sum.add(&bytes);
        socket.write_all(&bytes).await?;
    }
    Ok(sum.value())
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// From the client to the service.
    Up,
    Down,
}

/// Carries `blocks` blocks and checks their sum.
pub async fn bulk(address: SocketAddr, way: Way, blocks: u64) -> io::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let length = blocks * BLOCK as u64;
    socket.write_u8(if matches!(way, Way::Up) { b'u' } else { b'd' }).await?;
    socket.write_u64(length).await?;
    let here = match way {
        Way::Up => give(&mut socket, blocks).await?,
        Way::Down => take(&mut socket, length).await?,
    };
    assert_eq!(socket.read_u64().await?, here, "other bytes arrived than were sent");
    Ok(())
}

/// Bytes written at once by [`paced`]: a rate is not to come in bursts.
const PIECE: usize = BLOCK / 4;

/// Uploads `per_second` bytes for `time`, evenly, and checks the sum; how long it took. On a thread of its own, whose sleeps are
/// finer than a runtime's.
pub fn paced(address: SocketAddr, per_second: u64, time: Duration) -> io::Result<Duration> {
    let mut socket = std::net::TcpStream::connect(address)?;
    let millis = u64::try_from(time.as_millis()).map_err(io::Error::other)?;
    let pieces = (per_second * millis / 1000).div_ceil(PIECE as u64);
    socket.write_all(b"u")?;
    socket.write_all(&(pieces * PIECE as u64).to_be_bytes())?;
    let (start, mut sum, mut bytes) = (Instant::now(), Sum::default(), vec![0x5a; PIECE]);
    for number in 0..pieces {
        block(number, &mut bytes);
        sum.add(&bytes);
        socket.write_all(&bytes)?;
        let due = Duration::from_nanos((number + 1) * PIECE as u64 * 1_000_000_000 / per_second);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let mut there = [0; 8];
    socket.read_exact(&mut there)?;
    assert_eq!(u64::from_be_bytes(there), sum.value(), "other bytes arrived than were sent");
    Ok(start.elapsed())
}

/// Asks for more bytes than any buffers hold, and reads none of them.
pub async fn stall(address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_u8(b'd').await?;
    socket.write_u64(1 << 40).await?;
    Ok(socket)
}

/// A connection whose service sends everything back.
pub async fn echo(address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_u8(b'e').await?;
    Ok(socket)
}

/// The same, and a byte went there and back.
pub async fn opened(address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = echo(address).await?;
    socket.write_u8(7).await?;
    assert_eq!(socket.read_u8().await?, 7);
    Ok(socket)
}

/// A whole stream: opened, used for a byte, and finished by both ends.
pub async fn open_and_finish(address: SocketAddr) -> io::Result<()> {
    let mut socket = opened(address).await?;
    socket.shutdown().await?;
    assert_eq!(socket.read(&mut [0]).await?, 0, "a byte that nobody sent");
    Ok(())
}

/// One small message there and back.
pub async fn ping(socket: &mut TcpStream, message: [u8; 64]) -> io::Result<()> {
    let mut back = [0; 64];
    socket.write_all(&message).await?;
    socket.read_exact(&mut back).await?;
    assert_eq!(back, message);
    Ok(())
}
