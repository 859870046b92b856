//! This relay: a pair with keys of its own.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::organization::Organization;
use super::{Kind, LOOK_EVERY, Side, System, free_port};
use crate::process::Process;

/// Whose relays they are.
pub struct Pair([Organization; 2]);

/// Two relays; ready when a round trip was made.
pub async fn start(kind: Kind, service: SocketAddr) -> System {
    let pair = Pair(Organization::two());
    let ports = [free_port(), free_port()];
    let import = json!({"imports": [
        {"name": "bench", "slot": 0, "listen": "127.0.0.1:0", "dataClass": "strategic"}]});
    let target = json!({"host": service.ip(), "port": service.port()});
    let export = json!({"exports": [{"name": "bench", "target": target, "dataClass": "strategic"}]});
    let mut relays: Vec<_> = [import, export]
        .iter()
        .enumerate()
        .map(|(end, services)| {
            let mut process = Process::play("relay", &[]);
            process.ask(&pair.orders(kind, end, ports, services).to_string());
            process
        })
        .collect();
    let address = loop {
        let report = relays[0].ask("{}");
        if report["probe"]["lastSuccess"].is_u64() {
            break report["imports"][0]["address"].as_str().unwrap().parse().unwrap();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    System { kind, address, relays, side: Side::Ours(Box::new(pair)) }
}

/// Cuts the link at `relay`.
pub fn cut(relay: &mut Process) -> Value {
    relay.ask(&json!({"cut": {"id": "bench", "revision": 1, "scope": "link", "reason": "bench"}}).to_string())
}

impl Pair {
    /// Another leaf for each.
    pub fn renew(&self, relays: &mut [Process]) {
        for (end, relay) in relays.iter_mut().enumerate() {
            relay.ask(&json!({"leaf": self.leaf(end)}).to_string());
        }
    }

    fn leaf(&self, end: usize) -> Value {
        let leaf = self.0[end].leaf_to(&self.0[1 - end].domain);
        json!({"key": leaf.key().to_pem().as_str(), "chain": leaf.chain_pem()})
    }

    /// All that the relay of one end needs to be told.
    fn orders(&self, kind: Kind, end: usize, ports: [u16; 2], services: &Value) -> Value {
        let (own, peer) = (&self.0[end], &self.0[1 - end]);
        let mut snapshot = json!({
            "format": 1,
            "version": 1,
            "link": {"namespace": "bench", "name": "bench"},
            "own": own.domain,
            "peer": {
                "trustDomain": peer.domain,
                "fingerprints": [peer.fingerprint()],
                "endpoints": [{"host": "127.0.0.1", "port": ports[1 - end]}],
            },
            "listen": SocketAddr::from(([127, 0, 0, 1], ports[end])),
            "records": if kind == Kind::InPlace { "InPlace" } else { "Rustls" },
            "maxStalenessSeconds": 3600,
        });
        snapshot.as_object_mut().unwrap().extend(services.as_object().unwrap().clone());
        json!({"snapshot": snapshot, "leaf": self.leaf(end)})
    }
}
