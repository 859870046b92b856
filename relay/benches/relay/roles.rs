//! What the bench's other processes do: one end's relay, a hop of plain copy, the service, or to hold another program.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use rustix::process::{Pid, Signal, kill_process};
use securelink_pki::{Leaf, Transitions};
use securelink_relay::{Capacity, Clock, Credentials, Memory, Metrics, Relay, Setup, Store};
use securelink_relay_config::{CutBook, Latch, Snapshot};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::traffic;

/// Bytes a hop of plain copy holds in each direction: as large as our largest batch.
const COPY_BUFFER: usize = 256 * 1024;

/// Plays `role` until standard input ends. Says on a line of its own where it listens.
pub fn play(role: &str, arguments: &[String]) {
    if role == "hold" {
        return hold(&arguments[0], &arguments[1..]);
    }
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        match role {
            "service" => tokio::spawn(traffic::serve(listen().await)),
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

async fn start(orders: &Value) -> Relay {
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
