//! Laws of the codec: what is written is read back the same, and nothing that arrives can do more than be refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use securelink_id::{Fingerprint, TrustDomain};
use securelink_relay::wire::{
    Bye, Checkpoint, Code, Drain, Header, Hello, Idle, Kind, MAX_CONTROL_PAYLOAD, MAX_DATA_PAYLOAD, Message, Open,
    Peers, Ping, Reject, ReplicaId, Role, Rst, StreamId, Want, WireError,
};
use securelink_relay_config::{AgreementTerm, Digest, Head, LinkState, MAX_DECLARATION_BYTES, Millis};

fn term() -> impl Strategy<Value = AgreementTerm> {
    (any::<[u8; 32]>(), any::<u64>(), any::<Option<u64>>()).prop_map(|(digest, from, until)| AgreementTerm {
        digest: Digest(digest),
        from: Millis(from),
        until: until.map(Millis),
    })
}

fn head() -> impl Strategy<Value = Head> {
    let state = prop_oneof![Just(LinkState::Active), Just(LinkState::Suspended), Just(LinkState::Cut)];
    (any::<u64>(), prop::option::of(term()), prop::option::of(term()), state, any::<[u8; 32]>())
        .prop_map(|(sequence, current, next, state, hash)| Head { sequence, current, next, state, hash: Digest(hash) })
}

fn trust_domain() -> impl Strategy<Value = TrustDomain> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,63}){0,3}".prop_map(|text| text.parse().unwrap())
}

fn code() -> impl Strategy<Value = Code> {
    any::<u16>().prop_map(|number| Code::from_number(number % 40))
}

/// A text of at most `max` bytes, of any characters.
fn text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..max).prop_map(move |chars| {
        let mut text: String = chars.into_iter().collect();
        text.truncate(text.floor_char_boundary(max));
        text
    })
}

fn hello() -> impl Strategy<Value = Message> {
    let role = prop_oneof![Just(Role::Control), Just(Role::Forward), Just(Role::Reverse)];
    let numbers = (any::<u16>(), any::<u16>(), any::<u64>(), any::<[u8; 16]>(), any::<u32>());
    (numbers, role, trust_domain(), head(), any::<Option<[u8; 32]>>()).prop_map(
        |((a, b, epoch, replica, early_data), role, trust_domain, head, pin)| {
            Message::Hello(Hello {
                versions: (a.min(b), a.max(b)),
                role,
                trust_domain,
                replica: ReplicaId(replica),
                epoch,
                early_data,
                head,
                pin: pin.map(Fingerprint::from_sha256),
            })
        },
    )
}

fn open() -> impl Strategy<Value = Message> {
    let traceparent = prop::option::of("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}");
    let service = "_?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    (any::<[u8; 16]>(), service, text(255), traceparent, any::<Option<u32>>()).prop_map(
        |(stream, service, client, traceparent, deadline_ms)| {
            Message::Open(Open { stream: StreamId(stream), service, client, traceparent, deadline_ms })
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let checkpoint = (any::<u64>(), any::<[u8; 32]>(), any::<u64>(), prop::collection::vec(any::<u8>(), 1..=128));
    prop_oneof![
        hello(),
        open(),
        Just(Message::Accept),
        Just(Message::Fin),
        (code(), any::<Option<u32>>(), text(1024)).prop_map(|(code, retry_after_ms, text)| Message::Reject(Reject {
            code,
            retry_after_ms,
            text
        })),
        code().prop_map(|code| Message::Rst(Rst { code })),
        any::<(u64, u64)>().prop_map(|(sent, received)| Message::Idle(Idle { sent, received })),
        any::<u64>().prop_map(|nonce| Message::Ping(Ping { nonce })),
        any::<u64>().prop_map(|nonce| Message::Pong(Ping { nonce })),
        head().prop_map(Message::Head),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Message::Declare),
        any::<u32>().prop_map(|deadline_ms| Message::Drain(Drain { deadline_ms })),
        any::<u16>().prop_map(|count| Message::Want(Want { count })),
        prop::collection::vec(any::<[u8; 16]>().prop_map(ReplicaId), 0..=64)
            .prop_map(|replicas| Message::Peers(Peers { replicas })),
        checkpoint.prop_map(|(size, root, time, signature)| Message::Checkpoint(Checkpoint {
            size,
            root,
            time,
            signature
        })),
        (code(), text(1024)).prop_map(|(code, text)| Message::Bye(Bye { code, text })),
    ]
}

