//! Which `NetworkPolicies` of others widen what a link's own allows. Policies add up, so one more can only allow more (F82).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use securelink_crds::keys::LINK;
use securelink_relay_config::LinkRef;

use crate::names::{self, Component};
use crate::selection::selects;

/// Names of the policies in `policies` that select relays of `link` and allow them anything, sorted: what
/// [`Observed::widened`](crate::Observed) takes. `uid` is the `SecureLink`'s, whose own policy is none of them; `pods` are the
/// labels of its relays as they are, since others may have added some. A policy without a rule, such as a default that denies
/// everything, allows nothing and is not named.
pub fn widened_by(
    link: &LinkRef,
    uid: &str,
    policies: &[&NetworkPolicy],
    pods: &[&BTreeMap<String, String>],
) -> Vec<String> {
    let made = names::labels(&link.name, Component::Relay);
    let names = policies.iter().filter_map(|policy| {
        let (spec, metadata) = (policy.spec.as_ref()?, &policy.metadata);
        let here = metadata.namespace.as_deref() == Some(link.namespace.as_str());
        let ours =
            metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == uid);
        let selects = |labels: &BTreeMap<String, String>| selects(spec.pod_selector.as_ref(), labels);
        let selected = selects(&made) || pods.iter().any(|labels| selects(labels));
        metadata.name.clone().filter(|_| here && !ours && selected && allows(spec))
    });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The one link, by the label of its relays, beside which a policy widens none: it asks for that label. `None` where it may
/// select relays of any.
pub fn selects_only(policy: &NetworkPolicy) -> Option<&str> {
    let labels = policy.spec.as_ref()?.pod_selector.as_ref()?.match_labels.as_ref()?;
    labels.get(LINK).map(String::as_str)
}

/// Whether it has a rule that counts: rules for a direction that `policyTypes` leaves out do not.
fn allows(spec: &NetworkPolicySpec) -> bool {
    let rules = |count: Option<usize>, direction: &str| {
        let named = spec.policy_types.as_ref().filter(|types| !types.is_empty());
        count.unwrap_or(0) > 0 && named.is_none_or(|types| types.iter().any(|of| of == direction))
    };
    rules(spec.ingress.as_ref().map(Vec::len), "Ingress") || rules(spec.egress.as_ref().map(Vec::len), "Egress")
}
