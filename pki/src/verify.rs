//! The peer verifier: from a pinned key over root transitions to one root, and from there to one identity.
//! Pure; reads no clock. Every byte it is given may come from an attacker.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};
use x509_parser::extensions::GeneralName;

use crate::certificate::{
    MAX_CA_CERTIFICATE, MAX_LEAF_CERTIFICATE, MAX_PRESENTED, MAX_PRESENTED_BYTES, Parsed, sha256,
};
use crate::refusal::{Refusal, Which, unix_time};

/// Most root transitions between a pinned key and the newest root (product, "Trust in two lines").
pub const MAX_HOPS: usize = 32;
/// Most pins of one peer (contracts 8).
pub const MAX_PINS: usize = 4;

/// Whom one link trusts: exactly one peer, by the keys pinned for it, speaking to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTrust {
    /// Our trust domain: the audience the peer's leaf must name.
    pub own: TrustDomain,
    /// The peer's trust domain.
    pub peer: TrustDomain,
    /// Hashes of the peer's root keys; those beyond [`MAX_PINS`] are not looked at.
    pub pins: Vec<Fingerprint>,
}

/// A peer that proved to be whom the link trusts, and what it proved it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// The peer's trust domain.
    pub trust_domain: TrustDomain,
    /// Serial number of its leaf, big-endian.
    pub serial: Vec<u8>,
    /// The leaf's full DER `SubjectPublicKeyInfo`, for [`crate::key::verify_leaf_signature`].
    pub leaf_key: Vec<u8>,
    /// The leaf's end.
    pub not_after: Timestamp,
    /// Fingerprint of the peer's newest root.
    pub root: Fingerprint,
    /// The pin of ours that led there.
    pub pin: Fingerprint,
    /// Root transitions walked from that pin; above 0 the pin is outdated.
    pub hops: usize,
    /// SHA-256 over the presented certificates, to tell distinct chains apart.
    pub chain_hash: [u8; 32],
}

