//! The reader of a connection: what comes out of bytes does not depend on how they arrive, equals what a plain reader
//! without buffers makes of them, can be written again the same, and holds no more memory than its bounds.

use securelink_relay::fuzzing::{Event, Outcome, converse};
use securelink_relay::wire::{
    Frame, Header, Hello, Kind, MAX_DATA_PAYLOAD, Message, Open, Phase, Ping, ReplicaId, Role, Session, StreamId,
    VERSION,
};
use securelink_relay_config::{Digest, Head, LinkState};

use super::script::Script;

/// First size of the buffer for reading: one TLS record.
const RECORD: usize = 16 * 1024 + 32;

/// Reads the input, beginning where its first byte says a connection stands.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let start = script.byte();
    let count = usize::from(script.byte() % 64);
    // Behind each piece a wait, or the reader would take them together.
    let pieces: Vec<usize> = script.take(count).iter().flat_map(|size| [usize::from(*size).pow(2), 0]).collect();
    let bytes = script.0;
    let whole = converse(session(start), bytes, &[], answer);
    let parts = converse(session(start), bytes, &pieces, answer);
    assert_eq!(parts.events, whole.events, "what arrives depends on how it arrives");
    assert_eq!((&parts.end, &parts.sent), (&whole.end, &whole.sent), "the end depends on how it arrives");
    let plain = plainly(session(start), bytes);
    assert_eq!((&plain.events, &plain.end, &plain.sent), (&whole.events, &whole.end, &whole.sent), "not the protocol");
    for outcome in [&whole, &parts] {
        let most = (RECORD + 4 * bytes.len()).min(2 * (Header::LEN + MAX_DATA_PAYLOAD));
        assert!(outcome.held <= most, "{} bytes held for {}", outcome.held, bytes.len());
    }
    for event in &whole.events {
        if let Event::Message(message) = event {
            assert_eq!(read_back(message), **message);
        }
    }
}

fn read_back(message: &Message) -> Message {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let (header, payload) = bytes.split_first_chunk().expect("a header");
    let header = Header::parse(*header).expect("a header of ours is one");
    assert_eq!((header.kind, header.length), (message.kind(), payload.len()));
    Message::decode(header.kind, payload).expect("a message of ours is one")
}

/// The protocol without buffers, pieces and waits: all bytes are there.
fn plainly(mut session: Session, mut bytes: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let end = (|| {
        say(&mut session, None, &mut outcome.sent)?;
        while let Some((header, rest)) = bytes.split_first_chunk() {
            let header = Header::parse(*header).map_err(broken)?;
            if header.kind == Kind::Data {
                session.receive(Frame::Data(header.length)).map_err(broken)?;
                let (data, rest) = rest.split_at(header.length.min(rest.len()));
                match outcome.events.last_mut() {
                    _ if data.is_empty() => {}
                    Some(Event::Data(before)) => before.extend_from_slice(data),
                    _ => outcome.events.push(Event::Data(data.to_vec())),
                }
                bytes = rest;
                continue;
            }
            let Some((payload, rest)) = rest.split_at_checked(header.length) else { break };
            let message = Message::decode(header.kind, payload).map_err(broken)?;
            session.receive(Frame::Message(&message)).map_err(broken)?;
            bytes = rest;
            let said = say(&mut session, Some(&message), &mut outcome.sent);
            outcome.events.push(Event::Message(Box::new(message)));
            said?;
        }
        Err("the connection ended".to_owned())
    })();
    outcome.end = end.map_or_else(|why: String| why, |(): ()| String::new());
    outcome
}

fn broken(error: impl std::fmt::Display) -> String {
    format!("the peer broke the protocol: {error}")
}

fn say(session: &mut Session, mut heard: Option<&Message>, sent: &mut Vec<u8>) -> Result<(), String> {
    let mut waiting = Vec::new();
    while let Some(message) = answer(session, heard.take()) {
        session.send(Frame::Message(&message)).map_err(broken)?;
        message.encode(&mut waiting);
    }
    sent.append(&mut waiting);
    Ok(())
}

/// A side that takes every stream, has nothing to say on it, and opens the next.
fn answer(session: &Session, heard: Option<&Message>) -> Option<Message> {
    let finish = session.phase() == Phase::Streaming && session.finished_receiving() && !session.finished_sending();
    match heard {
        Some(Message::Hello(hello)) if session.phase() == Phase::Hello => Some(Message::Hello(hello_for(hello.role))),
        Some(Message::Ping(Ping { nonce })) => Some(Message::Pong(Ping { nonce: *nonce })),
        Some(Message::Open(_)) => Some(Message::Accept),
        _ if session.idle_due() => Some(Message::Idle(session.counts())),
        _ if finish => Some(Message::Fin),
        _ if session.may_open() => Some(Message::Open(Open {
            stream: StreamId([7; 16]),
            service: "db".to_owned(),
            client: "c".to_owned(),
            traceparent: None,
            deadline_ms: None,
        })),
        _ => None,
    }
}

fn session(start: u8) -> Session {
    let role = [Role::Forward, Role::Reverse, Role::Control][usize::from(start & 3) % 3];
    let hello = Message::Hello(hello_for(role));
    let dialer = start & 4 != 0;
    let mut session = if dialer { Session::dialer(role) } else { Session::acceptor() };
    // A dialer has always spoken first.
    let greeted = start & 8 != 0;
    let script = match (dialer, greeted) {
        (true, true) => [Some(true), Some(false)],
        (true, false) => [Some(true), None],
        (false, true) => [Some(false), Some(true)],
        (false, false) => [None, None],
    };
    for ours in script.into_iter().flatten() {
        let frame = Frame::Message(&hello);
        let passed = if ours { session.send(frame) } else { session.receive(frame) };
        passed.expect("two HELLOs pass");
    }
    session
}

fn hello_for(role: Role) -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        role,
        trust_domain: "a.example".parse().expect("a trust domain"),
        replica: ReplicaId([1; 16]),
        epoch: 1,
        early_data: 1000,
        head: Head { sequence: 1, current: None, next: None, state: LinkState::Active, hash: Digest([0; 32]) },
        pin: None,
    }
}
