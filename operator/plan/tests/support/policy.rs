//! Who gets through a `NetworkPolicy`: a small evaluator, by the words of Kubernetes' documentation. Where those leave
//! something to the network (whether a block of addresses means pods too), it takes the wider reading.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub type Labels = BTreeMap<String, String>;

/// Somebody on the network: a pod, or an address without one.
#[derive(Clone, Debug)]
pub struct Party {
    pub address: IpAddr,
    pub pod: Option<Pod>,
}

#[derive(Clone, Debug, Default)]
pub struct Pod {
    pub namespace: String,
    pub namespace_labels: Labels,
    pub labels: Labels,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
}

pub fn admits_ingress(policy: &NetworkPolicy, from: &Party, port: u16) -> bool {
    let spec = policy.spec.as_ref().unwrap();
    let rules = spec.ingress.iter().flatten();
    !restricts(policy, "Ingress")
        || rules.into_iter().any(|rule| {
            meets(policy, rule.from.as_deref(), from) && opens(rule.ports.as_deref(), ("TCP", port), &BTreeMap::new())
        })
}

pub fn admits_egress(policy: &NetworkPolicy, to: &Party, protocol: &str, port: u16) -> bool {
    let spec = policy.spec.as_ref().unwrap();
    let unnamed = BTreeMap::new();
    let names = to.pod.as_ref().map_or(&unnamed, |pod| &pod.ports);
    let rules = spec.egress.iter().flatten();
    !restricts(policy, "Egress")
        || rules
            .into_iter()
            .any(|rule| meets(policy, rule.to.as_deref(), to) && opens(rule.ports.as_deref(), (protocol, port), names))
}

fn restricts(policy: &NetworkPolicy, direction: &str) -> bool {
    policy.spec.as_ref().unwrap().policy_types.iter().flatten().any(|kind| kind == direction)
}

/// No list and an empty list mean everybody.
fn meets(policy: &NetworkPolicy, peers: Option<&[NetworkPolicyPeer]>, party: &Party) -> bool {
    let namespace = policy.metadata.namespace.as_deref().unwrap();
    let peers = peers.unwrap_or_default();
    peers.is_empty() || peers.iter().any(|peer| is(peer, namespace, party))
}

/// Whether a peer, written in `namespace`, means the party.
pub fn is(peer: &NetworkPolicyPeer, namespace: &str, party: &Party) -> bool {
    if let Some(block) = &peer.ip_block {
        let within = |network: &String| network.parse::<IpNet>().unwrap().contains(&party.address);
        return within(&block.cidr) && !block.except.iter().flatten().any(within);
    }
    let Some(pod) = &party.pod else { return false };
    let in_namespace = peer
        .namespace_selector
        .as_ref()
        .map_or(pod.namespace == namespace, |selector| selects(selector, &pod.namespace_labels));
    in_namespace && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &pod.labels))
}

fn opens(ports: Option<&[NetworkPolicyPort]>, (protocol, port): (&str, u16), names: &BTreeMap<String, u16>) -> bool {
    let ports = ports.unwrap_or_default();
    ports.is_empty()
        || ports.iter().any(|open| {
            let number = match &open.port {
                None => true,
                Some(IntOrString::Int(from)) => (*from..=open.end_port.unwrap_or(*from)).contains(&i32::from(port)),
                Some(IntOrString::String(name)) => names.get(name) == Some(&port),
            };
            number && open.protocol.as_deref().unwrap_or("TCP") == protocol
        })
}

pub fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|rule| {
            let found = labels.get(&rule.key);
            let listed = found.is_some_and(|found| rule.values.iter().flatten().any(|value| value == found));
            match rule.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                other => panic!("{other} is no operator"),
            }
        })
}

pub fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
