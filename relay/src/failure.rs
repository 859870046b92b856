//! Why a connection did not come up or did not stay: one reason for conditions and counters, one message for people.

use std::io;

use securelink_pki::Refusal;
use securelink_pki::tls::{TlsError, refusal_of_io};

use crate::capacity::Shortage;
use crate::connect::BadRequest;
use crate::frames::Fault;
use crate::wire::{Bye, Code, Violation};

/// A failure on the way to the peer or from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The peer's name.
    #[error("{host} does not resolve: {error}; check peer.endpoints and this machine's DNS")]
    Dns { host: String, error: io::Error },
    /// Every address is one that is never dialed.
    #[error(
        "{endpoint} resolves to {address}, which is never dialed (loopback, link-local, metadata or the API server); check peer.endpoints"
    )]
    Denied { endpoint: String, address: std::net::IpAddr },
    /// Nobody listens.
    #[error("{endpoint} refuses connections; the peer's relay is down, or the port is wrong, or a firewall rejects us")]
    Refused { endpoint: String },
    /// Nobody answers.
    #[error(
        "{endpoint} does not answer; maybe a firewall or NetworkPolicy drops packets to it, or the address is wrong"
    )]
    TimedOut { endpoint: String },
    /// Another trouble of the socket.
    #[error("dialing {endpoint} failed: {error}")]
    Socket { endpoint: String, error: io::Error },
    /// The proxy on the way.
    #[error("the proxy {proxy} does not connect us: {message}; check peer.proxy and what it allows")]
    Proxy { proxy: String, message: String },
    /// The handshake or the peer's certificate.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// TLS could not be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// HELLO did not come in time.
    #[error("the other end finished TLS but said no HELLO within {0:?}; it is no SecureLink relay, or overloaded")]
    Silent(std::time::Duration),
    /// What a partner without our software asks for is not understood.
    #[error("the partner's request is refused: {0}")]
    Request(#[from] BadRequest),
    /// HELLO names somebody else than the certificate.
    #[error("the peer's HELLO names another trust domain than its certificate; its relay is misconfigured")]
    HelloIdentity,
    /// The peer said goodbye.
    #[error("the peer closed the connection with {code}: {text}")]
    Bye { code: Code, text: String },
    /// Frames.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// No heartbeat.
    #[error("nothing was heard from the peer for {0:?}; the network between us or its relay is down")]
    Dead(std::time::Duration),
    /// The other end's relay is known not to answer.
    #[error("the relay at the other end is gone; its connections are closed")]
    Gone,
    /// Pins, identity or certificate changed.
    #[error("our trust or certificate changed; the connection is made anew")]
    TrustChanged,
    /// The peer parks connections for us, and none is left.
    #[error(
        "we cannot dial the peer, and it keeps no connection at rest for us to use; its relay may be down, or of a version without reverse connections"
    )]
    NoneParked,
    /// Nothing can be opened to a partner without our software.
    #[error("a Connect partner only calls, nothing can be sent to it first; ask it to open a tunnel")]
    CallsOnly,
    /// All places are taken.
    #[error("the peer keeps more connections without a stream here than a relay has places for; its relay is broken")]
    TooMany,
    /// Others need the place more.
    #[error(
        "there are more callers than may be in the handshake at once, and it was the turn of this one to leave; where strangers do that, let a firewall admit the peer's addresses only"
    )]
    Crowded,
    /// As many streams live as a link may have.
    #[error(
        "the link carries {} streams each way at once, as many as a relay may; run more replicas",
        crate::limits::MAX_STREAMS
    )]
    TooManyStreams,
    /// This process runs out of something.
    #[error("{0}")]
    Shortage(#[from] Shortage),
    /// We have no way to the peer.
    #[error("no endpoint of the peer is known and it has not dialed us; add peer.endpoints or wait for the peer")]
    NoEndpoint,
}

impl Failure {
    /// From an error of the handshake's socket.
    pub(crate) fn of_handshake(error: io::Error, endpoint: &str) -> Self {
        match refusal_of_io(&error) {
            Some(refusal) => Self::Refusal(refusal),
            None => Self::Socket { endpoint: endpoint.to_owned(), error },
        }
    }

    /// A fault in the first frames: a dialer sees the peer's verdict on its certificate only now.
    pub(crate) fn of_first_frames(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => match refusal_of_io(&error) {
                Some(refusal) => Self::Refusal(refusal),
                None => Self::Fault(Fault::Io(error)),
            },
            other => Self::Fault(other),
        }
    }

    pub(crate) fn of_bye(bye: &Bye) -> Self {
        Self::Bye { code: bye.code, text: bye.text.escape_debug().take(256).collect() }
    }

    /// A reason of contracts 7 where one fits, else a word of the same style.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "DnsFailed",
            Self::Denied { .. } => "AddressDenied",
            Self::Refused { .. } => "Refused",
            Self::TimedOut { .. } | Self::Silent(_) | Self::Dead(_) => "TimedOut",
            Self::Socket { .. } => "SocketFailed",
            Self::Proxy { .. } => "ProxyFailed",
            Self::Refusal(refusal) => refusal.reason(),
            Self::Tls(_) => "TlsFailed",
            Self::Request(_) => "BadRequest",
            Self::HelloIdentity => "WrongTrustDomain",
            Self::Bye { code: Code::Version, .. } | Self::Fault(Fault::Violation(Violation::Version { .. })) => {
                "VersionMismatch"
            }
            Self::Bye { .. } => "RefusedByPeer",
            Self::Gone | Self::Fault(Fault::Io(_) | Fault::Ended) => "ConnectionLost",
            Self::Fault(_) => "ProtocolError",
            Self::TrustChanged => "TrustChanged",
            Self::TooMany => "TooManyConnections",
            Self::Crowded => "TooManyCallers",
            Self::TooManyStreams => "TooManyStreams",
            Self::Shortage(shortage) => shortage.reason(),
            Self::NoneParked => "NoneParked",
            Self::CallsOnly => "CallsOnly",
            Self::NoEndpoint => "NeverConnected",
        }
    }
}
