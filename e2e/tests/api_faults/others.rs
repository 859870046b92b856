//! Others in the cluster: what they hold up, take, change or remove (F12, F16, F18 to F21, F27 to F29, F84).

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, LimitRange, Namespace as KubeNamespace, Pod, PodSpec, ResourceQuota, Service,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use securelink_crds::SecureLink;
use securelink_crds::conditions::{Condition, ConditionType};
use securelink_e2e::plane::{Call, Fault, LIMIT, On, Plane, Proxy, Site, Verb, link};
use securelink_e2e::wait::{asking, until};
use serde_json::json;

use super::OBJECTS;

super::tests! {
    f12_a_link_in_a_namespace_that_ends_holds_no_other_up
    f16_a_webhook_that_is_down_is_named_and_what_it_does_not_concern_is_made
    f18_a_service_of_somebody_else_keeps_its_name_until_it_goes
    f18_a_name_that_another_link_gives_back_is_taken_at_once
    f19_a_link_made_anew_under_its_name_gets_objects_of_its_own
    f20_a_link_deleted_while_its_certificate_is_issued_leaves_nothing
    f21_a_spec_that_flips_every_50_ms_ends_as_it_was_written_last
    f27_a_fight_over_replicas_is_not_fought_for_ever
    f28_a_quota_that_is_used_up_is_named_and_what_it_does_not_concern_is_made
    f29_resources_that_others_rewrite_at_once_are_not_written_over_and_over
    f84_a_link_where_none_may_be_says_so_and_comes_up_when_one_may
    of_two_links_to_one_organization_the_younger_waits_for_the_end_of_the_older
}

async fn f12_a_link_in_a_namespace_that_ends_holds_no_other_up(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    done(&site, "europol").await?;
    let ending = site.elsewhere(plane.namespace("ending").await?);
    ending.grant().await?;
    let other = &ending.links;
    let held = json!({ "metadata": { "name": "held", "finalizers": ["securelink.dev/e2e"] } });
    let held: ConfigMap = other.create(held).await?;
    ending.link("frontex").await?;
    let made = |it: Option<&Deployment>| it.is_some();
    until(&other.api::<Deployment>(), "frontex-relay", "be made", LIMIT, made).await?;
    let namespaces = Api::<KubeNamespace>::all(plane.cluster.client.clone());
    namespaces.delete(&other.name, &DeleteParams::default()).await?;
    until(&other.api::<SecureLink>(), "frontex", "be gone", LIMIT, |it| it.is_none()).await?;
    site.link("eurojust").await?;
    site.until_says("eurojust", ConditionType::RelayAvailable, "Pending").await?;
    site.until_at_rest(&operator, &proxy, &["europol", "eurojust"]).await?;
    let free = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    other.api::<ConfigMap>().patch(&held.name_any(), &PatchParams::default(), &free).await?;
    until(&namespaces, &other.name, "be gone", LIMIT, |it| it.is_none()).await.map(drop)
}

async fn f16_a_webhook_that_is_down_is_named_and_what_it_does_not_concern_is_made(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let webhook = json!({
        "metadata": { "name": "somebody-elses" },
        "webhooks": [{
            "name": "services.somebody.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 1,
            // Nobody listens there.
            "clientConfig": { "url": format!("https://{}:1/", plane.cluster.address) },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["services"] }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": site.links.name } },
        }],
    });
    plane.cluster.create::<ValidatingWebhookConfiguration>(webhook).await?;
    held_up(&site, &proxy, "services.somebody.example").await?;
    plane.cluster.remove::<ValidatingWebhookConfiguration>("somebody-elses").await?;
    done(&site, "europol").await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}

async fn f28_a_quota_that_is_used_up_is_named_and_what_it_does_not_concern_is_made(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let quota = json!({ "metadata": { "name": "nothing" }, "spec": { "hard": { "services": "0" } } });
    site.links.create::<ResourceQuota>(quota).await?;
    let counted = |it: Option<&ResourceQuota>| {
        it.and_then(|it| it.status.as_ref()?.hard.as_ref()).is_some_and(|it| !it.is_empty())
    };
    until(&site.api::<ResourceQuota>(), "nothing", "be in force", LIMIT, counted).await?;
    held_up(&site, &proxy, "exceeded quota").await?;
    site.api::<ResourceQuota>().delete("nothing", &DeleteParams::default()).await?;
    done(&site, "europol").await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}

