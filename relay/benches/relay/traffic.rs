//! The client and the service at the two ends: what they say to each other, checked.

use std::io;

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
/// have their sum, `e` to have back what it sends.
pub async fn serve(listener: TcpListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        // A client that goes away ends its own connection only.
        tokio::spawn(async move { answer(socket).await.ok() });
    }
}

async fn answer(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    if socket.read_u8().await? == b'u' {
        let mut left = usize::try_from(socket.read_u64().await?).map_err(io::Error::other)?;
        let (mut sum, mut buffer) = (Sum::default(), vec![0; BLOCK]);
        while left > 0 {
            let most = left.min(BLOCK);
            let count = socket.read(&mut buffer[..most]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sum.add(&buffer[..count]);
            left -= count;
        }
        return socket.write_u64(sum.value()).await;
    }
    let mut buffer = [0; 4096];
    while let count @ 1.. = socket.read(&mut buffer).await? {
        socket.write_all(&buffer[..count]).await?;
    }
    socket.shutdown().await
}

/// Sends `blocks` blocks and checks the sum that comes back.
pub async fn upload(mut socket: TcpStream, blocks: u64) {
    socket.write_u8(b'u').await.unwrap();
    socket.write_u64(blocks * BLOCK as u64).await.unwrap();
    let (mut sum, mut bytes) = (Sum::default(), vec![0x5a; BLOCK]);
    for number in 0..blocks {
        block(number, &mut bytes);
        sum.add(&bytes);
        socket.write_all(&bytes).await.unwrap();
    }
    assert_eq!(socket.read_u64().await.unwrap(), sum.value(), "other bytes arrived than were sent");
}

/// A connection whose service sends everything back.
pub async fn echo(address: std::net::SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_u8(b'e').await.unwrap();
    socket
}

/// One small message there and back.
pub async fn ping(socket: &mut TcpStream, message: [u8; 64]) {
    let mut back = [0; 64];
    socket.write_all(&message).await.unwrap();
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(back, message);
}
