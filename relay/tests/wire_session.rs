//! The state table of one connection, and two honest sides that never accuse each other.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use securelink_relay::wire::{
    Bye, Checkpoint, Code, Drain, EARLY_DATA, Frame, Hello, Idle, Kind, MAX_DATA_PAYLOAD, Message, Open, Peers, Phase,
    Ping, Reject, ReplicaId, Role, Rst, Session, Side, StreamId, VERSION, Violation, Want,
};
use securelink_relay_config::{Digest, Head, LinkState};

const EARLY: usize = 1000;

fn head() -> Head {
    Head { sequence: 1, current: None, next: None, state: LinkState::Active, hash: Digest([0; 32]) }
}

fn hello(role: Role) -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        role,
        trust_domain: "a.example".parse().unwrap(),
        replica: ReplicaId([1; 16]),
        epoch: 1,
        early_data: u32::try_from(EARLY).unwrap(),
        head: head(),
        pin: None,
    }
}

fn reject(code: Code) -> Message {
    Message::Reject(Reject { code, retry_after_ms: None, text: String::new() })
}

/// A frame of each kind; DATA of one byte.
#[derive(Clone, Debug)]
enum Sample {
    Message(Box<Message>),
    Data(usize),
}

impl Sample {
    fn of(kind: Kind, role: Role) -> Self {
        Self::message(match kind {
            Kind::Data => return Self::Data(1),
            Kind::Hello => Message::Hello(hello(role)),
            Kind::Open => Message::Open(Open {
                stream: StreamId([2; 16]),
                service: "db".into(),
                client: "db".into(),
                traceparent: None,
                deadline_ms: None,
            }),
            Kind::Accept => Message::Accept,
            Kind::Reject => reject(Code::Unavailable),
            Kind::Fin => Message::Fin,
            Kind::Rst => Message::Rst(Rst { code: Code::TargetReset }),
            Kind::Idle => Message::Idle(Idle { sent: 0, received: 0 }),
            Kind::Ping => Message::Ping(Ping { nonce: 7 }),
            Kind::Pong => Message::Pong(Ping { nonce: 7 }),
            Kind::Head => Message::Head(head()),
            Kind::Declare => Message::Declare(b"{}".to_vec()),
            Kind::Drain => Message::Drain(Drain { deadline_ms: 1 }),
            Kind::Want => Message::Want(Want { count: 1 }),
            Kind::Peers => Message::Peers(Peers { replicas: Vec::new() }),
            Kind::Checkpoint => Message::Checkpoint(Checkpoint { size: 0, root: [0; 32], time: 0, signature: vec![1] }),
            Kind::Bye => Message::Bye(Bye { code: Code::Draining, text: String::new() }),
        })
    }

    fn message(message: Message) -> Self {
        Self::Message(Box::new(message))
    }

    fn frame(&self) -> Frame<'_> {
        match self {
            Self::Message(message) => Frame::Message(message),
            Self::Data(length) => Frame::Data(*length),
        }
    }
}

/// Both HELLOs passed, seen from `side`.
fn greeted(side: Side, role: Role) -> Session {
    let message = Message::Hello(hello(role));
    let mut session = match side {
        Side::Dialer => Session::dialer(role),
        Side::Acceptor => Session::acceptor(),
    };
    match side {
        Side::Dialer => {
            session.send(Frame::Message(&message)).unwrap();
            session.receive(Frame::Message(&message)).unwrap();
        }
        Side::Acceptor => {
            session.receive(Frame::Message(&message)).unwrap();
            session.send(Frame::Message(&message)).unwrap();
        }
    }
    session
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Opener,
    Server,
}
use Who::{Opener, Server};

fn we_are(side: Side, role: Role) -> Who {
    if (side == Side::Dialer) == (role == Role::Forward) { Opener } else { Server }
}

/// Lets `who` say `kind`, seen from the session's side.
fn say(session: &mut Session, role: Role, who: Who, kind: Kind) -> Result<(), Violation> {
    let sample = Sample::of(kind, role);
    if who == we_are(session.side(), role) { session.send(sample.frame()) } else { session.receive(sample.frame()) }
}

