//! The bounds of fields, one place for reading and writing.

/// Longest service: a DNS label, or `_` and a DNS label.
pub(super) const MAX_SERVICE: usize = 1 + MAX_LABEL;
/// Longest DNS label (RFC 1123).
const MAX_LABEL: usize = 63;
/// Longest name of a client.
pub(super) const MAX_CLIENT: usize = 255;
/// Longest text for people.
pub(super) const MAX_TEXT: usize = 1024;
/// Most siblings in PEERS.
pub(super) const MAX_PEERS: usize = 64;
/// Longest signature: ECDSA over P-256 in ASN.1 has at most 72 bytes, over P-384 104.
pub(super) const MAX_SIGNATURE: usize = 128;

/// Whether `text` may name a service.
pub(super) fn is_service(text: &str) -> bool {
    is_label(text.strip_prefix('_').unwrap_or(text))
}

/// Whether `label` is a DNS label, as the name of an export is.
pub(crate) fn is_label(label: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    label.len() <= MAX_LABEL
        && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && edge(label.as_bytes().first())
        && edge(label.as_bytes().last())
}

/// Whether `text` has the shape of a W3C traceparent, `00-<32 digits>-<16 digits>-<2 digits>` in lower case.
pub(super) fn is_traceparent(text: &str) -> bool {
    text.len() == 55
        && text.bytes().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}
