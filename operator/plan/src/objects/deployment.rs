//! The relays as a Deployment: how many, and how they are replaced.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Inputs, pod};
use crate::names;

/// Old versions kept for `kubectl rollout undo`: the last one that worked, and one more.
const HISTORY: i32 = 2;

pub(super) fn build(inputs: &Inputs<'_>) -> Deployment {
    let replicas = inputs.link.replicas;
    Deployment {
        metadata: inputs.relay_metadata(),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas.into()),
            revision_history_limit: Some(HISTORY),
            selector: names::relays(inputs.name()),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    // New relays become Ready only with a live link. While the partner is down none would, so a rollout may
                    // take one away; not the only one (contracts 8).
                    max_unavailable: Some(IntOrString::Int(i32::from(replicas > 1))),
                }),
            }),
            template: pod::template(inputs),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}
