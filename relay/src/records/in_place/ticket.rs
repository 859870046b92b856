//! Session tickets (RFC 8446 section 4.6.1), which are read and forgotten: resumption is off.

use std::collections::HashSet;

use rustls::InvalidMessage;

/// The one extension a ticket may have that means something.
const EARLY_DATA: u16 = 42;

/// Whether `body` is one.
pub(super) fn check(body: &[u8]) -> Result<(), InvalidMessage> {
    let mut body = Fields(body);
    // ticket_lifetime and ticket_age_add.
    body.take(8)?;
    let nonce = body.number::<1>()?;
    body.take(nonce.into())?;
    if body.vector()?.is_empty() {
        return Err(InvalidMessage::EmptyTicketValue);
    }
    let (mut extensions, mut seen) = (Fields(body.vector()?), HashSet::new());
    while !extensions.0.is_empty() {
        let (kind, value) = (extensions.number::<2>()?, extensions.vector()?);
        if kind == EARLY_DATA && value.len() != 4 {
            return Err(missing());
        }
        if !seen.insert(kind) {
            return Err(InvalidMessage::DuplicateExtension(kind));
        }
    }
    if body.0.is_empty() { Ok(()) } else { Err(InvalidMessage::TrailingData("NewSessionTicket")) }
}

fn missing() -> InvalidMessage {
    InvalidMessage::MissingData("NewSessionTicket")
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], InvalidMessage> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(missing)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of so many bytes.
    fn number<const BYTES: usize>(&mut self) -> Result<u16, InvalidMessage> {
        Ok(self.take(BYTES)?.iter().fold(0, |number, byte| number << 8 | u16::from(*byte)))
    }

    /// A vector of up to 2^16 bytes behind its length.
    fn vector(&mut self) -> Result<&'a [u8], InvalidMessage> {
        let length = self.number::<2>()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_ticket_is_one() {
        let ticket = |nonce: &[u8], ticket: &[u8], rest: &[u8]| check(&[&[0; 8][..], nonce, ticket, rest].concat());
        let long = [&[255][..], &[7; 255]].concat();
        for (nonce, value, rest) in [
            (&[0][..], &[0, 1, 7][..], &[0, 0][..]),
            (&long, &[0, 2, 7, 7], &[0, 0]),
            (&[1, 7], &[0, 1, 7], &[0, 8, 0, 42, 0, 4, 0, 0, 0, 0]),
            (&[1, 7], &[0, 1, 7], &[0, 9, 0, 1, 0, 0, 0, 2, 0, 1, 9]),
        ] {
            assert_eq!(ticket(nonce, value, rest), Ok(()), "{rest:?}");
        }
        for (what, nonce, value, rest, error) in [
            ("no ticket", &[0][..], &[0, 0][..], &[0, 0][..], InvalidMessage::EmptyTicketValue),
            ("half a nonce", &[2], &[7], &[], missing()),
            ("half a ticket", &[0], &[0, 2, 7], &[], missing()),
            ("no extensions", &[0], &[0, 1, 7], &[], missing()),
            ("half an extension", &[0], &[0, 1, 7], &[0, 3, 0, 1, 0], missing()),
            ("early data of three bytes", &[0], &[0, 1, 7], &[0, 7, 0, 42, 0, 3, 0, 0, 0], missing()),
            ("one twice", &[0], &[0, 1, 7], &[0, 8, 0, 1, 0, 0, 0, 1, 0, 0], InvalidMessage::DuplicateExtension(1)),
            ("something behind", &[0], &[0, 1, 7], &[0, 0, 0], InvalidMessage::TrailingData("NewSessionTicket")),
        ] {
            assert_eq!(ticket(nonce, value, rest), Err(error), "{what}");
        }
        assert_eq!(check(&[0; 7]), Err(missing()));
    }
}
