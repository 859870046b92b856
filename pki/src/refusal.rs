//! Why a peer was refused, in words for the person who must act. Peer-supplied text appears only as parsed values.

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::UnixTime;
use securelink_id::{Fingerprint, SpiffeIdError, TrustDomain};

/// Which of a peer's certificates is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The relay's own.
    Leaf,
    /// The newest root.
    Root,
    /// A transition from one root to the next.
    Transition,
    /// Not told apart by the library that found out.
    Some,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "the peer's leaf certificate",
            Self::Root => "the peer's root certificate",
            Self::Transition => "a root transition of the peer",
            Self::Some => "a certificate of the peer",
        })
    }
}

/// Why a peer, or a handshake with it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The chain does not lead to a pinned key.
    #[error("{}", wrong_root(.presented.as_ref(), .claimed.as_ref()))]
    WrongRoot {
        /// Fingerprint of the root it presented, if it presented one.
        presented: Option<Fingerprint>,
        /// The trust domain it claims, unproved.
        claimed: Option<TrustDomain>,
    },
    /// The identity, or a root, names another organization.
    #[error(
        "the peer's certificate is for trust domain {found}, this link's peer is {expected}: a misissued certificate, or the wrong link"
    )]
    WrongTrustDomain {
        /// What the certificate says.
        found: TrustDomain,
        /// What the link says.
        expected: TrustDomain,
    },
    /// The right organization's certificate, made for its link to somebody else.
    #[error(
        "the peer's certificate is for its link to {found}, not to us ({expected}): its relay of another link dialed here, or its SecureLink misspells our trust domain"
    )]
    WrongAudience {
        /// Whom the certificate is for.
        found: TrustDomain,
        /// Our trust domain.
        expected: TrustDomain,
    },
    /// The leaf's URI is no relay's identity.
    #[error("the peer's certificate has no usable identity: {0}")]
    WrongIdentity(SpiffeIdError),
    /// No URI among the leaf's names.
    #[error(
        "the peer's certificate has no URI name; a relay's leaf carries exactly one, spiffe://<its trust domain>/securelink/v1/to/<ours>"
    )]
    NoIdentity,
    /// More than one URI, or names that are neither URI nor DNS.
    #[error("the peer's certificate carries more names than one URI and DNS names; a relay's leaf has exactly one URI")]
    ManyIdentities,
    /// Past its end.
    #[error("{which} expired at {not_after}: the peer must renew it, or a clock is wrong")]
    CertificateExpired {
        /// Which one.
        which: Which,
        /// Its end.
        not_after: Timestamp,
    },
    /// Before its beginning.
    #[error("{which} is not valid before {not_before}: a clock is wrong, here or at the peer")]
    CertificateNotYetValid {
        /// Which one.
        which: Which,
        /// Its beginning.
        not_before: Timestamp,
    },
    /// No post-quantum key exchange in common.
    #[error(
        "no common key exchange: one side requires X25519MLKEM768 and the other does not offer it; update the peer's TLS library, or let both sides set crypto.allowClassicalKeyExchange"
    )]
    ClassicalKeyExchange,
    /// The peer refused us.
    #[error("the peer refused us with TLS alert `{0}`: {hint}", hint = alert_hint(*.0))]
    RefusedByPeer(Alert),
    /// The client sent no certificate.
    #[error("the peer presented no certificate; this port serves relays only, with mutual TLS")]
    NoClientCertificate,
    /// A leaf that may not sign handshakes as client and as server, or a CA as leaf.
    #[error(
        "the peer's leaf may not be used for this: it needs client and server authentication, digitalSignature, and must be no CA"
    )]
    WrongKeyUsage,
    /// A leaf key or a signature of another kind.
    #[error(
        "the peer uses a key or signature that is not accepted: leaves have P-256 keys, authorities ECDSA, Ed25519 or RSA with SHA-2"
    )]
    WrongKeyType,
    /// An authority that may not issue, or not this.
    #[error(
        "an issuing certificate of the peer may not issue: not a CA, or its path length or name constraints forbid it"
    )]
    WrongIssuer,
    /// A signature that does not verify.
    #[error("a signature in the peer's chain does not verify: the chain is damaged or forged")]
    BadSignature,
    /// A hop between roots that the older root did not sign.
    #[error(
        "a root transition of the peer is not signed by the root before it, or names no trust domain: damaged or forged; ask the peer for its fingerprint by another way"
    )]
    ForgedTransition,
    /// Too many hops from the pinned key.
    #[error("more than {limit} root transitions lie between the pinned key and the peer's root: pin the peer's current fingerprint", limit = crate::verify::MAX_HOPS)]
    TooManyTransitions,
    /// Not a certificate.
    #[error("the peer sent something that is not a certificate chain")]
    Malformed,
    /// A critical extension nobody here knows.
    #[error("a certificate of the peer has a critical extension that is not understood")]
    UnknownCriticalExtension,
    /// Over a cap.
    #[error("the peer presented more than {MAX_PRESENTED} certificates, {MAX_PRESENTED_BYTES} bytes, or one over its cap", MAX_PRESENTED = crate::certificate::MAX_PRESENTED, MAX_PRESENTED_BYTES = crate::certificate::MAX_PRESENTED_BYTES)]
    TooLarge,
    /// An older TLS.
    #[error("the peer does not speak TLS 1.3; a proxy may terminate TLS on the way")]
    Tls12,
    /// No ALPN protocol in common.
    #[error("no common application protocol: the other end is no SecureLink relay, or of another version")]
    NoCommonProtocol,
    /// Not TLS, or broken TLS.
    #[error("the other end does not speak TLS as it should: {0}")]
    BrokenTls(&'static str),
}