/// Makes a link whose Services cannot be made: that is told in those words, everything else is made, and what is tried again
/// takes its time.
async fn held_up(site: &Site<'_>, proxy: &Proxy, words: &str) -> Result<()> {
    let mark = proxy.mark();
    site.link("europol").await?;
    let told = |it: &Condition| it.message.contains(words);
    site.until_told("europol", ConditionType::InternalError, &format!("say {words:?}"), told).await?;
    let attempts = |calls: &[Call]| {
        calls.iter().filter(|call| call.verb == Verb::Create && call.name == "europol-siena").count() >= 5
    };
    proxy.until(mark, "five attempts", LIMIT, attempts).await?;
    let patches = proxy.since(mark).iter().filter(|call| call.resource == "securelinks/status").count();
    ensure!(patches <= 10, "five attempts cost {patches} statuses");
    let made = site.versions().await?;
    ensure!(made.len() == OBJECTS - 2, "{made:?}");
    Ok(())
}

async fn f18_a_service_of_somebody_else_keeps_its_name_until_it_goes(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let foreign = json!({ "metadata": { "name": "europol-siena" }, "spec": { "ports": [{ "port": 1 }] } });
    let foreign: Service = site.links.create(foreign).await?;
    site.link("europol").await?;
    let told = |it: &Condition| it.reason == "NameTaken" && it.message.contains("europol-siena");
    site.until_told("europol", ConditionType::Ready, "say NameTaken", told).await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    let services = site.api::<Service>();
    let now = services.get("europol-siena").await?;
    ensure!(now.resource_version() == foreign.resource_version(), "somebody else's Service was touched");
    services.delete("europol-siena", &DeleteParams::default()).await?;
    done(&site, "europol").await
}

/// Nobody but the Service's end tells the second link of it within ten minutes.
async fn f18_a_name_that_another_link_gives_back_is_taken_at_once(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    done(&site, "europol").await?;
    let mut second = link("frontex");
    second["spec"]["imports"][0]["serviceName"] = "europol-siena".into();
    let second: SecureLink = site.links.create(second).await?;
    let told = |it: &Condition| it.reason == "NameTaken" && it.message.contains("europol-siena");
    site.until_told("frontex", ConditionType::Ready, "say NameTaken", told).await?;
    site.until_at_rest(&operator, &proxy, &["europol", "frontex"]).await?;
    site.api::<SecureLink>().delete("europol", &DeleteParams::default()).await?;
    let own = |it: Option<&Service>| {
        it.is_some_and(|it| it.owner_references().iter().any(|owner| Some(&owner.uid) == second.uid().as_ref()))
    };
    until(&site.api::<Service>(), "europol-siena", "be the second link's", LIMIT, own).await?;
    site.until_says("frontex", ConditionType::RelayAvailable, "Pending").await?;
    // All but that Service are named after the link.
    site.until_all("frontex", OBJECTS - 1).await
}

async fn f19_a_link_made_anew_under_its_name_gets_objects_of_its_own(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let rule = proxy.rule(On::verbs([Verb::Create]).of("configmaps").times(1), Fault::HoldAnswer);
    site.link("europol").await?;
    rule.met(1, LIMIT).await?;
    let links = site.api::<SecureLink>();
    links.delete("europol", &DeleteParams::default()).await?;
    // It goes once nothing is being written for it.
    drop(rule);
    until(&links, "europol", "be gone", LIMIT, |it| it.is_none()).await?;
    let uid = site.link("europol").await?.uid();
    let own = move |it: Option<&Deployment>| {
        it.is_some_and(|it| it.owner_references().iter().all(|owner| Some(&owner.uid) == uid.as_ref()))
    };
    until(&site.api::<Deployment>(), "europol-relay", "be the new link's", LIMIT, own).await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    done(&site, "europol").await
}

