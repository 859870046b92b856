//! A relay's leaf as a value: key, chain and what they say. Reads no clock, writes no file.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, SpiffeId};
use x509_parser::extensions::GeneralName;

use crate::certificate::{
    CertificateError, MAX_ISSUER_CHAIN, Parsed, certificates_from_pem, certificates_to_pem, earliest_end,
};
use crate::issue::{IssueError, root_of};
use crate::key::PrivateKey;
use crate::lifetimes::{Role, Validity, due};
use crate::refusal::Refusal;
use crate::template;
use crate::verify::{PeerTrust, VerifiedPeer, identity_of, verify};

/// A relay's own key and certificate, with the chain up to the root.
#[derive(Debug)]
pub struct Leaf {
    key: PrivateKey,
    chain: Vec<CertificateDer<'static>>,
    identity: SpiffeId,
    dns: Vec<String>,
    validity: Validity,
    serial: Vec<u8>,
    root: Fingerprint,
}

impl Leaf {
    /// From the PEM of its key and of its chain: leaf, intermediates, self-signed root. Whether it is any good now is
    /// told by [`Leaf::check`].
    pub fn from_pem(key: &str, chain: &str) -> Result<Self, IssueError> {
        Self::assemble(PrivateKey::from_pem(key)?, certificates_from_pem(chain, MAX_ISSUER_CHAIN + 1)?)
    }

    pub(crate) fn assemble(key: PrivateKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, IssueError> {
        let root = root_of(&chain)?;
        let parsed = Parsed::new(chain.first().ok_or(CertificateError::NoPem)?)?;
        if parsed.public_key() != key.public_key() {
            return Err(IssueError::KeyMismatch);
        }
        let identity = identity_of(&parsed).map_err(IssueError::NoIdentity)?;
        let dns = parsed.names()?.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let (dns, validity, serial) = (dns.collect(), parsed.validity(), parsed.x509.raw_serial().to_vec());
        Ok(Self { key, chain, identity, dns, validity, serial, root })
    }

    /// Judges it as the peer will at `now`: an issuer that returned something unusable is found here, not there.
    pub fn check(&self, now: Timestamp) -> Result<VerifiedPeer, Refusal> {
        let trust = PeerTrust {
            own: self.identity.audience().clone(),
            peer: self.identity.owner().clone(),
            pins: vec![self.root],
        };
        verify(&self.chain, &trust, now)
    }

    /// The root it verifies to, whatever its dates say of now: they are judged apart.
    pub fn chains_to(&self, now: Timestamp) -> Option<Fingerprint> {
        self.check(self.validity.nearest(now)).ok().map(|verified| verified.root)
    }

    /// When it is renewed.
    pub fn due(&self) -> Timestamp {
        due(Role::Leaf, &self.validity, &self.chain[0])
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Leaf, intermediates, root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.chain)
    }

    /// Whose relay it is, and for whom.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// Its DNS names.
    pub fn dns_names(&self) -> &[String] {
        &self.dns
    }

    /// Its dates.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The same in lower-case hexadecimal.
    pub fn serial_hex(&self) -> String {
        let digits = self.serial.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }

    /// Fingerprint of the root it chains to.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// The end of its issuers, if that is what cut its lifetime short.
    pub fn clipped_to(&self) -> Option<Timestamp> {
        let end = earliest_end(self.chain.get(1..)?).ok()?;
        (end <= self.validity.not_after).then_some(end)
    }
}

/// A certificate request (PEM, PKCS#10) for a leaf by somebody else's issuer.
pub fn leaf_request(key: &PrivateKey, identity: &SpiffeId, dns: &[&str]) -> Result<String, IssueError> {
    let unused = Validity { not_before: Timestamp::UNIX_EPOCH, not_after: Timestamp::UNIX_EPOCH };
    let mut request = template::leaf(identity, dns, unused)?;
    request.serial_number = None; // what only an issuer can say
    request.use_authority_key_identifier_extension = false;
    let request = request.serialize_request(key.pair()).and_then(|request| request.pem());
    request.map_err(|_| IssueError::Build("the certificate request"))
}
