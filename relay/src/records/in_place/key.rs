//! One direction's key: seals and opens single records (RFC 8446 section 5.2). Knows no messages and no buffers.

use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::cipher::{self, Iv};
use rustls::{CipherSuite, ContentType, Error, InvalidMessage, PeerMisbehaved};

use super::secret::Secret;

/// Type, version, length.
pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// What a record is longer than what it carries, without padding: header, inner type, tag.
pub(super) const OVERHEAD: usize = HEADER + 1 + TAG;
/// Most bytes a record carries.
pub(super) const MAX_CONTENT: usize = 16 * 1024;
/// Bytes that are sealed, or read to be opened, together: so few that they are still in the CPU's second cache when they are
/// sent, or opened. Measured with one of 512 KiB and one of 1 MiB (docs/benchmarks/steps.md).
static BATCH: LazyLock<usize> =
    LazyLock::new(
        || if second_cache().is_some_and(|size| size >= 1 << 20) { 16 * MAX_CONTENT } else { 4 * MAX_CONTENT },
    );

/// See [`BATCH`].
pub(super) fn batch() -> usize {
    *BATCH
}

/// Bytes of a core's second cache, as Linux says it: `1024K`.
fn second_cache() -> Option<usize> {
    let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok()?;
    size.trim_end().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
}

/// Longest a record may say it is, behind its header.
const MAX_BODY: usize = MAX_CONTENT + 256;
/// `application_data` and the version every record bears.
const OUTER: [u8; 3] = [23, 3, 3];

/// See the module. The key proper is wiped by aws-lc when dropped.
pub(super) struct Key {
    secret: Secret,
    aead: LessSafeKey,
    iv: Iv,
    sequence: u64,
}

impl Key {
    /// The key of `secret`, with which as many records as `sequence` says were sealed before.
    pub(super) fn new(secret: Secret, sequence: u64) -> Result<Self, Error> {
        let algorithm = match secret.suite().common.suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128_GCM,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256_GCM,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &CHACHA20_POLY1305,
            _ => return Err(Error::General("a cipher suite that is not ours".to_owned())),
        };
        let (key, iv) = secret.derive()?;
        let key = UnboundKey::new(algorithm, &key).map_err(|_| Error::EncryptError)?;
        Ok(Self { secret, aead: LessSafeKey::new(key), iv, sequence })
    }

    /// Becomes the key that follows it (RFC 8446 section 7.2).
    pub(super) fn update(&mut self) -> Result<(), Error> {
        *self = Self::new(self.secret.next()?, 0)?;
        Ok(())
    }

    /// How many records it may seal (RFC 8446 section 5.5).
    pub(super) fn limit(&self) -> u64 {
        self.secret.suite().common.confidentiality_limit
    }

    /// The number of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A nonce for one record and no other: the number is taken whatever becomes of it.
    fn nonce(&mut self) -> Result<Nonce, Error> {
        let nonce = Nonce::assume_unique_for_key(cipher::Nonce::new(&self.iv, self.sequence).0);
        self.sequence = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        Ok(nonce)
    }

    /// Fills `record`, which is [`OVERHEAD`] longer than `content`.
    pub(super) fn seal(&mut self, kind: ContentType, content: &[u8], record: &mut [u8]) -> Result<(), Error> {
        let (header, body) = record.split_first_chunk_mut::<HEADER>().ok_or(Error::EncryptError)?;
        let length = u16::try_from(body.len()).map_err(|_| Error::EncryptError)?;
        header[..3].copy_from_slice(&OUTER);
        header[3..].copy_from_slice(&length.to_be_bytes());
        let (sealed, rest) = body.split_at_mut_checked(content.len()).ok_or(Error::EncryptError)?;
        let nonce = self.nonce()?;
        self.aead
            .seal_out_of_place_scatter(nonce, Aad::from(*header), content, sealed, &[kind.into()], rest)
            .map_err(|_| Error::EncryptError)
    }

    /// Opens a whole record into `content`, which has room for [`Record::room`]; returns what it carries.
    pub(super) fn open_into(&mut self, record: &[u8], content: &mut [u8]) -> Result<(ContentType, usize), Error> {
        let (header, body) = record.split_first_chunk::<HEADER>().ok_or(Error::DecryptError)?;
        let (sealed, tag) = body.split_last_chunk::<TAG>().ok_or(Error::DecryptError)?;
        let inner = content.get_mut(..sealed.len()).ok_or(Error::DecryptError)?;
        let nonce = self.nonce()?;
        self.aead
            .open_separate_gather(nonce, Aad::from(*header), sealed, tag, inner)
            .map_err(|_| Error::DecryptError)?;
        unpad(inner)
    }

    /// Opens a whole record where it lies: what it carries stands behind its header.
    pub(super) fn open_in_place(&mut self, record: &mut [u8]) -> Result<(ContentType, usize), Error> {
        let (header, body) = record.split_first_chunk_mut::<HEADER>().ok_or(Error::DecryptError)?;
        let nonce = self.nonce()?;
        let inner = self.aead.open_in_place(nonce, Aad::from(*header), body).map_err(|_| Error::DecryptError)?;
        unpad(inner)
    }
}

/// The type that stands behind what is carried, before padding (RFC 8446 section 5.4).
fn unpad(inner: &[u8]) -> Result<(ContentType, usize), Error> {
    if inner.len() > MAX_CONTENT + 1 {
        return Err(Error::PeerSentOversizedRecord);
    }
    let last = inner.iter().rposition(|byte| *byte != 0);
    let last = last.ok_or(Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext))?;
    Ok((inner[last].into(), last))
}

/// The first record of some bytes, by its header.
pub(super) enum Record {
    /// It is this long with its header, all of it there.
    Whole(usize),
    /// So many bytes are still to come, at least.
    Missing(usize),
}

impl Record {
    /// Judges what can be judged before opening.
    pub(super) fn find(bytes: &[u8]) -> Result<Self, Error> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(Self::Missing(HEADER - bytes.len())) };
        let [kind, major, minor, high, low] = *header;
        if kind != OUTER[0] {
            // Nothing is in the clear after a handshake, not even the change_cipher_spec of middleboxes.
            let (expect_types, got_type) = (vec![ContentType::ApplicationData], kind.into());
            return Err(Error::InappropriateMessage { expect_types, got_type });
        }
        if OUTER[1..] != [major, minor] {
            // It would not open: the header is authenticated.
            return Err(InvalidMessage::UnknownProtocolVersion.into());
        }
        let body = usize::from(u16::from_be_bytes([high, low]));
        if body > MAX_BODY {
            return Err(Error::PeerSentOversizedRecord);
        }
        let whole = HEADER + body;
        Ok(if whole <= bytes.len() { Self::Whole(whole) } else { Self::Missing(whole - bytes.len()) })
    }

    /// Room that opening a whole record of `length` apart from it takes.
    pub(super) const fn room(length: usize) -> usize {
        length.saturating_sub(HEADER + TAG)
    }
}

/// What `bytes` are long as records.
pub(super) const fn sealed(bytes: usize) -> usize {
    bytes + bytes.div_ceil(MAX_CONTENT) * OVERHEAD
}