/// One row of the specification's state table.
struct Row {
    state: &'static str,
    phase: Phase,
    script: &'static [(Who, Kind)],
    /// What each may send, beside HEAD, DRAIN and BYE.
    opener: &'static [Kind],
    server: &'static [Kind],
    /// What the server must take from the opener although the opener may not send it any more.
    crossing: &'static [Kind],
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row { state: "idle", phase: Phase::Idle, script: &[],
        opener: &[Kind::Open, Kind::Ping], server: &[], crossing: &[] },
    Row { state: "pinged", phase: Phase::Idle, script: &[(Opener, Kind::Ping)],
        opener: &[Kind::Ping], server: &[Kind::Pong], crossing: &[] },
    Row { state: "answered", phase: Phase::Idle, script: &[(Opener, Kind::Ping), (Server, Kind::Pong)],
        opener: &[Kind::Open, Kind::Ping], server: &[], crossing: &[] },
    Row { state: "opening", phase: Phase::Opening, script: &[(Opener, Kind::Open)],
        opener: &[Kind::Data, Kind::Fin, Kind::Rst], server: &[Kind::Accept, Kind::Reject, Kind::Rst], crossing: &[] },
    Row { state: "opening, opener finished", phase: Phase::Opening, script: &[(Opener, Kind::Open), (Opener, Kind::Fin)],
        opener: &[Kind::Rst], server: &[Kind::Accept, Kind::Reject, Kind::Rst], crossing: &[] },
    Row { state: "streaming", phase: Phase::Streaming, script: &[(Opener, Kind::Open), (Server, Kind::Accept)],
        opener: &[Kind::Data, Kind::Fin, Kind::Rst], server: &[Kind::Data, Kind::Fin, Kind::Rst], crossing: &[] },
    Row { state: "streaming, opener finished", phase: Phase::Streaming,
        script: &[(Opener, Kind::Open), (Server, Kind::Accept), (Opener, Kind::Fin)],
        opener: &[Kind::Rst], server: &[Kind::Data, Kind::Fin, Kind::Rst], crossing: &[] },
    Row { state: "streaming, server finished", phase: Phase::Streaming,
        script: &[(Opener, Kind::Open), (Server, Kind::Accept), (Server, Kind::Fin)],
        opener: &[Kind::Data, Kind::Fin, Kind::Rst], server: &[Kind::Rst], crossing: &[] },
    Row { state: "closing", phase: Phase::Closing,
        script: &[(Opener, Kind::Open), (Opener, Kind::Fin), (Server, Kind::Accept), (Server, Kind::Fin)],
        opener: &[Kind::Idle, Kind::Rst], server: &[Kind::Idle, Kind::Rst], crossing: &[] },
    Row { state: "closing, opener idle", phase: Phase::Closing,
        script: &[(Opener, Kind::Open), (Server, Kind::Accept), (Server, Kind::Fin), (Opener, Kind::Fin), (Opener, Kind::Idle)],
        opener: &[], server: &[Kind::Idle, Kind::Rst], crossing: &[] },
    Row { state: "closing, server idle", phase: Phase::Closing,
        script: &[(Opener, Kind::Open), (Server, Kind::Accept), (Opener, Kind::Fin), (Server, Kind::Fin), (Server, Kind::Idle)],
        opener: &[Kind::Idle, Kind::Rst], server: &[], crossing: &[] },
    Row { state: "idle again, server first", phase: Phase::Idle,
        script: &[(Opener, Kind::Open), (Server, Kind::Accept), (Opener, Kind::Fin), (Server, Kind::Fin), (Server, Kind::Idle), (Opener, Kind::Idle)],
        opener: &[Kind::Open, Kind::Ping], server: &[], crossing: &[] },
    Row { state: "idle again", phase: Phase::Idle,
        script: &[(Opener, Kind::Open), (Server, Kind::Accept), (Server, Kind::Fin), (Opener, Kind::Fin), (Opener, Kind::Idle), (Server, Kind::Idle)],
        opener: &[Kind::Open, Kind::Ping], server: &[], crossing: &[] },
    Row { state: "rejected", phase: Phase::Rejected, script: &[(Opener, Kind::Open), (Server, Kind::Reject)],
        opener: &[Kind::Idle, Kind::Rst], server: &[Kind::Rst], crossing: &[Kind::Data, Kind::Fin] },
    Row { state: "rejected, opener finished", phase: Phase::Rejected,
        script: &[(Opener, Kind::Open), (Opener, Kind::Fin), (Server, Kind::Reject)],
        opener: &[Kind::Idle, Kind::Rst], server: &[Kind::Rst], crossing: &[] },
    Row { state: "rejected, opener idle", phase: Phase::Closing,
        script: &[(Opener, Kind::Open), (Server, Kind::Reject), (Opener, Kind::Idle)],
        opener: &[], server: &[Kind::Idle, Kind::Rst], crossing: &[] },
    Row { state: "idle after a reject", phase: Phase::Idle,
        script: &[(Opener, Kind::Open), (Server, Kind::Reject), (Opener, Kind::Idle), (Server, Kind::Idle)],
        opener: &[Kind::Open, Kind::Ping], server: &[], crossing: &[] },
];

