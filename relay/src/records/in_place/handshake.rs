//! A handshake by rustls over bytes that stay ours, so that what arrives behind it is not lost. No sockets.
//!
//! rustls opens as many records as it is shown. It is shown one at a time: the first record behind the handshake is then
//! opened by nobody but [`Channel`].

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, PeerMisbehaved, ServerConfig};
use rustls_pki_types::ServerName;

use super::channel::Channel;
use super::key::{HEADER, Key};
use super::secret::Heard;
use crate::scratch::Buffer;

/// With so many bytes of messages that are not whole yet nothing more is read, as in rustls. What was read last may be above.
const MAX_WAITING: usize = 0xffff;

/// rustls' part, for either side.
enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// See the module.
pub(crate) struct Handshake {
    connection: Connection,
    heard: Arc<Heard>,
    incoming: Buffer,
    /// How many bytes of that were shown as whole records.
    shown: usize,
    /// To be sent, before anything else is done.
    pub(crate) outgoing: Vec<u8>,
}

/// What rustls wants next.
enum Wish {
    Again,
    Bytes,
    Nothing,
}

impl Handshake {
    /// Of a client. `config` must let secrets be extracted, or [`Self::finish`] fails.
    pub(crate) fn client(config: &ClientConfig, name: ServerName<'static>) -> Result<Self, Error> {
        let heard = Arc::new(Heard::default());
        let mut config = config.clone();
        config.key_log = Arc::clone(&heard) as _;
        let connection = UnbufferedClientConnection::new(Arc::new(config), name)?;
        Ok(Self::new(Connection::Client(connection), heard))
    }

    /// Of a server, likewise.
    pub(crate) fn server(config: &ServerConfig) -> Result<Self, Error> {
        let heard = Arc::new(Heard::default());
        let mut config = config.clone();
        config.key_log = Arc::clone(&heard) as _;
        let connection = UnbufferedServerConnection::new(Arc::new(config))?;
        Ok(Self::new(Connection::Server(connection), heard))
    }

    fn new(connection: Connection, heard: Arc<Heard>) -> Self {
        Self { connection, heard, incoming: Buffer::default(), shown: 0, outgoing: Vec::new() }
    }

    /// Goes on as far as what has arrived leads: true once it has finished. [`Self::outgoing`] is to be sent even where it
    /// fails: where rustls refused, it says why.
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        // rustls is shown again what it has seen: of that it may not have let go.
        self.try_advance().inspect_err(|_| while matches!(self.process(self.shown), Ok(Wish::Again)) {})
    }

    fn try_advance(&mut self) -> Result<bool, Error> {
        loop {
            match self.process(self.shown)? {
                Wish::Again => continue,
                // Where nobody need prove who it is, a server may speak before a client has finished.
                Wish::Nothing if !self.state().is_handshaking() => return Ok(true),
                Wish::Nothing | Wish::Bytes => {}
            }
            let next = self.next_record();
            if next > self.incoming.len() {
                // Of a record that is not whole rustls looks at the header.
                self.process(self.incoming.len())?;
                return if self.incoming.len() < MAX_WAITING {
                    Ok(false)
                } else {
                    Err(InvalidMessage::HandshakePayloadTooLarge.into())
                };
            }
            self.shown = next;
        }
    }

    /// Where the record behind those that were shown ends, by what there is of its header.
    fn next_record(&self) -> usize {
        let rest = self.incoming.waiting().get(self.shown..).unwrap_or_default();
        let body = rest.first_chunk::<HEADER>().map_or(0, |[.., high, low]| u16::from_be_bytes([*high, *low]));
        self.shown + HEADER + usize::from(body)
    }

    fn process(&mut self, shown: usize) -> Result<Wish, Error> {
        let bytes = self.incoming.waiting_mut().get_mut(..shown).unwrap_or_default();
        let (discard, wish) = match &mut self.connection {
            Connection::Client(client) => act(client.process_tls_records(bytes), &mut self.outgoing),
            Connection::Server(server) => act(server.process_tls_records(bytes), &mut self.outgoing),
        };
        self.incoming.consume(discard);
        self.shown = self.shown.saturating_sub(discard);
        wish
    }

    /// Room for what arrives; [`Self::arrived`] says how much did.
    pub(crate) fn room(&mut self, count: usize) -> &mut [u8] {
        self.incoming.room(count)
    }

    pub(crate) fn arrived(&mut self, count: usize) {
        self.incoming.advance(count);
        self.incoming.release();
    }

    /// What rustls knows.
    pub(crate) fn state(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }

    /// After the end: the keys, and what arrived behind the handshake.
    pub(crate) fn finish(self) -> Result<(Channel, Buffer), Error> {
        if self.shown > 0 {
            return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
        }
        let suite = self.state().negotiated_cipher_suite().and_then(|suite| suite.tls13());
        let [of_client, of_server] = self.heard.take(suite.ok_or(Error::HandshakeNotComplete)?)?;
        // How many records rustls has sealed and opened with them is its to say: no number may serve twice.
        let (used, is_client, sealing, opening) = match self.connection {
            Connection::Client(client) => (client.dangerous_into_kernel_connection()?.0, true, of_client, of_server),
            Connection::Server(server) => (server.dangerous_into_kernel_connection()?.0, false, of_server, of_client),
        };
        if !(sealing.gives(&used.tx.1)? && opening.gives(&used.rx.1)?) {
            return Err(Error::General("rustls has other keys than those of the secrets it said".to_owned()));
        }
        let (sealing, opening) = (Key::new(sealing, used.tx.0)?, Key::new(opening, used.rx.0)?);
        Ok((Channel::new(is_client, sealing, opening), self.incoming))
    }
}

fn act<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Vec<u8>) -> (usize, Result<Wish, Error>) {
    let wish = status.state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut data) => {
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
                let end = outgoing.len();
                outgoing.resize(end + required_size, 0);
                data.encode(&mut outgoing[end..]).map_err(|error| Error::General(error.to_string()))?;
            }
            Ok(Wish::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Wish::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Wish::Bytes),
        ConnectionState::WriteTraffic(_) => Ok(Wish::Nothing),
        _ => Err(Error::HandshakeNotComplete),
    });
    (status.discard, wish)
}
