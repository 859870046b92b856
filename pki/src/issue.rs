//! Roots and intermediates: generated, issued, read and written as PEM. Reads no clock, writes no file.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::certificate::{
    CertificateError, MAX_ISSUER_CHAIN, Parsed, certificates_from_pem, certificates_to_pem, earliest_end, sha256,
};
use crate::key::{KeyError, PrivateKey};
use crate::leaf::Leaf;
use crate::lifetimes::{Role, Schedule, Validity, due};
use crate::refusal::Refusal;
use crate::template;

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
    /// A certificate of the issuer's chain has ended.
    #[error("certificate {place} of the issuer's chain expired at {at}; renew it")]
    Ended {
        /// Which one, counted from the issuer's own.
        place: usize,
        /// When.
        at: Timestamp,
    },
    /// A certificate of the issuer's chain holds later only.
    #[error("certificate {place} of the issuer's chain is not valid before {at}; give one that is, or set the clock")]
    NotYetValid {
        /// Which one, counted from the issuer's own.
        place: usize,
        /// From when.
        at: Timestamp,
    },
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
    /// What was issued is of no use.
    #[error("the new leaf would be refused: {0}")]
    Refused(Refusal),
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
        let params = template::root(trust_domain, &key, schedule.validity)?;
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
        let params = template::intermediate(&self.trust_domain, &key, schedule.validity)?;
        let certificate = template::sign(&params, key.pair(), &self.certificate, &self.key, "the intermediate")?;
        Intermediate::assemble(key, vec![certificate, self.certificate.clone()])
    }

    /// The certificate, again, for the key of `next`, signed by this root: a transition (contracts 3). It ends with
    /// the earlier of the two.
    pub(crate) fn sign_next(&self, next: &Self, now: Timestamp) -> Result<CertificateDer<'static>, IssueError> {
        let mut validity = schedule(Role::Root, now, self.validity.not_after)?.validity;
        validity.not_after = self.validity.not_after.min(next.validity.not_after);
        let params = template::root(&next.trust_domain, &next.key, validity)?;
        template::sign(&params, next.key.pair(), &self.certificate, &self.key, "the root transition")
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

    /// When it is to be followed by another.
    pub fn due(&self) -> Timestamp {
        due(Role::Root, &self.validity, &self.certificate)
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

    /// From a user's PEM: the key, its certificate with those above it, and the root, which may end that chain already.
    pub fn from_given(key: &str, chain: &str, root: &str) -> Result<Self, IssueError> {
        let mut all = certificates_from_pem(chain, MAX_ISSUER_CHAIN)?;
        let root = certificates_from_pem(root, 1)?.remove(0);
        if all.last() != Some(&root) {
            all.push(root);
        }
        if all.len() > MAX_ISSUER_CHAIN {
            return Err(CertificateError::TooMany(MAX_ISSUER_CHAIN).into());
        }
        Self::assemble(PrivateKey::from_pem(key)?, all)
    }

    /// What to ask somebody else to sign for an intermediate with this key (PKCS#10, PEM). It asks that it may sign leaves only;
    /// who signs need not heed that, and cert-manager does not.
    pub fn request(trust_domain: &TrustDomain, key: &PrivateKey) -> Result<String, IssueError> {
        let failed = |_| IssueError::Build("the request for an intermediate");
        let request = template::request(trust_domain, key)?.serialize_request(key.pair()).map_err(failed)?;
        request.pem().map_err(failed)
    }

    /// Whether a request (PKCS#10, PEM) was written with this key. Then it is ours: nobody else has the key.
    pub fn is_request_of(request: &str, key: &PrivateKey) -> bool {
        let block = pem::parse(request).ok().filter(|block| block.tag() == "CERTIFICATE REQUEST");
        block.is_some_and(|block| {
            matches!(X509CertificationRequest::from_der(block.contents()), Ok(([], request))
                if request.certification_request_info.subject_pki.raw == key.public_key()
                    && request.verify_signature().is_ok())
        })
    }

    /// Whether peers would take leaves of it at `now`, by issuing one for `owner` that nobody gets. Says of which certificate
    /// the dates are wrong, counted from its own.
    pub fn check(&self, owner: &TrustDomain, now: Timestamp) -> Result<(), IssueError> {
        for (place, der) in (1..).zip(&self.chain) {
            let dates = Parsed::new(der)?.validity();
            if dates.not_after <= now {
                return Err(IssueError::Ended { place, at: dates.not_after });
            }
            if now < dates.not_before {
                return Err(IssueError::NotYetValid { place, at: dates.not_before });
            }
        }
        let nobody = SpiffeId::link(owner.clone(), owner.clone());
        self.leaf_for(&nobody, &BTreeSet::new(), now).map(drop)
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
        let params = template::leaf(identity, dns, schedule.validity)?;
        let issuer = self.chain.first().ok_or(CertificateError::NoPem)?;
        let certificate = template::sign(&params, key.pair(), issuer, &self.key, "the leaf")?;
        let chain = std::iter::once(certificate).chain(self.chain.iter().cloned()).collect();
        Leaf::assemble(key, chain)
    }

    /// The same, judged as the peer will: an issuer whose leaves nobody takes is found here, not there.
    pub fn leaf_for(&self, identity: &SpiffeId, dns: &BTreeSet<String>, now: Timestamp) -> Result<Leaf, IssueError> {
        let dns: Vec<&str> = dns.iter().map(String::as_str).collect();
        let leaf = self.issue_leaf(identity, &dns, now)?;
        leaf.check(now).map_err(IssueError::Refused)?;
        Ok(leaf)
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

    /// When it is renewed: in time before the earliest end of its chain, whoever's that is.
    pub fn due(&self) -> Timestamp {
        let lasts = Validity { not_after: self.end, ..self.validity };
        due(Role::Intermediate, &lasts, &self.chain[0])
    }

    /// The earliest end of those above it.
    pub fn end_above(&self) -> Timestamp {
        // They have been read before.
        earliest_end(self.chain.get(1..).unwrap_or_default()).unwrap_or(self.end)
    }

    /// The earliest end of the chain: no leaf outlives it.
    pub fn end(&self) -> Timestamp {
        self.end
    }
}

fn schedule(role: Role, now: Timestamp, end: Timestamp) -> Result<Schedule, IssueError> {
    Schedule::new(role, now, end, 0.0).ok_or(IssueError::IssuerExpired(end))
}

fn authority<'a>(key: &PrivateKey, certificate: &'a CertificateDer<'_>) -> Result<Parsed<'a>, IssueError> {
    let parsed = Parsed::new(certificate)?;
    if parsed.public_key() != key.public_key() {
        return Err(IssueError::KeyMismatch);
    }
    if parsed.may_sign_certificates() { Ok(parsed) } else { Err(IssueError::NotAnAuthority) }
}

/// Fingerprint of the self-signed certificate that ends a chain.
pub fn root_of(chain: &[CertificateDer<'_>]) -> Result<Fingerprint, IssueError> {
    let root = Parsed::new(chain.last().ok_or(CertificateError::NoPem)?)?;
    if root.is_self_issued() { Ok(root.fingerprint()) } else { Err(IssueError::NoRoot) }
}
