//! The header of a frame, and what is wrong with a frame. A header is judged before anything is allocated for it.

use std::fmt;

use securelink_relay_config::MAX_DECLARATION_BYTES;

/// Most bytes of one DATA payload: with its header exactly 16 full TLS records of 16 384 bytes.
pub const MAX_DATA_PAYLOAD: usize = 262_140;
/// Most bytes of any other payload but DECLARE's (contracts 1).
pub const MAX_CONTROL_PAYLOAD: usize = 16 * 1024;
/// Most bytes of the payloads that are a few numbers, with room for later fields.
const MAX_SMALL_PAYLOAD: usize = 1024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal $label:literal $max:ident,)*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number on the wire.
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The kind with that number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name, bounded: fit to be a metric label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// Most bytes of its payload.
            pub const fn max_payload(self) -> usize {
                match self {
                    $(Self::$name => $max,)*
                }
            }
        }
    };
}

kinds! {
    /// First frame each way.
    Hello = 0x01 "HELLO" MAX_CONTROL_PAYLOAD,
    /// Opens a stream.
    Open = 0x02 "OPEN" MAX_CONTROL_PAYLOAD,
    /// Takes a stream.
    Accept = 0x03 "ACCEPT" MAX_CONTROL_PAYLOAD,
    /// Refuses a stream.
    Reject = 0x04 "REJECT" MAX_CONTROL_PAYLOAD,
    /// Bytes of a stream.
    Data = 0x05 "DATA" MAX_DATA_PAYLOAD,
    /// End of one direction of a stream.
    Fin = 0x06 "FIN" MAX_SMALL_PAYLOAD,
    /// Aborts a stream.
    Rst = 0x07 "RST" MAX_SMALL_PAYLOAD,
    /// Ends a stream's bookkeeping.
    Idle = 0x08 "IDLE" MAX_SMALL_PAYLOAD,
    /// Are you there?
    Ping = 0x10 "PING" MAX_SMALL_PAYLOAD,
    /// Yes.
    Pong = 0x11 "PONG" MAX_SMALL_PAYLOAD,
    /// The head of the sender's declaration.
    Head = 0x12 "HEAD" MAX_CONTROL_PAYLOAD,
    /// The sender's declaration.
    Declare = 0x13 "DECLARE" MAX_DECLARATION_BYTES,
    /// The sender is going away.
    Drain = 0x14 "DRAIN" MAX_SMALL_PAYLOAD,
    /// Reverse connections wanted.
    Want = 0x15 "WANT" MAX_SMALL_PAYLOAD,
    /// The sender's siblings.
    Peers = 0x16 "PEERS" MAX_CONTROL_PAYLOAD,
    /// The sender's evidence log at a moment.
    Checkpoint = 0x17 "CHECKPOINT" MAX_CONTROL_PAYLOAD,
    /// The sender closes.
    Bye = 0x18 "BYE" MAX_CONTROL_PAYLOAD,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The four bytes before every payload: the kind, and the payload's length in 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Bytes of payload.
    pub length: usize,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 4;

    /// Reads a header; on an error the connection is closed with PROTOCOL.
    pub fn parse(bytes: [u8; Self::LEN]) -> Result<Self, WireError> {
        let [number, high, middle, low] = bytes;
        let kind = Kind::from_number(number).ok_or(WireError::UnknownKind(number))?;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if length > kind.max_payload() {
            return Err(WireError::TooLong { kind, length, max: kind.max_payload() });
        }
        if kind == Kind::Data && length == 0 {
            return Err(WireError::EmptyData);
        }
        Ok(Self { kind, length })
    }

    /// The header's bytes. A length over 24 bits does not fit and is written as the largest that does.
    pub fn encode(self) -> [u8; Self::LEN] {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX).min(0x00ff_ffff);
        let [_, high, middle, low] = length.to_be_bytes();
        [self.kind.number(), high, middle, low]
    }
}

/// Why bytes are not a frame of this protocol. Whatever it is, the connection is closed with PROTOCOL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No kind has that number.
    #[error("the peer sent a frame of unknown type {0:#04x}; its software may be broken or not SecureLink")]
    UnknownKind(u8),
    /// Over the kind's bound.
    #[error("the peer announced a {kind} of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// What was announced.
        kind: Kind,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// DATA without a byte.
    #[error("the peer sent an empty DATA; an end of data is a FIN")]
    EmptyData,
    /// DATA has no message form: its payload is not gathered.
    #[error("DATA is not a message; hand its payload on as it arrives")]
    NotAMessage,
    /// The payload ends inside a field, or has bytes behind the last whole one.
    #[error("the peer's {0} ends inside a field")]
    Truncated(Kind),
    /// A field that the message cannot be without.
    #[error("the peer's {kind} lacks its {field}")]
    Missing {
        /// Of which message.
        kind: Kind,
        /// Which.
        field: &'static str,
    },
    /// A field that stands twice.
    #[error("the peer's {kind} has the field {number:#06x} twice")]
    Duplicate {
        /// Of which message.
        kind: Kind,
        /// The number of the TLV.
        number: u16,
    },
    /// A field that must be understood and is not.
    #[error("the peer's {kind} has the critical field {number:#06x}, unknown to this version; update this relay")]
    Critical {
        /// Of which message.
        kind: Kind,
        /// The number of the TLV.
        number: u16,
    },
    /// A field whose value breaks its rule.
    #[error("the {field} in the peer's {kind} breaks its rule: {rule}")]
    Value {
        /// Of which message.
        kind: Kind,
        /// Which.
        field: &'static str,
        /// What holds for it.
        rule: &'static str,
    },
}
