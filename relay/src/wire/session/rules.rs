//! Which frame may pass in which phase. The specification's state table and this file must not differ.

use super::super::code::Code;
use super::super::frame::{Kind, MAX_DATA_PAYLOAD};
use super::super::message::{Hello, Message, Role};
use super::super::{EARLY_DATA, VERSION};
use super::{By, Frame, MAX_PINGS, Phase, Said, Session, Side, Violation, Way};

impl Session {
    pub(super) fn opener(&self) -> Option<By> {
        match (self.role?, self.side) {
            (Role::Control, _) => None,
            (Role::Forward, Side::Dialer) | (Role::Reverse, Side::Acceptor) => Some(By::Us),
            (Role::Forward, Side::Acceptor) | (Role::Reverse, Side::Dialer) => Some(By::Peer),
        }
    }

    /// Bytes of DATA before ACCEPT that the receiver of `by`'s frames takes.
    pub(super) fn early_limit(&self, by: By) -> usize {
        let promised = match by {
            By::Us => self.peer.as_ref().map(|hello| hello.early_data),
            By::Peer => self.said.map(|said| said.early_data),
        };
        usize::try_from(promised.unwrap_or(0)).unwrap_or(usize::MAX).min(EARLY_DATA)
    }

    fn way(&mut self, by: By) -> &mut Way {
        match by {
            By::Us => &mut self.ours,
            By::Peer => &mut self.theirs,
        }
    }

    fn unexpected(&self, frame: Frame<'_>) -> Result<(), Violation> {
        Err(Violation::Unexpected { kind: frame.kind(), phase: self.phase })
    }

    pub(super) fn pass(&mut self, by: By, frame: Frame<'_>) -> Result<(), Violation> {
        let kind = frame.kind();
        if by == By::Peer && self.ours.reset && !self.theirs.reset {
            // On its way when we aborted: the peer could not know.
            self.theirs.reset = kind == Kind::Rst;
            return Ok(());
        }
        if self.phase == Phase::Closed {
            return self.unexpected(frame);
        }
        if self.way(by).bye {
            let answers_open = matches!(frame, Frame::Message(Message::Reject(no)) if no.code == Code::Draining);
            if !answers_open && kind != Kind::Idle {
                return Err(Violation::AfterBye { kind });
            }
        }
        match frame {
            Frame::Message(Message::Hello(hello)) => self.greet(by, hello),
            Frame::Message(Message::Bye(_)) => {
                self.way(by).bye = true;
                Ok(())
            }
            _ if self.phase == Phase::Hello => self.unexpected(frame),
            Frame::Message(Message::Head(_) | Message::Drain(_)) => Ok(()),
            _ if self.role == Some(Role::Control) => self.control(by, frame),
            _ => self.stream(by, frame),
        }
    }

    /// HELLO: the dialer's first; the acceptor's repeats its role.
    fn greet(&mut self, by: By, hello: &Hello) -> Result<(), Violation> {
        let unexpected = Err(Violation::Unexpected { kind: Kind::Hello, phase: self.phase });
        let of_dialer = (by == By::Us) == (self.side == Side::Dialer);
        let (spoken, answered) = match by {
            By::Us => (self.said.is_some(), self.peer.is_some()),
            By::Peer => (self.peer.is_some(), self.said.is_some()),
        };
        if spoken || answered == of_dialer {
            return unexpected;
        }
        match self.role {
            Some(expected) if expected != hello.role => return Err(Violation::Role { expected, said: hello.role }),
            Some(_) => {}
            None => self.role = Some(hello.role),
        }
        let (own, peer) = match by {
            By::Us => {
                self.said = Some(Said { versions: hello.versions, early_data: hello.early_data });
                (hello.versions, self.peer.as_ref().map(|peer| peer.versions))
            }
            By::Peer => {
                self.peer = Some(hello.clone());
                (self.said.map_or((VERSION, VERSION), |said| said.versions), Some(hello.versions))
            }
        };
        let Some(peer) = peer else { return Ok(()) };
        let highest = own.1.min(peer.1);
        if highest < own.0.max(peer.0) {
            return Err(Violation::Version { own, peer });
        }
        if self.said.is_some() {
            self.version = Some(highest);
            self.phase = Phase::Idle;
        }
        Ok(())
    }

