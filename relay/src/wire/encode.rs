//! Messages to bytes. Never fails: what is longer than its bound is cut at a character's boundary, for the peer would
//! refuse the whole connection over it.

use securelink_relay_config::{Head, MAX_DECLARATION_BYTES};

use super::bounds::{MAX_CLIENT, MAX_PEERS, MAX_SERVICE, MAX_SIGNATURE, MAX_TEXT, is_traceparent};
use super::frame::{Header, Kind};
use super::head;
use super::message::{Bye, Checkpoint, Hello, Message, Open, Peers, Reject, Role};
use super::tlv::{clipped, number, put};

impl Message {
    /// What frame carries it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Open(_) => Kind::Open,
            Self::Accept => Kind::Accept,
            Self::Reject(_) => Kind::Reject,
            Self::Fin => Kind::Fin,
            Self::Rst(_) => Kind::Rst,
            Self::Idle(_) => Kind::Idle,
            Self::Ping(_) => Kind::Ping,
            Self::Pong(_) => Kind::Pong,
            Self::Head(_) => Kind::Head,
            Self::Declare(_) => Kind::Declare,
            Self::Drain(_) => Kind::Drain,
            Self::Want(_) => Kind::Want,
            Self::Peers(_) => Kind::Peers,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Bye(_) => Kind::Bye,
        }
    }

    /// Appends the whole frame, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; Header::LEN]);
        self.encode_payload(out);
        let payload = out.len() - start - Header::LEN;
        let header = Header { kind: self.kind(), length: payload }.encode();
        for (byte, value) in out.iter_mut().skip(start).zip(header) {
            *byte = value;
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => encode_hello(hello, out),
            Self::Open(open) => encode_open(open, out),
            Self::Accept | Self::Fin => {}
            Self::Reject(reject) => encode_reject(reject, out),
            Self::Rst(rst) => out.extend_from_slice(&rst.code.number().to_be_bytes()),
            Self::Idle(idle) => {
                out.extend_from_slice(&idle.sent.to_be_bytes());
                out.extend_from_slice(&idle.received.to_be_bytes());
            }
            Self::Ping(ping) | Self::Pong(ping) => out.extend_from_slice(&ping.nonce.to_be_bytes()),
            Self::Head(value) => head::encode(value, out),
            Self::Declare(json) => out.extend(json.iter().take(MAX_DECLARATION_BYTES)),
            Self::Drain(drain) => out.extend_from_slice(&drain.deadline_ms.to_be_bytes()),
            Self::Want(want) => out.extend_from_slice(&want.count.to_be_bytes()),
            Self::Peers(peers) => encode_peers(peers, out),
            Self::Checkpoint(checkpoint) => encode_checkpoint(checkpoint, out),
            Self::Bye(bye) => encode_bye(bye, out),
        }
    }
}

fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    out.extend_from_slice(&hello.versions.0.to_be_bytes());
    out.extend_from_slice(&hello.versions.1.to_be_bytes());
    out.push(match hello.role {
        Role::Control => 0,
        Role::Forward => 1,
        Role::Reverse => 2,
    });
    out.extend_from_slice(&hello.epoch.to_be_bytes());
    out.extend_from_slice(&hello.replica.0);
    out.extend_from_slice(&hello.early_data.to_be_bytes());
    put(out, number::HELLO_TRUST_DOMAIN, hello.trust_domain.as_str().as_bytes());
    put(out, number::HELLO_HEAD, &head_bytes(&hello.head));
    if let Some(pin) = &hello.pin {
        put(out, number::HELLO_PIN, pin.as_bytes());
    }
}

fn head_bytes(value: &Head) -> Vec<u8> {
    let mut out = Vec::new();
    head::encode(value, &mut out);
    out
}

fn encode_open(open: &Open, out: &mut Vec<u8>) {
    out.extend_from_slice(&open.stream.0);
    put(out, number::OPEN_SERVICE, clipped(&open.service, MAX_SERVICE).as_bytes());
    put(out, number::OPEN_CLIENT, clipped(&open.client, MAX_CLIENT).as_bytes());
    // A trace context that is none is left out: tracing must not cost a connection.
    if let Some(traceparent) = open.traceparent.as_deref().filter(|text| is_traceparent(text)) {
        put(out, number::OPEN_TRACEPARENT, traceparent.as_bytes());
    }
    if let Some(deadline) = open.deadline_ms {
        put(out, number::OPEN_DEADLINE, &deadline.to_be_bytes());
    }
}

fn encode_reject(reject: &Reject, out: &mut Vec<u8>) {
    out.extend_from_slice(&reject.code.number().to_be_bytes());
    if let Some(retry_after) = reject.retry_after_ms {
        put(out, number::REJECT_RETRY_AFTER, &retry_after.to_be_bytes());
    }
    put_text(out, number::REJECT_TEXT, &reject.text);
}

fn encode_peers(peers: &Peers, out: &mut Vec<u8>) {
    let count = peers.replicas.len().min(MAX_PEERS);
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(peers.replicas.iter().take(count).flat_map(|replica| replica.0));
}

fn encode_checkpoint(checkpoint: &Checkpoint, out: &mut Vec<u8>) {
    out.extend_from_slice(&checkpoint.size.to_be_bytes());
    out.extend_from_slice(&checkpoint.root);
    out.extend_from_slice(&checkpoint.time.to_be_bytes());
    let signature = &checkpoint.signature;
    put(out, number::CHECKPOINT_SIGNATURE, signature.get(..MAX_SIGNATURE).unwrap_or(signature));
}

fn encode_bye(bye: &Bye, out: &mut Vec<u8>) {
    out.extend_from_slice(&bye.code.number().to_be_bytes());
    put_text(out, number::BYE_TEXT, &bye.text);
}

fn put_text(out: &mut Vec<u8>, number: u16, text: &str) {
    if !text.is_empty() {
        put(out, number, clipped(text, MAX_TEXT).as_bytes());
    }
}
