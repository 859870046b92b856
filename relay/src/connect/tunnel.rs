//! A partner's tunnel as a connection of `securelink/1`: what it sends is heard as frames, what is said in frames reaches
//! it as HTTP and bytes. Judges nothing; the rules stand where those of all other streams do.
//!
//! | heard from the partner | is | said to it | is |
//! |---|---|---|---|
//! | its request | HELLO, OPEN | ACCEPT | 200 |
//! | bytes | DATA | REJECT, BYE before an answer | an error, and the end |
//! | `close_notify` | FIN | DATA | bytes |
//! | the end without it | the end: a reset | FIN | `close_notify` |
//! | after both FINs, or an error's end | IDLE | RST | the socket's reset |

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::request::BadRequest;
use super::response;
use crate::dial::abort_on_close;
use crate::records::Records;
use crate::wire::{Header, Idle, Kind, MAX_DATA_PAYLOAD, Message};

/// A partner that has said all it will is not read any more: looked at so often, its socket's death is still noticed.
const GLANCE: Duration = Duration::from_secs(1);
/// Room that makes a frame of its own worth while; less is filled from a frame kept aside.
const ROOM: usize = 1024;

/// Bytes to be handed over, from `at` on.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    at: usize,
}

impl Waiting {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// What is done with the partner's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// Its request has no answer yet: nothing may come.
    Asked,
    /// They are the stream's.
    Stream,
    /// It has said `close_notify`.
    Finished,
    /// It was refused: they are thrown away, so that closing does not take the answer back.
    Refused,
    /// There are none any more.
    Over,
}

/// See the module.
pub(crate) struct Tunnel {
    records: Box<dyn Records>,
    hearing: Hearing,
    /// Frames to be heard.
    heard: Waiting,
    /// The frame being said, as far as it has come; of DATA the header alone.
    frame: Vec<u8>,
    /// Payload of the DATA being said that is still to come.
    data_left: usize,
    /// HTTP on its way to the partner, before all else.
    said: Waiting,
    /// Our FIN was said, or all that will be: `close_notify` follows, and whether it has.
    finished: bool,
    closed: bool,
    aborted: bool,
    /// Payload from it, and to it.
    counts: (u64, u64),
    glance: Option<Pin<Box<Sleep>>>,
}

impl Tunnel {
    /// After a request that stands for `messages`.
    pub(super) fn new(records: Box<dyn Records>, messages: &[Message]) -> Self {
        let mut heard = Waiting::default();
        for message in messages {
            message.encode(&mut heard.bytes);
        }
        Self {
            records,
            hearing: Hearing::Asked,
            heard,
            frame: Vec::new(),
            data_left: 0,
            said: Waiting::default(),
            finished: false,
            closed: false,
            aborted: false,
            counts: (0, 0),
            glance: None,
        }
    }

    fn hear(&mut self, message: &Message) {
        message.encode(&mut self.heard.bytes);
    }

    /// Reads the partner's bytes into `buffer`, as one frame of DATA.
    fn poll_stream(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let end = buffer.len().min(Header::LEN + MAX_DATA_PAYLOAD);
        match ready!(self.records.poll_read(cx, &mut buffer[Header::LEN..end])) {
            Ok(0) => {
                self.hearing = Hearing::Finished;
                self.hear(&Message::Fin);
                Poll::Ready(Ok(0))
            }
            Ok(length) => {
                buffer[..Header::LEN].copy_from_slice(&Header { kind: Kind::Data, length }.encode());
                self.counts.0 += length as u64;
                Poll::Ready(Ok(Header::LEN + length))
            }
            Err(error) => {
                self.hearing = Hearing::Over;
                // What ends without `close_notify` was broken off, and that is what the end of a connection says.
                if error.kind() == io::ErrorKind::UnexpectedEof { Poll::Ready(Ok(0)) } else { Poll::Ready(Err(error)) }
            }
        }
    }