async fn f20_a_link_deleted_while_its_certificate_is_issued_leaves_nothing(plane: &Plane) -> Result<()> {
    let (site, proxy, _operator) = plane.ready().await?;
    let rule = proxy.rule(On::verbs([Verb::Create]).of("secrets").within(&site.links.name).times(1), Fault::Hold);
    site.link("europol").await?;
    rule.met(1, LIMIT).await?;
    let links = site.api::<SecureLink>();
    links.delete("europol", &DeleteParams::default()).await?;
    drop(rule);
    until(&links, "europol", "be gone", LIMIT, |it| it.is_none()).await?;
    site.until_only(|_| false).await
}

async fn f21_a_spec_that_flips_every_50_ms_ends_as_it_was_written_last(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    done(&site, "europol").await?;
    let links = site.api::<SecureLink>();
    let mut times = tokio::time::interval(Duration::from_millis(50));
    for round in 0..101 {
        times.tick().await;
        let replicas = if round % 2 == 0 { 3 } else { 2 };
        let spec = Patch::Merge(json!({ "spec": { "relay": { "replicas": replicas } } }));
        links.patch("europol", &PatchParams::default(), &spec).await?;
    }
    let three = |it: Option<&Deployment>| it.and_then(|it| it.spec.as_ref()?.replicas) == Some(3);
    until(&site.api::<Deployment>(), "europol-relay", "have 3 replicas", LIMIT, three).await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    let now = links.get("europol").await?;
    let observed = now.status.as_ref().and_then(|it| it.observed_generation);
    ensure!(observed == now.metadata.generation, "{observed:?} of {:?}", now.metadata.generation);
    let relays = site.api::<Deployment>().get("europol-relay").await?;
    ensure!(three(Some(&relays)), "{:?}", relays.spec);
    Ok(())
}

async fn f27_a_fight_over_replicas_is_not_fought_for_ever(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    done(&site, "europol").await?;
    let mark = proxy.mark();
    let relays = site.api::<Deployment>();
    let fight = async {
        // As an autoscaler does, each time.
        loop {
            let other = |it: Option<&Deployment>| it.and_then(|it| it.spec.as_ref()?.replicas) != Some(7);
            until(&relays, "europol-relay", "be put right", LIMIT, other).await?;
            let seven = Patch::Merge(json!({ "spec": { "replicas": 7 } }));
            relays.patch("europol-relay", &PatchParams::default(), &seven).await?;
        }
    };
    tokio::select! {
        ended = fight => ended,
        quiet = site.until_at_rest(&operator, &proxy, &["europol"]) => quiet,
    }?;
    let repairs = proxy.writes_since(mark).iter().filter(|call| call.resource == "deployments").count();
    ensure!((1..=8).contains(&repairs), "{repairs} repairs");
    Ok(())
}

async fn f29_resources_that_others_rewrite_at_once_are_not_written_over_and_over(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let limits = json!([{ "type": "Container", "default": { "ephemeral-storage": "7Mi" } }]);
    let range = json!({ "metadata": { "name": "defaults" }, "spec": { "limits": limits } });
    site.links.create::<LimitRange>(range).await?;
    rewrites_resources(&site).await?;
    let mark = proxy.mark();
    site.link("europol").await?;
    done(&site, "europol").await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    let writes = proxy.writes_since(mark).iter().filter(|call| call.resource == "deployments").count();
    ensure!((1..=2).contains(&writes), "{writes} writes of the relays");
    let relays = site.api::<Deployment>().get("europol-relay").await?;
    ensure!(limit(relays.spec.map(|it| it.template.spec.unwrap_or_default()).as_ref(), "cpu") == "7");
    let pods = site.api::<Pod>().list(&ListParams::default().labels("securelink.dev/link=europol")).await?;
    let given: Vec<_> = pods.items.iter().map(|pod| limit(pod.spec.as_ref(), "ephemeral-storage")).collect();
    ensure!(given == ["7Mi", "7Mi"], "{given:?}");
    Ok(())
}

