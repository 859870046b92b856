//! Several relays of one link as one: why none answers, and what all their reports say together.

mod combine;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use securelink_crds::conditions::Reason;

use crate::status::words;

pub use combine::combine;

/// Longest cause inside of a message, in characters: a scheduler names every kind of node.
const CAUSE: usize = 512;

/// What a container waits with when its image is not there (the kubelet's `pkg/kubelet/images`).
const IMAGE: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
/// What a container waits with between two starts.
const BACK_OFF: &str = "CrashLoopBackOff";
/// What it waits with when it was made or started and that failed.
const START: [&str; 6] = [
    BACK_OFF,
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "PostStartHookError",
];
/// The kubelet's words in front of the cause, while it waits between two pulls.
const PULL: &str = "ErrImagePull: ";

/// The scheduler's word for a pod that no node takes.
const UNSCHEDULABLE: &str = "Unschedulable";
/// What ended because it used more memory than it may.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// What was found. The gravest stands first: what no waiting mends, then what takes time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    NoImage(String),
    NoNode(String),
    NoQuota(String),
    NotCreated(String),
    OutOfMemory,
    Crashing(String),
    Updating,
    Starting,
    Silent,
}

/// Why no relay answers, with what to do: a reason of `RelayAvailable`. Nothing where nothing is known yet. The same whatever
/// the order of the pods, and without what moves by itself (names of pods, counts, waiting times).
pub fn hindrance(deployment: Option<&Deployment>, pods: &[&Pod]) -> Option<(Reason, String)> {
    let of_pods = pods.iter().filter(|pod| is_living(pod)).filter_map(|pod| of_pod(pod));
    let of_deployment = deployment.into_iter().flat_map(|deployment| {
        [not_created(deployment), is_updating(deployment).then_some(Found::Updating)].into_iter().flatten()
    });
    of_pods.chain(of_deployment).min().map(told)
}

/// Whether it counts: one that ends, or has ended, is being replaced.
fn is_living(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded"))
}

fn of_pod(pod: &Pod) -> Option<Found> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let waits = conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = waits {
        let refused = condition.reason.as_deref() == Some(UNSCHEDULABLE);
        let why = condition.message.as_deref().unwrap_or(UNSCHEDULABLE);
        return Some(if refused { Found::NoNode(cause(why)) } else { Found::Starting });
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    Some(containers.map(of_container).min().unwrap_or(Found::Starting))
}

fn of_container(container: &ContainerStatus) -> Found {
    let state = container.state.clone().unwrap_or_default();
    let ended = || container.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map(of_end);
    if let Some(terminated) = &state.terminated {
        return of_end(terminated);
    }
    if let Some(waiting) = &state.waiting {
        let (reason, said) = (waiting.reason.as_deref().unwrap_or_default(), waiting.message.as_deref());
        if IMAGE.contains(&reason) {
            return Found::NoImage(not_pulled(&container.image, said));
        }
        if START.contains(&reason) {
            // While it waits for another start the kubelet counts the seconds: how the last one ended says more.
            let why = said.filter(|_| reason != BACK_OFF).unwrap_or(reason);
            return ended().unwrap_or_else(|| Found::Crashing(cause(why)));
        }
        return Found::Starting;
    }
    match container.started {
        Some(true) => Found::Silent,
        // It ended before and has not come up since.
        _ => ended().unwrap_or(Found::Starting),
    }
}

fn of_end(end: &ContainerStateTerminated) -> Found {
    if end.reason.as_deref() == Some(OUT_OF_MEMORY) {
        return Found::OutOfMemory;
    }
    let said = end.message.as_deref().map(|said| format!(", saying: {}", cause(said))).unwrap_or_default();
    Found::Crashing(format!("it ends with exit code {}{said}", end.exit_code))
}

fn not_pulled(image: &str, said: Option<&str>) -> String {
    // Between two attempts the cause stands behind the waiting, so that both read the same.
    let said = said.map(|said| said.split_once(PULL).map_or(said, |(_, cause)| cause));
    let said = said.filter(|said| !said.starts_with("Back-off"));
    let why = said.map(|said| format!(": {}", cause(said))).unwrap_or_default();
    format!("the image {} cannot be pulled{why}", words::quoted(image, CAUSE))
}

/// Why pods are not even made.
fn not_created(deployment: &Deployment) -> Option<Found> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure =
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let said = failure.message.as_deref().unwrap_or_default();
    // The name of the pod in front is another one at each attempt.
    let why = cause(said.split_once("is forbidden: ").map_or(said, |(_, why)| why));
    // "exceeded quota" and, where a quota asks for limits that are not set, "failed quota".
    Some(if why.contains("quota") { Found::NoQuota(why) } else { Found::NotCreated(why) })
}

/// Whether relays of an older template still stand, or the newest one was not looked at yet.
fn is_updating(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let older = status.replicas.unwrap_or(0) > status.updated_replicas.unwrap_or(0);
    older || status.observed_generation.is_some_and(|seen| deployment.metadata.generation.is_some_and(|new| seen < new))
}

fn told(found: Found) -> (Reason, String) {
    match found {
        Found::NoImage(what) => {
            (Reason::ImagePull, format!("{what}; correct the operator's image, or set spec.relay.imagePullSecrets"))
        }
        Found::NoNode(why) => (
            Reason::Unschedulable,
            format!("no node takes the relay: {why}; make room, or change what spec.relay asks of a node"),
        ),
        Found::NoQuota(why) => (
            Reason::Quota,
            format!("the namespace's quota has no place for the relay: {why}; raise it, or ask for less in spec.relay"),
        ),
        Found::NotCreated(why) => (
            Reason::Pending,
            format!("the cluster refuses the relay's pod: {why}; mend what refuses it, maybe a LimitRange, Pod Security or a webhook"),
        ),
        Found::OutOfMemory => (
            Reason::Crashing,
            "the relay needs more memory than its limit; raise spec.relay.resources.limits.memory".to_owned(),
        ),
        Found::Crashing(how) => (
            Reason::Crashing,
            format!("the relay does not stay up: {how}; read `kubectl logs --previous` of its pod"),
        ),
        Found::Updating => (Reason::Updating, "the relays are being replaced here; wait".to_owned()),
        Found::Starting => (
            Reason::Pending,
            "the relay is being started here; wait, and read its pod's events if it takes long".to_owned(),
        ),
        Found::Silent => (
            Reason::Pending,
            "a relay runs, but does not answer the operator; maybe a NetworkPolicy keeps the operator from its control port"
                .to_owned(),
        ),
    }
}

/// Somebody else's words inside of ours.
fn cause(text: &str) -> String {
    words::quoted(words::without_local_ports(text).trim().trim_end_matches('.'), CAUSE)
}
