//! rustls configurations for one link: TLS 1.3, mutual, post-quantum, no resumption, the verifier of [`verify()`].
//! Opens no socket. A verifier belongs to one link, since rustls tells it neither name nor link (product).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, CommonState, DigitallySignedStruct, DistinguishedName, Error, InvalidMessage,
    OtherError, PeerIncompatible, PeerMisbehaved, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use securelink_id::Fingerprint;
use zeroize::Zeroize as _;

use crate::certificate::validity_of;
use crate::key::{KeyError, PrivateKey};
use crate::leaf::Leaf;
use crate::refusal::{Alert, Refusal, Which, timestamp, unix_time};
use crate::transitions::Transitions;
use crate::verify::{PeerTrust, VerifiedPeer, verify};

/// Why no configuration could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The leaf's key.
    #[error("the leaf's private key cannot be used for TLS: {0}")]
    Key(#[from] KeyError),
    /// rustls refused.
    #[error("the TLS library refused its configuration; this is a fault of SecureLink itself: {0}")]
    Config(String),
}

/// Where the time comes from; tests step it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// A clock of the caller's.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What it says now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(..)")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.now()))
    }
}

/// What a caller chooses about a link's TLS.
#[derive(Clone, Debug)]
pub struct Options {
    /// Application protocols, the preferred one first (RFC 7301), such as `securelink/1`.
    pub alpn: Vec<Vec<u8>>,
    /// Whether key exchanges without ML-KEM are offered too: only where both sides opted out.
    pub allow_classical: bool,
    /// Whether a finished handshake hands out its keys, to whoever makes the records then.
    pub extract_secrets: bool,
    /// The clock certificates are judged by.
    pub clock: Clock,
}

/// A leaf as it goes on the wire: key and presented chain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<CertifiedKey>);

impl Credentials {
    /// From a leaf and the way to its root; `pin` is the hash of ours that this peer said it uses, if it did.
    pub fn new(leaf: &Leaf, transitions: &Transitions, pin: Option<&Fingerprint>) -> Result<Self, TlsError> {
        Self::assemble(leaf.key(), transitions.presented(leaf.chain(), pin))
    }

    pub(crate) fn assemble(key: &PrivateKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut der = key.to_der()?;
        let key = aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|_| KeyError::Unreadable);
        der.zeroize();
        Ok(Self(Arc::new(CertifiedKey::new(chain, key?))))
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }

    /// The presented chain.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.cert
    }
}

/// Accepts this link's peer and nobody else. No tickets: rustls does not run a verifier on resumption.
pub fn server_config(ours: &Credentials, trust: &PeerTrust, options: &Options) -> Result<Arc<ServerConfig>, TlsError> {
    let clock = Arc::new(options.clock.clone());
    let builder = ServerConfig::builder_with_details(provider(options.allow_classical), clock);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(refused_config)?;
    let mut config = builder
        .with_client_cert_verifier(PeerVerifier::new(trust))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(ours.certified())));
    config.alpn_protocols.clone_from(&options.alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = options.extract_secrets;
    Ok(Arc::new(config))
}

/// Dials this link's peer and nobody else. The host name dialed is sent (SNI) but proves nothing: the peer is known by
/// its key and identity.
pub fn client_config(ours: &Credentials, trust: &PeerTrust, options: &Options) -> Result<Arc<ClientConfig>, TlsError> {
    let clock = Arc::new(options.clock.clone());
    let builder = ClientConfig::builder_with_details(provider(options.allow_classical), clock);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(refused_config)?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::new(trust))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(ours.certified())));
    config.alpn_protocols.clone_from(&options.alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_secret_extraction = options.extract_secrets;
    Ok(Arc::new(config))
}

/// Who is at the other end of a finished handshake. Judges the presented chain anew, so that it also answers whether
/// a live connection may stay after a change of pins.
pub fn peer_from_connection(
    connection: &CommonState,
    trust: &PeerTrust,
    now: Timestamp,
) -> Result<VerifiedPeer, Refusal> {
    verify(connection.peer_certificates().unwrap_or_default(), trust, now)
}

/// aws-lc-rs, spelled out: the process-wide default is anybody's to change.
pub(crate) fn provider(allow_classical: bool) -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    let mut kx_groups = vec![kx_group::X25519MLKEM768];
    if allow_classical {
        kx_groups.extend([kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]);
    }
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { kx_groups, cipher_suites, ..aws_lc_rs::default_provider() })
}

#[allow(clippy::needless_pass_by_value)] // the shape map_err wants
pub(crate) fn refused_config(error: Error) -> TlsError {
    TlsError::Config(error.to_string())
}

/// How a leaf may sign a handshake: its key is P-256.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[webpki::aws_lc_rs::ECDSA_P256_SHA256])],
};

