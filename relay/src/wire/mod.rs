//! `securelink/1` without I/O: frames, messages, and the state of one connection. The specification is
//! `docs/spec/securelink-1.md`; what is written there and what is done here must not differ.

mod bounds;
mod code;
mod decode;
mod encode;
mod frame;
mod head;
mod message;
mod session;
mod tlv;

pub(crate) use bounds::is_label;
pub use code::Code;
pub use frame::{Header, Kind, MAX_CONTROL_PAYLOAD, MAX_DATA_PAYLOAD, WireError};
pub use message::{
    Bye, Checkpoint, Drain, Hello, Idle, Message, Open, Peers, Ping, Reject, ReplicaId, Role, Rst, StreamId, Want,
};
pub use session::{Frame, Phase, Session, Side, Violation};

/// The application protocol of TLS that selects this protocol (RFC 7301).
pub const ALPN: &[u8] = b"securelink/1";
/// The protocol version spoken.
pub const VERSION: u16 = 1;
/// DATA an opener may send before ACCEPT, in bytes (relay, "The wire").
pub const EARLY_DATA: usize = 64 * 1024;
/// Most bytes of the text of a greeting (contracts 1).
pub const MAX_GREETING: usize = 4 * 1024;
/// The reserved service that echoes.
pub const PROBE: &str = "_probe";
/// The reserved service that answers a text with its SHA-256 and a signature.
pub const GREET: &str = "_greet";