const ANYTIME: &[Kind] = &[Kind::Head, Kind::Drain, Kind::Bye];

fn reach(row: &Row, side: Side, role: Role) -> Session {
    let mut session = greeted(side, role);
    for (who, kind) in row.script {
        say(&mut session, role, *who, *kind).unwrap_or_else(|error| panic!("{}: {kind}: {error}", row.state));
    }
    assert_eq!(session.phase(), row.phase, "{}", row.state);
    session
}

fn every_view() -> impl Iterator<Item = (Side, Role)> {
    [Side::Dialer, Side::Acceptor]
        .into_iter()
        .flat_map(|side| [Role::Forward, Role::Reverse].into_iter().map(move |role| (side, role)))
}

#[test]
fn the_state_table_holds_for_every_frame_from_both_sides_and_in_both_roles() {
    for row in TABLE {
        for (side, role) in every_view() {
            for (who, kind) in
                [Opener, Server].into_iter().flat_map(|who| Kind::ALL.iter().map(move |kind| (who, *kind)))
            {
                let mut session = reach(row, side, role);
                let ours = who == we_are(side, role);
                let list = if who == Opener { row.opener } else { row.server };
                let crossing = who == Opener && !ours && row.crossing.contains(&kind);
                let allowed = list.contains(&kind) || ANYTIME.contains(&kind) || crossing;
                let answer = say(&mut session, role, who, kind);
                let what = format!("{}: {kind} of the {who:?}, seen by the {side:?} of {role:?}", row.state);
                assert_eq!(answer.is_ok(), allowed, "{what}: {answer:?}");
            }
        }
    }
}

#[test]
fn asking_first_whether_open_is_allowed_agrees_with_sending_it() {
    for row in TABLE {
        for (side, role) in every_view() {
            for bye in [None, Some(Opener), Some(Server)] {
                let mut session = reach(row, side, role);
                if let Some(who) = bye {
                    say(&mut session, role, who, Kind::Bye).unwrap();
                }
                let may = session.may_open();
                let did = session.send(Sample::of(Kind::Open, role).frame()).is_ok();
                assert_eq!(may, did, "{}, {side:?} of {role:?}, after a BYE of {bye:?}", row.state);
            }
        }
    }
}

#[test]
fn asking_first_whether_idle_is_due_agrees_with_sending_it() {
    for row in TABLE {
        for (side, role) in every_view() {
            let mut session = reach(row, side, role);
            let due = session.idle_due();
            let did = session.send(Sample::of(Kind::Idle, role).frame()).is_ok();
            assert_eq!(due, did, "{}, {side:?} of {role:?}", row.state);
        }
    }
}

#[test]
fn after_bye_its_sender_says_nothing_but_idle_and_a_reject_for_draining() {
    for row in TABLE {
        for ((side, role), who) in every_view().flat_map(|view| [(view, Opener), (view, Server)]) {
            for kind in Kind::ALL.iter().filter(|kind| !matches!(kind, Kind::Idle)) {
                let mut session = reach(row, side, role);
                say(&mut session, role, who, Kind::Bye).unwrap();
                assert_eq!(
                    say(&mut session, role, who, *kind),
                    Err(Violation::AfterBye { kind: *kind }),
                    "{}, {who:?}, {side:?} of {role:?}",
                    row.state
                );
            }
        }
    }
}