/// [`verify()`] in the two shapes rustls asks for.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    trust: PeerTrust,
    dates: Dates,
}

/// Which moment a chain is judged at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dates {
    /// Now.
    Count,
    /// A moment within the leaf's own dates: who made it counts, and not when.
    AreIgnored,
}

impl PeerVerifier {
    fn new(trust: &PeerTrust) -> Arc<Self> {
        Self::dated(trust, Dates::Count)
    }

    pub(crate) fn dated(trust: &PeerTrust, dates: Dates) -> Arc<Self> {
        Arc::new(Self { trust: trust.clone(), dates })
    }

    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let presented: Vec<CertificateDer<'_>> =
            std::iter::once(leaf).chain(rest).map(|der| CertificateDer::from(der.as_ref())).collect();
        let at = match self.dates {
            Dates::Count => timestamp(now),
            Dates::AreIgnored => validity_of(leaf).map_or(timestamp(now), |dates| dates.nearest(timestamp(now))),
        };
        verify(&presented, &self.trust, at).map(drop).map_err(|refusal| into_rustls(refusal, now))
    }
}

/// Only rustls' own values choose the alert: time errors tell the peer what to renew, all others say
/// `certificate_unknown` and keep their words for our side.
fn into_rustls(refusal: Refusal, now: UnixTime) -> Error {
    Error::InvalidCertificate(match &refusal {
        Refusal::NoClientCertificate => return Error::NoCertificatesPresented,
        Refusal::CertificateExpired { not_after, .. } => {
            CertificateError::ExpiredContext { time: now, not_after: unix_time(*not_after) }
        }
        Refusal::CertificateNotYetValid { not_before, .. } => {
            CertificateError::NotValidYetContext { time: now, not_before: unix_time(*not_before) }
        }
        Refusal::Malformed => CertificateError::BadEncoding,
        _ => CertificateError::Other(OtherError(Arc::new(refusal))),
    })
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, rest, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, rest, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// Why a handshake failed, on either side.
pub fn refusal_of(error: &Error) -> Refusal {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::NoCertificatesPresented => Refusal::NoClientCertificate,
        Error::NoApplicationProtocol => Refusal::NoCommonProtocol,
        Error::PeerIncompatible(error) => of_incompatible(error),
        Error::PeerMisbehaved(PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup) => {
            Refusal::ClassicalKeyExchange
        }
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => Refusal::TooLarge,
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            Refusal::BrokenTls("its messages are not those of TLS 1.3; is the port right?")
        }
        Error::PeerMisbehaved(_) => Refusal::BrokenTls("it broke a rule of TLS 1.3"),
        Error::DecryptError => Refusal::BrokenTls("its records do not decrypt; something on the way may alter them"),
        _ => Refusal::BrokenTls("the handshake failed"),
    }
}

/// The same for the error of a socket that carries TLS; `None` if the socket itself failed.
pub fn refusal_of_io(error: &std::io::Error) -> Option<Refusal> {
    error.get_ref()?.downcast_ref::<Error>().map(refusal_of)
}

fn of_certificate(error: &CertificateError) -> Refusal {
    match error {
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Refusal>() {
            Some(refusal) => refusal.clone(),
            None => Refusal::Malformed,
        },
        CertificateError::ExpiredContext { not_after, .. } => Refusal::expired(Which::Some, *not_after),
        CertificateError::NotValidYetContext { not_before, .. } => Refusal::not_yet_valid(Which::Some, *not_before),
        CertificateError::BadSignature => Refusal::BadSignature,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Refusal::WrongKeyType,
        _ => Refusal::Malformed,
    }
}

fn of_incompatible(error: &PeerIncompatible) -> Refusal {
    use PeerIncompatible as P;
    match error {
        P::NoKxGroupsInCommon | P::NamedGroupsExtensionRequired | P::KeyShareExtensionRequired => {
            Refusal::ClassicalKeyExchange
        }
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled => Refusal::Tls12,
        P::NoSignatureSchemesInCommon | P::NoCertificateRequestSignatureSchemesInCommon => Refusal::WrongKeyType,
        _ => Refusal::BrokenTls("it offers nothing in common with us"),
    }
}

/// A server answers `handshake_failure` when it shares no key exchange with us (RFC 8446 section 4.1.1); our cipher
/// suites are the ones every TLS 1.3 library has.
fn of_alert(alert: AlertDescription) -> Refusal {
    match alert {
        AlertDescription::HandshakeFailure => Refusal::ClassicalKeyExchange,
        AlertDescription::ProtocolVersion => Refusal::Tls12,
        AlertDescription::NoApplicationProtocol => Refusal::NoCommonProtocol,
        other => Refusal::RefusedByPeer(Alert(other.into())),
    }
}
