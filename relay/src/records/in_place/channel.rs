//! TLS 1.3 after the handshake, without sockets: what is sent becomes records, records become what was received, and every
//! rule of RFC 8446 sections 4.6.3, 5 and 6 on the way is held here. docs/records.md lists them.

use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};

use super::key::{HEADER, Key, MAX_CONTENT, OVERHEAD, Record, batch, sealed};
use super::ticket;
use crate::scratch::Buffer;

/// Longest message of a handshake that is put together, as in rustls.
const MAX_MESSAGE: usize = 0xffff;
/// Key updates that a peer may ask us to do in a row without a byte in between, as in rustls.
const MAX_KEY_UPDATES: u8 = 32;
/// Empty records in a row, as in rustls.
const MAX_EMPTY: u8 = 32;
/// `user_canceled` on one connection, as in rustls.
const MAX_WARNINGS: u8 = 4;
/// Tickets on one connection. A server gives a few with its handshake; each costs far more than it takes to send.
const MAX_TICKETS: u8 = 32;

/// What came of looking at what has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// So many bytes of content.
    Content(usize),
    /// Nothing until so many more bytes have arrived, at least.
    Missing(usize),
    /// The peer said `close_notify`.
    Closed,
}

/// See the module.
pub(crate) struct Channel {
    sealing: Key,
    opening: Key,
    limit: u64,
    /// The peer asked for a new key of ours: it comes before the next content.
    update_due: bool,
    /// Content at the front of what has arrived, opened where it lies, and what of its record stands behind it.
    opened: usize,
    behind: usize,
    /// A message that is not whole yet.
    message: Vec<u8>,
    key_updates: u8,
    empty: u8,
    warnings: u8,
    /// That may still come.
    tickets: u8,
    /// Their `close_notify`, and ours.
    closed: bool,
    finished: bool,
    /// Nothing goes any more, either way.
    failed: Option<Error>,
}

impl Channel {
    /// Of a client, which may be given tickets, or of a server.
    pub(super) fn new(is_client: bool, sealing: Key, opening: Key) -> Self {
        Self {
            limit: sealing.limit(),
            sealing,
            opening,
            update_due: false,
            opened: 0,
            behind: 0,
            message: Vec::new(),
            key_updates: 0,
            empty: 0,
            warnings: 0,
            tickets: if is_client { MAX_TICKETS } else { 0 },
            closed: false,
            finished: false,
            failed: None,
        }
    }