#[test]
fn an_open_that_crosses_a_bye_is_refused_for_draining_and_the_connection_ends_in_order() {
    let role = Role::Forward;
    let (mut opener, mut server) = (greeted(Side::Dialer, role), greeted(Side::Acceptor, role));
    say(&mut server, role, Server, Kind::Bye).unwrap();
    say(&mut opener, role, Opener, Kind::Open).unwrap();
    say(&mut opener, role, Opener, Kind::Data).unwrap();
    say(&mut opener, role, Server, Kind::Bye).unwrap();
    say(&mut server, role, Opener, Kind::Open).unwrap();
    say(&mut server, role, Opener, Kind::Data).unwrap();
    let no = reject(Code::Draining);
    server.send(Frame::Message(&no)).unwrap();
    opener.receive(Frame::Message(&no)).unwrap();
    for (who, session) in [(Opener, &mut opener), (Opener, &mut server)] {
        say(session, role, who, Kind::Idle).unwrap();
    }
    for session in [&mut server, &mut opener] {
        say(session, role, Server, Kind::Idle).unwrap();
        assert_eq!(session.phase(), Phase::Idle);
    }
    assert!(!opener.may_open());
}

#[test]
fn after_an_abort_what_was_under_way_is_taken_and_nothing_is_sent() {
    for (side, role) in every_view() {
        let us = we_are(side, role);
        let peer = if us == Opener { Server } else { Opener };
        for kind in Kind::ALL {
            let mut aborted = greeted(side, role);
            for (who, step) in [(Opener, Kind::Open), (Server, Kind::Accept), (us, Kind::Rst)] {
                say(&mut aborted, role, who, step).unwrap();
            }
            assert_eq!(aborted.phase(), Phase::Closed);
            assert!(say(&mut aborted, role, us, *kind).is_err(), "{kind} sent after our own RST");
            assert!(say(&mut aborted, role, peer, *kind).is_ok(), "{kind} crossed our RST");
            assert_eq!(say(&mut aborted, role, peer, Kind::Data).is_ok(), *kind != Kind::Rst, "after {kind}");

            let mut lost = greeted(side, role);
            for (who, step) in [(Opener, Kind::Open), (Server, Kind::Accept), (peer, Kind::Rst)] {
                say(&mut lost, role, who, step).unwrap();
            }
            assert!(say(&mut lost, role, us, *kind).is_err(), "{kind} sent after the peer's RST");
            assert!(say(&mut lost, role, peer, *kind).is_err(), "{kind} received after the peer's RST");
        }
    }
}

#[test]
fn control_connections_carry_control_frames_only() {
    use Kind::{Bye, Checkpoint, Declare, Drain, Head, Peers, Ping, Want};
    let common = [Ping, Head, Declare, Drain, Peers, Checkpoint, Bye];
    for side in [Side::Dialer, Side::Acceptor] {
        for (ours, kind) in [true, false].into_iter().flat_map(|ours| Kind::ALL.iter().map(move |kind| (ours, *kind))) {
            let mut session = greeted(side, Role::Control);
            let by_acceptor = (side == Side::Acceptor) == ours;
            let sample = Sample::of(kind, Role::Control);
            let answer = if ours { session.send(sample.frame()) } else { session.receive(sample.frame()) };
            let allowed = common.contains(&kind) || (kind == Want && by_acceptor);
            assert_eq!(answer.is_ok(), allowed, "{kind}, {side:?}, ours: {ours}: {answer:?}");
            assert!(!session.may_open());
        }
    }
}

#[test]
fn a_pong_answers_the_oldest_ping_and_pings_are_bounded() {
    let mut session = greeted(Side::Dialer, Role::Control);
    let asked = |nonce| Message::Ping(Ping { nonce });
    let answered = |nonce| Message::Pong(Ping { nonce });
    for nonce in 0..16 {
        session.send(Frame::Message(&asked(nonce))).unwrap();
    }
    assert_eq!(session.send(Frame::Message(&asked(16))), Err(Violation::Pings));
    assert_eq!(session.receive(Frame::Message(&answered(1))), Err(Violation::Pong { nonce: 1 }));
    for nonce in 0..16 {
        assert!(session.awaits_pong());
        session.receive(Frame::Message(&answered(nonce))).unwrap();
    }
    assert!(!session.awaits_pong());
    assert_eq!(session.receive(Frame::Message(&answered(15))), Err(Violation::Pong { nonce: 15 }));
}

