//! TLS of a relay's control port: the relay presents its link's leaf, who asks presents a certificate under a control CA.
//! Trust here has nothing to do with a peer's: the two never share a root store. Opens no socket.

mod authority;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use crate::certificate::{CertificateError, Parsed, certificates_from_pem};
use crate::tls::{Clock, Credentials, Dates, PeerVerifier, TlsError, provider, refused_config};
use crate::verify::PeerTrust;

pub use authority::{ControlAuthority, ControllerError};

/// What is spoken on the control port.
const ALPN: &[u8] = b"http/1.1";

/// Why no control port can be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlTlsError {
    /// Nobody is trusted.
    #[error("relay.json names no control CA; nobody can ask this relay anything")]
    NoCa,
    /// Not a certificate.
    #[error("control CA {place} of relay.json is not usable: {error}; give one CA certificate in PEM")]
    Certificate {
        /// Which one, counted from 1.
        place: usize,
        /// Why.
        error: CertificateError,
    },
    /// Not a CA.
    #[error("control CA {0} of relay.json may not sign certificates; give a CA certificate with keyCertSign")]
    NotAnAuthority(usize),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Serves whoever has a client certificate under one of `cas` (PEM, one certificate each), and nobody else. TLS 1.3 with
/// X25519MLKEM768 only, no tickets: every connection is judged by itself.
pub fn server_config(ours: &Credentials, cas: &[String], clock: &Clock) -> Result<Arc<ServerConfig>, ControlTlsError> {
    let provider = provider(false);
    let roots = Arc::new(roots(cas)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| TlsError::Config(error.to_string()))?;
    let builder = ServerConfig::builder_with_details(provider, Arc::new(clock.clone()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(refused_config)?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(ours.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Asks the relays of one link and nobody else. `ours` is of a [`ControlAuthority`]; a relay proves itself by a leaf of its
/// link under a root of ours (`relay`). Its dates are not looked at: a relay whose leaf has ended is to be given a new one
/// (contracts 4).
pub fn client_config(ours: &Credentials, relay: &PeerTrust, clock: &Clock) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_details(provider(false), Arc::new(clock.clone()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(refused_config)?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::dated(relay, Dates::AreIgnored))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(ours.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn roots(cas: &[String]) -> Result<RootCertStore, ControlTlsError> {
    let mut roots = RootCertStore::empty();
    for (ca, place) in cas.iter().zip(1..) {
        let malformed = |error| ControlTlsError::Certificate { place, error };
        for der in certificates_from_pem(ca, 1).map_err(malformed)? {
            // Of an anchor webpki checks neither.
            if !Parsed::new(&der).map_err(malformed)?.may_sign_certificates() {
                return Err(ControlTlsError::NotAnAuthority(place));
            }
            roots.add(der).map_err(|_| malformed(CertificateError::Malformed))?;
        }
    }
    if roots.is_empty() { Err(ControlTlsError::NoCa) } else { Ok(roots) }
}