    /// Seals the beginning of `content`, a batch at most, behind what waits in `outgoing`; returns how many bytes.
    pub(crate) fn seal(&mut self, content: &[u8], outgoing: &mut Buffer) -> Result<usize, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.finished {
            return Err(Error::General("content after close_notify".to_owned()));
        }
        let content = &content[..content.len().min(batch())];
        // Who does not know how much was sealed must not seal it again.
        self.seal_batch(content, outgoing).inspect_err(|error| self.failed = Some(error.clone()))?;
        Ok(content.len())
    }

    fn seal_batch(&mut self, content: &[u8], outgoing: &mut Buffer) -> Result<(), Error> {
        outgoing.room(sealed(content.len()));
        for content in content.chunks(MAX_CONTENT) {
            // The update takes the last number that is left to a key.
            if self.update_due || self.sealing.sequence() + 1 >= self.limit {
                self.update_sealing_key(outgoing)?;
            }
            self.seal_record(ContentType::ApplicationData, content, outgoing)?;
        }
        Ok(())
    }

    /// Seals `close_notify`, once.
    pub(crate) fn close(&mut self, outgoing: &mut Buffer) -> Result<(), Error> {
        if self.finished || self.failed.is_some() {
            return Ok(());
        }
        self.finished = true;
        self.seal_alert(AlertDescription::CloseNotify, outgoing)
    }

    fn update_sealing_key(&mut self, outgoing: &mut Buffer) -> Result<(), Error> {
        // key_update, one byte: update_not_requested.
        self.seal_record(ContentType::Handshake, &[HandshakeType::KeyUpdate.into(), 0, 0, 1, 0], outgoing)?;
        self.change_sealing_key()
    }

    pub(crate) fn change_sealing_key(&mut self) -> Result<(), Error> {
        self.sealing.update()?;
        self.update_due = false;
        Ok(())
    }

    /// Updates the key before the next content.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn update_soon(&mut self) {
        self.update_due = true;
    }

    /// Lets a key seal only so many records.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn limit_to(&mut self, records: u64) {
        self.limit = records;
    }

    fn seal_alert(&mut self, alert: AlertDescription, outgoing: &mut Buffer) -> Result<(), Error> {
        // Closing alerts are warnings, all others fatal (RFC 8446 section 6).
        let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
        self.seal_record(ContentType::Alert, &[level, alert.into()], outgoing)
    }

    pub(crate) fn seal_record(
        &mut self,
        kind: ContentType,
        content: &[u8],
        outgoing: &mut Buffer,
    ) -> Result<(), Error> {
        let length = content.len() + OVERHEAD;
        self.sealing.seal(kind, content, &mut outgoing.room(length)[..length])?;
        outgoing.advance(length);
        Ok(())
    }

    /// Opens the next record, which has arrived, whatever it is.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn open_record(&mut self, incoming: &mut Buffer) -> Result<(ContentType, Vec<u8>), Error> {
        let Record::Whole(length) = Record::find(incoming.waiting())? else { return Err(Error::DecryptError) };
        let mut content = vec![0; Record::room(length)];
        let (kind, count) = self.opening.open_into(&incoming.waiting()[..length], &mut content)?;
        incoming.consume(length);
        content.truncate(count);
        Ok((kind, content))
    }

    /// Opens what has arrived as far as `content` takes it. A fatal error seals its alert behind what waits in `outgoing`.
    pub(crate) fn open(
        &mut self,
        incoming: &mut Buffer,
        content: &mut [u8],
        outgoing: &mut Buffer,
    ) -> Result<Opened, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.open_next(incoming, content).inspect_err(|error| {
            if let Some(alert) = alert(error).filter(|_| !self.finished) {
                // Without it the peer learns less, and this side goes on as it would have.
                let _ = self.seal_alert(alert, outgoing);
            }
            self.failed = Some(error.clone());
        })
    }

    fn open_next(&mut self, incoming: &mut Buffer, content: &mut [u8]) -> Result<Opened, Error> {
        loop {
            if self.opened > 0 {
                let count = self.opened.min(content.len());
                content[..count].copy_from_slice(&incoming.waiting()[..count]);
                self.opened -= count;
                incoming.consume(if self.opened == 0 { count + self.behind } else { count });
                return Ok(Opened::Content(count));
            }
            if self.closed {
                return Ok(Opened::Closed);
            }
            let length = match Record::find(incoming.waiting())? {
                Record::Missing(count) => return Ok(Opened::Missing(count)),
                Record::Whole(length) => length,
            };
            let record = &mut incoming.waiting_mut()[..length];
            let is_apart = Record::room(length) <= content.len();
            let (kind, count) =
                if is_apart { self.opening.open_into(record, content) } else { self.opening.open_in_place(record) }?;
            if kind == ContentType::ApplicationData && self.message.is_empty() {
                self.check_content(count)?;
                if is_apart {
                    incoming.consume(length);
                    if count > 0 {
                        return Ok(Opened::Content(count));
                    }
                } else {
                    incoming.consume(HEADER);
                    (self.opened, self.behind) = (count, length - HEADER - count);
                    if count == 0 {
                        incoming.consume(self.behind);
                    }
                }
                continue;
            }
            let said = if is_apart { &content[..count] } else { &record[HEADER..HEADER + count] };
            self.hear(kind, said)?;
            incoming.consume(length);
        }
    }

    /// Content may be empty, to hide when something is sent, but not for ever.
    fn check_content(&mut self, count: usize) -> Result<(), Error> {
        if count > 0 {
            (self.empty, self.key_updates) = (0, 0);
        } else {
            self.empty += 1;
        }
        if self.empty > MAX_EMPTY { Err(PeerMisbehaved::TooManyEmptyFragments.into()) } else { Ok(()) }
    }

    /// Everything but content.
    fn hear(&mut self, kind: ContentType, said: &[u8]) -> Result<(), Error> {
        self.empty = 0;
        match kind {
            ContentType::Handshake => self.hear_handshake(said),
            _ if !self.message.is_empty() => Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()),
            ContentType::Alert => self.hear_alert(said),
            _ => {
                let expect_types = vec![ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert];
                Err(Error::InappropriateMessage { expect_types, got_type: kind })
            }
        }
    }

    fn hear_alert(&mut self, said: &[u8]) -> Result<(), Error> {
        let (level, alert) = match *said {
            [level @ 1..=2, alert] => (level, AlertDescription::from(alert)),
            _ => return Err(InvalidMessage::MissingData("AlertMessagePayload").into()),
        };
        match alert {
            AlertDescription::CloseNotify => {
                self.closed = true;
                Ok(())
            }
            AlertDescription::UserCanceled if level == 1 && self.warnings < MAX_WARNINGS => {
                self.warnings += 1;
                Ok(())
            }
            AlertDescription::UserCanceled if level == 1 => Err(PeerMisbehaved::TooManyWarningAlertsReceived.into()),
            // Whatever its level says (RFC 8446 section 6.2).
            alert => Err(Error::AlertReceived(alert)),
        }
    }

    fn hear_handshake(&mut self, said: &[u8]) -> Result<(), Error> {
        if said.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        self.message.extend_from_slice(said);
        while let Some([kind, length @ ..]) = self.message.first_chunk::<4>().copied() {
            let kind = HandshakeType::from(kind);
            let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
            let expected = self.expected();
            if !expected.contains(&kind) {
                return Err(Error::InappropriateHandshakeMessage { expect_types: expected.to_vec(), got_type: kind });
            }
            if length > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            if kind == HandshakeType::KeyUpdate && length != 1 {
                return Err(InvalidMessage::MissingData("KeyUpdate").into());
            }
            let Some(body) = self.message.get(4..4 + length) else { return Ok(()) };
            if kind == HandshakeType::KeyUpdate {
                let is_ours_asked_for = match body {
                    [0] => false,
                    [1] => true,
                    _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                };
                self.update_opening_key(is_ours_asked_for)?;
            } else {
                self.tickets -= 1;
                ticket::check(body)?;
            }
            self.message.drain(..4 + length);
        }
        self.message.shrink_to_fit();
        Ok(())
    }

    /// The handshake messages that may come.
    fn expected(&self) -> &'static [HandshakeType] {
        if self.tickets > 0 {
            &[HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate]
        } else {
            &[HandshakeType::KeyUpdate]
        }
    }

    fn update_opening_key(&mut self, is_ours_asked_for: bool) -> Result<(), Error> {
        // No message may begin under one key and end under another.
        if self.message.len() > 5 {
            return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
        }
        self.key_updates += 1;
        if self.key_updates > MAX_KEY_UPDATES {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        self.opening.update()?;
        // Once, however often it was asked for before we have something to say.
        self.update_due |= is_ours_asked_for;
        Ok(())
    }
}

/// What a peer is told of an error that is its own.
fn alert(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        // Who says it has failed hears no more of it.
        Error::AlertReceived(_) => return None,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => AlertDescription::IllegalParameter,
        Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_) => AlertDescription::UnexpectedMessage,
        Error::InvalidMessage(message) => AlertDescription::from(*message),
        _ => AlertDescription::InternalError,
    })
}
