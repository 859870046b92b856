//! Roots, intermediates and leaves: generated, issued, read and written as PEM. Reads no clock, writes no file.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};
use x509_parser::extensions::GeneralName;

use crate::certificate::{
    CertificateError, MAX_ISSUER_CHAIN, Parsed, certificates_from_pem, certificates_to_pem, earliest_end, sha256,
};
use crate::key::{KeyError, PrivateKey};
use crate::lifetimes::{Role, Schedule, Validity};
use crate::refusal::Refusal;
use crate::verify::{PeerTrust, VerifiedPeer, verify};

/// Most octets of a serial number (RFC 5280 section 4.1.2.2).
const SERIAL_OCTETS: usize = 20;

/// Why something could not be issued or loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The issuer has ended.
    #[error("the issuer expired at {0}; renew it first")]
    IssuerExpired(Timestamp),
    /// The key is not the certificate's.
    #[error("the private key does not belong to the first certificate; put the matching pair together")]
    KeyMismatch,
    /// Not a CA.
    #[error("the first certificate may not sign others; give a CA certificate with keyCertSign")]
    NotAnAuthority,
    /// The chain does not end in a root.
    #[error("the chain does not end with the self-signed root; append the root's certificate, which the peer pins")]
    NoRoot,
    /// A root that names no trust domain.
    #[error("the root names no trust domain; a root of ours carries the URI spiffe://<trust domain>")]
    NoTrustDomain,
    /// No relay's identity in a leaf.
    #[error("the leaf carries no relay identity: {0}")]
    NoIdentity(Refusal),
    /// A host name that cannot stand in a certificate.
    #[error("`{}` cannot stand in a certificate as DNS name; check expose.hostname", .0.escape_debug())]
    DnsName(String),
    /// The library refused.
    #[error("building the certificate of {0} failed")]
    Build(&'static str),
}

/// A self-signed root of ours, key included. It signs intermediates and the next root, nothing else.
#[derive(Debug)]
pub struct Root {
    key: PrivateKey,
    certificate: CertificateDer<'static>,
    trust_domain: TrustDomain,
    validity: Validity,
}

impl Root {
    /// A new root key (P-384) and certificate for `trust_domain`, which it names by the URI `spiffe://<trust domain>`.
    pub fn generate(trust_domain: &TrustDomain, now: Timestamp) -> Result<Self, IssueError> {
        let schedule = schedule(Role::Root, now, Timestamp::MAX)?;
        let key = PrivateKey::generate_p384()?;
        let params = root_params(trust_domain, &key, schedule.validity)?;
        let certificate = params.self_signed(key.pair()).map_err(|_| IssueError::Build("the root"))?;
        Self::assemble(key, certificate.into())
    }

    /// From the PEM of its key and of its certificate.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, IssueError> {
        let certificate = certificates_from_pem(certificate, 1)?.remove(0);
        Self::assemble(PrivateKey::from_pem(key)?, certificate)
    }

    fn assemble(key: PrivateKey, certificate: CertificateDer<'static>) -> Result<Self, IssueError> {
        let parsed = authority(&key, &certificate)?;
        if !parsed.is_self_issued() {
            return Err(IssueError::NoRoot);
        }
        let trust_domain = parsed.authority_of()?.ok_or(IssueError::NoTrustDomain)?;
        let validity = parsed.validity();
        Ok(Self { key, certificate, trust_domain, validity })
    }

    /// A new intermediate key (P-384) and certificate, which may sign leaves only.
    pub fn issue_intermediate(&self, now: Timestamp) -> Result<Intermediate, IssueError> {
        let schedule = schedule(Role::Intermediate, now, self.validity.not_after)?;
        let key = PrivateKey::generate_p384()?;
        let mut params = params(&format!("SecureLink intermediate {}", short_name(&key)), schedule.validity)?;
        params.distinguished_name.push(DnType::OrganizationName, self.trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = sign(&params, key.pair(), &self.certificate, &self.key, "the intermediate")?;
        Intermediate::assemble(key, vec![certificate, self.certificate.clone()])
    }

    /// The certificate, again, for the key of `next`, signed by this root: a transition (contracts 3). It ends with
    /// the earlier of the two.
    pub(crate) fn sign_next(&self, next: &Self, now: Timestamp) -> Result<CertificateDer<'static>, IssueError> {
        let mut validity = schedule(Role::Root, now, self.validity.not_after)?.validity;
        validity.not_after = self.validity.not_after.min(next.validity.not_after);
        let params = root_params(&next.trust_domain, &next.key, validity)?;
        sign(&params, next.key.pair(), &self.certificate, &self.key, "the root transition")
    }

    /// The private key, for its owner to store.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem(std::slice::from_ref(&self.certificate))
    }

    /// What partners pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_sha256(sha256(&self.key.public_key()))
    }

    /// Whose root it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its dates.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

/// The online issuer: its key, its certificate and those above it, up to the root's. Ours or a user's own.
#[derive(Debug)]
pub struct Intermediate {
    key: PrivateKey,
    chain: Vec<CertificateDer<'static>>,
    root: Fingerprint,
    validity: Validity,
    end: Timestamp,
}

