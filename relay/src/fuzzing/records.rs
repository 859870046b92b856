//! One end of TLS over bytes from memory whose records are the relay's own, honest or not.

use rustls::{ClientConfig, Error, ServerConfig};
use rustls_pki_types::ServerName;

use crate::records::in_place::{Channel, Handshake, Opened};
use crate::scratch::Buffer;

/// An end in its handshake.
pub struct Shaking(Handshake);

/// An end after it.
pub struct End {
    channel: Channel,
    incoming: Buffer,
    outgoing: Buffer,
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Content.
    Content(Vec<u8>),
    /// Nothing yet.
    Waiting,
    /// `close_notify`.
    Closed,
}

impl Shaking {
    /// A client's end.
    pub fn client(config: &ClientConfig, name: ServerName<'static>) -> Result<Self, Error> {
        Handshake::client(config, name).map(Self)
    }

    /// A server's end.
    pub fn server(config: &ServerConfig) -> Result<Self, Error> {
        Handshake::server(config).map(Self)
    }

    /// Goes on with what has arrived; true once it has finished.
    pub fn arrive(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        self.0.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.0.arrived(bytes.len());
        self.0.advance()
    }

    /// What is to be sent.
    pub fn depart(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0.outgoing)
    }

    /// The end after it.
    pub fn finish(self) -> Result<End, Error> {
        let (channel, incoming) = self.0.finish()?;
        Ok(End { channel, incoming, outgoing: Buffer::default() })
    }
}

impl End {
    /// Sends content.
    pub fn send(&mut self, mut content: &[u8]) -> Result<(), Error> {
        while !content.is_empty() {
            let count = self.channel.seal(content, &mut self.outgoing)?;
            content = &content[count..];
        }
        Ok(())
    }

    /// Says `close_notify`.
    pub fn close(&mut self) -> Result<(), Error> {
        self.channel.close(&mut self.outgoing)
    }

    /// Changes the key for sending before the next content, as at its limit.
    pub fn update_key(&mut self) {
        self.channel.update_soon();
    }

    /// Lets a key seal only so many records.
    pub fn limit_key(&mut self, records: u64) {
        self.channel.limit_to(records);
    }

    /// Sends a record of any kind with anything in it, which an honest end would not.
    pub fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Result<(), Error> {
        let mut inner = [content, &[kind]].concat();
        inner.resize(inner.len() + padding, 0);
        let last = inner.pop().unwrap_or_default();
        self.channel.seal_record(last.into(), &inner, &mut self.outgoing)
    }

    /// Changes the key for sending and does not say so.
    pub fn change_key(&mut self) -> Result<(), Error> {
        self.channel.change_sealing_key()
    }

    /// What is to be sent.
    pub fn depart(&mut self) -> Vec<u8> {
        let bytes = self.outgoing.waiting().to_vec();
        self.outgoing.consume(bytes.len());
        bytes
    }

    /// Takes bytes in.
    pub fn arrive(&mut self, bytes: &[u8]) {
        self.incoming.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.incoming.advance(bytes.len());
    }

    /// The next record as it is: its type, and what it carries.
    pub fn record(&mut self) -> Result<(u8, Vec<u8>), Error> {
        let (kind, content) = self.channel.open_record(&mut self.incoming)?;
        Ok((kind.into(), content))
    }

    /// Reads content into a buffer of `room` bytes.
    pub fn read(&mut self, room: usize) -> Result<Read, Error> {
        let mut content = vec![0; room];
        Ok(match self.channel.open(&mut self.incoming, &mut content, &mut self.outgoing)? {
            Opened::Content(count) => Read::Content(content[..count].to_vec()),
            Opened::Missing(_) => Read::Waiting,
            Opened::Closed => Read::Closed,
        })
    }
}
