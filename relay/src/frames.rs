//! Frames over records: buffers, and the session's judgment on everything that passes. Knows no links and no streams'
//! sockets. Every method may be dropped while pending and called again: all state is in the struct.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use crate::capacity;
use crate::records::Records;
use crate::scratch::{self, Buffer};
use crate::wire::{Frame, Header, Kind, MAX_DATA_PAYLOAD, Message, Session, Violation, WireError};

/// First size of a stream's batches: one TLS record.
const CHUNK_MIN: usize = scratch::SMALL;
/// Largest: a whole DATA frame with its header, exactly 16 records (relay, "The wire").
const CHUNK_MAX: usize = Header::LEN + MAX_DATA_PAYLOAD;
const _: () = assert!(CHUNK_MAX == scratch::LARGE);

/// What waits first in a stream and is less waits for more, if that is there at once.
const GATHERED: usize = CHUNK_MIN / 2;
/// A peer that leaves so much of ours untaken is not read: it could make us queue answers without end.
const BACKLOG: usize = CHUNK_MAX;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The socket or its TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Bytes that are no frame.
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    /// A frame at the wrong time.
    #[error("the peer broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// It ended.
    #[error("the connection ended")]
    Ended,
}

/// What came in. Short-lived and never stored: boxing the message would cost an allocation each.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Received {
    /// A message.
    Message(Message),
    /// So many bytes of DATA lie ready: [`Frames::data`].
    Data,
}

/// One connection's frames.
pub(crate) struct Frames {
    records: Box<dyn Records>,
    /// The state of the connection.
    pub(crate) session: Session,
    incoming: Buffer,
    /// Payload of the DATA frame at hand that is still to come or to be consumed.
    data_left: usize,
    outgoing: Buffer,
    /// Size the next batch is read with: doubles while batches fill it.
    batch: usize,
    /// Size the next batch is received with, likewise.
    window: usize,
    /// An error that came behind bytes that had to be handled first.
    failed: Option<io::Error>,
    unflushed: bool,
    /// A record with something of ours in the current or last stream may have left whole.
    departed: bool,
}

