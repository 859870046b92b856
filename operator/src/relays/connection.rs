//! One connection to a relay's control port: mutual TLS, HTTP/1.1, one question at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use securelink_relay_config::control::Refused;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

/// From the first packet to the end of the handshake, within one cluster.
const CONNECT: Duration = Duration::from_secs(3);
/// Largest answer: a status names at most 128 services and what is wrong with them.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a relay did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("cannot connect to the relay at {address}: {why}; maybe a NetworkPolicy blocks port {port}", port = .address.port())]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The connection broke, or nothing came in time.
    #[error("the relay at {address} did not answer: {why}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// It answered that it will not.
    #[error("the relay at {address} refused: {}", refused.error)]
    Refused {
        /// Where.
        address: SocketAddr,
        /// Why.
        refused: Refused,
    },
}

impl AskError {
    /// Whether the connection can be asked again.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether nobody was reached at all.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}

/// A connection.
pub struct Connection {
    address: SocketAddr,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects. Who answers has proved to be a relay of the link that `tls` was made for.
    pub async fn open(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Self, AskError> {
        let failed = |why: String| AskError::Connect { address, why };
        let connect = async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            // The name proves nothing and is not looked at: the leaf's identity is.
            let name = ServerName::IpAddress(address.ip().into());
            let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| error.to_string())?;
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())
        };
        let (sender, connection) =
            timeout(CONNECT, connect).await.map_err(|_| failed("timed out".to_owned()))?.map_err(failed)?;
        tokio::spawn(async move {
            // How it ended is told by the question that was under way.
            let _ = connection.await;
        });
        Ok(Self { address, sender })
    }

    /// Asks without a body.
    pub async fn get<R: DeserializeOwned>(&mut self, path: &str, patience: Duration) -> Result<R, AskError> {
        self.ask(Method::GET, path, Bytes::new(), patience).await
    }

    /// Asks with a body in JSON.
    pub async fn send<T: Serialize, R: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &T,
        patience: Duration,
    ) -> Result<R, AskError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(&error))?;
        self.ask(method, path, body.into(), patience).await
    }

    /// Asks with a body that is JSON already.
    pub(super) async fn ask<R: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<R, AskError> {
        let request = Request::builder().method(method).uri(path).header(HOST, "relay");
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|error| self.broken(&error))?;
        let asked = async {
            self.sender.ready().await.map_err(|error| error.to_string())?;
            let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body =
                Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let (status, body) = match timeout(patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(self.broken(&why)),
            Err(_) => return Err(self.broken(&format!("nothing came within {patience:?}"))),
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| self.broken(&error));
        }
        match serde_json::from_slice(&body) {
            Ok(refused) => Err(AskError::Refused { address: self.address, refused }),
            Err(_) => Err(self.broken(&format!("status {status}"))),
        }
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> AskError {
        AskError::Broken { address: self.address, why: why.to_string() }
    }
}
