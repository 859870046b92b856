//! What each kind of certificate says. Decides no dates and keeps no keys.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};

use crate::certificate::sha256;
use crate::issue::IssueError;
use crate::key::PrivateKey;
use crate::lifetimes::Validity;

/// Most octets of a serial number (RFC 5280 section 4.1.2.2).
const SERIAL_OCTETS: usize = 20;

/// A root, also as certified by the root before it.
pub(crate) fn root(
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

/// An online issuer, which may sign leaves only.
pub(crate) fn intermediate(
    domain: &TrustDomain,
    key: &PrivateKey,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut params = params(&format!("SecureLink intermediate {}", short_name(key)), validity)?;
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

/// What somebody else is asked to sign as an online issuer. Dates, number and who signs are theirs to say.
pub(crate) fn request(domain: &TrustDomain, key: &PrivateKey) -> Result<CertificateParams, IssueError> {
    let any = Validity { not_before: Timestamp::UNIX_EPOCH, not_after: Timestamp::UNIX_EPOCH };
    let mut params = intermediate(domain, key, any)?;
    (params.serial_number, params.use_authority_key_identifier_extension) = (None, false);
    Ok(params)
}

/// A relay's leaf.
pub(crate) fn leaf(identity: &SpiffeId, dns: &[&str], validity: Validity) -> Result<CertificateParams, IssueError> {
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

/// Signs `params` for `subject`, in the name of `issuer`.
pub(crate) fn sign(
    params: &CertificateParams,
    subject: &rcgen::KeyPair,
    issuer: &CertificateDer<'_>,
    issuer_key: &PrivateKey,
    what: &'static str,
) -> Result<CertificateDer<'static>, IssueError> {
    let issuer = Issuer::from_ca_cert_der(issuer, issuer_key.pair()).map_err(|_| IssueError::Build(what))?;
    params.signed_by(subject, &issuer).map(Into::into).map_err(|_| IssueError::Build(what))
}

/// The first eight digits of a key's fingerprint: makes each authority's name its own, as path building wants.
fn short_name(key: &PrivateKey) -> String {
    let fingerprint = Fingerprint::from_sha256(sha256(&key.public_key())).to_string();
    fingerprint.chars().skip("sha256:".len()).take(8).collect()
}
