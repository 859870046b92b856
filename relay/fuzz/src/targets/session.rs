//! The state machine of a connection, both sides: whatever one side may send, in whatever order frames cross, the other
//! takes; what a side says it may do, it may; and an arbitrary peer gets no further than the bounds.

use std::collections::VecDeque;

use securelink_relay::wire::{
    Bye, Checkpoint, Code, Drain, EARLY_DATA, Frame, Hello, Idle, Kind, MAX_DATA_PAYLOAD, Message, Open, Peers, Phase,
    Ping, Reject, ReplicaId, Role, Rst, Session, Side, StreamId, VERSION, Violation, Want,
};
use securelink_relay_config::{Digest, Head, LinkState};

use super::script::Script;

/// Most PINGs of one side without their PONG, by the specification.
const MAX_PINGS: usize = 16;

enum Sample {
    Message(Box<Message>),
    Data(usize),
}

impl Sample {
    fn frame(&self) -> Frame<'_> {
        match self {
            Self::Message(message) => Frame::Message(message),
            Self::Data(length) => Frame::Data(*length),
        }
    }
}

/// One side: its session, the frames it has sent that are not there yet, and the PINGs it has to answer.
struct Party {
    session: Session,
    role: Role,
    wire: VecDeque<Sample>,
    owed: VecDeque<u64>,
    promised: u32,
}

/// Plays the script.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let settings = script.byte();
    let role = [Role::Forward, Role::Reverse, Role::Control][usize::from(settings & 3) % 3];
    let promised = [0, 1000, u32::MAX][usize::from(settings >> 2 & 3) % 3];
    let party = |session| Party { session, role, wire: VecDeque::new(), owed: VecDeque::new(), promised };
    let mut parties = [party(Session::dialer(role)), party(Session::acceptor())];
    if settings & 0x80 == 0 {
        honest(&mut parties, &mut script);
    } else {
        let [dialer, acceptor] = parties;
        hostile(if settings & 0x40 == 0 { dialer } else { acceptor }, &mut script);
    }
}

/// Both sides send whatever their own session lets pass.
fn honest(parties: &mut [Party; 2], script: &mut Script<'_>) {
    while !script.is_empty() {
        let (what, detail) = (script.byte(), script.byte());
        let who = usize::from(what & 1);
        if what & 2 == 0 {
            let sample = parties[who].sample(what >> 2, detail);
            parties[who].try_send(sample);
        } else if !deliver(parties, who) {
            return;
        }
    }
    while !parties.iter().all(|party| party.wire.is_empty()) {
        if !(0..2).all(|who| deliver(parties, who)) {
            return;
        }
    }
    let [one, other] = parties;
    if [&one, &other].iter().all(|party| !matches!(party.session.phase(), Phase::Hello | Phase::Closed)) {
        assert_eq!(one.session.phase(), other.session.phase(), "nothing is under way and the sides differ");
        assert_eq!(one.session.counts().sent, other.session.counts().received, "bytes were lost or invented");
        assert_eq!(other.session.counts().sent, one.session.counts().received, "bytes were lost or invented");
    }
}

/// Brings the oldest frame of `who` to the other side; false where the two have no version in common.
fn deliver(parties: &mut [Party; 2], who: usize) -> bool {
    let Some(sample) = parties[who].wire.pop_front() else { return true };
    match parties[1 - who].hear(&sample) {
        Ok(()) => true,
        Err(Violation::Version { .. }) => false,
        Err(violation) => panic!("{:?} was let pass here and refused there: {violation}", sample.frame().kind()),
    }
}

/// The peer sends whatever it likes; this side answers as far as its session lets it.
fn hostile(mut party: Party, script: &mut Script<'_>) {
    while !script.is_empty() {
        let (what, detail) = (script.byte(), script.byte());
        let sample = party.sample(what >> 2, detail);
        if what & 1 == 0 {
            party.try_send(sample);
            party.wire.clear();
        } else if party.hear(&sample).is_err() {
            return; // BYE PROTOCOL, and closed.
        }
        party.owed.truncate(MAX_PINGS);
        let session = &party.session;
        if matches!(session.phase(), Phase::Opening | Phase::Rejected) && !session.is_opener() {
            let most = u64::from(party.promised).min(EARLY_DATA as u64);
            assert!(session.counts().received <= most, "more than was promised before ACCEPT");
        }
    }
}