/// Judges a presented chain (contracts 3: leaf, intermediates, current root, oldest root, transitions) at `now`.
///
/// Also re-judges a stored chain after pins changed, or as time passes: nothing of an earlier verdict is kept.
pub fn verify(presented: &[CertificateDer<'_>], trust: &PeerTrust, now: Timestamp) -> Result<VerifiedPeer, Refusal> {
    check_caps(presented)?;
    let parsed: Vec<Parsed<'_>> =
        presented.iter().map(|der| Parsed::new(der).map_err(|_| Refusal::Malformed)).collect::<Result<_, _>>()?;
    let (leaf, rest) = parsed.split_first().ok_or(Refusal::NoClientCertificate)?;
    let claimed = || claimed_owner(leaf);
    let Some(place) = rest.iter().position(Parsed::is_self_issued) else {
        return Err(Refusal::WrongRoot { presented: None, claimed: claimed() });
    };
    let root = &rest[place];
    let wrong_root = || Refusal::WrongRoot { presented: Some(root.fingerprint()), claimed: claimed() };

    let path = path_from_pin(root, &rest[place + 1..], trust)?.ok_or_else(wrong_root)?;
    check_hops(&path, trust, now)?;
    check_root(root, trust, now)?;
    check_leaf(leaf, now)?;
    check_path(presented, place, now)?.ok_or_else(wrong_root)?;
    check_identity(leaf, trust)?;
    Ok(VerifiedPeer {
        trust_domain: trust.peer.clone(),
        serial: leaf.x509.raw_serial().to_vec(),
        leaf_key: leaf.public_key().to_vec(),
        not_after: leaf.validity().not_after,
        root: root.fingerprint(),
        pin: path.pin,
        hops: path.hops.len(),
        chain_hash: chain_hash(presented),
    })
}

/// SHA-256 over the certificates in order, each with its length in front.
pub fn chain_hash(presented: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(presented.iter().map(|der| der.len() + 8).sum());
    for der in presented {
        bytes.extend_from_slice(&(der.len() as u64).to_be_bytes());
        bytes.extend_from_slice(der);
    }
    sha256(&bytes)
}

fn check_caps(presented: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    let Some((leaf, rest)) = presented.split_first() else { return Err(Refusal::NoClientCertificate) };
    let within = presented.len() <= MAX_PRESENTED
        && leaf.len() <= MAX_LEAF_CERTIFICATE
        && rest.iter().all(|der| der.len() <= MAX_CA_CERTIFICATE)
        && presented.iter().map(|der| der.len()).sum::<usize>() <= MAX_PRESENTED_BYTES;
    if within { Ok(()) } else { Err(Refusal::TooLarge) }
}

/// The transitions from a pinned key to the newest root, oldest first, each with the key that must have signed it.
struct Path<'p, 'a> {
    pin: Fingerprint,
    hops: Vec<(&'p Parsed<'a>, &'a [u8])>,
}

/// Walks back from the newest root, so that of several pins the newest is the one used. `None`: no pin is reached.
fn path_from_pin<'p, 'a>(
    root: &'p Parsed<'a>,
    history: &'p [Parsed<'a>],
    trust: &PeerTrust,
) -> Result<Option<Path<'p, 'a>>, Refusal> {
    let pinned = |fingerprint: &Fingerprint| trust.pins.iter().take(MAX_PINS).any(|pin| pin == fingerprint);
    let mut hops = Vec::new();
    let mut key = root.public_key();
    loop {
        let fingerprint = Fingerprint::from_sha256(sha256(key));
        if pinned(&fingerprint) {
            hops.reverse();
            return Ok(Some(Path { pin: fingerprint, hops }));
        }
        let Some(cross) = history.iter().find(|cross| !cross.is_self_issued() && cross.public_key() == key) else {
            return Ok(None);
        };
        if hops.len() == MAX_HOPS {
            return Err(Refusal::TooManyTransitions);
        }
        let Some(signer) = history.iter().find(|older| older.subject() == cross.issuer()) else {
            return Ok(None);
        };
        hops.push((cross, signer.public_key()));
        key = signer.public_key();
    }
}

fn check_hops(path: &Path<'_, '_>, trust: &PeerTrust, now: Timestamp) -> Result<(), Refusal> {
    for (cross, signer) in &path.hops {
        if !cross.is_signed_by(signer) || !cross.may_sign_certificates() {
            return Err(Refusal::ForgedTransition);
        }
        check_extensions(cross)?;
        match cross.authority_of() {
            Ok(Some(domain)) => check_domain(domain, trust)?,
            _ => return Err(Refusal::ForgedTransition),
        }
        check_validity(cross, Which::Transition, now)?;
    }
    Ok(())
}

/// What webpki does not check of an anchor. A root without a URI comes from somebody's own PKI and is trusted by its
/// pin alone; one with a URI must name the peer.
fn check_root(root: &Parsed<'_>, trust: &PeerTrust, now: Timestamp) -> Result<(), Refusal> {
    if !root.may_sign_certificates() {
        return Err(Refusal::WrongIssuer);
    }
    check_extensions(root)?;
    if !root.is_signed_by(root.public_key()) {
        return Err(Refusal::BadSignature);
    }
    if let Some(domain) = root.authority_of().map_err(|_| Refusal::Malformed)? {
        check_domain(domain, trust)?;
    }
    check_validity(root, Which::Root, now)
}

fn check_extensions(authority: &Parsed<'_>) -> Result<(), Refusal> {
    if authority.has_unknown_critical_extension() { Err(Refusal::UnknownCriticalExtension) } else { Ok(()) }
}

fn check_domain(found: TrustDomain, trust: &PeerTrust) -> Result<(), Refusal> {
    if found == trust.peer { Ok(()) } else { Err(Refusal::WrongTrustDomain { found, expected: trust.peer.clone() }) }
}

fn check_validity(certificate: &Parsed<'_>, which: Which, now: Timestamp) -> Result<(), Refusal> {
    let validity = certificate.validity();
    if now > validity.not_after {
        Err(Refusal::CertificateExpired { which, not_after: validity.not_after })
    } else if now < validity.not_before {
        Err(Refusal::CertificateNotYetValid { which, not_before: validity.not_before })
    } else {
        Ok(())
    }
}

/// What webpki does not check of a leaf: key usage, kind of key, and that both purposes are spelled out.
fn check_leaf(leaf: &Parsed<'_>, now: Timestamp) -> Result<(), Refusal> {
    check_validity(leaf, Which::Leaf, now)?;
    let signs =
        leaf.x509.key_usage().map_err(|_| Refusal::Malformed)?.is_none_or(|usage| usage.value.digital_signature());
    let purposes = leaf.x509.extended_key_usage().map_err(|_| Refusal::Malformed)?;
    let both = purposes.is_some_and(|purposes| purposes.value.client_auth && purposes.value.server_auth);
    if !signs || !both {
        return Err(Refusal::WrongKeyUsage);
    }
    if is_p256(leaf) { Ok(()) } else { Err(Refusal::WrongKeyType) }
}

fn is_p256(leaf: &Parsed<'_>) -> bool {
    use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
    let algorithm = &leaf.x509.public_key().algorithm;
    algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && algorithm.parameters.as_ref().is_some_and(|curve| curve.as_oid().is_ok_and(|oid| oid == OID_EC_P256))
}

/// webpki with the newest root, at `place` after the leaf, as the only anchor, and only what stands before it as
/// intermediates. `None`: the path does not lead to that root.
fn check_path(presented: &[CertificateDer<'_>], place: usize, now: Timestamp) -> Result<Option<()>, Refusal> {
    let refuse = |error: &webpki::Error| Refusal::from_webpki(error);
    let anchors = [webpki::anchor_from_trusted_cert(&presented[place + 1]).map_err(|_| Refusal::Malformed)?];
    let leaf = match webpki::EndEntityCert::try_from(&presented[0]) {
        Ok(leaf) => leaf,
        Err(error) => return Err(refuse(&error).unwrap_or(Refusal::Malformed)),
    };
    let verdict = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &presented[1..=place],
        unix_time(now),
        ClientAndServer,
        None,
        None,
    );
    match verdict {
        Ok(_) => Ok(Some(())),
        Err(error) => refuse(&error).map_or(Ok(None), Err),
    }
}

/// A certificate that lists purposes must list both: each relay dials and is dialed. The leaf must list them
/// ([`check_leaf`]); authorities need not (RFC 5280 section 4.2.1.12).
struct ClientAndServer;

impl webpki::ExtendedKeyUsageValidator for ClientAndServer {
    fn validate(&self, listed: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let listed = listed.map(|id| id.map(|id| id.to_decoded_oid())).collect::<Result<Vec<_>, _>>()?;
        let both = [webpki::KeyUsage::CLIENT_AUTH_REPR, webpki::KeyUsage::SERVER_AUTH_REPR];
        if listed.is_empty() || both.iter().all(|purpose| listed.iter().any(|id| id == purpose)) {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
            required: webpki::KeyUsage::client_auth(),
            present: listed,
        }))
    }
}

fn check_identity(leaf: &Parsed<'_>, trust: &PeerTrust) -> Result<(), Refusal> {
    let identity = identity_of(leaf)?;
    check_domain(identity.owner().clone(), trust)?;
    if *identity.audience() != trust.own {
        return Err(Refusal::WrongAudience { found: identity.audience().clone(), expected: trust.own.clone() });
    }
    Ok(())
}

/// The one URI among a leaf's names; beside it DNS names and nothing else.
pub(crate) fn identity_of(leaf: &Parsed<'_>) -> Result<SpiffeId, Refusal> {
    let mut uri = None;
    for name in leaf.names().map_err(|_| Refusal::Malformed)? {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::DNSName(_) => {}
            _ => return Err(Refusal::ManyIdentities),
        }
    }
    uri.ok_or(Refusal::NoIdentity)?.parse().map_err(Refusal::WrongIdentity)
}

/// The owner an unproved leaf claims, for the message only.
fn claimed_owner(leaf: &Parsed<'_>) -> Option<TrustDomain> {
    leaf.names().ok()?.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.parse::<SpiffeId>().ok().map(|id| id.owner().clone()),
        _ => None,
    })
}
