//! Records of our own: rustls makes the handshake and the keys, [`Channel`] does the rest. Here are its sockets.

mod channel;
mod handshake;
mod key;
mod secret;
mod ticket;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{CommonState, Error};
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

pub(crate) use self::channel::{Channel, Opened};
pub(crate) use self::handshake::Handshake;
use self::key::{batch, sealed};
use super::Records;
use crate::scratch::{Buffer, SMALL};

/// A finished handshake.
pub(crate) struct Shaken {
    socket: TcpStream,
    handshake: Handshake,
}

/// Shakes hands on `socket`.
pub(crate) async fn shake(mut handshake: Handshake, mut socket: TcpStream) -> io::Result<Shaken> {
    loop {
        let advanced = handshake.advance();
        // Also where it failed: it says why.
        let told = socket.write_all(&handshake.outgoing).await;
        let is_done = advanced.map_err(refused)?;
        told?;
        handshake.outgoing.clear();
        if is_done {
            return Ok(Shaken { socket, handshake });
        }
        receive(&socket, &mut handshake).await?;
    }
}

/// Waits without a buffer: strangers may keep us waiting.
async fn receive(socket: &TcpStream, handshake: &mut Handshake) -> io::Result<()> {
    loop {
        socket.readable().await?;
        let read = socket.try_read(handshake.room(SMALL));
        handshake.arrived(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the handshake was broken off")),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl Shaken {
    /// What rustls knows.
    pub(crate) fn state(&self) -> &CommonState {
        self.handshake.state()
    }

    pub(crate) fn into_records(self) -> io::Result<InPlaceRecords> {
        let (channel, incoming) = self.handshake.finish().map_err(refused)?;
        Ok(InPlaceRecords { socket: self.socket, channel, incoming, outgoing: Buffer::default() })
    }
}

/// See the module.
pub(crate) struct InPlaceRecords {
    socket: TcpStream,
    channel: Channel,
    incoming: Buffer,
    outgoing: Buffer,
}

impl InPlaceRecords {
    /// Reads at least `least` bytes or what is there, at best so many that `content` bytes come of it.
    fn poll_fill(&mut self, cx: &mut Context<'_>, least: usize, content: usize) -> Poll<io::Result<()>> {
        let count = sealed(content.min(batch())).saturating_sub(self.incoming.len()).max(least);
        let mut room = ReadBuf::new(&mut self.incoming.room(count)[..count]);
        let read = Pin::new(&mut self.socket).poll_read(cx, &mut room);
        let count = room.filled().len();
        self.incoming.advance(count);
        self.incoming.release();
        ready!(read)?;
        if count == 0 { Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())) } else { Poll::Ready(Ok(())) }
    }

    /// Ready once the socket has taken everything.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.len() > 0 {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.waiting()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.consume(count);
        }
        Poll::Ready(Ok(()))
    }
}

fn refused(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Records for InPlaceRecords {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.channel.open(&mut self.incoming, buffer, &mut self.outgoing) {
                Ok(Opened::Content(count)) => return Poll::Ready(Ok(count)),
                Ok(Opened::Closed) => return Poll::Ready(Ok(0)),
                Ok(Opened::Missing(least)) => ready!(self.poll_fill(cx, least, buffer.len()))?,
                Err(error) => {
                    // Its alert, as far as the socket takes it.
                    let _ = self.poll_drain(cx);
                    return Poll::Ready(Err(refused(error)));
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let count = self.channel.seal(bytes, &mut self.outgoing).map_err(refused)?;
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.close(&mut self.outgoing).map_err(refused)?;
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}
