//! P2: each side trusts exactly one peer. Whoever else calls is refused, each with its own reason, and the link does not notice.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use securelink_crds::conditions::ConditionType;
use securelink_e2e::organization::{IDENTITIES, NODE_PORT, Organization};
use securelink_e2e::pair::{OTHER, import};
use securelink_e2e::stream::Stream;
use securelink_e2e::wait::asking;
use securelink_e2e::{Pair, World};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a handshake may take, and a relay to count it.
const LIMIT: Duration = Duration::from_secs(20);
/// Where a relay tells its figures.
const METRICS_PORT: u16 = 15445;

/// Who calls in the peer's place: with a valid certificate that its own operator made, from another root, for another trust
/// domain, or for another partner.
pub(crate) async fn p02_strangers_are_refused_each_with_its_reason(_: &World, pair: &Pair) -> Result<()> {
    let (a, b) = (&pair.a.organization, &pair.b.organization);
    let second = IDENTITIES[1];
    b.identify("impostor", &b.domain(second)).await?;
    b.identify("third", "third.example").await?;
    // By its root the third organization is the peer's equal: as if a person had pinned one fingerprint too many.
    let pins = json!([b.fingerprint(second).await?, b.fingerprint("third").await?]);
    let mut spec = pair.a.specs[1].1.clone();
    spec["peer"]["fingerprints"] = pins;
    a.declare(OTHER, &spec).await?;
    a.until_link_says(OTHER, ConditionType::Ready, "Ready").await?;

    let stream = Stream::open(&pair.a.client, &import(OTHER)).await?;
    let us = a.domain(second);
    let callers = [
        ("impostor", "elsewhere.example", "WrongRoot"),
        ("third", us.as_str(), "WrongTrustDomain"),
        (second, "frontex.example", "WrongAudience"),
    ];
    for (identity, peer, reason) in callers {
        let (chain, key) = leaf(b, identity, peer).await.with_context(|| format!("a leaf of {identity}"))?;
        let before = refused(a, reason).await?;
        let address = a.installed.cluster.address.clone();
        let answer = tokio::task::spawn_blocking(move || call(&address, chain, key)).await??;
        ensure!(answer.is_empty(), "{reason}: a stranger is answered {} bytes", answer.len());
        let counted = asking(reason, LIMIT, |now| *now > before, async || refused(a, reason).await).await;
        counted.with_context(|| format!("{identity}, for {peer}"))?;
    }
    // Whoever has no certificate at all is told nothing either.
    let address = a.installed.cluster.address.clone();
    let answer = tokio::task::spawn_blocking(move || call(&address, Vec::new(), None)).await??;
    ensure!(answer.is_empty(), "somebody without a certificate is answered {} bytes", answer.len());
    let end = stream.finish().await?;
    ensure!(end.is_whole(), "the link between the two noticed: {end:?}");
    a.until_link_says(OTHER, ConditionType::Ready, "Ready").await.map(drop)
}

type Leaf = (Vec<CertificateDer<'static>>, Option<PrivateKeyDer<'static>>);

/// What an operator makes for a link of that identity to that peer, which need not exist.
async fn leaf(at: &Organization, identity: &str, peer: &str) -> Result<Leaf> {
    let name = format!("{identity}-caller");
    let pin = format!("sha256:{}", "0f".repeat(32));
    let peer =
        json!({ "trustDomain": peer, "fingerprints": [pin], "endpoints": [{ "host": "nobody.invalid", "port": 443 }] });
    at.declare(&name, &json!({ "identityRef": { "name": identity }, "peer": peer, "relay": { "replicas": 1 } }))
        .await?;
    at.until_link_says(&name, ConditionType::CertificateReady, "Issued").await?;
    let secret = at.links().api::<Secret>().get(&format!("{name}-leaf")).await?;
    let data = secret.data.context("it is empty")?;
    let chain = CertificateDer::pem_slice_iter(&data["tls.crt"].0).collect::<Result<Vec<_>, _>>()?;
    Ok((chain, Some(PrivateKeyDer::from_pem_slice(&data["tls.key"].0)?)))
}

/// Calls the relays as a dialer does, and returns what they answered after the handshake: nothing but the end.
fn call(address: &str, chain: Vec<CertificateDer<'static>>, key: Option<PrivateKeyDer<'static>>) -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match key {
        Some(key) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"securelink/1".to_vec()];
    let name = ServerName::try_from("link.invalid")?;
    let socket = TcpStream::connect((address, NODE_PORT)).context("the relays' port is closed")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut tls = rustls::StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, socket);
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Err(error).context("the relay neither answers nor hangs up")
        }
        // An alert, a reset, or an end.
        _ => Ok(answer),
    }
}

/// How many callers the relays of the second link have refused for a reason: their own figures, read as kubectl port-forward
/// does.
async fn refused(at: &Organization, reason: &str) -> Result<u64> {
    let mut sum = 0;
    for relay in at.relays(OTHER).await? {
        let pods = at.links().api::<Pod>();
        let mut forward = pods.portforward(&relay.name_any(), &[METRICS_PORT]).await?;
        let mut stream = forward.take_stream(METRICS_PORT).context("no stream")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let label = format!("reason=\"{reason}\"");
        let lines = text.lines().filter(|line| line.starts_with("securelink_refused_total") && line.contains(&label));
        sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}

/// Takes whoever answers for the right one: a stranger does not care.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
