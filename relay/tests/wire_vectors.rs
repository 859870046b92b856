//! The codec against `docs/spec/vectors.json`, which others implement from.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use securelink_id::Fingerprint;
use securelink_pki::key::verify_leaf_signature;
use securelink_relay::wire::{
    Bye, Checkpoint, Code, Drain, Header, Hello, Idle, Kind, Message, Open, Peers, Ping, Reject, ReplicaId, Role, Rst,
    StreamId, Want, WireError,
};
use securelink_relay_config::{AgreementTerm, Declaration, Digest, Head, LinkState, Millis};
use serde_json::Value;

fn specification(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spec").join(file)).unwrap()
}

fn vectors(list: &str) -> Vec<Value> {
    let text = specification("vectors.json");
    let all: Value = serde_json::from_str(&text).unwrap();
    let list = all[list].as_array().unwrap().clone();
    let names: BTreeSet<&str> = list.iter().map(|vector| text_of(&vector["name"])).collect();
    assert_eq!(names.len(), list.len(), "two vectors have one name");
    list
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text is missing: {value}"))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    let digits = text_of(value).as_bytes();
    assert_eq!(digits.len() % 2, 0);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array_of<const N: usize>(value: &Value) -> [u8; N] {
    bytes_of(value).try_into().unwrap()
}

fn number_of<T: TryFrom<u64>>(value: &Value) -> T {
    let number = value.as_u64().unwrap_or_else(|| panic!("a number is missing: {value}"));
    T::try_from(number).ok().expect("a number in the field's range")
}

/// `field` of `value` where it is there.
fn optional<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field)
}

fn code_of(value: &Value) -> Code {
    let text = text_of(value);
    let unknown = || text.strip_prefix("UNKNOWN(")?.strip_suffix(')')?.parse().ok().map(Code::Unknown);
    Code::ALL.iter().copied().find(|code| code.as_str() == text).or_else(unknown).expect("a code")
}

fn kind_of(value: &Value) -> Kind {
    Kind::ALL.iter().copied().find(|kind| kind.as_str() == text_of(value)).expect("a kind")
}

fn term_of(value: &Value) -> AgreementTerm {
    AgreementTerm {
        digest: Digest(array_of(&value["digest"])),
        from: Millis(number_of(&value["from"])),
        until: optional(value, "until").map(|until| Millis(number_of(until))),
    }
}

fn head_of(value: &Value) -> Head {
    Head {
        sequence: number_of(&value["sequence"]),
        current: optional(value, "current").map(term_of),
        next: optional(value, "next").map(term_of),
        state: match text_of(&value["state"]) {
            "Active" => LinkState::Active,
            "Suspended" => LinkState::Suspended,
            "Cut" => LinkState::Cut,
            other => panic!("state {other}"),
        },
        hash: Digest(array_of(&value["hash"])),
    }
}

fn hello_of(value: &Value) -> Hello {
    Hello {
        versions: (number_of(&value["versions"][0]), number_of(&value["versions"][1])),
        role: match text_of(&value["role"]) {
            "control" => Role::Control,
            "forward" => Role::Forward,
            "reverse" => Role::Reverse,
            other => panic!("role {other}"),
        },
        trust_domain: text_of(&value["trust_domain"]).parse().unwrap(),
        replica: ReplicaId(array_of(&value["replica"])),
        epoch: number_of(&value["epoch"]),
        early_data: number_of(&value["early_data"]),
        head: head_of(&value["head"]),
        pin: optional(value, "pin").map(|pin| Fingerprint::from_sha256(array_of(pin))),
    }
}

fn open_of(value: &Value) -> Open {
    Open {
        stream: StreamId(array_of(&value["stream"])),
        service: text_of(&value["service"]).into(),
        client: text_of(&value["client"]).into(),
        traceparent: optional(value, "traceparent").map(|text| text_of(text).into()),
        deadline_ms: optional(value, "deadline_ms").map(number_of),
    }
}

fn message_of(kind: Kind, value: &Value) -> Message {
    let text = || text_of(&value["text"]).to_owned();
    let ping = || Ping { nonce: u64::from_be_bytes(array_of(&value["nonce"])) };
    match kind {
        Kind::Data => panic!("DATA is no message"),
        Kind::Hello => Message::Hello(hello_of(value)),
        Kind::Open => Message::Open(open_of(value)),
        Kind::Accept => Message::Accept,
        Kind::Reject => Message::Reject(Reject {
            code: code_of(&value["code"]),
            retry_after_ms: optional(value, "retry_after_ms").map(number_of),
            text: text(),
        }),
        Kind::Fin => Message::Fin,
        Kind::Rst => Message::Rst(Rst { code: code_of(&value["code"]) }),
        Kind::Idle => Message::Idle(Idle { sent: number_of(&value["sent"]), received: number_of(&value["received"]) }),
        Kind::Ping => Message::Ping(ping()),
        Kind::Pong => Message::Pong(ping()),
        Kind::Head => Message::Head(head_of(value)),
        Kind::Declare => Message::Declare(text_of(&value["json"]).into()),
        Kind::Drain => Message::Drain(Drain { deadline_ms: number_of(&value["deadline_ms"]) }),
        Kind::Want => Message::Want(Want { count: number_of(&value["count"]) }),
        Kind::Peers => {
            let replicas = value["replicas"].as_array().unwrap();
            Message::Peers(Peers { replicas: replicas.iter().map(|id| ReplicaId(array_of(id))).collect() })
        }
        Kind::Checkpoint => Message::Checkpoint(Checkpoint {
            size: number_of(&value["size"]),
            root: array_of(&value["root"]),
            time: number_of(&value["time"]),
            signature: bytes_of(&value["signature"]),
        }),
        Kind::Bye => Message::Bye(Bye { code: code_of(&value["code"]), text: text() }),
    }
}