impl Party {
    /// Sends if the session lets it pass, which must agree with what the session said before.
    fn try_send(&mut self, sample: Sample) {
        let (may_open, idle_due, early) = (self.session.may_open(), self.session.idle_due(), self.session.early_left());
        let flowing = matches!(self.session.phase(), Phase::Opening | Phase::Streaming) && !self.session.said_bye();
        let sent = self.session.send(sample.frame()).is_ok();
        match sample.frame() {
            Frame::Message(Message::Open(_)) => assert_eq!(may_open, sent, "OPEN"),
            Frame::Message(Message::Idle(_)) => assert_eq!(idle_due, sent, "IDLE"),
            Frame::Data(length) if flowing => {
                assert_eq!(length >= 1 && length <= early.min(MAX_DATA_PAYLOAD), sent, "DATA of {length}");
            }
            Frame::Message(Message::Pong(pong)) if sent => assert_eq!(self.owed.pop_front(), Some(pong.nonce)),
            _ => {}
        }
        if sent {
            self.wire.push_back(sample);
        }
    }

    fn hear(&mut self, sample: &Sample) -> Result<(), Violation> {
        let aborted = self.session.phase() == Phase::Closed;
        self.session.receive(sample.frame())?;
        if let Frame::Message(Message::Ping(ping)) = sample.frame()
            && !aborted
        {
            self.owed.push_back(ping.nonce);
            assert!(self.owed.len() <= MAX_PINGS, "a peer makes us remember PINGs without end");
        }
        Ok(())
    }

    fn sample(&self, kind: u8, detail: u8) -> Sample {
        let kinds = Kind::ALL;
        let small = u64::from(detail);
        let code = Code::from_number(u16::from(detail % 20));
        let message = match kinds[usize::from(kind) % kinds.len()] {
            Kind::Data => {
                return Sample::Data(
                    [0, 1, 999, 1000, 1001, EARLY_DATA, MAX_DATA_PAYLOAD, 300_000][usize::from(detail % 8)],
                );
            }
            Kind::Hello => Message::Hello(self.hello(detail)),
            Kind::Open => Message::Open(Open {
                stream: StreamId([detail; 16]),
                service: "db".to_owned(),
                client: "c".to_owned(),
                traceparent: None,
                deadline_ms: None,
            }),
            Kind::Accept => Message::Accept,
            Kind::Reject => Message::Reject(Reject { code, retry_after_ms: None, text: String::new() }),
            Kind::Fin => Message::Fin,
            Kind::Rst => Message::Rst(Rst { code }),
            Kind::Idle => Message::Idle(Idle { sent: small, received: small }),
            Kind::Ping => Message::Ping(Ping { nonce: small }),
            Kind::Pong => {
                let oldest = self.owed.front().copied().filter(|_| detail & 1 == 0);
                Message::Pong(Ping { nonce: oldest.unwrap_or(small) })
            }
            Kind::Head => Message::Head(head()),
            Kind::Declare => Message::Declare(vec![detail]),
            Kind::Drain => Message::Drain(Drain { deadline_ms: u32::from(detail) }),
            Kind::Want => Message::Want(Want { count: u16::from(detail) }),
            Kind::Peers => Message::Peers(Peers { replicas: vec![ReplicaId([detail; 16])] }),
            Kind::Checkpoint => {
                Message::Checkpoint(Checkpoint { size: small, root: [0; 32], time: small, signature: vec![1] })
            }
            Kind::Bye => Message::Bye(Bye { code, text: String::new() }),
        };
        Sample::Message(Box::new(message))
    }

    fn hello(&self, detail: u8) -> Hello {
        let versions = [(VERSION, VERSION), (VERSION, 4), (2, 3)][usize::from(detail) / 86];
        let role = match detail % 32 {
            7 => Role::Control,
            8 => Role::Forward,
            9 => Role::Reverse,
            _ => self.role,
        };
        let side = if self.session.side() == Side::Dialer { 1 } else { 2 };
        Hello {
            versions,
            role,
            trust_domain: "a.example".parse().expect("a trust domain"),
            replica: ReplicaId([side; 16]),
            epoch: 1,
            early_data: self.promised,
            head: head(),
            pin: None,
        }
    }
}

fn head() -> Head {
    Head { sequence: 1, current: None, next: None, state: LinkState::Active, hash: Digest([0; 32]) }
}
