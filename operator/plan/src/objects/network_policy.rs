//! Who may reach the relays of a link, and whom they may reach: one `NetworkPolicy` that lives and dies with the link (P11).
//!
//! In a rule an empty list of peers means everyone. So each rule here is made from a list that is not empty, or not at all.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use securelink_crds::keys::NAMESPACE_NAME;

use super::Inputs;
use crate::gathered::Installation;
use crate::hosting::{CONTROL_PORT, METRICS_PORT, PEER_PORT};
use crate::names;
use crate::validated::Target;

const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// Link-local, where the clouds' metadata is, and the one metadata address outside of it.
const NEVER: [&str; 3] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"];

pub(super) fn build(inputs: &Inputs<'_>) -> NetworkPolicy {
    NetworkPolicy {
        metadata: inputs.relay_metadata(),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(names::relays(inputs.name())),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress(inputs)),
            egress: Some(egress(inputs)),
        }),
    }
}

fn ingress(inputs: &Inputs<'_>) -> Vec<NetworkPolicyIngressRule> {
    let installation = inputs.installation;
    let mut rules = Vec::new();
    for import in &inputs.link.imports {
        let port = inputs.import_port(&import.name).filter(|_| !import.declared.clients.is_empty());
        rules.extend(port.map(|port| from(import.declared.clients.clone(), port)));
    }
    if let Some(expose) = &inputs.link.expose {
        rules.push(if expose.allowed_sources.is_empty() {
            NetworkPolicyIngressRule { from: None, ports: Some(vec![tcp(PEER_PORT)]) }
        } else {
            from(blocks(&expose.allowed_sources), PEER_PORT)
        });
    }
    rules.push(from(vec![installation.operator.clone()], CONTROL_PORT));
    let readers = std::iter::once(&installation.operator).chain(&installation.monitoring);
    rules.push(from(readers.cloned().collect(), METRICS_PORT));
    rules
}

fn egress(inputs: &Inputs<'_>) -> Vec<NetworkPolicyEgressRule> {
    let installation = inputs.installation;
    let names = installation.dns.iter().filter(|servers| !servers.peers.is_empty());
    let mut rules: Vec<_> = names.map(|servers| to(servers.peers.clone(), dns(servers.port))).collect();
    for export in &inputs.link.exports {
        let rule = match &export.target {
            Target::Service(service) => {
                to(vec![pods(&service.namespace, &service.pods)], vec![port("TCP", service.port.clone())])
            }
            Target::Host(host) => {
                let address = host.host.parse::<IpAddr>().map(IpNet::from);
                let peers = address.map_or_else(|_| outside(installation), |address| blocks(&[address]));
                to(peers, vec![tcp(host.port)])
            }
        };
        // Two exports may lead to one place.
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules.extend(to_peer(inputs));
    rules
}

/// The way to the peer's relays, or to the proxy in front of them; none when we only listen.
fn to_peer(inputs: &Inputs<'_>) -> Option<NetworkPolicyEgressRule> {
    let link = inputs.link;
    let dialed = link.peer.proxy.as_ref().map_or(link.peer.endpoints.as_slice(), std::slice::from_ref);
    let mut ports: Vec<u16> = dialed.iter().map(|endpoint| endpoint.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let peers = if link.egress.is_empty() { outside(inputs.installation) } else { blocks(&link.egress) };
    (!link.peer.endpoints.is_empty()).then(|| to(peers, ports.into_iter().map(tcp).collect()))
}

/// Anywhere but link-local, metadata, what is denied and what is the cluster's own.
fn outside(installation: &Installation) -> Vec<NetworkPolicyPeer> {
    let never = NEVER.iter().filter_map(|network| network.parse().ok());
    let own = installation.ranges.iter().chain(&installation.denied).copied();
    // Of networks within each other one is enough.
    let excepted = IpNet::aggregate(&never.chain(own).collect());
    let families = EVERYWHERE.iter().take(if installation.ipv6 { 2 } else { 1 });
    let block = |everywhere: IpNet| {
        let inside = excepted.iter().filter(|network| everywhere.contains(*network) && **network != everywhere);
        let except = Some(inside.map(ToString::to_string).collect::<Vec<_>>()).filter(|except| !except.is_empty());
        peer(IPBlock { cidr: everywhere.to_string(), except })
    };
    families.filter_map(|network| network.parse().ok()).map(block).collect()
}

fn pods(namespace: &str, labels: &BTreeMap<String, String>) -> NetworkPolicyPeer {
    let matching = |labels: BTreeMap<String, String>| {
        Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() })
    };
    NetworkPolicyPeer {
        namespace_selector: matching(BTreeMap::from([(NAMESPACE_NAME.to_owned(), namespace.to_owned())])),
        pod_selector: matching(labels.clone()),
        ip_block: None,
    }
}

fn blocks(networks: &[IpNet]) -> Vec<NetworkPolicyPeer> {
    networks.iter().map(|network| peer(IPBlock { cidr: network.to_string(), except: None })).collect()
}

fn peer(block: IPBlock) -> NetworkPolicyPeer {
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}

fn from(peers: Vec<NetworkPolicyPeer>, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: Some(peers), ports: Some(vec![tcp(port)]) }
}

fn to(peers: Vec<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(peers), ports: Some(ports) }
}

fn dns(number: u16) -> Vec<NetworkPolicyPort> {
    ["UDP", "TCP"].map(|protocol| port(protocol, IntOrString::Int(number.into()))).into()
}

fn tcp(number: u16) -> NetworkPolicyPort {
    port("TCP", IntOrString::Int(number.into()))
}

fn port(protocol: &str, port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(port), end_port: None }
}
