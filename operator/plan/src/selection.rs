//! Which policies and cuts are meant for a link: selectors and references, resolved without a cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use securelink_crds::keys::NAMESPACE_NAME;
use securelink_crds::{LinkCut, LinkPolicy};
use securelink_relay_config::LinkRef;
use serde_json::Value;

use crate::accepted::Accepted;
use crate::gathered::{CutOrder, Declared};

/// A `LinkCut` cannot be changed, so it has one revision; deleting it releases it.
const CUT_REVISION: u64 = 1;
/// What the peer is told where a cut that is invalid gives no readable reason.
const NO_REASON: &str = "cut without a stated reason";

/// Whether a policy applies in a namespace. `labels` are the namespace's; without a cluster there are none, only its name
/// is known, and what a selector says of other labels counts as matching: a guard rail is never lost to what is not known.
pub fn policy_applies(policy: &LinkPolicy, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let selector = &policy.spec.namespace_selector;
    // The outer option: whether the label is known; the inner one: whether it is there.
    let label = |key: &str| match labels {
        _ if key == NAMESPACE_NAME => Some(Some(namespace)),
        Some(labels) => Some(labels.get(key).map(String::as_str)),
        None => None,
    };
    matches(selector, label)
}

/// Whether a selector matches these labels; one that is absent matches everything.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| matches(selector, |key| Some(labels.get(key).map(String::as_str))))
}

/// What is not known counts as matching, and so does an operator that is not known.
fn matches<'a>(selector: &LabelSelector, label: impl Fn(&str) -> Option<Option<&'a str>>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| label(key).is_none_or(|found| found == Some(value.as_str())));
    equal
        && selector.match_expressions.iter().flatten().all(|rule| {
            let Some(found) = label(&rule.key) else { return true };
            let listed = found.is_some_and(|found| rule.values.iter().flatten().any(|value| value == found));
            match rule.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => true,
            }
        })
}

/// The peer's names by which a cut may mean a link: the one declared, even in an invalid edit, and the one accepted last.
pub fn peer_names(declared: &Declared, accepted: Option<&Accepted>) -> BTreeSet<String> {
    let now = match declared {
        Declared::Valid(link) => Some(link.spec.peer.trust_domain.as_str()),
        Declared::Invalid { value, .. } => value["spec"]["peer"]["trustDomain"].as_str(),
        Declared::Deleted => None,
    };
    now.into_iter().chain(accepted.map(|old| old.spec.peer.trust_domain.as_str())).map(str::to_owned).collect()
}

/// The orders for `link` among `cuts`: those in its namespace that name it or one of its peer's names.
pub fn cut_orders<'a>(
    cuts: impl IntoIterator<Item = &'a LinkCut>,
    link: &LinkRef,
    peers: &BTreeSet<String>,
) -> Vec<CutOrder> {
    let order = |cut: &LinkCut| {
        let metadata = &cut.metadata;
        let name = metadata.name.as_deref()?;
        let named = cut.spec.link_ref.as_ref().is_some_and(|of| of.name == link.name);
        let peer = cut.spec.trust_domain.as_ref().is_some_and(|of| peers.contains(of));
        let here = metadata.namespace.as_deref() == Some(link.namespace.as_str());
        let id = metadata.uid.as_ref().map_or_else(|| id(&link.namespace, name), |uid| format!("LinkCut/{uid}"));
        (here && (named || peer)).then(|| CutOrder { id, revision: CUT_REVISION, reason: cut.spec.reason.clone() })
    };
    cuts.into_iter().filter_map(order).collect()
}

/// The order for `link` in a `LinkCut` that is invalid, as far as it can be read: a slip in an emergency must not keep the
/// brake from working. `namespace` and `name` are the object's.
pub fn salvage_cut(
    value: &Value,
    (namespace, name): (&str, &str),
    link: &LinkRef,
    peers: &BTreeSet<String>,
) -> Option<CutOrder> {
    let spec = &value["spec"];
    let named = spec["linkRef"]["name"].as_str() == Some(link.name.as_str());
    let peer = spec["trustDomain"].as_str().is_some_and(|of| peers.contains(of));
    let reason = || spec["reason"].as_str().map(plain).filter(|reason| !reason.is_empty());
    // By its uid, as a valid one: another of the same name is another order, which relays have not seen released.
    let known = value["metadata"]["uid"].as_str().map(|uid| format!("LinkCut/{uid}"));
    (namespace == link.namespace && (named || peer)).then(|| CutOrder {
        id: known.unwrap_or_else(|| id(namespace, name)),
        revision: CUT_REVISION,
        reason: reason().unwrap_or_else(|| NO_REASON.to_owned()),
    })
}

fn id(namespace: &str, name: &str) -> String {
    format!("LinkCut/{namespace}/{name}")
}

/// The part of an unchecked reason that fits the API's bound, without what could forge lines.
fn plain(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(256).collect()
}
