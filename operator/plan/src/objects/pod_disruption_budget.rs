//! How many relays may be taken away at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Inputs;
use crate::names;

pub(super) fn build(inputs: &Inputs<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: inputs.relay_metadata(),
        spec: Some(PodDisruptionBudgetSpec {
            // Not a minimum: with one relay that would block every drain of its node.
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(names::relays(inputs.name())),
            // A relay without a live link is not Ready: while the partner is down a node must still be drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
