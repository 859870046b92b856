//! The state of one connection: which frame may pass which way now. Pure; it sends, reads and times nothing.
//!
//! Both sides keep one [`Session`] each and tell it of every frame, sent or received, in order. Frames cross on the
//! way, so what may be received is wider than what may be sent exactly where an honest peer cannot know yet.

mod rules;

use std::collections::VecDeque;
use std::fmt;

use super::frame::{Kind, MAX_DATA_PAYLOAD};
use super::message::{Hello, Idle, Message, Role};

/// Most PINGs of one side without their PONG. Five are under way when a peer counts as dead (contracts 1).
const MAX_PINGS: usize = 16;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Dialed: the client of TCP and of TLS.
    Dialer,
    /// Accepted.
    Acceptor,
}

/// What passes.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// Any frame but DATA.
    Message(&'a Message),
    /// DATA with that many bytes of payload; told when its header arrives.
    Data(usize),
}

impl Frame<'_> {
    /// What it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Message(message) => message.kind(),
            Self::Data(_) => Kind::Data,
        }
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not both HELLOs have passed.
    Hello,
    /// No stream. A control connection stays here.
    Idle,
    /// OPEN has passed, its answer has not.
    Opening,
    /// ACCEPT has passed.
    Streaming,
    /// REJECT has passed, the opener's IDLE has not.
    Rejected,
    /// The stream is done, one or both IDLEs are missing.
    Closing,
    /// RST has passed: the connection is not used again.
    Closed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "hello",
            Self::Idle => "idle",
            Self::Opening => "opening",
            Self::Streaming => "streaming",
            Self::Rejected => "rejected",
            Self::Closing => "closing",
            Self::Closed => "closed",
        })
    }
}

/// A frame that may not pass now. Received, it is answered with BYE PROTOCOL, or BYE VERSION for [`Self::Version`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The frame does not belong there.
    #[error("{kind} is not allowed here (phase {phase}); one side's state has gone wrong")]
    Unexpected {
        /// The frame.
        kind: Kind,
        /// Where the connection stood.
        phase: Phase,
    },
    /// The sender had said BYE.
    #[error("{kind} is not allowed after BYE; the sender had announced to close")]
    AfterBye {
        /// The frame.
        kind: Kind,
    },
    /// No version is spoken by both.
    #[error("no common protocol version: {own:?} here, {peer:?} there; update the older side")]
    Version {
        /// Lowest and highest spoken here.
        own: (u16, u16),
        /// Lowest and highest spoken there.
        peer: (u16, u16),
    },
    /// The acceptor names another role than the dialer.
    #[error("the acceptor's HELLO says {said:?} to a {expected:?} connection")]
    Role {
        /// What the dialer said.
        expected: Role,
        /// What the acceptor said.
        said: Role,
    },
    /// DATA before ACCEPT over what the server takes.
    #[error("more than {limit} bytes of DATA before ACCEPT")]
    EarlyData {
        /// What the server takes.
        limit: usize,
    },
    /// DATA without payload, or with too much.
    #[error("DATA with {0} bytes; 1 to {MAX_DATA_PAYLOAD} are allowed")]
    DataLength(usize),
    /// A PONG that answers no PING, or not the oldest.
    #[error("PONG {nonce} answers no outstanding PING")]
    Pong {
        /// Its number.
        nonce: u64,
    },
    /// PING upon PING without waiting for a PONG.
    #[error("more than {MAX_PINGS} PINGs without their PONG")]
    Pings,
}

/// Who sends a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Us,
    Peer,
}

/// What one side has said so far.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a frame that has passed or has not")]
struct Way {
    bye: bool,
    reset: bool,
    /// FIN, in the current or last stream.
    finished: bool,
    /// IDLE, likewise.
    idle: bool,
    /// Payload of DATA, in the current or last stream.
    bytes: u64,
    /// PINGs that wait for the other side's PONG, oldest first.
    pings: VecDeque<u64>,
}

