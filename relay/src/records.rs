//! The record layer behind one small trait, so that another one can take its place. Knows no frames.

pub(crate) mod in_place;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::CommonState;
use rustls_pki_types::ServerName;
use securelink_relay_config::RecordLayer;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::view::Tls;

/// Plaintext rustls may hold encrypted before the socket takes it: a whole batch of [`crate::frames`] and its records'
/// headers, so that one batch is one pass (relay, "Inside").
const BUFFER_LIMIT: usize = 512 * 1024;

/// One encrypted connection, as the copy loop needs it.
pub(crate) trait Records: Send {
    /// Reads plaintext; 0 is `close_notify`, and an end without it the error `UnexpectedEof`.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Takes plaintext in, encrypts it and hands it to the socket as far as that takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready once the socket has taken everything.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Says `close_notify` and closes the sending half.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// The socket below, for its options.
    fn socket(&self) -> &TcpStream;
    /// The same, to put another in its place.
    fn socket_mut(&mut self) -> &mut TcpStream;
}

/// A finished handshake.
pub(crate) enum Shaken {
    Rustls(Box<TlsStream<TcpStream>>),
    InPlace(Box<in_place::Shaken>),
}

impl Shaken {
    /// Shakes hands with whom `socket` was dialed to.
    pub(crate) async fn dial(tls: &Tls, name: ServerName<'static>, socket: TcpStream) -> io::Result<Self> {
        match tls.records {
            RecordLayer::Rustls => {
                let stream = TlsConnector::from(Arc::clone(&tls.client)).connect(name, socket).await?;
                Ok(Self::Rustls(Box::new(stream.into())))
            }
            RecordLayer::InPlace => {
                let handshake = in_place::Handshake::client(&tls.client, name).map_err(io::Error::other)?;
                in_place::shake(handshake, socket).await.map(Self::in_place)
            }
        }
    }

    /// Shakes hands with whom `socket` was accepted from.
    pub(crate) async fn accept(tls: &Tls, socket: TcpStream) -> io::Result<Self> {
        match tls.records {
            RecordLayer::Rustls => {
                let stream = TlsAcceptor::from(Arc::clone(&tls.server)).accept(socket).await?;
                Ok(Self::Rustls(Box::new(stream.into())))
            }
            RecordLayer::InPlace => {
                let handshake = in_place::Handshake::server(&tls.server).map_err(io::Error::other)?;
                in_place::shake(handshake, socket).await.map(Self::in_place)
            }
        }
    }

    fn in_place(shaken: in_place::Shaken) -> Self {
        Self::InPlace(Box::new(shaken))
    }

    /// What rustls knows about it.
    pub(crate) fn state(&self) -> &CommonState {
        match self {
            Self::Rustls(stream) => stream.get_ref().1,
            Self::InPlace(shaken) => shaken.state(),
        }
    }

    /// What comes after it.
    pub(crate) fn into_records(self) -> io::Result<Box<dyn Records>> {
        Ok(match self {
            Self::Rustls(stream) => Box::new(RustlsRecords::new(*stream)),
            Self::InPlace(shaken) => Box::new(shaken.into_records()?),
        })
    }
}

/// rustls' own records.
struct RustlsRecords(TlsStream<TcpStream>);

impl RustlsRecords {
    fn new(mut stream: TlsStream<TcpStream>) -> Self {
        match &mut stream {
            TlsStream::Client(client) => client.get_mut().1.set_buffer_limit(Some(BUFFER_LIMIT)),
            TlsStream::Server(server) => server.get_mut().1.set_buffer_limit(Some(BUFFER_LIMIT)),
        }
        Self(stream)
    }
}

impl Records for RustlsRecords {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(&mut self.0).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn socket(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        self.0.get_mut().0
    }
}
