//! Relays as far as the operator sees them: a control port each, on the address of its pod. Real TLS with the leaf that is
//! stored for the relay, and nobody is let in but under the operator's control CA. They obey at once, and carry nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Where the operator asks relays.
const PORT: u16 = 15444;

/// What is stored for a relay.
pub struct Stored {
    /// `relay.json`.
    pub snapshot: Value,
    /// The leaf's key.
    pub key: Vec<u8>,
    /// Its chain.
    pub chain: Vec<u8>,
}

/// All relays, by the link they are of: `namespace/name`.
#[derive(Clone, Default)]
pub struct Ports(Arc<Mutex<BTreeMap<String, Inside>>>);

/// What a relay holds.
#[derive(Clone, Debug)]
pub struct Inside {
    snapshot: Value,
    /// Whether it was given a configuration.
    pub is_given: bool,
    /// The cuts it was told.
    pub cuts: Vec<String>,
}

impl Inside {
    /// The version of its configuration.
    pub fn version(&self) -> u64 {
        self.snapshot["version"].as_u64().unwrap_or_default()
    }
}

impl Ports {
    /// Opens the port of one relay.
    pub async fn open(&self, address: &str, stored: Stored) -> Result<()> {
        let address: SocketAddr = format!("{address}:{PORT}").parse().context("a pod's address")?;
        let tls = TlsAcceptor::from(Arc::new(tls(&stored)?));
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let link = &stored.snapshot["link"];
        let name =
            format!("{}/{}", link["namespace"].as_str().unwrap_or_default(), link["name"].as_str().unwrap_or_default());
        self.lock().insert(name.clone(), Inside { snapshot: stored.snapshot, is_given: false, cuts: Vec::new() });
        tokio::spawn(self.clone().serve(listener, tls, name));
        Ok(())
    }

    /// How many there are of which this holds.
    pub fn count(&self, holds: impl Fn(&Inside) -> bool) -> usize {
        self.lock().values().filter(|inside| holds(inside)).count()
    }

    /// What one relay holds.
    pub fn of(&self, link: &str) -> Option<Inside> {
        self.lock().get(link).cloned()
    }

    /// The highest version that any has.
    pub fn newest(&self) -> u64 {
        self.lock().values().map(Inside::version).max().unwrap_or_default()
    }

    async fn serve(self, listener: TcpListener, tls: TlsAcceptor, name: String) {
        // Ends with the process.
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (tls, ports, name) = (tls.clone(), self.clone(), name.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(move |request| ports.clone().answer(request, name.clone()));
                // Who leaves, leaves.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>, name: String) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut all = self.lock();
        let answer = all.get_mut(&name).map(|inside| inside.obey(&path, body)).unwrap_or_default();
        Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Inside>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn obey(&mut self, path: &str, mut body: Value) -> Value {
        match path {
            "/v1/snapshot" => {
                self.is_given = true;
                let snapshot = body["snapshot"].take();
                if !snapshot.is_null() {
                    self.snapshot = snapshot;
                }
                json!({ "version": self.version(), "hash": hash(), "serial": "01", "notAfter": 1 })
            }
            "/v1/cut" => {
                let id = body["cut"]["id"].as_str().unwrap_or_default().to_owned();
                let fresh = !self.cuts.contains(&id);
                if fresh {
                    self.cuts.push(id);
                }
                json!({ "fresh": fresh, "ended": 0, "stored": true })
            }
            _ => self.status(),
        }
    }

    /// A relay that knows nothing of its peer yet.
    fn status(&self) -> Value {
        json!({
            "link": self.snapshot["link"],
            "version": self.version(),
            "hash": hash(),
            "formats": [1],
            "peer": { "controlConnections": 0, "replicas": [] },
            "agreed": { "own": { "sequence": self.version(), "state": "Active" } },
            "probe": {},
            "exports": [],
            "imports": [],
            "streams": { "live": 0, "opened": 0, "bytesSent": 0, "bytesReceived": 0 },
            "cuts": self.cuts,
            "ready": false,
        })
    }
}

/// Any: a version is never given twice here.
fn hash() -> String {
    format!("sha256:{}", "0".repeat(64))
}

fn tls(stored: &Stored) -> Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for authority in stored.snapshot["controlCas"].as_array().into_iter().flatten() {
        let pem = authority.as_str().unwrap_or_default().as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).context("a control CA")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain = CertificateDer::pem_slice_iter(&stored.chain).collect::<Result<Vec<_>, _>>().context("a leaf")?;
    let key = PrivateKeyDer::from_pem_slice(&stored.key).context("a leaf's key")?;
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}
