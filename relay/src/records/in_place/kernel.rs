//! What rustls still does after a handshake: the next keys, and session tickets.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, HandshakeType};

use super::key::Key;

/// A connection of either side.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    pub(super) fn next_sealing_key(&mut self) -> Result<Key, Error> {
        Key::new(match self {
            Self::Client(client) => client.update_tx_secret(),
            Self::Server(server) => server.update_tx_secret(),
        }?)
    }

    pub(super) fn next_opening_key(&mut self) -> Result<Key, Error> {
        Key::new(match self {
            Self::Client(client) => client.update_rx_secret(),
            Self::Server(server) => server.update_rx_secret(),
        }?)
    }

    /// The handshake messages that the other side may send now, one that `may_give_tickets` or not.
    pub(super) fn expected(&self, may_give_tickets: bool) -> &'static [HandshakeType] {
        match self {
            Self::Client(_) if may_give_tickets => &[HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate],
            _ => &[HandshakeType::KeyUpdate],
        }
    }

    /// Takes the body of a ticket.
    pub(super) fn take_ticket(&mut self, body: &[u8]) -> Result<(), Error> {
        match self {
            Self::Client(client) => client.handle_new_session_ticket(body),
            // Not expected, so not reached.
            Self::Server(_) => Ok(()),
        }
    }

    /// How many records may be sealed with one key (RFC 8446 section 5.5).
    pub(super) fn limit(&self) -> u64 {
        let suite = match self {
            Self::Client(client) => client.negotiated_cipher_suite(),
            Self::Server(server) => server.negotiated_cipher_suite(),
        };
        suite.tls13().map_or(1, |suite| suite.common.confidentiality_limit)
    }
}
