//! What depends on where a link runs: listeners, targets, addresses never dialed. Cluster and machine differ only here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use securelink_crds::conditions::Reason;
use securelink_crds::{Export, Import, SecureLinkSpec};
use securelink_relay_config::{DialRules, Endpoint};

use crate::gathered::{Mode, Standalone};
use crate::validated::Target;
use crate::verdict::{About, Problem};

/// Port of the peer's listener in a pod (contracts 4).
const PEER_PORT: u16 = 15_443;

/// Never dialed: this network, link-local with the clouds' metadata, multicast, broadcast, the unspecified address, IPv4
/// in IPv6's clothes, and the one metadata address outside of link-local.
const NOWHERE: [&str; 9] = [
    "0.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::ffff:0:0/96",
    "fd00:ec2::254/128",
    "fe80::/10",
    "ff00::/8",
];
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Where the peer's listener binds; absent when we only dial.
pub(crate) fn listen(spec: &SecureLinkSpec, mode: &Mode) -> Option<SocketAddr> {
    let expose = spec.expose.as_ref()?;
    Some(match mode {
        Mode::Standalone(here) => here.listen.unwrap_or((Ipv4Addr::UNSPECIFIED, expose.port).into()),
        Mode::Cluster(_) => (Ipv4Addr::UNSPECIFIED, PEER_PORT).into(),
    })
}

/// Where clients of an import connect; in a cluster its slot decides.
pub(crate) fn listen_import(import: &Import, mode: &Mode) -> Option<SocketAddr> {
    matches!(mode, Mode::Standalone(_)).then_some((Ipv4Addr::LOCALHOST, import.port).into())
}

/// Where an exported service is, or why it cannot be used.
pub(crate) fn target(
    export: &Export,
    field: &str,
    mode: &Mode,
    targets: &BTreeMap<String, Endpoint>,
) -> Result<Target, Problem> {
    let unusable = |message: String, remedy: &str| Problem {
        reason: Reason::Invalid,
        about: About::Export(export.name.clone()),
        field: format!("{field}.target"),
        message,
        remedy: remedy.to_owned(),
    };
    if let Some(host) = &export.target.host {
        return Ok(Target::Host(Endpoint { host: host.clone(), port: export.target.port }));
    }
    match mode {
        Mode::Standalone(_) => {
            Err(unusable("a Service target needs a cluster".to_owned(), "write host and port instead of service"))
        }
        Mode::Cluster(_) => targets.get(&export.name).cloned().map(Target::Service).ok_or_else(|| {
            let service = export.target.service.as_deref().unwrap_or_default();
            unusable(format!("the Service {service} is not there"), "create it, or name another one")
        }),
    }
}

/// The addresses never dialed.
pub(crate) fn dial_rules(mode: &Mode) -> DialRules {
    let (denied, denied_endpoints): (Vec<&str>, &[&str]) = match mode {
        Mode::Standalone(Standalone { allow_loopback_peers: true, .. }) => (NOWHERE.to_vec(), &[]),
        Mode::Standalone(_) => (NOWHERE.to_vec(), &LOOPBACK),
        Mode::Cluster(cluster) => {
            let own = cluster.denied.iter().map(String::as_str);
            (NOWHERE.into_iter().chain(LOOPBACK).chain(own).collect(), &[])
        }
    };
    // The constants parse, a test says so; of a cluster's own the caller says what does not.
    DialRules {
        denied: denied.iter().filter_map(|network| network.parse().ok()).collect(),
        denied_endpoints: denied_endpoints.iter().filter_map(|network| network.parse().ok()).collect(),
    }
}

/// Number of relays that share a link's limits.
pub(crate) fn replicas(spec: &SecureLinkSpec, mode: &Mode) -> u16 {
    match mode {
        Mode::Standalone(_) => 1,
        Mode::Cluster(_) => spec.relay.replicas,
    }
}

/// What does not fit the machine: two listeners on one address.
pub(crate) fn collisions(spec: &SecureLinkSpec, mode: &Mode) -> Vec<Problem> {
    let Mode::Standalone(here) = mode else { return Vec::new() };
    let mut taken: Vec<(SocketAddr, String)> =
        here.taken.iter().map(|taken| (taken.address, format!("the link {}", taken.by))).collect();
    let peer = listen(spec, mode).map(|address| ("spec.expose.port".to_owned(), address));
    let imports = spec
        .imports
        .iter()
        .enumerate()
        .filter_map(|(index, import)| Some((format!("spec.imports[{index}].port"), listen_import(import, mode)?)));
    let mut problems = Vec::new();
    for (field, address) in peer.into_iter().chain(imports) {
        if let Some((_, holder)) = taken.iter().find(|(other, _)| collide(*other, address)) {
            problems.push(Problem {
                reason: Reason::Invalid,
                about: About::Link,
                message: format!("port {} is taken by {holder}", address.port()),
                remedy: "choose another port, each one listens on this machine".to_owned(),
                field,
            });
        } else {
            taken.push((address, field));
        }
    }
    problems
}

/// Port 0 is any free port. An unspecified address is every address.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let every = |address: IpAddr| address.is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || every(a.ip()) || every(b.ip()))
}

/// What is declared but has no effect on a machine.
pub(crate) fn notes(spec: &SecureLinkSpec, mode: &Mode) -> Vec<String> {
    let Mode::Standalone(here) = mode else { return Vec::new() };
    let expose = spec.expose.as_ref();
    let unused = [
        (
            !spec.imports.is_empty(),
            "imports[].clients is not used without a cluster: every process on this machine may connect",
        ),
        (
            !spec.peer.egress_cidrs.is_empty(),
            "peer.egressCIDRs is not used without a cluster: restrict it in this machine's firewall",
        ),
        (
            expose.is_some_and(|expose| !expose.allowed_sources.is_empty()),
            "expose.allowedSources is not used without a cluster: restrict it in this machine's firewall",
        ),
        (expose.is_none() && here.listen.is_some(), "--listen is not used: the link has no expose, we only dial"),
    ];
    unused.into_iter().filter(|(applies, _)| *applies).map(|(_, note)| note.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_parses() {
        let rules = dial_rules(&Mode::Standalone(Standalone::default()));
        assert_eq!((rules.denied.len(), rules.denied_endpoints.len()), (NOWHERE.len(), LOOPBACK.len()));
    }
}
