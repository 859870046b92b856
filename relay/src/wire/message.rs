//! The messages as values. How they are laid out in bytes stands beside each in the specification.

use std::fmt;

use securelink_id::{Fingerprint, TrustDomain};
use securelink_relay_config::Head;

use super::code::Code;

/// One process's name among its siblings: random, new at each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub [u8; 16]);

/// A stream's name, shared by both sides' records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

fn hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! shown_as_hexadecimal {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hexadecimal(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hexadecimal(&self.0, f)
            }
        }
    )*};
}
shown_as_hexadecimal!(ReplicaId, StreamId);

/// What a connection is for; the dialer says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// One per pair of replicas: declarations and heartbeats.
    Control,
    /// Carries streams that the dialer opens.
    Forward,
    /// Carries streams that the acceptor opens.
    Reverse,
}

/// The first frame each way on every connection. Its layout is frozen for all versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version spoken.
    pub versions: (u16, u16),
    /// What the connection is for; an acceptor repeats what the dialer said.
    pub role: Role,
    /// Who speaks: must be the owner in the sender's certificate.
    pub trust_domain: TrustDomain,
    /// Which replica speaks.
    pub replica: ReplicaId,
    /// Milliseconds since 1970 at which that replica started: tells a restart from a reconnect.
    pub epoch: u64,
    /// DATA the sender takes before its ACCEPT, in bytes.
    pub early_data: u32,
    /// Head of the sender's declaration.
    pub head: Head,
    /// Which of the receiver's root keys the sender has pinned and used; an acceptor knows it, a dialer too.
    pub pin: Option<Fingerprint>,
}

/// Opens a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its name.
    pub stream: StreamId,
    /// The export wanted: 1 to 63 bytes of a DNS label, or a reserved name that begins with `_`.
    pub service: String,
    /// Who asks, as the opener says: the import's name. Data, never authority. At most 255 bytes.
    pub client: String,
    /// W3C trace context, 55 bytes, if the opener has one.
    pub traceparent: Option<String>,
    /// How long the opener waits for the answer, in milliseconds.
    pub deadline_ms: Option<u32>,
}

/// Refuses a stream; it had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub code: Code,
    /// When to try again, in milliseconds from now, if at all.
    pub retry_after_ms: Option<u32>,
    /// For people; at most 1024 bytes. Escape it before showing it.
    pub text: String,
}

/// Aborts a stream; the connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rst {
    /// Why.
    pub code: Code,
}

/// The stream is over, this is what the sender counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Payload bytes of DATA sent.
    pub sent: u64,
    /// Payload bytes of DATA received.
    pub received: u64,
}

/// Asks for a PONG with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Echoed.
    pub nonce: u64,
}

/// The sender will close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// After so many milliseconds streams that are left are reset.
    pub deadline_ms: u32,
}

/// Asks the dialer to keep reverse connections parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// How many in all.
    pub count: u16,
}

/// The sender's siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// At most 64.
    pub replicas: Vec<ReplicaId>,
}

/// The sender's evidence log at a moment, for the receiver to witness. Fixed now, used later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Entries in the log.
    pub size: u64,
    /// Root hash over them.
    pub root: [u8; 32],
    /// Milliseconds since 1970.
    pub time: u64,
    /// Signature by the sender's leaf, ASN.1 ECDSA; at most 128 bytes.
    pub signature: Vec<u8>,
}

/// The sender is about to close the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bye {
    /// Why.
    pub code: Code,
    /// For people; at most 1024 bytes. Escape it before showing it.
    pub text: String,
}

/// Every frame but DATA, whose payload is not gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First frame each way.
    Hello(Hello),
    /// Opens a stream.
    Open(Open),
    /// Takes a stream.
    Accept,
    /// Refuses a stream.
    Reject(Reject),
    /// No more DATA of the sender's follows in this stream.
    Fin,
    /// Aborts a stream.
    Rst(Rst),
    /// Ends a stream's bookkeeping.
    Idle(Idle),
    /// Are you there?
    Ping(Ping),
    /// Yes.
    Pong(Ping),
    /// The sender's declaration changed.
    Head(Head),
    /// The sender's declaration, JSON; see `securelink_relay_config::Declaration`.
    Declare(Vec<u8>),
    /// The sender is going away.
    Drain(Drain),
    /// Reverse connections wanted.
    Want(Want),
    /// Siblings.
    Peers(Peers),
    /// Evidence.
    Checkpoint(Checkpoint),
    /// The sender closes.
    Bye(Bye),
}
