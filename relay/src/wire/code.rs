//! The one table of reasons that REJECT, RST and BYE share (contracts 1).

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal $label:literal,)*) => {
        /// Why a stream was refused or aborted, or a connection is closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A number this version has no name for; treat it as a failure of unknown cause.
            Unknown(u16),
        }

        impl Code {
            /// Every code that has a name, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name, bounded: fit to be a metric label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                    Self::Unknown(_) => "UNKNOWN",
                }
            }

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Unknown(number) => number,
                }
            }

            /// The code with that number.
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Unknown(other),
                }
            }
        }
    };
}

codes! {
    /// Identity, declaration or policy do not allow it.
    Denied = 1 "DENIED",
    /// No agreement is in force on both sides, or the declaration has not arrived.
    NotAgreed = 2 "NOT_AGREED",
    /// No export of that name is offered to this peer.
    UnknownExport = 3 "UNKNOWN_EXPORT",
    /// The export exists, its target cannot be reached.
    Unavailable = 4 "UNAVAILABLE",
    /// Too much load now; try again later.
    Overloaded = 5 "OVERLOADED",
    /// The relay is going away; try another replica.
    Draining = 6 "DRAINING",
    /// Something took longer than its limit.
    Timeout = 7 "TIMEOUT",
    /// A side has suspended the link.
    Suspended = 8 "SUSPENDED",
    /// A side has cut the link, the export or the import.
    Cut = 9 "CUT",
    /// The agreement or a certificate has ended.
    Expired = 10 "EXPIRED",
    /// Pins, roots or certificates changed and no longer admit the peer.
    TrustChanged = 11 "TRUST_CHANGED",
    /// The peer broke this protocol.
    Protocol = 12 "PROTOCOL",
    /// No common protocol version.
    Version = 13 "VERSION",
    /// The connection to the service was reset.
    TargetReset = 14 "TARGET_RESET",
    /// What the sender carried for is gone: its client broke off, or the peer stopped answering.
    PeerLost = 15 "PEER_LOST",
    /// A configured or fixed limit is exceeded.
    Limit = 16 "LIMIT",
    /// A fault of the sender's own.
    Internal = 17 "INTERNAL",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "UNKNOWN({number})"),
            known => f.write_str(known.as_str()),
        }
    }
}
