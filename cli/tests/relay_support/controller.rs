//! A controller: whom the control port lets in, and how it asks. It knows the relay by the key it issued and looks at no date,
//! so that it finds one whose leaf has ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use securelink_id::Fingerprint;
use securelink_pki::{Leaf, fingerprint_of};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::PATIENCE;

/// A CA that control ports are told to trust.
pub struct ControlCa {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a client presents.
pub struct Identity(Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>);

impl ControlCa {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("control {:?}", key.public_key_raw()));
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a controller.
    pub fn client(&self) -> Identity {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One for another purpose.
    pub fn issue(&self, purpose: ExtendedKeyUsagePurpose) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity(Some((vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())))
    }
}

impl Identity {
    pub fn nobody() -> Self {
        Self(None)
    }

    /// A relay's own, abused.
    pub fn of_leaf(leaf: &Leaf) -> Self {
        let key = KeyPair::from_pem(&leaf.key().to_pem()).unwrap();
        Self(Some((leaf.chain().to_vec(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())))
    }
}

/// Who asks a relay.
#[derive(Clone)]
pub struct Controller {
    pub address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Controller {
    /// Asks the relay at `address` that has one of the keys of `issued`.
    pub fn new(address: SocketAddr, identity: Identity, issued: &[&Leaf]) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let keys = issued.iter().map(|leaf| fingerprint_of(&leaf.chain()[0]).unwrap()).collect();
        let verifier = Arc::new(ByKey { keys, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let tls = match identity.0 {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self { address, tls: Arc::new(tls) }
    }

    /// A connection, after the handshake as this side sees it.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await
    }

    /// One request on a connection of its own: status and JSON body.
    pub async fn ask(&self, method: &str, path: &str, body: &impl Serialize) -> io::Result<(u16, Value)> {
        let asking = async {
            let mut stream = self.connect().await?;
            // Who is refused may see so before everything is sent; the answer, if there is one, tells why.
            let _ = send(&mut stream, method, path, &serde_json::to_string(body)?, "close").await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            parse(&answer)
        };
        timeout(PATIENCE, asking).await.expect("an answer in time")
    }

    /// The same, which is to succeed.
    pub async fn done(&self, method: &str, path: &str, body: &impl Serialize) -> Value {
        let (status, answer) = self.ask(method, path, body).await.unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// The same, which is to be refused: status and reason.
    pub async fn refused(&self, method: &str, path: &str, body: &impl Serialize) -> (u16, String) {
        let (status, answer) = self.ask(method, path, body).await.unwrap();
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{status} {answer}"));
        assert!(error.contains("; ") || error.contains(": "), "cause and remedy: {error}");
        (status, answer["reason"].as_str().unwrap().to_owned())
    }

    /// Whether TLS keeps this caller out. In TLS 1.3 a client learns so with its first read.
    pub async fn is_kept_out(&self) -> bool {
        self.ask("GET", "/v1/status", &()).await.is_err()
    }
}

pub async fn send(
    stream: &mut TlsStream<TcpStream>,
    method: &str,
    path: &str,
    body: &str,
    connection: &str,
) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: {connection}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

fn parse(answer: &[u8]) -> io::Result<(u16, Value)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("no answer: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Knows a relay by the key that was issued to it.
#[derive(Debug)]
struct ByKey {
    keys: Vec<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if fingerprint_of(leaf).is_ok_and(|key| self.keys.contains(&key)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