    fn control(&mut self, by: By, frame: Frame<'_>) -> Result<(), Violation> {
        let Frame::Message(message) = frame else { return self.unexpected(frame) };
        let by_acceptor = (by == By::Us) == (self.side == Side::Acceptor);
        match message {
            Message::Ping(ping) => self.ping(by, ping.nonce),
            Message::Pong(ping) => self.pong(by, ping.nonce),
            Message::Declare(_) | Message::Peers(_) | Message::Checkpoint(_) => Ok(()),
            Message::Want(_) if by_acceptor => Ok(()),
            _ => self.unexpected(frame),
        }
    }

    fn ping(&mut self, by: By, nonce: u64) -> Result<(), Violation> {
        let pings = &mut self.way(by).pings;
        if pings.len() >= MAX_PINGS {
            return Err(Violation::Pings);
        }
        pings.push_back(nonce);
        Ok(())
    }

    fn pong(&mut self, by: By, nonce: u64) -> Result<(), Violation> {
        let asker = if by == By::Us { By::Peer } else { By::Us };
        let pings = &mut self.way(asker).pings;
        if pings.front() != Some(&nonce) {
            return Err(Violation::Pong { nonce });
        }
        pings.pop_front();
        Ok(())
    }

    /// Frames of a data connection; the specification's state table, row by row.
    fn stream(&mut self, by: By, frame: Frame<'_>) -> Result<(), Violation> {
        let from_opener = self.opener() == Some(by);
        let message = match frame {
            Frame::Data(length) => return self.data(by, length),
            Frame::Message(message) => message,
        };
        match (self.phase, message, from_opener) {
            (Phase::Idle, Message::Open(_), true) if self.may_begin(by) => self.begin(),
            (Phase::Idle, Message::Ping(ping), true) => return self.ping(by, ping.nonce),
            (Phase::Idle, Message::Pong(ping), false) => return self.pong(by, ping.nonce),
            (Phase::Opening, Message::Accept, false) => self.phase = Phase::Streaming,
            (Phase::Opening, Message::Reject(_), false) => self.phase = Phase::Rejected,
            (_, Message::Fin, _) if self.may_flow(by) => self.way(by).finished = true,
            (Phase::Rejected, Message::Idle(_), true) => {
                self.way(by).idle = true;
                self.phase = Phase::Closing;
            }
            (Phase::Closing, Message::Idle(_), _) if !self.way(by).idle => {
                self.way(by).idle = true;
                if self.ours.idle && self.theirs.idle {
                    self.phase = Phase::Idle;
                }
            }
            (Phase::Opening | Phase::Streaming | Phase::Rejected | Phase::Closing, Message::Rst(_), _)
                if !self.way(by).idle =>
            {
                self.way(by).reset = true;
                self.phase = Phase::Closed;
            }
            _ => return self.unexpected(frame),
        }
        if self.phase == Phase::Streaming && self.both_finished() {
            self.phase = Phase::Closing;
        }
        Ok(())
    }

    /// The opener's PINGs are answered, and it has not heard that the server leaves.
    fn may_begin(&self, by: By) -> bool {
        match by {
            By::Us => self.may_open(),
            By::Peer => self.theirs.pings.is_empty(),
        }
    }

    fn begin(&mut self) {
        for way in [&mut self.ours, &mut self.theirs] {
            way.finished = false;
            way.idle = false;
            way.bytes = 0;
        }
        self.phase = Phase::Opening;
    }

    /// Whether DATA and FIN may pass. After REJECT only what the opener had under way, to be thrown away.
    fn may_flow(&mut self, by: By) -> bool {
        let from_opener = self.opener() == Some(by);
        let open = match self.phase {
            Phase::Opening => from_opener,
            Phase::Streaming => true,
            Phase::Rejected => from_opener && by == By::Peer,
            _ => false,
        };
        open && !self.way(by).finished
    }

    fn data(&mut self, by: By, length: usize) -> Result<(), Violation> {
        if !self.may_flow(by) {
            return self.unexpected(Frame::Data(length));
        }
        if length == 0 || length > MAX_DATA_PAYLOAD {
            return Err(Violation::DataLength(length));
        }
        let added = u64::try_from(length).unwrap_or(u64::MAX);
        let bytes = self.way(by).bytes.saturating_add(added);
        if self.phase != Phase::Streaming {
            let limit = self.early_limit(by);
            if usize::try_from(bytes).unwrap_or(usize::MAX) > limit {
                return Err(Violation::EarlyData { limit });
            }
        }
        self.way(by).bytes = bytes;
        Ok(())
    }
}