impl Intermediate {
    /// From the PEM of its key and of its chain: its own certificate first, the self-signed root last, at most
    /// [`MAX_ISSUER_CHAIN`]. The root itself serves as issuer if it is the whole chain.
    pub fn from_pem(key: &str, chain: &str) -> Result<Self, IssueError> {
        Self::assemble(PrivateKey::from_pem(key)?, certificates_from_pem(chain, MAX_ISSUER_CHAIN)?)
    }

    fn assemble(key: PrivateKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, IssueError> {
        let validity = authority(&key, chain.first().ok_or(CertificateError::NoPem)?)?.validity();
        let root = root_of(&chain)?;
        let end = earliest_end(&chain)?;
        Ok(Self { key, chain, root, validity, end })
    }

    /// A new leaf key (P-256) and certificate for one relay's side of one link. `dns` holds `expose.hostname` for
    /// partners that check names (relay, `http/1.1`).
    pub fn issue_leaf(&self, identity: &SpiffeId, dns: &[&str], now: Timestamp) -> Result<Leaf, IssueError> {
        let schedule = schedule(Role::Leaf, now, self.end)?;
        let key = PrivateKey::generate_p256()?;
        let params = leaf_params(identity, dns, schedule.validity)?;
        let issuer = self.chain.first().ok_or(CertificateError::NoPem)?;
        let certificate = sign(&params, key.pair(), issuer, &self.key, "the leaf")?;
        let chain = std::iter::once(certificate).chain(self.chain.iter().cloned()).collect();
        Leaf::assemble(key, chain)
    }

    /// The private key, for its owner to store.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Its certificate and those above it, the root last.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.chain)
    }

    /// Fingerprint of the root above it.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// Its own dates.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The earliest end of the chain: no leaf outlives it.
    pub fn end(&self) -> Timestamp {
        self.end
    }
}

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
        let identity = crate::verify::identity_of(&parsed).map_err(IssueError::NoIdentity)?;
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
    let mut request = leaf_params(identity, dns, unused)?;
    request.serial_number = None; // what only an issuer can say
    request.use_authority_key_identifier_extension = false;
    let request = request.serialize_request(key.pair()).and_then(|request| request.pem());
    request.map_err(|_| IssueError::Build("the certificate request"))
}

pub(crate) fn root_params(
    domain: &TrustDomain,
    key: &PrivateKey,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut params = params(&format!("SecureLink root {}", short_name(key)), validity)?;
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    Ok(params)
}

fn leaf_params(identity: &SpiffeId, dns: &[&str], validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = params("SecureLink relay", validity)?;
    params.distinguished_name.push(DnType::OrganizationName, identity.owner().as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names.push(uri(&identity.to_string())?);
    for name in dns {
        let name = (*name).try_into().map_err(|_| IssueError::DnsName((*name).to_owned()))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    text.try_into().map(SanType::URI).map_err(|_| IssueError::Build("a URI name"))
}

/// A subject, dates and a random serial number; the rest is the caller's.
pub(crate) fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let time = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds)
    };
    params.not_before = time(validity.not_before);
    params.not_after = time(validity.not_after);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 158 random bits: positive, of one length, far above the 64 bits certificate forums ask for.
fn serial() -> Result<SerialNumber, IssueError> {
    let mut octets = [0; SERIAL_OCTETS];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| IssueError::Build("a serial number"))?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn sign(
    params: &CertificateParams,
    subject: &rcgen::KeyPair,
    issuer: &CertificateDer<'_>,
    issuer_key: &PrivateKey,
    what: &'static str,
) -> Result<CertificateDer<'static>, IssueError> {
    let issuer = Issuer::from_ca_cert_der(issuer, issuer_key.pair()).map_err(|_| IssueError::Build(what))?;
    params.signed_by(subject, &issuer).map(Into::into).map_err(|_| IssueError::Build(what))
}

fn schedule(role: Role, now: Timestamp, end: Timestamp) -> Result<Schedule, IssueError> {
    Schedule::new(role, now, end, 0.0).ok_or(IssueError::IssuerExpired(end))
}

/// The first eight digits of a key's fingerprint: makes each authority's name its own, as path building wants.
fn short_name(key: &PrivateKey) -> String {
    let fingerprint = Fingerprint::from_sha256(sha256(&key.public_key())).to_string();
    fingerprint.chars().skip("sha256:".len()).take(8).collect()
}

fn authority<'a>(key: &PrivateKey, certificate: &'a CertificateDer<'_>) -> Result<Parsed<'a>, IssueError> {
    let parsed = Parsed::new(certificate)?;
    if parsed.public_key() != key.public_key() {
        return Err(IssueError::KeyMismatch);
    }
    if parsed.may_sign_certificates() { Ok(parsed) } else { Err(IssueError::NotAnAuthority) }
}

/// Fingerprint of the self-signed certificate that ends a chain.
fn root_of(chain: &[CertificateDer<'_>]) -> Result<Fingerprint, IssueError> {
    let root = Parsed::new(chain.last().ok_or(CertificateError::NoPem)?)?;
    if root.is_self_issued() { Ok(root.fingerprint()) } else { Err(IssueError::NoRoot) }
}
