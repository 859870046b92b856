//! The pod of a relay: what it runs, mounts and may do. It passes Kubernetes' restricted profile, and depends only on the
//! installation and on `spec.relay`.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, KeyToPath,
    PodDNSConfig, PodDNSConfigOption, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile,
    SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Inputs, RELAY_JSON};
use crate::hosting::{CONTROL_PORT, METRICS_PORT, PEER_PORT};
use crate::names::{self, Component};

const CONFIG: &str = "/etc/securelink/config";
const LEAF: &str = "/etc/securelink/leaf";
const SCRATCH: &str = "/var/lib/securelink";

/// From SIGTERM to SIGKILL, in seconds: relays drain for at most 30 (product), the rest is for goodbyes and a slow node.
const GRACE: i64 = 45;
/// A `relay.json` of at most 1 MiB, a handful of cuts and ends, each for a moment twice.
const SCRATCH_SIZE: &str = "16Mi";
/// Files are root's and the relay is not: everybody in the pod may read, and there is nobody else in it. A group would do
/// too, but where Kubernetes' distributions assign groups themselves they refuse ours.
const READABLE: i32 = 0o444;
/// The names of the volumes.
const VOLUMES: [&str; 3] = ["config", "leaf", "scratch"];

pub(super) fn template(inputs: &Inputs<'_>) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(names::labels(inputs.name(), Component::Relay)),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(inputs)),
    }
}

fn spec(inputs: &Inputs<'_>) -> PodSpec {
    let declared = &inputs.link.pods;
    PodSpec {
        service_account_name: Some(names::relay(inputs.name())),
        automount_service_account_token: Some(false),
        // The namespace's Services are no business of a relay's, and would fill its environment.
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(inputs)],
        volumes: Some(volumes(inputs)),
        dns_config: Some(absolute_first()),
        termination_grace_period_seconds: Some(GRACE),
        topology_spread_constraints: Some(spread(inputs)),
        node_selector: Some(declared.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(declared.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
        priority_class_name: declared.priority_class_name.clone(),
        image_pull_secrets: Some(declared.image_pull_secrets.clone()).filter(|secrets| !secrets.is_empty()),
        ..PodSpec::default()
    }
}

fn container(inputs: &Inputs<'_>) -> Container {
    let installation = inputs.installation;
    let any = installation.any_address();
    let listen = |port: u16| SocketAddr::from((any, port)).to_string();
    let (control, metrics) = (listen(CONTROL_PORT), listen(METRICS_PORT));
    let args = ["relay", "--config", CONFIG, "--leaf", LEAF, "--scratch", SCRATCH];
    let args = args.into_iter().chain(["--control", &control, "--metrics", &metrics]);
    Container {
        name: "relay".to_owned(),
        image: Some(installation.image.clone()),
        image_pull_policy: installation.image_pull_policy.clone(),
        args: Some(args.map(str::to_owned).collect()),
        // The fixed ones only: imports come and go, and a change here would restart every relay.
        ports: Some(vec![port("peer", PEER_PORT), port("control", CONTROL_PORT), port("metrics", METRICS_PORT)]),
        resources: Some(inputs.link.pods.resources.clone().unwrap_or_else(|| installation.resources.clone())),
        // Three of them: started, alive (whatever the partner does), and able to carry a stream.
        startup_probe: Some(probe("/livez", 1, 60)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(VOLUMES.into_iter().zip([CONFIG, LEAF, SCRATCH]).map(mount).collect()),
        ..Container::default()
    }
}

fn volumes(inputs: &Inputs<'_>) -> Vec<Volume> {
    let [config, leaf, scratch] = VOLUMES.map(str::to_owned);
    // Not accepted.json: it names who may connect here, which a relay need not know.
    let relay_json = KeyToPath { key: RELAY_JSON.to_owned(), path: RELAY_JSON.to_owned(), mode: None };
    vec![
        Volume {
            name: config,
            config_map: Some(ConfigMapVolumeSource {
                name: names::relay(inputs.name()),
                default_mode: Some(READABLE),
                items: Some(vec![relay_json]),
                optional: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: leaf,
            secret: Some(SecretVolumeSource {
                secret_name: Some(names::leaf(inputs.name())),
                default_mode: Some(READABLE),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: scratch,
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(SCRATCH_SIZE.to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}

/// A name with a dot is looked up as it is before it is tried below the cluster's domains: there a namespace named like a
/// partner's top-level domain could answer for it.
fn absolute_first() -> PodDNSConfig {
    let ndots = PodDNSConfigOption { name: Some("ndots".to_owned()), value: Some("1".to_owned()) };
    PodDNSConfig { options: Some(vec![ndots]), ..PodDNSConfig::default() }
}

/// Over nodes where possible, unless declared; counted are this link's relays, of one rollout at a time.
fn spread(inputs: &Inputs<'_>) -> Vec<TopologySpreadConstraint> {
    let mut constraints = inputs.link.pods.topology_spread_constraints.clone();
    if constraints.is_empty() {
        constraints.push(TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
            ..TopologySpreadConstraint::default()
        });
    }
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(|| names::relays(inputs.name()));
    }
    constraints
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        // No longer than the period: a probe that waits holds up the next one.
        timeout_seconds: Some(period.min(5)),
        ..Probe::default()
    }
}

fn mount((name, path): (&str, &str)) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: (path != SCRATCH).then_some(true),
        ..VolumeMount::default()
    }
}