/// Reads a whole frame the way a connection does: header first, then the payload it announces.
fn read(frame: &[u8]) -> Result<Message, WireError> {
    let (header, payload) = frame.split_first_chunk().expect("a header");
    let header = Header::parse(*header)?;
    assert_eq!(header.length, payload.len(), "the vector is not one whole frame");
    Message::decode(header.kind, payload)
}

#[test]
fn valid_frames_decode_to_their_values_and_encode_to_the_same_bytes() {
    for vector in vectors("valid") {
        let (name, kind, frame) = (text_of(&vector["name"]), kind_of(&vector["kind"]), bytes_of(&vector["frame_hex"]));
        if kind == Kind::Data {
            let payload = bytes_of(&vector["value"]["payload"]);
            assert_eq!(Header::parse(*frame.first_chunk().unwrap()), Ok(Header { kind, length: payload.len() }));
            assert_eq!(frame[Header::LEN..], payload, "{name}");
            continue;
        }
        let message = message_of(kind, &vector["value"]);
        assert_eq!(read(&frame).as_ref(), Ok(&message), "{name}");
        let canonical = optional(&vector, "canonical_hex").map_or(frame, bytes_of);
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded, canonical, "{name}");
    }
}

#[test]
fn every_kind_of_frame_and_every_code_has_a_vector() {
    let valid = vectors("valid");
    for kind in Kind::ALL {
        assert!(valid.iter().any(|vector| kind_of(&vector["kind"]) == *kind), "{kind}");
    }
    for code in Code::ALL {
        let is_it = |vector: &Value| optional(&vector["value"], "code").is_some_and(|value| code_of(value) == *code);
        assert!(valid.iter().any(is_it), "{code}");
    }
}

#[test]
fn invalid_frames_are_refused_each_with_its_error() {
    let mut seen = BTreeSet::new();
    for vector in vectors("invalid") {
        let name = text_of(&vector["name"]);
        let error = read(&bytes_of(&vector["frame_hex"])).expect_err(name);
        let error = match error {
            WireError::UnknownKind(_) => "unknown-type",
            WireError::TooLong { .. } => "too-long",
            WireError::EmptyData => "empty-data",
            WireError::Truncated(_) => "truncated",
            WireError::Missing { .. } => "missing-field",
            WireError::Duplicate { .. } => "duplicate-field",
            WireError::Critical { .. } => "critical-field",
            WireError::Value { .. } => "bad-value",
            WireError::NotAMessage => panic!("{name}: DATA is no message"),
        };
        assert_eq!(error, text_of(&vector["error"]), "{name}");
        seen.insert(error);
    }
    assert_eq!(seen.len(), 8, "some error has no vector: {seen:?}");
}

/// The cells of the specification's table rows that begin with `first`.
fn rows(text: &str, first: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    text.lines().filter(|line| line.starts_with('|')).map(cells).filter(|cells| cells[0] == first).collect()
}

#[test]
fn the_specifications_tables_of_frames_and_codes_are_those_of_the_code() {
    let text = specification("securelink-1.md");
    for kind in Kind::ALL {
        let number = format!("{:#04x}", kind.number());
        let row = rows(&text, kind.as_str()).into_iter().find(|row| row.get(1) == Some(&number));
        let row = row.unwrap_or_else(|| panic!("the table of frames has no {kind} {number}"));
        let digits: String = row[2].split(',').next().unwrap().chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits, kind.max_payload().to_string(), "the bound of {kind}");
    }
    for code in Code::ALL {
        let found = rows(&text, code.as_str()).iter().any(|row| row[1] == code.number().to_string());
        assert!(found, "the table of codes has no {code} {}", code.number());
    }
}

#[test]
fn the_declaration_vector_is_a_declaration_and_heads_hash_its_bytes() {
    let valid = vectors("valid");
    let find = |name: &str| valid.iter().find(|vector| vector["name"] == name).unwrap()["value"].clone();
    let json = find("declare")["json"].as_str().unwrap().to_owned();
    assert_eq!(Declaration::from_bytes(json.as_bytes()).unwrap().to_bytes(), json.as_bytes());
    assert_eq!(head_of(&find("head: current with an end")).hash, Digest::of(json.as_bytes()));
}

#[test]
fn the_answer_to_a_greeting_is_its_hash_and_a_signature_over_the_bytes_the_vector_shows() {
    for vector in vectors("greetings") {
        let (server, opener, text) = (text_of(&vector["server"]), text_of(&vector["opener"]), text_of(&vector["text"]));
        let context = format!("greet/{server}/{opener}");
        let length = u64::try_from(context.len()).unwrap().to_be_bytes();
        let signed =
            [b"securelink/v1 leaf signature\0".as_slice(), &length, context.as_bytes(), text.as_bytes()].concat();
        assert_eq!(bytes_of(&vector["signed_hex"]), signed);
        let answer = bytes_of(&vector["answer_hex"]);
        let (hash, signature) = answer.split_at(32);
        assert_eq!(hash, Digest::of(text.as_bytes()).0);
        let key = bytes_of(&vector["leaf_public_key_hex"]);
        verify_leaf_signature(&key, &context, text.as_bytes(), signature).unwrap();
        let other = format!("greet/{opener}/{server}");
        assert!(verify_leaf_signature(&key, &other, text.as_bytes(), signature).is_err());
    }
}