#[test]
fn before_the_greeting_only_hello_or_a_refusal_passes() {
    for kind in Kind::ALL {
        let sample = Sample::of(*kind, Role::Forward);
        let allowed = matches!(kind, Kind::Hello | Kind::Bye);
        assert_eq!(Session::dialer(Role::Forward).send(sample.frame()).is_ok(), allowed, "dialer sends {kind}");
        assert_eq!(Session::acceptor().receive(sample.frame()).is_ok(), allowed, "acceptor receives {kind}");
        assert_eq!(Session::acceptor().send(sample.frame()).is_ok(), *kind == Kind::Bye, "acceptor sends {kind} first");
        let mut dialer = Session::dialer(Role::Forward);
        dialer.send(Sample::of(Kind::Hello, Role::Forward).frame()).unwrap();
        assert_eq!(dialer.receive(sample.frame()).is_ok(), allowed, "dialer receives {kind}");
        let mut acceptor = Session::acceptor();
        acceptor.receive(Sample::of(Kind::Hello, Role::Forward).frame()).unwrap();
        assert_eq!(
            acceptor.receive(sample.frame()).is_ok(),
            *kind == Kind::Bye,
            "acceptor receives {kind} after HELLO"
        );
    }
}

#[test]
fn an_acceptor_takes_the_dialers_role_and_must_repeat_it() {
    let (forward, reverse) = (Message::Hello(hello(Role::Forward)), Message::Hello(hello(Role::Reverse)));
    let wrong = Err(Violation::Role { expected: Role::Forward, said: Role::Reverse });
    let mut acceptor = Session::acceptor();
    assert_eq!(acceptor.role(), None);
    acceptor.receive(Frame::Message(&forward)).unwrap();
    assert_eq!(acceptor.role(), Some(Role::Forward));
    assert_eq!(acceptor.send(Frame::Message(&reverse)), wrong);
    let mut dialer = Session::dialer(Role::Forward);
    assert_eq!(dialer.send(Frame::Message(&reverse)), wrong);
    dialer.send(Frame::Message(&forward)).unwrap();
    assert_eq!(dialer.receive(Frame::Message(&reverse)), wrong);
}

#[test]
fn the_highest_common_version_is_spoken_and_none_is_a_violation_of_its_own() {
    let range = |low, high| Message::Hello(Hello { versions: (low, high), ..hello(Role::Forward) });
    let dialed = |own: (u16, u16), peer: (u16, u16)| {
        let mut session = Session::dialer(Role::Forward);
        session.send(Frame::Message(&range(own.0, own.1))).unwrap();
        session.receive(Frame::Message(&range(peer.0, peer.1))).map(|()| session.version())
    };
    assert_eq!(dialed((1, 1), (1, 1)), Ok(Some(1)));
    assert_eq!(dialed((1, 4), (2, 3)), Ok(Some(3)));
    assert_eq!(dialed((2, 5), (1, 2)), Ok(Some(2)));
    assert_eq!(dialed((1, 1), (2, 3)), Err(Violation::Version { own: (1, 1), peer: (2, 3) }));
    assert_eq!(dialed((4, 5), (1, 3)), Err(Violation::Version { own: (4, 5), peer: (1, 3) }));
    let mut acceptor = Session::acceptor();
    let error = acceptor.receive(Frame::Message(&range(2, 9))).unwrap_err();
    assert_eq!(error, Violation::Version { own: (VERSION, VERSION), peer: (2, 9) });
    assert_eq!(acceptor.peer().map(|peer| peer.versions), Some((2, 9)));
    assert_eq!(acceptor.phase(), Phase::Hello);
    acceptor.send(Sample::of(Kind::Bye, Role::Forward).frame()).unwrap();
}

#[test]
fn early_data_is_held_to_what_the_server_promised() {
    for (side, role) in every_view() {
        let ours = we_are(side, role) == Opener;
        let mut session = greeted(side, role);
        let data = |session: &mut Session, bytes| {
            if ours { session.send(Frame::Data(bytes)) } else { session.receive(Frame::Data(bytes)) }
        };
        assert_eq!(session.early_left(), if ours { EARLY } else { 0 });
        say(&mut session, role, Opener, Kind::Open).unwrap();
        data(&mut session, EARLY - 1).unwrap();
        assert_eq!(session.early_left(), usize::from(ours));
        assert_eq!(data(&mut session, 2), Err(Violation::EarlyData { limit: EARLY }));
        data(&mut session, 1).unwrap();
        assert_eq!(session.early_left(), 0);
        say(&mut session, role, Server, Kind::Accept).unwrap();
        assert_eq!(session.early_left(), usize::MAX);
        data(&mut session, MAX_DATA_PAYLOAD).unwrap();
        for bytes in [0, MAX_DATA_PAYLOAD + 1] {
            assert_eq!(data(&mut session, bytes), Err(Violation::DataLength(bytes)));
        }
    }
}

