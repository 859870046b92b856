//! Reading and writing of the fields inside payloads: fixed ones first, then `{type:u16, len:u16, value}`.

use super::frame::{Kind, WireError};

/// Set in the number of a TLV that a receiver must not ignore (contracts 1).
const CRITICAL: u16 = 0x8000;

/// Numbers of TLVs, each counted within its message. The bit [`CRITICAL`] is set where a receiver that skipped the
/// field would misread the message, or grant more than the sender meant.
pub(super) mod number {
    pub(crate) const HELLO_TRUST_DOMAIN: u16 = 0x8001;
    pub(crate) const HELLO_HEAD: u16 = 0x8002;
    pub(crate) const HELLO_PIN: u16 = 0x0003;
    pub(crate) const HEAD_CURRENT: u16 = 0x8001;
    pub(crate) const HEAD_NEXT: u16 = 0x8002;
    pub(crate) const OPEN_SERVICE: u16 = 0x8001;
    pub(crate) const OPEN_CLIENT: u16 = 0x8002;
    pub(crate) const OPEN_TRACEPARENT: u16 = 0x0003;
    pub(crate) const OPEN_DEADLINE: u16 = 0x0004;
    pub(crate) const REJECT_RETRY_AFTER: u16 = 0x0001;
    pub(crate) const REJECT_TEXT: u16 = 0x0002;
    pub(crate) const BYE_TEXT: u16 = 0x0002;
    pub(crate) const CHECKPOINT_SIGNATURE: u16 = 0x8001;
}

/// Takes fields off the front of a payload.
pub(super) struct Reader<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(kind: Kind, payload: &'a [u8]) -> Self {
        Self { kind, rest: payload }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated(self.kind))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated(self.kind))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads all that is left as TLVs and returns the values of the known ones, in the order of `known`.
    pub(super) fn tlvs<const N: usize>(mut self, known: [u16; N]) -> Result<[Option<&'a [u8]>; N], WireError> {
        let mut found = [None; N];
        while !self.rest.is_empty() {
            let number = self.u16()?;
            let length = self.u16()?;
            let value = self.take(usize::from(length))?;
            let slot = found.iter_mut().zip(known).find_map(|(slot, known)| (known == number).then_some(slot));
            match slot {
                Some(slot) if slot.is_none() => *slot = Some(value),
                Some(_) => return Err(WireError::Duplicate { kind: self.kind, number }),
                None if number & CRITICAL != 0 => return Err(WireError::Critical { kind: self.kind, number }),
                None => {}
            }
        }
        Ok(found)
    }

    /// Refuses TLVs that must be understood: for messages that know none.
    pub(super) fn end(self) -> Result<(), WireError> {
        self.tlvs([]).map(|[]| ())
    }
}

/// Appends one TLV. A value longer than 16 bits can say is cut; every caller bounds its values far below.
pub(super) fn put(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.get(..usize::from(length)).unwrap_or(value));
}

/// The longest beginning of `text` that has at most `max` bytes and ends between characters.
pub(super) fn clipped(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