/// Has the API server set the resources of each Deployment in place of those that were written.
async fn rewrites_resources(site: &Site<'_>) -> Result<()> {
    const VERSION: &str = "admissionregistration.k8s.io/v1";
    let metadata = json!({ "name": format!("{}-limits", site.links.name) });
    let change = r#"[JSONPatch{op: "add", path: "/spec/template/spec/containers/0/resources", value: {"limits": {"cpu": "7"}}}]"#;
    let rule =
        json!({ "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"] });
    let within = json!({ "matchLabels": { "kubernetes.io/metadata.name": site.links.name } });
    let policy = json!({
        "apiVersion": VERSION, "kind": "MutatingAdmissionPolicy", "metadata": metadata,
        "spec": {
            "matchConstraints": { "resourceRules": [rule], "namespaceSelector": within },
            "reinvocationPolicy": "Never",
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": change } }],
        },
    });
    let binding = json!({
        "apiVersion": VERSION, "kind": "MutatingAdmissionPolicyBinding", "metadata": metadata,
        "spec": { "policyName": metadata["name"] },
    });
    site.apply(&policy).await?;
    site.apply(&binding).await?;
    let labels = json!({ "app": "any" });
    let any = json!({
        "metadata": { "name": "any" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "any", "image": "any" }] } },
        },
    });
    let judged = async || site.links.dry_run::<Deployment>(any.clone()).await;
    let rewritten = |it: &Deployment| limit(it.spec.as_ref().and_then(|it| it.template.spec.as_ref()), "cpu") == "7";
    asking("the policy", LIMIT, rewritten, judged).await.map(drop)
}

/// A limit of the first container of a pod.
fn limit(pod: Option<&PodSpec>, resource: &str) -> String {
    let limits = pod.and_then(|it| it.containers.first()?.resources.as_ref()?.limits.as_ref());
    limits.and_then(|limits| limits.get(resource)).map(|it| it.0.clone()).unwrap_or_default()
}

async fn f84_a_link_where_none_may_be_says_so_and_comes_up_when_one_may(plane: &Plane) -> Result<()> {
    let (site, proxy, _operator) = plane.ready().await?;
    let other = site.elsewhere(plane.namespace("foreign").await?);
    let mark = proxy.mark();
    other.link("frontex").await?;
    let told = |it: &Condition| it.reason == "NamespaceNotGranted" && it.message.contains("securelink grant");
    other.until_told("frontex", ConditionType::Ready, "say how to grant it", told).await?;
    let within = |call: &Call| call.namespace == other.links.name && !call.group.starts_with("securelink.dev");
    let writes: Vec<Call> = proxy.writes_since(mark).into_iter().filter(within).collect();
    ensure!(writes.iter().all(|call| call.resource == "events"), "it writes {writes:?}");
    other.grant().await?;
    done(&other, "frontex").await
}

async fn of_two_links_to_one_organization_the_younger_waits_for_the_end_of_the_older(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    site.link("europol").await?;
    done(&site, "europol").await?;
    let before = site.versions().await?;
    let mut younger = link("europol");
    younger["metadata"]["name"] = "younger".into();
    site.links.create::<SecureLink>(younger).await?;
    let told = |it: &Condition| it.reason == "DuplicatePeer" && it.message.contains("europol");
    site.until_told("younger", ConditionType::Ready, "name the older", told).await?;
    site.until_at_rest(&operator, &proxy, &["europol", "younger"]).await?;
    ensure!(site.versions().await? == before, "an object was written");
    site.api::<SecureLink>().delete("europol", &DeleteParams::default()).await?;
    done(&site, "younger").await
}

/// Returns when a link has all that it needs, and no fault.
async fn done(site: &Site<'_>, name: &str) -> Result<()> {
    site.until_says(name, ConditionType::RelayAvailable, "Pending").await?;
    site.until_silent(name, ConditionType::InternalError).await?;
    site.until_all(name, OBJECTS).await
}