/// The number of a TLS alert (RFC 8446 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match rustls::AlertDescription::from(self.0) {
            rustls::AlertDescription::Unknown(number) => write!(f, "{number}"),
            known => write!(f, "{known:?}"),
        }
    }
}

impl Refusal {
    /// A stable name: the condition reason of contracts 7 where one exists, else one of the same style.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongRoot { .. } => "WrongRoot",
            Self::WrongTrustDomain { .. } => "WrongTrustDomain",
            Self::WrongAudience { .. } => "WrongAudience",
            Self::WrongIdentity(_) => "WrongIdentity",
            Self::NoIdentity => "NoIdentity",
            Self::ManyIdentities => "ManyIdentities",
            Self::CertificateExpired { .. } => "CertificateExpired",
            Self::CertificateNotYetValid { .. } => "CertificateNotYetValid",
            Self::ClassicalKeyExchange => "ClassicalKeyExchange",
            Self::RefusedByPeer(_) => "RefusedByPeer",
            Self::NoClientCertificate => "NoClientCertificate",
            Self::WrongKeyUsage => "WrongKeyUsage",
            Self::WrongKeyType => "WrongKeyType",
            Self::WrongIssuer => "WrongIssuer",
            Self::BadSignature => "BadSignature",
            Self::ForgedTransition => "ForgedTransition",
            Self::TooManyTransitions => "TooManyTransitions",
            Self::Malformed => "Malformed",
            Self::UnknownCriticalExtension => "UnknownCriticalExtension",
            Self::TooLarge => "TooLarge",
            Self::Tls12 => "Tls12",
            Self::NoCommonProtocol => "NoCommonProtocol",
            Self::BrokenTls(_) => "BrokenTls",
        }
    }

    /// What webpki found wrong with a path to a root that is trusted. An unknown issuer is left to the caller.
    pub(crate) fn from_webpki(error: &webpki::Error) -> Option<Self> {
        use webpki::Error as E;
        Some(match error {
            E::UnknownIssuer => return None,
            E::CertExpired { not_after, .. } => Self::expired(Which::Some, *not_after),
            E::CertNotValidYet { not_before, .. } => Self::not_yet_valid(Which::Some, *not_before),
            E::CaUsedAsEndEntity | E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => Self::WrongKeyUsage,
            E::UnsupportedCriticalExtension => Self::UnknownCriticalExtension,
            E::EndEntityUsedAsCa
            | E::PathLenConstraintViolated
            | E::NameConstraintViolation
            | E::UnsupportedNameType
            | E::MaximumNameConstraintComparisonsExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumSignatureChecksExceeded => Self::WrongIssuer,
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::SignatureAlgorithmMismatch
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::WrongKeyType,
            _ => Self::Malformed,
        })
    }

    pub(crate) fn expired(which: Which, not_after: UnixTime) -> Self {
        Self::CertificateExpired { which, not_after: timestamp(not_after) }
    }

    pub(crate) fn not_yet_valid(which: Which, not_before: UnixTime) -> Self {
        Self::CertificateNotYetValid { which, not_before: timestamp(not_before) }
    }
}

/// Of rustls' and webpki's clock. A time past the end of time is the end of time.
pub(crate) fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(Timestamp::MAX)
}

/// The other way round; before 1970 is 1970.
pub(crate) fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0)))
}

fn wrong_root(presented: Option<&Fingerprint>, claimed: Option<&TrustDomain>) -> String {
    let who = claimed.map_or_else(String::new, |domain| format!(" and claims to be {domain}"));
    match presented {
        Some(root) => format!(
            "the peer's root {root} is not pinned on this link, nor reached from a pinned key{who}: compare with the \
             agreement's annex; add the fingerprint only after the partner confirmed it by another way"
        ),
        None => format!(
            "the peer presented no root of its own{who}: it is no SecureLink relay, or its issuer's chain lacks the root"
        ),
    }
}

fn alert_hint(alert: Alert) -> &'static str {
    use rustls::AlertDescription as A;
    match A::from(alert.0) {
        A::CertificateExpired => "it holds our certificate for expired or not yet valid; check both clocks",
        A::CertificateUnknown | A::UnknownCA | A::BadCertificate | A::AccessDenied => {
            "it does not accept our certificate; it must pin our fingerprint and name our trust domain, and its logs say which is wrong"
        }
        A::CertificateRequired => "it saw no certificate of ours; a proxy may terminate TLS on the way",
        A::UnrecognisedName => "it does not serve the host name we dialed; check peer.endpoints",
        _ => "its logs say why",
    }
}
