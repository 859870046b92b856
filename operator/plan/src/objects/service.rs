//! Where the peer reaches the relays, and where clients here reach the peer's services. All have ordinary selectors: nobody
//! writes endpoints, so a relay restarted while the operator is down is found.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use securelink_crds::keys::IMPORT;
use securelink_crds::{ExposeType, ExternalTrafficPolicy};

use super::Inputs;
use crate::hosting::PEER_PORT;
use crate::names::{self, Component};
use crate::validated::ValidatedImport;

/// Both families where the cluster has both, the one it has elsewhere.
const FAMILIES: &str = "PreferDualStack";

/// The Service for the peer; none when we only dial.
pub(super) fn peer(inputs: &Inputs<'_>) -> Option<Service> {
    let expose = inputs.link.expose.as_ref()?;
    let declared = &expose.declared;
    let mut metadata = inputs.metadata(names::peer_service(inputs.name()), Component::Peer);
    metadata.annotations = Some(declared.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let kind = match declared.kind {
        ExposeType::LoadBalancer => "LoadBalancer",
        ExposeType::NodePort => "NodePort",
        ExposeType::ClusterIP => "ClusterIP",
    };
    let external = declared.external_traffic_policy.map(|policy| match policy {
        ExternalTrafficPolicy::Cluster => "Cluster",
        ExternalTrafficPolicy::Local => "Local",
    });
    // The NetworkPolicy shuts others out on every type; a load balancer can do it before they come near.
    let at_balancer = declared.kind == ExposeType::LoadBalancer && !expose.allowed_sources.is_empty();
    let sources = || expose.allowed_sources.iter().map(ToString::to_string).collect();
    Some(Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            external_traffic_policy: external.map(str::to_owned),
            load_balancer_class: declared.load_balancer_class.clone(),
            load_balancer_source_ranges: at_balancer.then(sources),
            // A relay is Ready only with a live link, and a link that the peer dials begins here.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                node_port: declared.node_port.map(i32::from),
                ..port("securelink", declared.port, PEER_PORT)
            }]),
            ..to_relays(inputs)
        }),
        ..Service::default()
    })
}

/// One Service for each import.
pub(super) fn imports(inputs: &Inputs<'_>) -> Vec<Service> {
    inputs.link.imports.iter().filter_map(|entry| import(inputs, entry)).collect()
}

fn import(inputs: &Inputs<'_>, entry: &ValidatedImport) -> Option<Service> {
    let target = inputs.import_port(&entry.name)?;
    let mut metadata = inputs.metadata(names::import_service(inputs.name(), &entry.declared), Component::Import);
    metadata.labels.get_or_insert_default().insert(IMPORT.to_owned(), entry.name.clone());
    Some(Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(vec![port("import", entry.declared.port, target)]),
            ..to_relays(inputs)
        }),
        ..Service::default()
    })
}

fn to_relays(inputs: &Inputs<'_>) -> ServiceSpec {
    ServiceSpec {
        selector: Some(names::selector(inputs.name())),
        ip_family_policy: Some(FAMILIES.to_owned()),
        ..ServiceSpec::default()
    }
}

fn port(name: &str, port: u16, target: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        port: port.into(),
        target_port: Some(IntOrString::Int(target.into())),
        ..ServicePort::default()
    }
}
