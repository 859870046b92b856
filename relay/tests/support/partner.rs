//! A partner without our software: TLS and HTTP by hand, on a link with `protocol: Connect`.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use securelink_pki::Transitions;
use securelink_pki::testing::Organization;
use securelink_pki::tls::{Credentials, Options, client_config};
use securelink_relay_config::{Digest, Protocol, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{PATIENCE, Side, TestClock, export, snapshot};

/// Our relay with one export, `notices`, and a partner that may ask for it.
pub struct Host {
    pub own: Organization,
    pub partner: Organization,
    pub side: Side,
    /// What `notices` leads to.
    pub target: TcpListener,
}

/// What a relay answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Status and code of a refusal.
    pub fn refusal(&self) -> (u16, &str) {
        (self.status, self.field("Securelink-Code").unwrap_or_default())
    }
}

impl Host {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(edit: impl FnOnce(&mut Snapshot)) -> Self {
        let (own, partner) = (Organization::new("a.example"), Organization::new("b.example"));
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut snapshot = snapshot(&own, &partner);
        snapshot.peer.protocol = Protocol::Connect;
        snapshot.exports.push(export("notices", target.local_addr().unwrap()));
        edit(&mut snapshot);
        let side = Side::start(&own, &partner.domain, snapshot).await;
        Self { own, partner, side, target }
    }

    pub fn caller(&self) -> Caller {
        self.caller_as(&self.partner, &[b"http/1.1"])
    }

    /// Somebody else, or in other protocols.
    pub fn caller_as(&self, who: &Organization, alpn: &[&[u8]]) -> Caller {
        let leaf = Credentials::new(&who.leaf_to(&self.own.domain), &Transitions::none(), None).unwrap();
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        let options = Options { alpn, allow_classical: false, extract_secrets: false, clock: TestClock::new().clock() };
        let config = client_config(&leaf, &self.partner.trusts(&self.own), &options).unwrap();
        Caller { connector: TlsConnector::from(Arc::clone(&config)), address: self.side.listens_on() }
    }

    /// A tunnel to `notices` and the service's end of it.
    pub async fn tunnel(&self) -> (TlsStream<TcpStream>, TcpStream) {
        let (answer, tunnel) = self.caller().ask(&request("notices")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (service, _) = timeout(PATIENCE, self.target.accept()).await.expect("the service is dialed").unwrap();
        (tunnel, service)
    }

    /// How a request is refused.
    pub async fn refusal(&self, head: &str) -> Answer {
        let (answer, mut rest) = self.caller().ask(head).await;
        assert_ne!(answer.status, 200, "{head:?}");
        let mut more = Vec::new();
        timeout(PATIENCE, rest.read_to_end(&mut more)).await.expect("the relay hangs up").expect("cleanly");
        assert_eq!(more, b"", "nothing follows a refusal");
        answer
    }
}

/// The request for an export under the agreement that `snapshot` names.
pub fn request(export: &str) -> String {
    naming(export, &Digest::of(b"memorandum").to_string())
}

pub fn naming(export: &str, agreement: &str) -> String {
    format!("CONNECT {export}:443 HTTP/1.1\r\nHost: {export}:443\r\nSecurelink-Agreement: {agreement}\r\n\r\n")
}

/// How a partner calls.
#[derive(Clone)]
pub struct Caller {
    connector: TlsConnector,
    address: SocketAddr,
}

impl Caller {
    /// Up to the end of the handshake, as this side sees it.
    pub async fn call(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let calling = async {
            let socket = TcpStream::connect(self.address).await?;
            socket.set_nodelay(true)?;
            self.connector.connect(ServerName::try_from("a.example").unwrap(), socket).await
        };
        timeout(PATIENCE, calling).await.expect("the listener answers")
    }

    /// Sends a request, or whatever it is, and reads the answer.
    pub async fn ask(&self, head: &str) -> (Answer, TlsStream<TcpStream>) {
        let mut tunnel = self.call().await.expect("TLS passes");
        tunnel.write_all(head.as_bytes()).await.unwrap();
        tunnel.flush().await.unwrap();
        (answer(&mut tunnel).await, tunnel)
    }
}

/// Reads one answer and not a byte more.
pub async fn answer(tunnel: &mut TlsStream<TcpStream>) -> Answer {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tunnel.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("HTTP").parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        if let Some(length) = answer.field("Content-Length") {
            let mut body = vec![0; length.parse().unwrap()];
            tunnel.read_exact(&mut body).await.expect("the whole body");
            answer.body = String::from_utf8(body).unwrap();
        }
        answer
    };
    timeout(PATIENCE, reading).await.expect("an answer in time")
}
