//! The reader and writer of one connection over bytes from memory, for fuzz targets and nothing else. No sockets.

pub mod records;

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use tokio::net::TcpStream;

use crate::frames::{Fault, Frames, Received};
use crate::link::locked;
use crate::records::Records;
use crate::wire::{Message, Session};

/// What came out of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What came in, in order.
    pub events: Vec<Event>,
    /// Why it ended.
    pub end: String,
    /// What was sent.
    pub sent: Vec<u8>,
    /// Most bytes that were held for reading.
    pub held: usize,
}

/// One thing that came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Box<Message>),
    /// Payload of one or more DATA frames in a row.
    Data(Vec<u8>),
}

/// Says what to send next: asked with each message that came in, and then without until it says nothing.
pub type Answers = fn(&Session, Option<&Message>) -> Option<Message>;

/// Lets a connection read `bytes` to their end. They arrive in `pieces` of that many bytes, 0 being a wait in between,
/// and what is sent is taken in pieces of the same sizes; after the last piece all goes at once.
pub fn converse(session: Session, bytes: &[u8], pieces: &[usize], answers: Answers) -> Outcome {
    let sent = Arc::default();
    let records =
        Memory { bytes: bytes.to_vec(), read: 0, pieces: pieces.to_vec(), next: [0; 2], sent: Arc::clone(&sent) };
    let mut conversation =
        Conversation { frames: Frames::new(Box::new(records), session), outcome: Outcome::default() };
    let end = conversation.drive(answers);
    let mut outcome = conversation.outcome;
    outcome.end = end.to_string();
    outcome.sent = std::mem::take(&mut locked(&sent));
    outcome
}

struct Conversation {
    frames: Frames,
    outcome: Outcome,
}

impl Conversation {
    fn drive(&mut self, answers: Answers) -> Fault {
        if let Err(fault) = self.answer(None, answers) {
            return fault;
        }
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let received = self.frames.poll_receive(&mut context);
            self.outcome.held = self.outcome.held.max(self.frames.held());
            let answered = match received {
                Poll::Pending => Ok(()),
                Poll::Ready(Err(fault)) => return fault,
                Poll::Ready(Ok(Received::Data)) => {
                    self.take_data();
                    Ok(())
                }
                Poll::Ready(Ok(Received::Message(message))) => {
                    let answered = self.answer(Some(&message), answers);
                    self.outcome.events.push(Event::Message(Box::new(message)));
                    answered
                }
            };
            if let Err(fault) = answered {
                return fault;
            }
        }
    }

    /// DATA is taken in two parts, as a slow socket does.
    fn take_data(&mut self) {
        let data = self.frames.data();
        let part = data.len().div_ceil(2);
        match self.outcome.events.last_mut() {
            Some(Event::Data(bytes)) => bytes.extend_from_slice(&data[..part]),
            _ => self.outcome.events.push(Event::Data(data[..part].to_vec())),
        }
        self.frames.consume(part);
    }

    fn answer(&mut self, mut heard: Option<&Message>, answers: Answers) -> Result<(), Fault> {
        while let Some(message) = answers(&self.frames.session, heard.take()) {
            self.frames.queue(&message)?;
        }
        let mut context = Context::from_waker(Waker::noop());
        while self.frames.poll_send(&mut context)?.is_pending() {}
        Ok(())
    }
}

/// A connection's bytes in memory.
struct Memory {
    bytes: Vec<u8>,
    read: usize,
    pieces: Vec<usize>,
    /// Which piece is next, for reading and for writing.
    next: [usize; 2],
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Memory {
    /// How many of `most` bytes pass now.
    fn piece(&mut self, way: usize, most: usize) -> Poll<usize> {
        let piece = self.pieces.get(self.next[way]).copied();
        self.next[way] += 1;
        match piece {
            Some(0) => Poll::Pending,
            Some(piece) => Poll::Ready(piece.min(most)),
            None => Poll::Ready(most),
        }
    }
}

impl Records for Memory {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.piece(0, buffer.len().min(self.bytes.len() - self.read)));
        buffer[..count].copy_from_slice(&self.bytes[self.read..self.read + count]);
        self.read += count;
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.piece(1, bytes.len()));
        locked(&self.sent).extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn socket(&self) -> &TcpStream {
        unreachable!("nobody asks memory for its socket")
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        unreachable!("nobody asks memory for its socket")
    }
}
