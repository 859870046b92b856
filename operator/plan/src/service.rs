//! From an exported Service to where it is dialed and which pods answer. Whether its owner consents is for `consent.rs`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use securelink_relay_config::Endpoint;

/// A Service that can be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// What a relay dials: the Service's name in the cluster.
    pub endpoint: Endpoint,
    /// Its namespace, and so its pods'.
    pub namespace: String,
    /// Labels of the pods that answer.
    pub pods: BTreeMap<String, String>,
    /// Their port, by number or by name.
    pub port: IntOrString,
}

/// Why a Service cannot be exported: what is wrong; what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error(
        "the Service is of type ExternalName, which leads wherever its DNS says; write that host as target.host, which a LinkPolicy may forbid"
    )]
    ExternalName,
    #[error(
        "the Service has no selector, so whoever writes its endpoints decides where it leads; give it one, or write target.host, which a LinkPolicy may forbid"
    )]
    NoSelector,
    #[error("the Service has no TCP port {0}; correct target.port, or add the port to the Service")]
    NoPort(u16),
    #[error(
        "the Service is headless and its target port has a name, which no client can dial; give the target port as a number"
    )]
    HeadlessNamedPort,
}

/// Where `port` of a Service leads, in a cluster whose names end in `domain`.
pub(crate) fn resolve(service: &Service, port: u16, domain: &str) -> Result<ServiceTarget, ServiceError> {
    let unset = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&unset);
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(ServiceError::ExternalName);
    }
    let pods = spec.selector.clone().filter(|selector| !selector.is_empty()).ok_or(ServiceError::NoSelector)?;
    let meant = |entry: &&ServicePort| entry.port == i32::from(port) && is_tcp(entry);
    let entry = spec.ports.iter().flatten().find(meant).ok_or(ServiceError::NoPort(port))?;
    let leads_to = entry.target_port.clone().unwrap_or(IntOrString::Int(entry.port));
    // Behind a headless Service a name is the pods' own addresses: nothing on the way turns one port into another.
    let dialed = match (&leads_to, spec.cluster_ip.as_deref()) {
        (IntOrString::Int(number), Some("None")) => u16::try_from(*number).map_err(|_| ServiceError::NoPort(port))?,
        (IntOrString::String(_), Some("None")) => return Err(ServiceError::HeadlessNamedPort),
        _ => port,
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    Ok(ServiceTarget {
        endpoint: Endpoint { host: format!("{name}.{namespace}.svc.{domain}"), port: dialed },
        namespace,
        pods,
        port: leads_to,
    })
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}
