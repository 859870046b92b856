//! What the bench's other processes do: one end's relay, a hop of plain copy, or the service.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
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
                return hold(&relay).await;
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

/// Answers each line with the link's report, until there are none.
async fn hold(relay: &Relay) {
    loop {
        let read = tokio::task::spawn_blocking(|| stdin().lock().read_line(&mut String::new()));
        if read.await.unwrap().unwrap() == 0 {
            return;
        }
        tell(&serde_json::to_string(&relay.report()).unwrap());
    }
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
    let text = |name: &str| orders[name].as_str().unwrap();
    let leaf = Leaf::from_pem(text("key"), text("chain")).unwrap();
    let setup = Setup {
        snapshot: Snapshot::from_bytes(&serde_json::to_vec(&orders["snapshot"]).unwrap()).unwrap(),
        credentials: Credentials { leaf: Arc::new(leaf), transitions: Transitions::none() },
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
