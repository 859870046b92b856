//! Reading certificates strictly and within bounds, and the fingerprint of their keys. Decides nothing about trust.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use securelink_id::{Fingerprint, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::lifetimes::Validity;

/// Largest CA certificate, DER bytes (faults, size caps).
pub const MAX_CA_CERTIFICATE: usize = 6_500;
/// Largest leaf certificate, DER bytes (faults, size caps).
pub const MAX_LEAF_CERTIFICATE: usize = 36_500;
/// Most certificates in an issuer's chain given by a user (contracts 3).
pub const MAX_ISSUER_CHAIN: usize = 10;
/// Most certificates a relay presents (contracts 3).
pub const MAX_PRESENTED: usize = 40;
/// Most bytes of DER a relay presents (contracts 3).
pub const MAX_PRESENTED_BYTES: usize = 48 * 1024;

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No DER certificate, or bytes after it.
    #[error("not a well-formed X.509 certificate")]
    Malformed,
    /// Not PEM, or no certificate in it.
    #[error("no PEM block `CERTIFICATE` could be read; give certificates in PEM, the issuing one first")]
    NoPem,
    /// More certificates than allowed.
    #[error("more than {0} certificates; give the issuing certificate and those above it only")]
    TooMany(usize),
    /// A certificate or text over its cap.
    #[error("a certificate of {0} bytes is over the cap of {1}")]
    TooLarge(usize, usize),
}

/// SHA-256 of the full DER `SubjectPublicKeyInfo` of a certificate: what an agreement's annex pins.
pub fn fingerprint_of(certificate: &[u8]) -> Result<Fingerprint, CertificateError> {
    Parsed::new(certificate).map(|parsed| parsed.fingerprint())
}

/// The dates of a certificate.
pub fn validity_of(certificate: &[u8]) -> Result<Validity, CertificateError> {
    Parsed::new(certificate).map(|parsed| parsed.validity())
}

/// The earliest end among `chain`: nothing issued under it holds for longer.
pub fn earliest_end(chain: &[CertificateDer<'_>]) -> Result<Timestamp, CertificateError> {
    chain.iter().try_fold(Timestamp::MAX, |end, der| Ok(end.min(validity_of(der)?.not_after)))
}

/// Reads all certificates of a PEM text, at most `max` of them, each within the cap of a leaf. Other blocks, blank
/// lines and CRLF are passed over.
pub fn certificates_from_pem(text: &str, max: usize) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let cap = MAX_LEAF_CERTIFICATE * 2 + max * MAX_CA_CERTIFICATE * 2; // base64, line ends, remarks
    if text.len() > cap {
        return Err(CertificateError::TooLarge(text.len(), cap));
    }
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|_| CertificateError::NoPem)?;
        if der.len() > MAX_LEAF_CERTIFICATE {
            return Err(CertificateError::TooLarge(der.len(), MAX_LEAF_CERTIFICATE));
        }
        if found.len() == max {
            return Err(CertificateError::TooMany(max));
        }
        Parsed::new(&der)?;
        found.push(der);
    }
    if found.is_empty() { Err(CertificateError::NoPem) } else { Ok(found) }
}

/// Writes certificates as PEM, in order.
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    certificates.iter().map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), config)).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A certificate taken apart once, with the questions this crate asks of it.
pub(crate) struct Parsed<'a> {
    pub(crate) x509: X509Certificate<'a>,
}

impl<'a> Parsed<'a> {
    pub(crate) fn new(der: &'a [u8]) -> Result<Self, CertificateError> {
        match X509Certificate::from_der(der) {
            Ok(([], x509)) => Ok(Self { x509 }),
            _ => Err(CertificateError::Malformed),
        }
    }

    /// Full DER `SubjectPublicKeyInfo`.
    pub(crate) fn public_key(&self) -> &'a [u8] {
        self.x509.tbs_certificate.subject_pki.raw
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_sha256(sha256(self.public_key()))
    }

    pub(crate) fn subject(&self) -> &[u8] {
        self.x509.subject().as_raw()
    }

    pub(crate) fn issuer(&self) -> &[u8] {
        self.x509.issuer().as_raw()
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject() == self.issuer()
    }

    pub(crate) fn validity(&self) -> Validity {
        let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let dates = self.x509.validity();
        Validity { not_before: time(dates.not_before.timestamp()), not_after: time(dates.not_after.timestamp()) }
    }

    /// Basic constraints say CA and the key usage, if any, allows signing certificates (RFC 5280 section 4.2.1.3).
    pub(crate) fn may_sign_certificates(&self) -> bool {
        let ca = matches!(self.x509.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
        ca && match self.x509.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        }
    }

    /// All subject alternative names; an unreadable or doubled extension is an error.
    pub(crate) fn names(&self) -> Result<&[GeneralName<'a>], CertificateError> {
        let names = self.x509.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
        Ok(names.map_or(&[], |names| names.value.general_names.as_slice()))
    }

    /// The trust domain a CA certificate names by the URI `spiffe://<trust domain>`: none, or exactly one.
    pub(crate) fn authority_of(&self) -> Result<Option<TrustDomain>, CertificateError> {
        let mut uris = self.names()?.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (None, _) => Ok(None),
            (Some(uri), None) => {
                let domain = uri.strip_prefix("spiffe://").and_then(|domain| domain.parse().ok());
                domain.map(Some).ok_or(CertificateError::Malformed)
            }
            _ => Err(CertificateError::Malformed),
        }
    }

    /// Whether some critical extension is one this crate does not act on (RFC 5280 section 4.2).
    pub(crate) fn has_unknown_critical_extension(&self) -> bool {
        self.x509.extensions().iter().any(|extension| {
            extension.critical
                && !matches!(
                    extension.parsed_extension(),
                    ParsedExtension::BasicConstraints(_)
                        | ParsedExtension::KeyUsage(_)
                        | ParsedExtension::SubjectAlternativeName(_)
                )
        })
    }

    /// Whether this certificate's signature was made by `key` (full DER `SubjectPublicKeyInfo`), with SHA-2 or Ed25519,
    /// and the signed part names that algorithm too (RFC 5280 section 4.1.1.2).
    pub(crate) fn is_signed_by(&self, key: &[u8]) -> bool {
        use x509_parser::oid_registry as oid;
        let algorithm = &self.x509.signature_algorithm;
        let modern = [
            oid::OID_SIG_ECDSA_WITH_SHA256,
            oid::OID_SIG_ECDSA_WITH_SHA384,
            oid::OID_SIG_ED25519,
            oid::OID_PKCS1_SHA256WITHRSA,
            oid::OID_PKCS1_SHA384WITHRSA,
            oid::OID_PKCS1_SHA512WITHRSA,
        ];
        modern.contains(&algorithm.algorithm)
            && *algorithm == self.x509.tbs_certificate.signature
            && matches!(x509_parser::x509::SubjectPublicKeyInfo::from_der(key),
                Ok(([], key)) if self.x509.verify_signature(Some(&key)).is_ok())
    }
}