impl Frames {
    pub(crate) fn new(records: Box<dyn Records>, session: Session) -> Self {
        let (incoming, outgoing) = (Buffer::default(), Buffer::default());
        Self {
            records,
            session,
            incoming,
            data_left: 0,
            outgoing,
            batch: CHUNK_MIN,
            window: CHUNK_MIN,
            failed: None,
            unflushed: false,
            departed: false,
        }
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &tokio::net::TcpStream {
        self.records.socket()
    }

    pub(crate) fn socket_mut(&mut self) -> &mut tokio::net::TcpStream {
        self.records.socket_mut()
    }

    /// Puts a message behind what waits to be sent.
    pub(crate) fn queue(&mut self, message: &Message) -> Result<(), Fault> {
        self.session.send(Frame::Message(message))?;
        if let Message::Open(_) = message {
            self.departed = false;
        }
        let mut encoded = Vec::with_capacity(64);
        message.encode(&mut encoded);
        self.outgoing.room(encoded.len())[..encoded.len()].copy_from_slice(&encoded);
        self.outgoing.advance(encoded.len());
        Ok(())
    }

    /// Puts a DATA frame behind what waits, filled by `read`, which may take up to `most` bytes; returns what it returned.
    pub(crate) fn queue_data(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Fault> {
        self.save_memory();
        let spare = self.batch.saturating_sub(self.outgoing.len()).max(GATHERED);
        let most = most.min(spare - Header::LEN);
        let room = self.outgoing.room(Header::LEN + most);
        let read = read(&mut room[Header::LEN..Header::LEN + most]);
        let Ok(count @ 1..) = read else {
            self.outgoing.release();
            return Ok(read);
        };
        room[..Header::LEN].copy_from_slice(&Header { kind: Kind::Data, length: count }.encode());
        self.session.send(Frame::Data(count))?;
        self.outgoing.advance(Header::LEN + count);
        if count == most {
            self.batch = (self.batch * 2).min(CHUNK_MAX);
        } else if count < most / 4 {
            self.batch = (self.batch / 2).max(CHUNK_MIN);
        }
        Ok(read)
    }

    /// Whether more may join what waits before it is sent: it is the first of a stream, and little.
    pub(crate) fn gathers(&self) -> bool {
        !self.departed && self.outgoing.len() < GATHERED
    }

    /// Sends everything that waits.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What fits into one record is nothing to the peer until the socket has taken all of it.
        self.departed |= self.outgoing.len() > CHUNK_MIN;
        while self.outgoing.len() > 0 {
            let count = ready!(self.records.poll_write(cx, self.outgoing.waiting()))?;
            self.departed |= count < self.outgoing.len();
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.consume(count);
            self.unflushed = true;
        }
        if self.unflushed {
            let flushed = self.records.poll_flush(cx);
            // Also where a part is left: what is put behind it must not hide that it may be whole by then.
            self.departed |= !matches!(flushed, Poll::Ready(Err(_)));
            ready!(flushed)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next frame. While DATA lies ready it is told again: consume it first.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Fault>> {
        loop {
            if self.data_left > 0 && self.incoming.len() > 0 {
                return Poll::Ready(Ok(Received::Data));
            }
            if self.data_left == 0
                && let Some(received) = self.parse()?
            {
                return Poll::Ready(Ok(received));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Fault::Ended));
            }
        }
    }

    /// A whole message, or the header of DATA, if it has arrived.
    fn parse(&mut self) -> Result<Option<Received>, Fault> {
        let Some(header) = self.incoming.waiting().first_chunk::<{ Header::LEN }>() else { return Ok(None) };
        let header = Header::parse(*header)?;
        if header.kind == Kind::Data {
            self.session.receive(Frame::Data(header.length))?;
            self.incoming.consume(Header::LEN);
            self.data_left = header.length;
            return Ok((self.incoming.len() > 0).then_some(Received::Data));
        }
        let whole = Header::LEN + header.length;
        let Some(payload) = self.incoming.waiting().get(Header::LEN..whole) else { return Ok(None) };
        let message = Message::decode(header.kind, payload)?;
        self.session.receive(Frame::Message(&message))?;
        if let Message::Open(_) = message {
            self.departed = false;
        }
        self.incoming.consume(whole);
        Ok(Some(Received::Message(message)))
    }

    /// Reads until the window is full or nothing more is there: what is read together is written together.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        self.save_memory();
        while self.window <= self.incoming.len() {
            // A message that is longer; its length was judged by its header.
            self.window *= 2;
        }
        let want = self.window - self.incoming.len();
        let room = self.incoming.room(want);
        let mut count = 0;
        while count < want {
            match self.records.poll_read(cx, &mut room[count..want]) {
                Poll::Ready(Ok(0)) => break,
                // What an end without `close_notify` means, the frames say.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Poll::Ready(Ok(read)) => count += read,
                Poll::Pending if count == 0 => {
                    self.incoming.release();
                    return Poll::Pending;
                }
                Poll::Pending => break,
                Poll::Ready(Err(error)) if count == 0 => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.incoming.advance(count);
        self.incoming.release();
        if count == want {
            self.window = (self.window * 2).min(CHUNK_MAX);
        }
        Poll::Ready(Ok(count))
    }

    /// The DATA that lies ready.
    pub(crate) fn data(&self) -> &[u8] {
        let waiting = self.incoming.waiting();
        &waiting[..waiting.len().min(self.data_left)]
    }

    /// Whether DATA lies ready.
    pub(crate) fn has_data(&self) -> bool {
        self.data_left > 0 && self.incoming.len() > 0
    }

    /// Takes `count` bytes of [`Frames::data`] away.
    pub(crate) fn consume(&mut self, count: usize) {
        self.data_left -= count;
        self.incoming.consume(count);
    }

    /// Whether the socket has failed, known without reading it.
    pub(crate) fn is_dead(&self) -> bool {
        self.socket().try_io(Interest::ERROR, || Ok(())).is_ok()
    }

    /// Whether DATA of the current or last stream may have reached the peer.
    pub(crate) fn has_parted_with_data(&self) -> bool {
        self.departed && self.session.counts().sent > 0
    }

    /// Takes back what waits, of a stream that is tried elsewhere: last words must not bring it to the peer.
    pub(crate) fn take_back(&mut self) {
        self.outgoing.consume(self.outgoing.len());
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_drained(&self) -> bool {
        self.outgoing.len() == 0 && !self.unflushed
    }

    /// Bytes of the buffer for reading.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn held(&self) -> usize {
        self.incoming.held()
    }

    /// Begins with small batches again.
    pub(crate) fn rest(&mut self) {
        (self.batch, self.window) = (CHUNK_MIN, CHUNK_MIN);
    }

    /// Where memory is short, what lives goes on with small buffers.
    fn save_memory(&mut self) {
        if !capacity::is_ample() {
            self.rest();
        }
    }

    /// Sends what waits and then `message`.
    pub(crate) async fn send(&mut self, message: &Message) -> Result<(), Fault> {
        self.queue(message)?;
        self.flush().await
    }

    /// Sends what waits.
    pub(crate) async fn flush(&mut self) -> Result<(), Fault> {
        Ok(poll_fn(|cx| self.poll_send(cx)).await?)
    }

    /// The next frame, while what waits is sent. What a peer does not take keeps us from reading only where it is much.
    pub(crate) async fn receive(&mut self) -> Result<Received, Fault> {
        poll_fn(|cx| {
            match self.poll_send(cx) {
                // The peer's last words may still be there to be read, and say why.
                Poll::Ready(Err(error)) => match self.poll_receive(cx) {
                    Poll::Ready(received @ Ok(_)) => Poll::Ready(received),
                    _ => Poll::Ready(Err(error.into())),
                },
                Poll::Pending if self.outgoing.len() > BACKLOG => Poll::Pending,
                _ => self.poll_receive(cx),
            }
        })
        .await
    }

    /// The next message; DATA on the way is thrown away, which only a refused stream's may be.
    pub(crate) async fn message(&mut self) -> Result<Message, Fault> {
        loop {
            if let Received::Message(message) = self.receive().await? {
                return Ok(message);
            }
            self.consume(self.data().len());
        }
    }

    /// Says `close_notify`.
    pub(crate) async fn close(&mut self) {
        // The peer may be gone already: there is nobody to tell.
        let _ = poll_fn(|cx| self.records.poll_close(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use securelink_relay_config::{Digest, Head, LinkState};
    use tokio::net::TcpStream;

    use super::*;
    use crate::wire::{Hello, Open, ReplicaId, Role, StreamId, VERSION};

    /// Takes so many bytes with each write, then its socket is dead. What it took stays on the way.
    struct Dying(Vec<usize>, Poll<()>);

    impl Records for Dying {
        fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.0.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Poll::Ready(Ok(self.0.remove(0).min(bytes.len())))
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.1.map(Ok)
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn socket(&self) -> &TcpStream {
            unreachable!("it has none")
        }

        fn socket_mut(&mut self) -> &mut TcpStream {
            unreachable!("it has none")
        }
    }

    /// A connection that was used before: OPEN and `early` bytes of DATA wait.
    fn opening(takes: &[usize], flushed: Poll<()>, early: usize) -> Frames {
        let hello = Message::Hello(Hello {
            versions: (VERSION, VERSION),
            role: Role::Forward,
            trust_domain: "a.example".parse().unwrap(),
            replica: ReplicaId([1; 16]),
            epoch: 1,
            early_data: 65_536,
            head: Head { sequence: 1, current: None, next: None, state: LinkState::Active, hash: Digest([0; 32]) },
            pin: None,
        });
        let mut session = Session::dialer(Role::Forward);
        session.send(Frame::Message(&hello)).unwrap();
        session.receive(Frame::Message(&hello)).unwrap();
        let mut frames = Frames::new(Box::new(Dying(takes.to_vec(), flushed)), session);
        frames.departed = true;
        let open = Open {
            stream: StreamId([7; 16]),
            service: "db".to_owned(),
            client: "c".to_owned(),
            traceparent: None,
            deadline_ms: None,
        };
        frames.queue(&Message::Open(open)).unwrap();
        let mut left = early;
        while left > 0 {
            left -= frames.queue_data(left, |buffer| Ok(buffer.len())).unwrap().unwrap();
        }
        frames
    }

    #[test]
    fn what_a_dead_connection_did_not_take_whole_may_be_sent_on_another() {
        let mut context = Context::from_waker(Waker::noop());
        for (takes, early, again) in [
            // Nothing of OPEN and DATA left, and together they are one record.
            (&[][..], 100, true),
            (&[], 0, true),
            // More than a record: some may be there.
            (&[], 20_000, false),
            // A part was taken, and may be a record.
            (&[10], 100, false),
        ] {
            let mut frames = opening(takes, Poll::Ready(()), early);
            assert!(matches!(frames.poll_send(&mut context), Poll::Ready(Err(_))), "{takes:?} {early}");
            assert_eq!(!frames.has_parted_with_data(), again, "{takes:?} {early}");
        }
        // OPEN left before: DATA may have left behind it.
        let mut frames = opening(&[usize::MAX], Poll::Ready(()), 0);
        assert!(matches!(frames.poll_send(&mut context), Poll::Ready(Ok(()))));
        assert!(!frames.has_parted_with_data());
        frames.queue_data(100, |buffer| Ok(buffer.len())).unwrap().unwrap();
        assert!(matches!(frames.poll_send(&mut context), Poll::Ready(Err(_))));
        assert!(frames.has_parted_with_data());
        // Taken and not yet under way as a whole: it may be by the time that something behind it fails.
        let mut frames = opening(&[usize::MAX], Poll::Pending, 100);
        assert!(frames.poll_send(&mut context).is_pending());
        assert!(frames.has_parted_with_data() && !frames.gathers());
    }
}