/// What we said in our HELLO that later frames are held to.
#[derive(Clone, Copy, Debug)]
struct Said {
    versions: (u16, u16),
    early_data: u32,
}

/// The state of one connection as one side sees it.
#[derive(Debug)]
pub struct Session {
    side: Side,
    role: Option<Role>,
    phase: Phase,
    version: Option<u16>,
    said: Option<Said>,
    peer: Option<Hello>,
    ours: Way,
    theirs: Way,
}

impl Session {
    /// A connection we dialed, for `role`.
    pub fn dialer(role: Role) -> Self {
        Self::new(Side::Dialer, Some(role))
    }

    /// A connection we accepted; the dialer's HELLO will say its role.
    pub fn acceptor() -> Self {
        Self::new(Side::Acceptor, None)
    }

    fn new(side: Side, role: Option<Role>) -> Self {
        Self {
            side,
            role,
            phase: Phase::Hello,
            version: None,
            said: None,
            peer: None,
            ours: Way::default(),
            theirs: Way::default(),
        }
    }

    /// Takes note of a frame that arrived. On an error the peer broke the protocol: send BYE and close.
    pub fn receive(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        self.pass(By::Peer, frame)
    }

    /// Takes note of a frame that is about to be sent. On an error it must not be sent: the fault is on this side.
    pub fn send(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        self.pass(By::Us, frame)
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What the connection is for; an acceptor learns it from the dialer's HELLO.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The version spoken, once both HELLOs have passed.
    pub fn version(&self) -> Option<u16> {
        self.version
    }

    /// The peer's HELLO, once received; also one whose versions do not fit.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether this side opens the streams of this connection.
    pub fn is_opener(&self) -> bool {
        self.opener() == Some(By::Us)
    }

    /// Whether we may send OPEN now.
    pub fn may_open(&self) -> bool {
        self.phase == Phase::Idle && self.is_opener() && !self.said_bye() && !self.heard_bye() && !self.awaits_pong()
    }

    /// Whether an IDLE of ours is due: after both FINs, and after a REJECT the opener's, then the server's.
    pub fn idle_due(&self) -> bool {
        match self.phase {
            Phase::Rejected => self.is_opener(),
            Phase::Closing => !self.ours.idle,
            _ => false,
        }
    }

    /// Whether we sent BYE.
    pub fn said_bye(&self) -> bool {
        self.ours.bye
    }

    /// Whether the peer sent BYE.
    pub fn heard_bye(&self) -> bool {
        self.theirs.bye
    }

    /// Whether a PING of ours has no PONG yet.
    pub fn awaits_pong(&self) -> bool {
        !self.ours.pings.is_empty()
    }

    /// Bytes of DATA we may still send before ACCEPT; without bound once accepted, none where DATA is not ours to send.
    pub fn early_left(&self) -> usize {
        match self.phase {
            Phase::Streaming if !self.ours.finished => usize::MAX,
            Phase::Idle if self.is_opener() => self.early_limit(By::Us),
            Phase::Opening if self.is_opener() && !self.ours.finished => {
                let sent = usize::try_from(self.ours.bytes).unwrap_or(usize::MAX);
                self.early_limit(By::Us).saturating_sub(sent)
            }
            _ => 0,
        }
    }

    /// Payload bytes of DATA sent and received in the current stream, or in the last one.
    pub fn counts(&self) -> Idle {
        Idle { sent: self.ours.bytes, received: self.theirs.bytes }
    }

    /// Whether both FINs of the current or last stream have passed.
    pub fn both_finished(&self) -> bool {
        self.ours.finished && self.theirs.finished
    }

    /// Whether our FIN of the current or last stream was sent.
    pub fn finished_sending(&self) -> bool {
        self.ours.finished
    }

    /// Whether the peer's FIN of the current or last stream was received.
    pub fn finished_receiving(&self) -> bool {
        self.theirs.finished
    }
}
