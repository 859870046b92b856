//! What depends on where a link runs: listeners, targets, addresses never dialed. Cluster and machine differ only here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use securelink_crds::conditions::Reason;
use securelink_crds::{Export, Import, SecureLinkSpec};
use securelink_relay_config::{DialRules, Endpoint, LinkRef, RecordLayer};

use crate::gathered::{Cluster, Installation, Mode, Standalone};
use crate::names::{self, Needed};
use crate::service::resolve;
use crate::validated::Target;
use crate::verdict::{About, Problem};

/// Port of the peer's listener in a pod (contracts 4, as the next three).
pub(crate) const PEER_PORT: u16 = 15_443;
/// Port of the control API in a pod.
pub(crate) const CONTROL_PORT: u16 = 15_444;
/// Port of metrics and probes in a pod.
pub(crate) const METRICS_PORT: u16 = 15_445;
/// First port of imports in a pod; the import's slot is added.
pub(crate) const FIRST_IMPORT_PORT: u16 = 20_000;

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
        Mode::Cluster(cluster) => (cluster.installation.any_address(), PEER_PORT).into(),
    })
}

/// Who makes the records of TLS.
pub(crate) fn records(mode: &Mode) -> RecordLayer {
    match mode {
        Mode::Standalone(here) => here.records,
        Mode::Cluster(cluster) => cluster.installation.records,
    }
}

/// Where clients of an import connect; in a cluster its slot decides.
pub(crate) fn listen_import(import: &Import, mode: &Mode) -> Option<SocketAddr> {
    matches!(mode, Mode::Standalone(_)).then_some((Ipv4Addr::LOCALHOST, import.port).into())
}

/// The address in front of the port that a slot decides.
pub(crate) fn bind(mode: &Mode) -> IpAddr {
    match mode {
        Mode::Standalone(_) => Ipv4Addr::LOCALHOST.into(),
        Mode::Cluster(cluster) => cluster.installation.any_address(),
    }
}

/// Where an exported service is, or why it cannot be used.
pub(crate) fn target(link: &LinkRef, export: &Export, field: &str, mode: &Mode) -> Result<Target, Problem> {
    let unusable = |message: &str, remedy: &str| Problem {
        reason: Reason::Invalid,
        about: About::Export(export.name.clone()),
        field: format!("{field}.target"),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    };
    match (&export.target.host, mode) {
        (Some(host), Mode::Cluster(cluster)) if is_inside(host, &cluster.installation) => Err(unusable(
            "the host is inside of this cluster, where a Service's owner consents to its export",
            "name the Service instead",
        )),
        (Some(host), _) => Ok(Target::Host(Endpoint { host: host.clone(), port: export.target.port })),
        (None, Mode::Standalone(_)) => {
            Err(unusable("a Service target needs a cluster", "write host and port instead of service"))
        }
        (None, Mode::Cluster(cluster)) => {
            let namespace = export.target.namespace.as_ref().unwrap_or(&link.namespace);
            if let Some(denied) = cluster.unreadable.get(namespace) {
                let message =
                    format!("whether the Service is there is not known: the operator may not {denied} in {namespace}");
                let remedy = format!("ask its administrator to run `kubectl securelink grant {namespace} --exports`");
                return Err(Problem { reason: Reason::NamespaceNotGranted, ..unusable(&message, &remedy) });
            }
            let Some(service) = cluster.services.get(&export.name) else {
                let name = export.target.service.as_deref().unwrap_or_default();
                return Err(unusable(&format!("the Service {name} is not there"), "create it, or name another one"));
            };
            resolve(service, export.target.port, &cluster.installation.domain).map(Target::Service).map_err(|error| {
                let text = error.to_string();
                let (message, remedy) = text.split_once("; ").unwrap_or((&text, "correct it"));
                unusable(message, remedy)
            })
        }
    }
}

/// Whether a host, as written, is a pod or a Service. What a name outside of the cluster's domain resolves to is the
/// `NetworkPolicy`'s to stop.
fn is_inside(host: &str, installation: &Installation) -> bool {
    let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    match host.parse::<IpAddr>() {
        Ok(address) => installation.ranges.iter().any(|range| range.contains(&address)),
        Err(_) => below("svc") || below(&installation.domain),
    }
}

/// The addresses never dialed.
pub(crate) fn dial_rules(mode: &Mode) -> DialRules {
    let mut own = Vec::new();
    let (denied, denied_endpoints): (Vec<&str>, &[&str]) = match mode {
        Mode::Standalone(Standalone { allow_loopback_peers: true, .. }) => (NOWHERE.to_vec(), &[]),
        Mode::Standalone(_) => (NOWHERE.to_vec(), &LOOPBACK),
        Mode::Cluster(cluster) => {
            own.extend(&cluster.installation.denied);
            (NOWHERE.into_iter().chain(LOOPBACK).collect(), &[])
        }
    };
    // The constants parse, a test says so.
    DialRules {
        denied: denied.iter().filter_map(|network| network.parse().ok()).chain(own).collect(),
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

/// What does not fit where the link runs: two listeners on one address, two Services of one name, a name that somebody
/// else's object has.
pub(crate) fn collisions(link: &LinkRef, spec: &SecureLinkSpec, mode: &Mode) -> Vec<Problem> {
    match mode {
        Mode::Standalone(here) => listeners(spec, mode, here),
        Mode::Cluster(cluster) => services(link, spec).into_iter().chain(held_by_others(link, spec, cluster)).collect(),
    }
}

/// Names of the link's objects that are taken: what others made is never written to.
fn held_by_others(link: &LinkRef, spec: &SecureLinkSpec, cluster: &Cluster) -> Vec<Problem> {
    let taken = |needed: Needed| {
        let Needed { kind, name, field } = needed;
        let holder = cluster.foreign.get(&(kind, name.clone()))?;
        let import = field.starts_with("spec.imports");
        let instead = if import { "write another serviceName" } else { "declare the link under another name" };
        Some(Problem {
            reason: Reason::NameTaken,
            about: About::Link,
            field,
            message: format!("the name {name} of the {kind} it needs is taken by {holder}"),
            remedy: format!("{instead}, or delete what has the name if nobody needs it"),
        })
    };
    names::needed(&link.name, spec).into_iter().filter_map(taken).collect()
}

fn services(link: &LinkRef, spec: &SecureLinkSpec) -> Vec<Problem> {
    let peer = spec.expose.as_ref().map(|_| (names::peer_service(&link.name), "spec.expose".to_owned()));
    let mut taken: BTreeMap<String, String> = peer.into_iter().collect();
    let mut problems = Vec::new();
    for (index, import) in spec.imports.iter().enumerate() {
        let (name, field) = (names::import_service(&link.name, import), format!("spec.imports[{index}]"));
        if let Some(holder) = taken.get(&name) {
            problems.push(Problem {
                reason: Reason::Invalid,
                about: About::Link,
                field: format!("{field}.serviceName"),
                message: format!("the Service {name} is already the one of {holder}"),
                remedy: "set another serviceName".to_owned(),
            });
        } else {
            taken.insert(name, field);
        }
    }
    problems
}

fn listeners(spec: &SecureLinkSpec, mode: &Mode, here: &Standalone) -> Vec<Problem> {
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