/// Header and payload of the one frame in `bytes`.
fn split(bytes: &[u8]) -> (Header, &[u8]) {
    let (header, payload) = bytes.split_first_chunk().expect("a whole header");
    let header = Header::parse(*header).expect("a header of ours");
    assert_eq!(header.length, payload.len());
    (header, payload)
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn with_tlv(payload: &[u8], number: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [payload, &number.to_be_bytes(), &length.to_be_bytes(), value].concat()
}

/// Messages whose payload is not read field by field, or not at all.
fn has_tlvs(kind: Kind) -> bool {
    !matches!(kind, Kind::Declare | Kind::Data)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_read_back_as_it_was(message in message(), before in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut out = before.clone();
        message.encode(&mut out);
        prop_assert_eq!(&out[..before.len()], before.as_slice());
        let (header, payload) = split(&out[before.len()..]);
        prop_assert_eq!(header.kind, message.kind());
        prop_assert_eq!(Message::decode(header.kind, payload), Ok(message));
    }

    #[test]
    fn arbitrary_payloads_are_read_or_refused_and_what_is_read_can_be_written(
        kind in prop::sample::select(Kind::ALL),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(message) = Message::decode(kind, &payload) {
            let bytes = encoded(&message);
            let (header, payload) = split(&bytes);
            prop_assert_eq!(Message::decode(header.kind, payload), Ok(message));
        }
    }

    #[test]
    fn a_valid_payload_with_one_byte_changed_is_read_or_refused(
        message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&message);
        let (header, _) = split(&bytes);
        if header.length > 0 {
            let at = Header::LEN + at.index(header.length);
            bytes[at] = byte;
            if let Ok(read) = Message::decode(header.kind, &bytes[Header::LEN..]) {
                prop_assert_eq!(read.kind(), header.kind);
            }
        }
    }

    #[test]
    fn arbitrary_headers_are_read_or_refused_and_never_over_the_bound_of_their_kind(bytes in any::<[u8; 4]>()) {
        match Header::parse(bytes) {
            Ok(header) => {
                prop_assert!(header.length <= header.kind.max_payload());
                prop_assert!(header.kind != Kind::Data || header.length > 0);
                prop_assert_eq!(header.encode(), bytes);
            }
            Err(WireError::UnknownKind(number)) => prop_assert!(Kind::from_number(number).is_none()),
            Err(WireError::TooLong { kind, length, max }) => prop_assert!(length > max && max == kind.max_payload()),
            Err(WireError::EmptyData) => prop_assert_eq!(bytes, [0x05, 0, 0, 0]),
            Err(other) => prop_assert!(false, "a header cannot be wrong this way: {}", other),
        }
    }

    #[test]
    fn a_message_cut_short_anywhere_is_refused_or_lacks_only_whole_optional_fields(message in message()) {
        let bytes = encoded(&message);
        let (header, payload) = split(&bytes);
        prop_assume!(has_tlvs(header.kind));
        for length in 0..payload.len() {
            match Message::decode(header.kind, &payload[..length]) {
                Err(_) => {}
                Ok(shorter) => {
                    // Only where the cut falls between TLVs: what was read is then exactly what is there.
                    prop_assert_ne!(&shorter, &message);
                    prop_assert_eq!(&encoded(&shorter)[Header::LEN..], &payload[..length]);
                }
            }
        }
    }

    #[test]
    fn bytes_behind_the_last_field_are_refused(message in message(), trailing in prop::collection::vec(any::<u8>(), 1..4)) {
        let bytes = encoded(&message);
        let (header, payload) = split(&bytes);
        prop_assume!(has_tlvs(header.kind));
        let longer = [payload, &trailing].concat();
        prop_assert_eq!(Message::decode(header.kind, &longer), Err(WireError::Truncated(header.kind)));
    }

    #[test]
    fn an_unknown_field_is_ignored_and_a_critical_one_refused(
        message in message(), number in 0x0100_u16..0x8000, value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = encoded(&message);
        let (header, payload) = split(&bytes);
        prop_assume!(has_tlvs(header.kind));
        let (kind, critical) = (header.kind, number | 0x8000);
        let twice = with_tlv(&with_tlv(payload, number, &value), number, &value);
        prop_assert_eq!(Message::decode(kind, &twice), Ok(message));
        let refused = Message::decode(kind, &with_tlv(payload, critical, &value));
        prop_assert_eq!(refused, Err(WireError::Critical { kind, number: critical }));
    }

    #[test]
    fn over_long_texts_are_cut_between_characters_and_stay_readable(
        text in prop::collection::vec(any::<char>(), 900..1400), client in prop::collection::vec(any::<char>(), 200..400),
    ) {
        let (text, client): (String, String) = (text.into_iter().collect(), client.into_iter().collect());
        let messages = [
            Message::Bye(Bye { code: Code::Denied, text: text.clone() }),
            Message::Reject(Reject { code: Code::Denied, retry_after_ms: None, text: text.clone() }),
            Message::Open(Open {
                stream: StreamId([0; 16]),
                service: "db".into(),
                client: client.clone(),
                traceparent: Some("none".into()),
                deadline_ms: None,
            }),
        ];
        for message in messages {
            let bytes = encoded(&message);
            let (header, payload) = split(&bytes);
            let (whole, read, max) = match Message::decode(header.kind, payload).unwrap() {
                Message::Bye(bye) => (&text, bye.text, 1024),
                Message::Reject(reject) => (&text, reject.text, 1024),
                Message::Open(open) => {
                    prop_assert_eq!(open.traceparent, None);
                    (&client, open.client, 255)
                }
                other => panic!("{other:?}"),
            };
            prop_assert!(whole.starts_with(&read) && read.len() <= max);
            prop_assert!(read.len() + 3 >= whole.len().min(max), "cut further than needed: {}", read.len());
        }
    }
}

