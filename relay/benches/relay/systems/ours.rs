//! This relay: a pair with keys of its own.

use std::net::SocketAddr;

use securelink_relay::Relay;
use serde_json::{Value, json};

use super::organization::Organization;
use super::{Kind, LOOK_EVERY, Side, System, free_port};
use crate::process::Process;
use crate::roles;

/// Whose relays they are.
pub struct Pair([Organization; 2]);

/// Two relays; ready when a round trip was made.
pub async fn start(kind: Kind, service: SocketAddr) -> System {
    let (pair, ports) = (Pair(Organization::two()), [free_port(), free_port()]);
    let mut relays = Vec::new();
    for orders in pair.orders(kind, ports, service) {
        let mut process = Process::play("relay", &[]);
        process.ask(&orders.to_string());
        relays.push(process);
    }
    let address = loop {
        if let Some(address) = ready(&relays[0].ask("{}")) {
            break address;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let listener = Some(SocketAddr::from(([127, 0, 0, 1], ports[1])));
    System { kind, address, listener, relays, side: Side::Ours(Box::new(pair)) }
}

/// Two relays of this process.
pub struct Here {
    /// Where the client connects.
    pub address: SocketAddr,
    _relays: Vec<Relay>,
}

/// The same in this process; ready when a round trip was made.
pub async fn start_here(kind: Kind, service: SocketAddr) -> Here {
    let mut relays = Vec::new();
    for orders in Pair(Organization::two()).orders(kind, [free_port(), free_port()], service) {
        relays.push(roles::start(&orders).await);
    }
    loop {
        if let Some(address) = ready(&serde_json::to_value(relays[0].report()).unwrap()) {
            return Here { address, _relays: relays };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where the client connects, once a round trip was made.
fn ready(report: &Value) -> Option<SocketAddr> {
    report["probe"]["lastSuccess"].as_u64()?;
    report["imports"][0]["address"].as_str()?.parse().ok()
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

    /// All that each relay needs to be told.
    fn orders(&self, kind: Kind, ports: [u16; 2], service: SocketAddr) -> [Value; 2] {
        let import = json!({"imports": [
            {"name": "bench", "slot": 0, "listen": "127.0.0.1:0", "dataClass": "strategic"}]});
        let target = json!({"host": service.ip(), "port": service.port()});
        let export = json!({"exports": [{"name": "bench", "target": target, "dataClass": "strategic"}]});
        [self.order(kind, 0, ports, &import), self.order(kind, 1, ports, &export)]
    }

    fn order(&self, kind: Kind, end: usize, ports: [u16; 2], services: &Value) -> Value {
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
