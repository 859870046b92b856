//! A peer with the right credentials and bad manners: TLS and frames by hand.

use std::net::SocketAddr;

use rustls_pki_types::ServerName;
use securelink_id::TrustDomain;
use securelink_pki::testing::Organization;
use securelink_pki::tls::{Credentials, Options, client_config};
use securelink_relay::wire::{
    ALPN, Code, EARLY_DATA, Header, Hello, Idle, Kind, Message, Open, ReplicaId, Role, StreamId,
};
use securelink_relay_config::{Head, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{PATIENCE, Pair, TestClock};

/// What an intruder hears.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // short-lived
pub enum Heard {
    Message(Message),
    Data(Vec<u8>),
    /// The connection ended.
    End,
}

/// How to call `b` as a replica of `a` would.
#[derive(Clone)]
pub struct Caller {
    connector: TlsConnector,
    address: SocketAddr,
    pub head: Head,
    own: TrustDomain,
}

/// One connection.
pub struct Intruder {
    pub stream: TlsStream<tokio::net::TcpStream>,
}

/// The head of a snapshot that nothing cuts.
pub fn head_of(snapshot: &Snapshot) -> Head {
    snapshot.head(&snapshot.declaration(None).to_bytes(), false)
}

pub fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

pub fn hello(role: Role, own: &TrustDomain, head: &Head) -> Message {
    Message::Hello(Hello {
        versions: (1, 1),
        role,
        trust_domain: own.clone(),
        replica: ReplicaId([7; 16]),
        epoch: 1,
        early_data: u32::try_from(EARLY_DATA).unwrap(),
        head: head.clone(),
        pin: None,
    })
}

pub fn open(service: &str) -> Message {
    Message::Open(Open {
        stream: StreamId([9; 16]),
        service: service.to_owned(),
        client: "intruder".to_owned(),
        traceparent: None,
        deadline_ms: None,
    })
}

pub fn data(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Header { kind: Kind::Data, length: bytes.len() }.encode().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

impl Caller {
    pub fn new(pair: &Pair) -> Self {
        Self::by(&pair.org_a, &pair.org_b, pair.b.listens_on(), head_of(&pair.a.snapshot))
    }

    pub fn by(own: &Organization, peer: &Organization, address: SocketAddr, head: Head) -> Self {
        let ours = Credentials::new(&own.leaf_to(&peer.domain), &own.transitions, None).unwrap();
        let options = Options {
            alpn: vec![ALPN.to_vec()],
            allow_classical: false,
            extract_secrets: false,
            clock: TestClock::new().clock(),
        };
        let connector = TlsConnector::from(client_config(&ours, &own.trusts(peer), &options).unwrap());
        Self { connector, address, head, own: own.domain.clone() }
    }

    pub fn hello(&self, role: Role) -> Vec<u8> {
        encoded(&hello(role, &self.own, &self.head))
    }

    /// Up to the end of TLS. With small buffers, what is not read is soon felt.
    pub async fn knock(&self) -> Intruder {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        let knocking = async {
            let socket = socket.connect(self.address).await.expect("the listener listens");
            let name = ServerName::try_from("b.example").unwrap();
            self.connector.connect(name, socket).await.expect("TLS passes")
        };
        Intruder { stream: timeout(PATIENCE, knocking).await.expect("the end of TLS").into() }
    }

    /// Up to the answer to HELLO: the intruder, and what was answered.
    pub async fn call(&self, role: Role) -> (Intruder, Heard) {
        let mut intruder = self.knock().await;
        intruder.send(&self.hello(role)).await;
        let heard = intruder.hear().await;
        (intruder, heard)
    }

    /// Up to both HELLOs.
    pub async fn connect(&self, role: Role) -> Intruder {
        let (intruder, heard) = self.call(role).await;
        assert!(matches!(heard, Heard::Message(Message::Hello(_))), "{heard:?}");
        intruder
    }
}

impl Intruder {
    /// The relay may hang up at any moment.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let _: std::io::Result<()> = timeout(PATIENCE, sending).await.expect("the relay reads");
    }

    pub async fn say(&mut self, message: &Message) {
        self.send(&encoded(message)).await;
    }

    async fn next(&mut self) -> std::io::Result<Heard> {
        let mut header = [0; Header::LEN];
        self.stream.read_exact(&mut header).await?;
        let header = Header::parse(header).expect("the relay sends frames");
        let mut payload = vec![0; header.length];
        self.stream.read_exact(&mut payload).await?;
        Ok(match header.kind {
            Kind::Data => Heard::Data(payload),
            kind => Heard::Message(Message::decode(kind, &payload).expect("the relay sends messages")),
        })
    }

    /// The next frame.
    pub async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.next()).await.expect("a frame or the end").unwrap_or(Heard::End)
    }

    /// The next frame, however long it takes.
    pub async fn hear_for_ever(&mut self) -> Heard {
        self.next().await.unwrap_or(Heard::End)
    }

    /// Hears on until `wanted`.
    pub async fn hear_until(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        loop {
            let heard = self.hear().await;
            if wanted(&heard) {
                return heard;
            }
            assert_ne!(heard, Heard::End, "the relay hung up");
        }
    }

    /// Hears on to the end: the code of a BYE, if there was one.
    pub async fn hear_goodbye(&mut self) -> Option<Code> {
        let mut code = None;
        loop {
            match self.hear().await {
                Heard::Message(Message::Bye(bye)) => code = Some(bye.code),
                Heard::End => return code,
                _ => {}
            }
        }
    }

    /// Opens `service` and waits for ACCEPT.
    pub async fn opened(&mut self, service: &str) {
        self.say(&open(service)).await;
        self.hear_until(|heard| *heard == Heard::Message(Message::Accept)).await;
    }

    pub async fn say_idle(&mut self, sent: u64, received: u64) {
        self.say(&Message::Idle(Idle { sent, received })).await;
    }
}
