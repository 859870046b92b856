//! The record layer behind one small trait, so that another one can take its place. Knows no frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::CommonState;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// Plaintext rustls may hold encrypted before the socket takes it: a whole batch of [`crate::frames`] and its records'
/// headers, so that one batch is one pass (relay, "Inside").
const BUFFER_LIMIT: usize = 512 * 1024;

/// One encrypted connection, as the copy loop needs it.
pub(crate) trait Records: Send {
    /// Reads plaintext; 0 is the end, whether announced by `close_notify` or not.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Takes plaintext in, encrypts it and hands it to the socket as far as that takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready once the socket has taken everything.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Says `close_notify` and closes the sending half.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// The socket below, for its options.
    fn socket(&self) -> &TcpStream;
}

/// rustls' own records.
pub(crate) struct RustlsRecords(TlsStream<TcpStream>);

impl RustlsRecords {
    pub(crate) fn new(mut stream: TlsStream<TcpStream>) -> Self {
        match &mut stream {
            TlsStream::Client(client) => client.get_mut().1.set_buffer_limit(Some(BUFFER_LIMIT)),
            TlsStream::Server(server) => server.get_mut().1.set_buffer_limit(Some(BUFFER_LIMIT)),
        }
        Self(stream)
    }

    /// Reads plaintext; 0 is `close_notify`, and an end without it an error.
    pub(crate) fn poll_read_to_close(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(&mut self.0).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }
}

/// What rustls knows about a finished handshake.
pub(crate) fn state(stream: &TlsStream<TcpStream>) -> &CommonState {
    stream.get_ref().1
}

impl Records for RustlsRecords {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.poll_read_to_close(cx, buffer) {
            // A socket that ends without `close_notify` ends: what that means, the frames say.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            read => read,
        }
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
}
