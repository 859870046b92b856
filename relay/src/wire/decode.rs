//! Bytes to messages. Strict: every bound is checked, nothing is repaired, and no length is trusted.

use std::str;

use securelink_id::Fingerprint;
use securelink_relay_config::MAX_DECLARATION_BYTES;

use super::bounds::{MAX_CLIENT, MAX_PEERS, MAX_SIGNATURE, MAX_TEXT, is_service, is_traceparent};
use super::code::Code;
use super::frame::{Kind, WireError};
use super::head;
use super::message::{
    Bye, Checkpoint, Drain, Hello, Idle, Message, Open, Peers, Ping, Reject, ReplicaId, Role, Rst, StreamId, Want,
};
use super::tlv::{Reader, number};

impl Message {
    /// Reads a payload. DATA is refused here: its payload is not gathered.
    pub fn decode(kind: Kind, payload: &[u8]) -> Result<Self, WireError> {
        if payload.len() > kind.max_payload() {
            return Err(WireError::TooLong { kind, length: payload.len(), max: kind.max_payload() });
        }
        let mut reader = Reader::new(kind, payload);
        match kind {
            Kind::Data => Err(WireError::NotAMessage),
            Kind::Hello => decode_hello(reader).map(Self::Hello),
            Kind::Open => decode_open(reader).map(Self::Open),
            Kind::Accept => reader.end().map(|()| Self::Accept),
            Kind::Reject => decode_reject(reader).map(Self::Reject),
            Kind::Fin => reader.end().map(|()| Self::Fin),
            Kind::Rst => {
                let code = Code::from_number(reader.u16()?);
                reader.end().map(|()| Self::Rst(Rst { code }))
            }
            Kind::Idle => {
                let (sent, received) = (reader.u64()?, reader.u64()?);
                reader.end().map(|()| Self::Idle(Idle { sent, received }))
            }
            Kind::Ping => decode_ping(reader).map(Self::Ping),
            Kind::Pong => decode_ping(reader).map(Self::Pong),
            Kind::Head => head::decode(payload).map(Self::Head),
            Kind::Declare => Ok(Self::Declare(payload.get(..MAX_DECLARATION_BYTES).unwrap_or(payload).to_vec())),
            Kind::Drain => {
                let deadline_ms = reader.u32()?;
                reader.end().map(|()| Self::Drain(Drain { deadline_ms }))
            }
            Kind::Want => {
                let count = reader.u16()?;
                reader.end().map(|()| Self::Want(Want { count }))
            }
            Kind::Peers => decode_peers(reader).map(Self::Peers),
            Kind::Checkpoint => decode_checkpoint(reader).map(Self::Checkpoint),
            Kind::Bye => decode_bye(reader).map(Self::Bye),
        }
    }
}

/// A field of one message, for errors that name it.
#[derive(Clone, Copy)]
struct Field {
    kind: Kind,
    name: &'static str,
}

impl Field {
    const fn of(kind: Kind, name: &'static str) -> Self {
        Self { kind, name }
    }

    const fn broken(self, rule: &'static str) -> WireError {
        WireError::Value { kind: self.kind, field: self.name, rule }
    }

    fn required(self, value: Option<&[u8]>) -> Result<&[u8], WireError> {
        value.ok_or(WireError::Missing { kind: self.kind, field: self.name })
    }

    fn text(self, value: &[u8]) -> Result<&str, WireError> {
        str::from_utf8(value).map_err(|_| self.broken("UTF-8"))
    }

    fn u32(self, value: Option<&[u8]>) -> Result<Option<u32>, WireError> {
        let number = |value: &[u8]| value.try_into().map(u32::from_be_bytes).map_err(|_| self.broken("4 bytes"));
        value.map(number).transpose()
    }

    /// A text for people; absent means empty.
    fn note(self, value: Option<&[u8]>) -> Result<String, WireError> {
        let value = value.unwrap_or_default();
        if value.len() > MAX_TEXT {
            return Err(self.broken("at most 1024 bytes"));
        }
        self.text(value).map(str::to_owned)
    }
}

