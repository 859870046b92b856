//! The authority behind a controller's certificates: its own, apart from every link's.

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use crate::certificate::{Parsed, certificates_from_pem, certificates_to_pem};
use crate::issue::IssueError;
use crate::key::PrivateKey;
use crate::lifetimes::{BACKDATE, Role, Validity, shift};
use crate::template;
use crate::tls::{Credentials, TlsError};

/// How long a controller's certificate lives. It is made at a controller's start and made anew at half of this: no key of
/// it is ever stored.
const CLIENT: SignedDuration = SignedDuration::from_hours(24);

/// A control CA of ours, key included. Relays are told its certificate in `relay.json`.
#[derive(Debug)]
pub struct ControlAuthority {
    key: PrivateKey,
    certificate: CertificateDer<'static>,
}

impl ControlAuthority {
    /// A new key (P-256) and certificate, as long-lived as a root: relays must know a controller that comes back late.
    pub fn generate(now: Timestamp) -> Result<Self, IssueError> {
        let key = PrivateKey::generate_p256()?;
        let mut params = template::params("SecureLink control CA", dates(now, Role::Root.lifetime()))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(key.pair()).map_err(|_| IssueError::Build("the control CA"))?;
        Ok(Self { key, certificate: certificate.into() })
    }

    /// From the PEM of its key and of its certificate.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, IssueError> {
        let (key, certificate) = (PrivateKey::from_pem(key)?, certificates_from_pem(certificate, 1)?.remove(0));
        let parsed = Parsed::new(&certificate)?;
        if parsed.public_key() != key.public_key() {
            return Err(IssueError::KeyMismatch);
        }
        if !parsed.may_sign_certificates() {
            return Err(IssueError::NotAnAuthority);
        }
        Ok(Self { key, certificate })
    }

    /// Another's certificate in PEM, in the form in which its own is given: of a CA that is trusted beside this one.
    pub fn certificate_of(pem: &str) -> Result<String, IssueError> {
        let certificate = certificates_from_pem(pem, 1)?.remove(0);
        if !Parsed::new(&certificate)?.may_sign_certificates() {
            return Err(IssueError::NotAnAuthority);
        }
        Ok(certificates_to_pem(&[certificate]))
    }

    /// The private key, for its owner to store.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The certificate as PEM, for `relay.json`.
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem(std::slice::from_ref(&self.certificate))
    }

    /// A certificate for one controller, with its key, and when to make the next.
    pub fn controller(&self, now: Timestamp) -> Result<(Credentials, Timestamp), ControllerError> {
        let key = PrivateKey::generate_p256().map_err(IssueError::from)?;
        let params = controller(dates(now, CLIENT))?;
        let certificate =
            template::sign(&params, key.pair(), &self.certificate, &self.key, "the controller's certificate")?;
        Ok((Credentials::assemble(&key, vec![certificate])?, shift(now, CLIENT / 2)))
    }
}

/// Why a controller has no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// It could not be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// It cannot be used for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn controller(validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = template::params("SecureLink controller", validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn dates(now: Timestamp, lifetime: SignedDuration) -> Validity {
    Validity { not_before: shift(now, -BACKDATE), not_after: shift(now, lifetime) }
}