#[test]
fn a_promise_of_more_early_data_than_the_protocol_allows_is_capped() {
    let mut session = Session::dialer(Role::Forward);
    let generous = Message::Hello(Hello { early_data: u32::MAX, ..hello(Role::Forward) });
    session.send(Frame::Message(&generous)).unwrap();
    session.receive(Frame::Message(&generous)).unwrap();
    assert_eq!(session.early_left(), EARLY_DATA);
}

#[test]
fn early_data_swallowed_after_a_reject_is_still_bounded_and_counted() {
    let role = Role::Forward;
    let mut server = greeted(Side::Acceptor, role);
    say(&mut server, role, Opener, Kind::Open).unwrap();
    say(&mut server, role, Server, Kind::Reject).unwrap();
    server.receive(Frame::Data(EARLY)).unwrap();
    assert_eq!(server.receive(Frame::Data(1)), Err(Violation::EarlyData { limit: EARLY }));
    assert_eq!(server.counts(), Idle { sent: 0, received: 1000 });
}

#[test]
fn counts_hold_payload_bytes_until_the_next_stream_begins() {
    let role = Role::Forward;
    let mut session = greeted(Side::Dialer, role);
    say(&mut session, role, Opener, Kind::Open).unwrap();
    session.send(Frame::Data(10)).unwrap();
    say(&mut session, role, Server, Kind::Accept).unwrap();
    session.send(Frame::Data(20)).unwrap();
    session.receive(Frame::Data(7)).unwrap();
    assert!(!session.finished_sending() && !session.finished_receiving());
    say(&mut session, role, Opener, Kind::Fin).unwrap();
    assert!(session.finished_sending() && !session.both_finished());
    session.receive(Frame::Data(5)).unwrap();
    say(&mut session, role, Server, Kind::Fin).unwrap();
    assert!(session.finished_receiving() && session.both_finished());
    say(&mut session, role, Opener, Kind::Idle).unwrap();
    say(&mut session, role, Server, Kind::Idle).unwrap();
    assert_eq!(session.counts(), Idle { sent: 30, received: 12 });
    say(&mut session, role, Opener, Kind::Open).unwrap();
    assert_eq!(session.counts(), Idle { sent: 0, received: 0 });
    assert!(!session.finished_sending() && !session.finished_receiving());
}

/// One honest side: it looks only at its own session and at what it was told.
struct Party {
    session: Session,
    role: Role,
    /// Frames of this side on their way.
    wire: VecDeque<Sample>,
    owed: VecDeque<Ping>,
    next_nonce: u64,
    /// What the last IDLE of the peer said.
    told: Option<Idle>,
}

/// What an honest side may feel like doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Hello,
    Open,
    Ping,
    Pong,
    Accept,
    Reject,
    Data,
    Fin,
    Idle,
    Rst,
    Head,
    Drain,
    Bye,
    Declare,
}

impl Party {
    fn new(side: Side, role: Role) -> Self {
        let session = match side {
            Side::Dialer => Session::dialer(role),
            Side::Acceptor => Session::acceptor(),
        };
        Self { session, role, wire: VecDeque::new(), owed: VecDeque::new(), next_nonce: 0, told: None }
    }