#[test]
fn lists_and_blobs_over_their_bound_are_cut_when_written() {
    let peers = Message::Peers(Peers { replicas: vec![ReplicaId([3; 16]); 100] });
    let declare = Message::Declare(vec![b' '; MAX_DECLARATION_BYTES + 1]);
    let checkpoint = Message::Checkpoint(Checkpoint { size: 0, root: [0; 32], time: 0, signature: vec![1; 200] });
    for (message, length) in [(peers, 2 + 64 * 16), (declare, MAX_DECLARATION_BYTES), (checkpoint, 48 + 4 + 128)] {
        let bytes = encoded(&message);
        let (header, payload) = split(&bytes);
        assert_eq!(header.length, length);
        Message::decode(header.kind, payload).unwrap();
    }
}

#[test]
fn every_kind_has_a_bound_and_one_byte_more_is_refused_before_it_is_read() {
    for kind in Kind::ALL {
        let max = kind.max_payload();
        assert!(max <= MAX_CONTROL_PAYLOAD || matches!(kind, Kind::Data | Kind::Declare), "{kind}");
        let header = |length| Header { kind: *kind, length }.encode();
        assert_eq!(Header::parse(header(max)), Ok(Header { kind: *kind, length: max }));
        assert_eq!(Header::parse(header(max + 1)), Err(WireError::TooLong { kind: *kind, length: max + 1, max }));
        assert!(Message::decode(*kind, &vec![0; max + 1]).is_err());
    }
    assert_eq!(Kind::Data.max_payload(), MAX_DATA_PAYLOAD);
    assert_eq!(Header::LEN + MAX_DATA_PAYLOAD, 16 * 16_384);
    assert_eq!(Message::decode(Kind::Data, b"x"), Err(WireError::NotAMessage));
}

#[test]
fn codes_keep_their_numbers_and_names() {
    let names = [
        "DENIED",
        "NOT_AGREED",
        "UNKNOWN_EXPORT",
        "UNAVAILABLE",
        "OVERLOADED",
        "DRAINING",
        "TIMEOUT",
        "SUSPENDED",
        "CUT",
        "EXPIRED",
        "TRUST_CHANGED",
        "PROTOCOL",
        "VERSION",
        "TARGET_RESET",
        "PEER_LOST",
        "LIMIT",
        "INTERNAL",
    ];
    assert_eq!(Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(), names);
    for (number, code) in (1..).zip(Code::ALL) {
        assert_eq!(
            (code.number(), Code::from_number(number), code.to_string()),
            (number, *code, code.as_str().to_owned())
        );
    }
    let strange = Code::from_number(999);
    assert_eq!(
        (strange, strange.as_str(), strange.to_string()),
        (Code::Unknown(999), "UNKNOWN", "UNKNOWN(999)".into())
    );
}
