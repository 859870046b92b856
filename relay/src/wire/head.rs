//! The layout of a declaration's head: the payload of HEAD, and a field of HELLO.

use securelink_relay_config::{AgreementTerm, Digest, Head, LinkState, Millis};

use super::frame::{Kind, WireError};
use super::tlv::{self, Reader, number};

pub(super) fn encode(head: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(&head.sequence.to_be_bytes());
    out.push(match head.state {
        LinkState::Active => 0,
        LinkState::Suspended => 1,
        LinkState::Cut => 2,
    });
    out.extend_from_slice(&head.hash.0);
    for (number, term) in [(number::HEAD_CURRENT, &head.current), (number::HEAD_NEXT, &head.next)] {
        if let Some(term) = term {
            tlv::put(out, number, &encode_term(term));
        }
    }
}

fn encode_term(term: &AgreementTerm) -> Vec<u8> {
    let mut out = Vec::with_capacity(48);
    out.extend_from_slice(&term.digest.0);
    out.extend_from_slice(&term.from.0.to_be_bytes());
    out.extend(term.until.iter().flat_map(|until| until.0.to_be_bytes()));
    out
}

pub(super) fn decode(payload: &[u8]) -> Result<Head, WireError> {
    let mut reader = Reader::new(Kind::Head, payload);
    let sequence = reader.u64()?;
    let state = match reader.u8()? {
        0 => LinkState::Active,
        1 => LinkState::Suspended,
        2 => LinkState::Cut,
        _ => {
            let rule = "0 active, 1 suspended or 2 cut";
            return Err(WireError::Value { kind: Kind::Head, field: "state", rule });
        }
    };
    let hash = Digest(reader.array()?);
    let [current, next] = reader.tlvs([number::HEAD_CURRENT, number::HEAD_NEXT])?;
    let current = current.map(|value| decode_term("current agreement", value)).transpose()?;
    let next = next.map(|value| decode_term("next agreement", value)).transpose()?;
    Ok(Head { sequence, current, next, state, hash })
}

fn decode_term(field: &'static str, value: &[u8]) -> Result<AgreementTerm, WireError> {
    if !matches!(value.len(), 40 | 48) {
        return Err(WireError::Value { kind: Kind::Head, field, rule: "40 bytes, or 48 with an end" });
    }
    let mut reader = Reader::new(Kind::Head, value);
    let digest = Digest(reader.array()?);
    let from = Millis(reader.u64()?);
    let until = if value.len() == 48 { Some(Millis(reader.u64()?)) } else { None };
    Ok(AgreementTerm { digest, from, until })
}