fn decode_hello(mut reader: Reader<'_>) -> Result<Hello, WireError> {
    let field = |name| Field::of(Kind::Hello, name);
    let versions = (reader.u16()?, reader.u16()?);
    if versions.0 > versions.1 {
        return Err(field("versions").broken("the lowest is not above the highest"));
    }
    let role = match reader.u8()? {
        0 => Role::Control,
        1 => Role::Forward,
        2 => Role::Reverse,
        _ => return Err(field("role").broken("0 control, 1 forward or 2 reverse")),
    };
    let epoch = reader.u64()?;
    let replica = ReplicaId(reader.array()?);
    let early_data = reader.u32()?;
    let [trust_domain, own_head, pin] =
        reader.tlvs([number::HELLO_TRUST_DOMAIN, number::HELLO_HEAD, number::HELLO_PIN])?;
    let domain = field("trust domain");
    let trust_domain = domain.text(domain.required(trust_domain)?)?;
    let trust_domain = trust_domain.parse().map_err(|_| domain.broken("a trust domain of at most 255 bytes"))?;
    let head = head::decode(field("head").required(own_head)?)?;
    let pin = match pin {
        None => None,
        Some(value) => {
            let hash = value.try_into().map_err(|_| field("pin").broken("32 bytes"))?;
            Some(Fingerprint::from_sha256(hash))
        }
    };
    Ok(Hello { versions, role, trust_domain, replica, epoch, early_data, head, pin })
}

fn decode_open(mut reader: Reader<'_>) -> Result<Open, WireError> {
    let field = |name| Field::of(Kind::Open, name);
    let stream = StreamId(reader.array()?);
    let [service, client, traceparent, deadline] =
        reader.tlvs([number::OPEN_SERVICE, number::OPEN_CLIENT, number::OPEN_TRACEPARENT, number::OPEN_DEADLINE])?;
    let name = field("service");
    let service = name.text(name.required(service)?)?;
    if !is_service(service) {
        return Err(name.broken("a DNS label of at most 63 bytes in lower case, or `_` before one"));
    }
    let name = field("client");
    let client = name.required(client)?;
    if client.len() > MAX_CLIENT {
        return Err(name.broken("at most 255 bytes"));
    }
    let client = name.text(client)?;
    let name = field("traceparent");
    let traceparent = traceparent.map(|value| name.text(value)).transpose()?;
    if !traceparent.is_none_or(is_traceparent) {
        return Err(name.broken("55 bytes as in W3C Trace Context"));
    }
    Ok(Open {
        stream,
        service: service.to_owned(),
        client: client.to_owned(),
        traceparent: traceparent.map(str::to_owned),
        deadline_ms: field("deadline").u32(deadline)?,
    })
}

fn decode_reject(mut reader: Reader<'_>) -> Result<Reject, WireError> {
    let code = Code::from_number(reader.u16()?);
    let [retry_after, text] = reader.tlvs([number::REJECT_RETRY_AFTER, number::REJECT_TEXT])?;
    let retry_after_ms = Field::of(Kind::Reject, "retry after").u32(retry_after)?;
    Ok(Reject { code, retry_after_ms, text: Field::of(Kind::Reject, "text").note(text)? })
}

fn decode_ping(mut reader: Reader<'_>) -> Result<Ping, WireError> {
    let nonce = reader.u64()?;
    reader.end().map(|()| Ping { nonce })
}

fn decode_peers(mut reader: Reader<'_>) -> Result<Peers, WireError> {
    let count = usize::from(reader.u16()?);
    if count > MAX_PEERS {
        return Err(Field::of(Kind::Peers, "count").broken("at most 64"));
    }
    let replicas = (0..count).map(|_| reader.array().map(ReplicaId)).collect::<Result<_, _>>()?;
    reader.end().map(|()| Peers { replicas })
}

fn decode_checkpoint(mut reader: Reader<'_>) -> Result<Checkpoint, WireError> {
    let (size, root, time) = (reader.u64()?, reader.array()?, reader.u64()?);
    let [signature] = reader.tlvs([number::CHECKPOINT_SIGNATURE])?;
    let field = Field::of(Kind::Checkpoint, "signature");
    let signature = field.required(signature)?;
    if signature.is_empty() || signature.len() > MAX_SIGNATURE {
        return Err(field.broken("1 to 128 bytes"));
    }
    Ok(Checkpoint { size, root, time, signature: signature.to_vec() })
}

fn decode_bye(mut reader: Reader<'_>) -> Result<Bye, WireError> {
    let code = Code::from_number(reader.u16()?);
    let [text] = reader.tlvs([number::BYE_TEXT])?;
    Ok(Bye { code, text: Field::of(Kind::Bye, "text").note(text)? })
}
