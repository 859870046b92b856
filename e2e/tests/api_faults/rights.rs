//! Rights that lack, one at a time (F17): the operator stays up, the link says which, and goes on when it is given.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use securelink_crds::conditions::{Condition, ConditionType};
use securelink_e2e::plane::{Fault, On, Plane, Proxy, Refusal, Site, Verb};
use serde_json::{Value, json};

super::tests! {
    f17_each_right_to_see_what_a_link_has_is_named_where_it_lacks
    f17_each_right_to_write_what_a_link_has_is_named_where_it_lacks
}

/// The role of a namespace in which links may be.
const ROLE: &str = "securelink-link";
/// The annotation that keeps the rules as the chart has them.
const KEPT: &str = "securelink.dev/e2e-rules";
/// Resource, API version, kind and name of what the link `europol` has.
const OBJECTS: [(&str, &str, &str, &str); 7] = [
    ("secrets", "v1", "Secret", "europol-leaf"),
    ("configmaps", "v1", "ConfigMap", "europol-relay"),
    ("services", "v1", "Service", "europol-siena"),
    ("serviceaccounts", "v1", "ServiceAccount", "europol-relay"),
    ("deployments", "apps/v1", "Deployment", "europol-relay"),
    ("networkpolicies", "networking.k8s.io/v1", "NetworkPolicy", "europol-relay"),
    ("poddisruptionbudgets", "policy/v1", "PodDisruptionBudget", "europol-relay"),
];

async fn f17_each_right_to_see_what_a_link_has_is_named_where_it_lacks(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    site.until_says("europol", ConditionType::RelayAvailable, "Pending").await?;
    let watched = OBJECTS.iter().map(|(resource, ..)| *resource).chain(["pods"]).map(|resource| (resource, "watch"));
    // Of lists two have to do: the pause between two attempts, up to half a minute, is what takes the time.
    for (resource, verb) in watched.chain([("secrets", "list"), ("pods", "list")]) {
        let without = || format!("without the right to {verb} {resource}");
        lacks(plane, resource, verb).await?;
        // A list is needed where a watch cannot go on.
        let old = Fault::WatchError(Refusal::code(410));
        let old = (verb == "list").then(|| proxy.rule(On::verbs([Verb::Watch]).of(resource), old));
        let named = |it: &Condition| {
            it.reason == "NamespaceNotGranted" && it.message.contains(verb) && it.message.contains(resource)
        };
        tokio::select! {
            told = site.until_told("europol", ConditionType::Ready, "name it", named) => told.with_context(without)?,
            never = ending(&proxy) => never,
        };
        drop(old);
        lacks(plane, "", "").await?;
        let given = |it: &Condition| it.reason != "NamespaceNotGranted";
        site.until_told("europol", ConditionType::Ready, "go on", given).await.with_context(without)?;
    }
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}

/// Ends all watches again and again: a right is gone only a moment after its role says so.
async fn ending(proxy: &Proxy) -> Condition {
    let mut times = tokio::time::interval(Duration::from_millis(500));
    loop {
        times.tick().await;
        proxy.end_watches();
    }
}

async fn f17_each_right_to_write_what_a_link_has_is_named_where_it_lacks(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    site.until_says("europol", ConditionType::RelayAvailable, "Pending").await?;
    for object in OBJECTS {
        for verb in ["create", "patch"] {
            lacking(&site, object, verb).await.with_context(|| format!("without the right to {verb} {}", object.0))?;
        }
    }
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}

/// What needs a right that lacks is told, and done once it is there.
async fn lacking(site: &Site<'_>, (resource, version, kind, name): (&str, &str, &str, &str), verb: &str) -> Result<()> {
    lacks(site.plane(), resource, verb).await?;
    let api = site.dynamic(version, kind)?;
    let before = api.get(name).await?;
    if verb == "create" {
        api.delete(name, &DeleteParams::default()).await?;
    } else {
        let other = json!({ "metadata": { "labels": { "app.kubernetes.io/name": "another" } } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(other)).await?;
    }
    // As the API server says it: User "…" cannot create resource "services" in API group "".
    let words = format!("cannot {verb} resource \"{resource}\"");
    let named = |it: &Condition| it.message.contains(&words);
    site.until_told("europol", ConditionType::InternalError, &format!("say {words:?}"), named).await?;
    lacks(site.plane(), "", "").await?;
    site.until_silent("europol", ConditionType::InternalError).await?;
    let after = api.get(name).await?;
    ensure!(after.labels() == before.labels(), "{kind} {name} is not as it was: {:?}", after.labels());
    Ok(())
}

/// Takes one verb on one resource from the operator's role, and gives back what was taken before.
async fn lacks(plane: &Plane, resource: &str, verb: &str) -> Result<()> {
    let roles = Api::<ClusterRole>::all(plane.cluster.client.clone());
    let role = roles.get(ROLE).await?;
    let whole = match role.annotations().get(KEPT) {
        Some(kept) => serde_json::from_str(kept)?,
        None => serde_json::to_value(&role.rules)?,
    };
    let kept = whole.to_string();
    let less = without(whole, resource, verb);
    let patch = json!({ "metadata": { "annotations": { KEPT: kept } }, "rules": less });
    roles.patch(ROLE, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).context("change the role")
}

fn without(rules: Value, resource: &str, verb: &str) -> Value {
    let mut rules = rules;
    for rule in rules.as_array_mut().into_iter().flatten() {
        if rule["resources"].as_array().is_some_and(|all| all.iter().any(|it| it == resource))
            && let Some(verbs) = rule["verbs"].as_array_mut()
        {
            verbs.retain(|it| it != verb);
        }
    }
    rules
}