    /// What it may do now, by the words of the specification and not by asking `send`.
    fn acts(&self) -> Vec<Act> {
        let session = &self.session;
        let mut acts = Vec::new();
        let said_bye = session.said_bye();
        if session.phase() == Phase::Hello {
            let dialer = session.side() == Side::Dialer;
            if !said_bye && (dialer && self.next_nonce == 0 || !dialer && session.peer().is_some()) {
                acts.push(Act::Hello);
            }
            // A dialer gives up, or an acceptor refuses in place of HELLO.
            if !said_bye && (!dialer || self.next_nonce > 0) {
                acts.push(Act::Bye);
            }
            return acts;
        }
        if session.phase() == Phase::Closed {
            return acts;
        }
        let leaving = said_bye || session.heard_bye();
        if session.idle_due() {
            acts.push(Act::Idle);
        }
        if self.role == Role::Control {
            if !said_bye {
                acts.extend([Act::Declare, Act::Head, Act::Drain, Act::Bye]);
                acts.extend((!leaving && !session.awaits_pong()).then_some(Act::Ping));
                acts.extend((!self.owed.is_empty()).then_some(Act::Pong));
            }
            return acts;
        }
        let opener = session.is_opener();
        if session.may_open() {
            acts.push(Act::Open);
        }
        if session.phase() == Phase::Opening && !opener {
            acts.push(Act::Reject);
        }
        if said_bye {
            return acts;
        }
        acts.extend([Act::Head, Act::Drain]);
        let flows = session.phase() == Phase::Streaming || session.phase() == Phase::Opening && opener;
        if flows && !session.finished_sending() {
            acts.push(Act::Fin);
            acts.extend((session.early_left() > 0).then_some(Act::Data));
        }
        let idle_said = session.phase() == Phase::Closing && !session.idle_due();
        if session.phase() != Phase::Idle && !idle_said {
            acts.push(Act::Rst);
        }
        match session.phase() {
            Phase::Idle => {
                acts.push(Act::Bye);
                acts.extend((opener && !leaving && !session.awaits_pong()).then_some(Act::Ping));
                acts.extend((!self.owed.is_empty()).then_some(Act::Pong));
            }
            Phase::Opening if !opener => acts.extend([Act::Accept, Act::Bye]),
            // A side that has nothing more to say but IDLE may say BYE.
            Phase::Closing | Phase::Rejected => acts.push(Act::Bye),
            _ => {}
        }
        acts
    }

    fn act(&mut self, act: Act, amount: usize) -> Result<(), Violation> {
        let sample = match act {
            Act::Data => Sample::Data((amount % 400 + 1).min(self.session.early_left())),
            Act::Ping => Sample::message(Message::Ping(Ping { nonce: self.next_nonce })),
            Act::Pong => Sample::message(Message::Pong(self.owed.pop_front().unwrap())),
            Act::Reject if self.session.said_bye() => Sample::message(reject(Code::Draining)),
            Act::Idle => Sample::message(Message::Idle(self.session.counts())),
            Act::Hello => Sample::of(Kind::Hello, self.role),
            Act::Open => Sample::of(Kind::Open, self.role),
            Act::Accept => Sample::of(Kind::Accept, self.role),
            Act::Reject => Sample::of(Kind::Reject, self.role),
            Act::Fin => Sample::of(Kind::Fin, self.role),
            Act::Rst => Sample::of(Kind::Rst, self.role),
            Act::Head => Sample::of(Kind::Head, self.role),
            Act::Drain => Sample::of(Kind::Drain, self.role),
            Act::Bye => Sample::of(Kind::Bye, self.role),
            Act::Declare => Sample::of(Kind::Declare, self.role),
        };
        self.next_nonce += 1;
        self.session.send(sample.frame())?;
        self.wire.push_back(sample);
        Ok(())
    }

    fn hear(&mut self, sample: &Sample) -> Result<(), Violation> {
        self.session.receive(sample.frame())?;
        match sample.frame() {
            Frame::Message(Message::Ping(ping)) => self.owed.push_back(*ping),
            Frame::Message(Message::Idle(idle)) => self.told = Some(*idle),
            _ => {}
        }
        Ok(())
    }
}

/// Two honest sides and the network between them.
struct Pair {
    parties: [Party; 2],
    /// What was received in which phase, to know that a schedule is worth its name.
    seen: BTreeSet<(String, &'static str)>,
    log: Vec<String>,
}

impl Pair {
    fn new(role: Role) -> Self {
        let parties = [Party::new(Side::Dialer, role), Party::new(Side::Acceptor, role)];
        Self { parties, seen: BTreeSet::new(), log: Vec::new() }
    }

    fn step(&mut self, choice: u32, wild: bool) {
        let who = (choice & 1) as usize;
        let deliver = choice >> 1 & 1 == 0;
        let pick = (choice >> 2) as usize;
        if deliver {
            self.deliver(who);
            return;
        }
        let mut acts = self.parties[who].acts();
        acts.retain(|act| wild || !matches!(act, Act::Rst | Act::Bye));
        // Partings are rare, or no schedule would get to anything else.
        acts.retain(|act| !matches!(act, Act::Rst | Act::Bye) || pick.is_multiple_of(7));
        if let Some(act) = acts.get(pick / 7 % acts.len().max(1)).copied() {
            self.act(who, act, pick);
        }
    }