    /// Ready once the other FIN was said too; an error where the socket dies before.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.finished {
            let glance = self.glance.get_or_insert_with(|| Box::pin(sleep(GLANCE)));
            ready!(glance.as_mut().poll(cx));
            self.glance = None;
            if self.socket().try_io(Interest::ERROR, || Ok(())).is_ok() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Throws away what comes until the partner has hung up; the caller sets the time.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; ROOM];
        while let Ok(1..) = ready!(self.records.poll_read(cx, &mut scratch)) {}
        Poll::Ready(())
    }

    /// Takes `bytes` of one frame in; returns how many.
    fn poll_say(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.data_left > 0 {
            let data = &bytes[..bytes.len().min(self.data_left)];
            let taken = match self.hearing {
                // Our service's first words to somebody who was refused at the last moment.
                Hearing::Refused | Hearing::Over => data.len(),
                _ => ready!(self.records.poll_write(cx, data))?,
            };
            self.counts.1 += taken as u64;
            self.data_left -= taken;
            return Poll::Ready(Ok(taken));
        }
        let header = |frame: &[u8]| frame.first_chunk().map(|header| Header::parse(*header)).transpose();
        let payload = header(&self.frame).map_err(io::Error::other)?.map_or(0, |header| header.length);
        let taken = bytes.len().min(Header::LEN + payload - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        match header(&self.frame).map_err(io::Error::other)? {
            Some(Header { kind: Kind::Data, length }) => {
                self.frame.clear();
                self.data_left = length;
            }
            Some(Header { kind, length }) if self.frame.len() == Header::LEN + length => {
                let message = Message::decode(kind, &self.frame[Header::LEN..]).map_err(io::Error::other)?;
                self.frame.clear();
                self.act(cx, message);
            }
            _ => {}
        }
        Poll::Ready(Ok(taken))
    }

    fn act(&mut self, cx: &mut Context<'_>, message: Message) {
        if self.hearing == Hearing::Asked {
            // There may be something to be heard now, and whoever asked before has been told of nothing.
            cx.waker().wake_by_ref();
        }
        match message {
            Message::Accept => self.accept(cx),
            Message::Reject(reject) => {
                self.refuse(&response::refusal(reject.code, reject.retry_after_ms, &reject.text));
            }
            Message::Bye(bye) => self.refuse(&response::refusal(bye.code, None, &bye.text)),
            Message::Fin => self.finished = true,
            Message::Rst(_) => self.aborted = true,
            // What relays say among themselves.
            _ => {}
        }
    }

    /// Answers 200, unless bytes have come that nobody may send before it.
    fn accept(&mut self, cx: &mut Context<'_>) {
        match self.poll_stream(cx, &mut [0; ROOM]) {
            Poll::Ready(Ok(1..)) => {
                self.refuse(&response::bad_request(BadRequest::Early));
                self.hearing = Hearing::Over;
            }
            Poll::Ready(Err(_)) => self.hearing = Hearing::Over,
            Poll::Ready(Ok(0)) | Poll::Pending => {
                self.said.put(response::ESTABLISHED);
                if self.hearing == Hearing::Asked {
                    self.hearing = Hearing::Stream;
                }
            }
        }
    }

    /// Answers with an error and closes; a request is answered once.
    fn refuse(&mut self, answer: &[u8]) {
        if self.hearing == Hearing::Asked {
            self.said.put(answer);
            self.hearing = Hearing::Refused;
            self.finished = true;
        }
    }

    fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.said.rest().is_empty() {
            let count = ready!(self.records.poll_write(cx, self.said.rest()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.said.consume(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Records for Tunnel {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.heard.rest().is_empty() {
                let count = self.heard.rest().len().min(buffer.len());
                buffer[..count].copy_from_slice(&self.heard.rest()[..count]);
                self.heard.consume(count);
                return Poll::Ready(Ok(count));
            }
            match self.hearing {
                // The answer is ours to give, and wakes whoever waits here.
                Hearing::Asked => return Poll::Pending,
                Hearing::Stream if buffer.len() < ROOM => {
                    let mut aside = [0; ROOM];
                    let count = ready!(self.poll_stream(cx, &mut aside))?;
                    self.heard.put(&aside[..count]);
                }
                Hearing::Stream => {
                    let count = ready!(self.poll_stream(cx, buffer))?;
                    if count > 0 {
                        return Poll::Ready(Ok(count));
                    }
                }
                Hearing::Finished => {
                    ready!(self.poll_finished(cx))?;
                    self.hearing = Hearing::Over;
                    self.hear(&Message::Idle(Idle { sent: self.counts.0, received: self.counts.1 }));
                }
                Hearing::Refused => {
                    ready!(self.poll_discard(cx));
                    self.hearing = Hearing::Over;
                    self.hear(&Message::Idle(Idle { sent: 0, received: 0 }));
                }
                Hearing::Over => return Poll::Ready(Ok(0)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while taken < bytes.len() {
            let step = match self.poll_said(cx) {
                Poll::Ready(Ok(())) => self.poll_say(cx, &bytes[taken..]),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
            match step {
                Poll::Ready(Ok(count @ 1..)) => taken += count,
                // What was taken is told first; the rest meets the same again.
                _ if taken > 0 => break,
                stopped => return stopped,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_said(cx))?;
        ready!(self.records.poll_flush(cx))?;
        if self.aborted {
            abort_on_close(self.socket());
            self.hearing = Hearing::Over;
        } else if self.finished && !self.closed {
            ready!(self.records.poll_close(cx))?;
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        self.poll_flush(cx)
    }

    fn socket(&self) -> &TcpStream {
        self.records.socket()
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        self.records.socket_mut()
    }
}
