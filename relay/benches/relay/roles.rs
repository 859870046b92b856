//! What the bench's other processes do: one end's relay, a hop of plain copy, the service, a flood of strangers, what is
//! counted, or to hold another program.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rustix::process::{Pid, Signal, kill_process};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, version};
use securelink_pki::testing::Anyone;
use securelink_pki::{Leaf, Transitions};
use securelink_relay::{Capacity, Clock, Credentials, Memory, Metrics, Relay, Setup, Store};
use securelink_relay_config::{CutBook, Latch, Snapshot};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::counts;
use crate::traffic;

/// Bytes a hop of plain copy holds in each direction: as large as our largest batch.
const COPY_BUFFER: usize = 256 * 1024;

/// Plays `role` until standard input ends. Says on a line of its own where it listens.
pub fn play(role: &str, arguments: &[String]) {
    if role == "hold" {
        return hold(&arguments[0], &arguments[1..]);
    }
    if role == "counted" {
        // One thread: nothing is stolen, and what is counted is always the same.
        let thread = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return thread.block_on(counts::play(&arguments[0], arguments[1].parse().unwrap()));
    }
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        match role {
            "service" => tokio::spawn(traffic::serve(listen().await)),
            "flood" => tokio::spawn(flood(arguments[0].parse().unwrap(), arguments[1].clone())),
            "copy" => tokio::spawn(copy(listen().await, arguments[0].parse().unwrap())),
            "relay" => {
                let mut line = String::new();
                stdin().lock().read_line(&mut line).unwrap();
                let relay = start(&serde_json::from_str(&line).unwrap()).await;
                tell(&serde_json::to_string(&relay.report()).unwrap());
                return obey(&relay).await;
            }
            other => panic!("no such role: {other}"),
        };
        tokio::task::spawn_blocking(|| std::io::copy(&mut stdin(), &mut std::io::sink())).await.unwrap().unwrap();
    });
    // What still runs is not waited for.
    threads.shutdown_background();
}

fn tell(line: &str) {
    println!("{line}");
    stdout().flush().unwrap();
}

async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell(&listener.local_addr().unwrap().to_string());
    listener
}

/// Starts another program, says its process id, hands it a SIGHUP for each line that is read, and ends it.
fn hold(program: &str, arguments: &[String]) {
    let mut command = Command::new(program);
    // Standard output is for the bench.
    let mut child = command.args(arguments).stdin(Stdio::null()).stdout(std::io::stderr()).spawn().unwrap();
    tell(&child.id().to_string());
    for _ in stdin().lock().lines() {
        // Whoever asked waits for what it brings, and says if nothing comes.
        let _ = kill_process(Pid::from_child(&child), Signal::HUP);
        tell("null");
    }
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    child.wait().unwrap();
}

/// Does what each line says and answers with the link's report, or what a cut did, until there are none.
async fn obey(relay: &Relay) {
    loop {
        let read = tokio::task::spawn_blocking(|| stdin().lock().lines().next());
        let Some(line) = read.await.unwrap() else { return };
        let order: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if order["leaf"].is_object() {
            relay.install(credentials(&order["leaf"])).unwrap();
        }
        if order["cut"].is_object() {
            relay.cut(serde_json::from_value(order["cut"].clone()).unwrap()).await;
        }
        tell(&serde_json::to_string(&relay.report()).unwrap());
    }
}

fn credentials(leaf: &Value) -> Credentials {
    let text = |name: &str| leaf[name].as_str().unwrap();
    let leaf = Leaf::from_pem(text("key"), text("chain")).unwrap();
    Credentials { leaf: Arc::new(leaf), transitions: Transitions::none() }
}

struct Forgetful;

impl Store for Forgetful {
    fn save_latch(&self, _: &Latch) -> std::io::Result<()> {
        Ok(())
    }

    fn save_cuts(&self, _: &CutBook) -> std::io::Result<()> {
        Ok(())
    }
}

/// A relay by all that it needs to be told.
pub async fn start(orders: &Value) -> Relay {
    let setup = Setup {
        snapshot: Snapshot::from_bytes(&serde_json::to_vec(&orders["snapshot"]).unwrap()).unwrap(),
        credentials: credentials(&orders["leaf"]),
        memory: Memory::default(),
        store: Arc::new(Forgetful),
        clock: Clock::system(),
        metrics: Metrics::register(&mut Registry::default()),
        capacity: Capacity::of_process(),
    };
    Relay::start(setup).await.unwrap()
}

/// Strangers who begin a handshake and let the relay wait: as many as a relay of ours lets be in one, and more.
const WAITING: usize = 300;
/// Between two strangers who go through a handshake until they lack a certificate: a tenth of a core at either end.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(20);
/// The beginning of a `ClientHello`.
const HALF: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

/// Strangers at `target`, who come again when they are sent away. Says a line when all have come once.
async fn flood(target: SocketAddr, alpn: String) {
    let mut strangers = JoinSet::new();
    let waiting = async move || -> std::io::Result<TcpStream> {
        let mut socket = TcpStream::connect(target).await?;
        socket.write_all(&HALF).await?;
        Ok(socket)
    };
    for _ in 0..WAITING {
        let first = waiting().await;
        strangers.spawn(async move {
            let mut stranger = first;
            loop {
                match &mut stranger {
                    Ok(socket) => _ = socket.read_to_end(&mut Vec::new()).await,
                    // It takes nobody at the moment.
                    Err(_) => tokio::time::sleep(HANDSHAKE_EVERY).await,
                }
                stranger = waiting().await;
            }
        });
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = (!alpn.is_empty()).then(|| alpn.into_bytes()).into_iter().collect();
    let connector = TlsConnector::from(Arc::new(config));
    tell("there");
    let mut due = tokio::time::interval(HANDSHAKE_EVERY);
    loop {
        due.tick().await;
        let connector = connector.clone();
        strangers.spawn(async move {
            let Ok(socket) = TcpStream::connect(target).await else { return };
            let Ok(mut socket) = connector.connect("relay.test".try_into().unwrap(), socket).await else { return };
            let _ = socket.read(&mut [0]).await;
        });
    }
}

/// One hop without anything of ours.
async fn copy(listener: TcpListener, to: SocketAddr) {
    loop {
        let Ok((mut here, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let mut there = TcpStream::connect(to).await.ok()?;
            here.set_nodelay(true).ok()?;
            there.set_nodelay(true).ok()?;
            // An end that goes away ends this connection only.
            tokio::io::copy_bidirectional_with_sizes(&mut here, &mut there, COPY_BUFFER, COPY_BUFFER).await.ok()
        });
    }
}