    fn act(&mut self, who: usize, act: Act, amount: usize) {
        self.log.push(format!("{who} {act:?}"));
        if let Err(violation) = self.parties[who].act(act, amount) {
            panic!("an honest side may not send: {violation}\n{}", self.log.join("\n"));
        }
    }

    /// Delivers the oldest frame that `who` has sent; true if there was one.
    fn deliver(&mut self, who: usize) -> bool {
        let Some(sample) = self.parties[who].wire.pop_front() else { return false };
        let other = &mut self.parties[1 - who];
        let kind = sample.frame().kind();
        self.log.push(format!("{kind} of {who} arrives"));
        let bye = if other.session.said_bye() { ", bye said" } else { "" };
        self.seen.insert((format!("{}{bye}", other.session.phase()), kind.as_str()));
        if let Err(violation) = other.hear(&sample) {
            panic!("an honest peer is accused: {violation}\n{}", self.log.join("\n"));
        }
        true
    }

    /// Lets both bring to an end what they have begun, and nothing new.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut moved = self.deliver(0) | self.deliver(1);
            for who in 0..2 {
                let acts = self.parties[who].acts();
                let finishing = [Act::Hello, Act::Pong, Act::Idle, Act::Accept, Act::Reject, Act::Fin];
                if let Some(act) = finishing.into_iter().find(|act| acts.contains(act)) {
                    self.act(who, act, 0);
                    moved = true;
                }
            }
            if !moved {
                return self.check();
            }
        }
        panic!("the two sides never come to rest\n{}", self.log.join("\n"));
    }

    fn check(&self) {
        let log = self.log.join("\n");
        let [a, b] = &self.parties;
        if [a, b].iter().any(|party| party.session.phase() == Phase::Closed) {
            assert!(
                [a, b].iter().all(|party| party.session.phase() == Phase::Closed),
                "one side missed the RST\n{log}"
            );
            return;
        }
        if [a, b].iter().any(|party| party.session.phase() == Phase::Hello) {
            assert!(b.session.said_bye() && a.session.heard_bye(), "no greeting and no refusal\n{log}");
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            assert_eq!(one.session.phase(), Phase::Idle, "not idle again\n{log}");
            assert_eq!(one.session.counts().sent, other.session.counts().received, "counts differ\n{log}");
            assert!(one.told.is_none_or(|told| told == other.session.counts()), "IDLE said otherwise\n{log}");
        }
    }
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Forward), Just(Role::Reverse), Just(Role::Control)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_honest_sides_never_accuse_each_other_and_come_back_to_idle(
        role in any_role(),
        wild in any::<bool>(),
        choices in prop::collection::vec(any::<u32>(), 0..400),
    ) {
        let mut pair = Pair::new(role);
        for choice in choices {
            pair.step(choice, wild);
        }
        pair.settle();
    }
}

#[test]
fn the_random_schedules_reach_every_crossing_that_matters() {
    let mut seen = BTreeSet::new();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..4000 {
        let role = if round % 2 == 0 { Role::Forward } else { Role::Reverse };
        let mut pair = Pair::new(role);
        for _ in 0..200 {
            pair.step(random.u32(..), true);
        }
        pair.settle();
        seen.append(&mut pair.seen);
    }
    let crossings = [
        ("rejected", "DATA"),
        ("rejected", "FIN"),
        ("rejected", "RST"),
        ("idle, bye said", "OPEN"),
        ("idle, bye said", "PING"),
        ("rejected, bye said", "DATA"),
        ("opening, bye said", "FIN"),
        ("closing", "RST"),
        ("closing", "BYE"),
        ("closing", "IDLE"),
        ("closed", "ACCEPT"),
        ("closed", "REJECT"),
        ("closed", "IDLE"),
        ("closed", "RST"),
        ("closed", "DATA"),
        ("streaming", "HEAD"),
        ("opening", "BYE"),
        ("idle", "PONG"),
        ("hello", "BYE"),
        ("hello, bye said", "HELLO"),
    ];
    for (phase, kind) in crossings {
        assert!(seen.contains(&(phase.to_owned(), kind)), "no schedule had {kind} arrive in phase {phase}");
    }
}
