//! The charts in a cluster: what stays when they go, what installing again changes, what the operator may do and reach.
//!
//! The operator itself does not run here: nothing in these promises needs it. It runs in `links`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::{Api, ResourceExt};
use securelink_crds::{LinkIdentity, SecureLink};
use securelink_e2e::harness::{self, CLUSTERS};
use securelink_e2e::installed::{Installed, OPERATOR, clean};
use securelink_e2e::probe::{self, Answer, HTTP_PORT, Probe};
use securelink_e2e::wait::{asking, until};
use securelink_e2e::{Namespace, Outcome, Test, World};
use serde_json::{Value, json};

/// How long the controllers may take to make the operator's pods. They need not run.
const PODS_LIMIT: Duration = Duration::from_mins(1);

/// How long a changed policy may take to be in force.
const POLICY_LIMIT: Duration = Duration::from_secs(30);

/// Where a relay is told of cuts and configurations.
const CONTROL_PORT: u16 = 15444;

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |world| Box::pin($name(world)))),*] };
    }
    harness::run(
        env!("CARGO_TARGET_TMPDIR"),
        tests![
            f54_uninstalling_keeps_links_and_installing_again_takes_them_up
            f55_installing_the_same_again_changes_nothing
            the_operator_may_work_where_links_may_be_and_nowhere_else
            the_operators_policy_lets_through_what_it_needs_and_nothing_else
        ],
    )
}

/// Runs a body with the charts installed, by Helm 3 in one cluster and by Helm 4 in the other, and cleans up.
async fn each(world: &World, replicas: u8, body: impl AsyncFn(&Installed) -> Result<()>) -> Result<Outcome> {
    let one = async |cluster: &str, helm: &str| {
        let Some(installed) = Installed::new(world, cluster, helm, &format!("operator.replicas={replicas}")).await?
        else {
            return Ok(Outcome::Skipped(format!("{cluster} has the kinds already; remove them to try this")));
        };
        let held = body(&installed).await.with_context(|| helm.to_owned());
        let cleaned = clean(&installed.cluster).await;
        held.and(cleaned).map(|()| Outcome::Held)
    };
    let [first, second] = CLUSTERS;
    let (three, four) = futures_util::future::join(Box::pin(one(first, "helm3")), Box::pin(one(second, "helm4"))).await;
    let (three, four) = (three?, four?);
    Ok(if three == Outcome::Held { four } else { three })
}

async fn f54_uninstalling_keeps_links_and_installing_again_takes_them_up(world: &World) -> Result<Outcome> {
    each(world, 0, async |installed| {
        let object = json!({
            "metadata": { "name": "default" },
            "spec": { "trustDomain": "interpol.example", "issuer": { "builtIn": {} } },
        });
        installed.links.create::<LinkIdentity>(object).await?;
        let peer = json!({
            "trustDomain": "europol.example", "endpoints": [{ "host": "link.europol.example", "port": 443 }],
            "fingerprints": [format!("sha256:{}", "0f".repeat(32))],
        });
        let spec = json!({ "identityRef": { "name": "default" }, "peer": peer });
        let object = json!({ "metadata": { "name": "europol" }, "spec": spec });
        let made: SecureLink = installed.links.create(object).await?;
        let kinds = installed.kinds().await?;

        installed.uninstall()?;
        let links = installed.links.api::<SecureLink>();
        ensure!(links.get("europol").await?.uid() == made.uid(), "the link is not the one that was made");
        ensure!(installed.kinds().await? == kinds, "the kinds are not as they were");
        let roles = Api::<ClusterRole>::all(installed.cluster.client.clone());
        ensure!(roles.get_opt("securelink-link").await?.is_none(), "the rights stay");
        let bound = installed.links.api::<RoleBinding>();
        ensure!(bound.get_opt("securelink-link").await?.is_none(), "the rights in a link's namespace stay");

        installed.install("install")?;
        ensure!(links.get("europol").await?.uid() == made.uid(), "the link is not the one that was made");
        ensure!(installed.kinds().await? == kinds, "the kinds are not as they were");
        bound.get("securelink-link").await.map(drop).context("the rights are not there again")
    })
    .await
}

async fn f55_installing_the_same_again_changes_nothing(world: &World) -> Result<Outcome> {
    each(world, 2, async |installed| {
        // The namespace takes restricted pods only.
        let made = |it: Option<&Deployment>| it.and_then(|it| it.status.as_ref()?.replicas) == Some(2);
        until(&installed.own.api(), OPERATOR, "have two pods", PODS_LIMIT, made).await?;
        let state = async || {
            // Of the Deployment the generation: its status moves by itself.
            let deployment = installed.own.api::<Deployment>().get(OPERATOR).await?.metadata.generation;
            let config = installed.own.api::<ConfigMap>().get(OPERATOR).await?.resource_version();
            let policy = installed.own.api::<NetworkPolicy>().get(OPERATOR).await?.resource_version();
            let bound = installed.links.api::<RoleBinding>().get("securelink-link").await?.resource_version();
            anyhow::Ok((deployment, config, policy, bound, installed.kinds().await?))
        };
        let before = state().await?;
        installed.install("upgrade")?;
        let after = state().await?;
        ensure!(before == after, "before: {before:?}, after: {after:?}");
        Ok(())
    })
    .await
}

async fn the_operator_may_work_where_links_may_be_and_nowhere_else(world: &World) -> Result<Outcome> {
    each(world, 0, async |installed| {
        let (own, links) = (Some(installed.own.name.as_str()), Some(installed.links.name.as_str()));
        let rows = [
            ("list", "", "secrets", None, false),
            ("get", "", "secrets", Some("kube-system"), false),
            ("list", "", "secrets", own, true),
            ("list", "", "secrets", links, true),
            ("delete", "apps", "deployments", links, true),
            ("create", "apps", "deployments", own, false),
            ("create", "apps", "deployments", Some("default"), false),
            ("create", "", "pods", links, false),
            ("list", "", "services", Some("default"), false),
            ("watch", "securelink.dev", "linkcuts", None, true),
            ("delete", "securelink.dev", "linkcuts", None, false),
            ("patch", "securelink.dev", "securelinks", None, false),
            ("patch", "securelink.dev", "linkidentities", None, true),
            ("create", "coordination.k8s.io", "leases", own, true),
            ("update", "coordination.k8s.io", "leases", own, false),
            ("create", "rbac.authorization.k8s.io", "rolebindings", links, false),
        ];
        for (verb, group, resource, namespace, allowed) in rows {
            let asked = json!({ "verb": verb, "group": group, "resource": resource, "namespace": namespace });
            let answer = may(installed, asked).await?;
            ensure!(answer == allowed, "{verb} {group}/{resource} in {namespace:?}: {answer}");
        }
        let lease = json!({ "verb": "update", "group": "coordination.k8s.io", "resource": "leases", "namespace": own,
                            "name": OPERATOR });
        ensure!(may(installed, lease).await?, "its own Lease");
        let status = json!({ "verb": "patch", "group": "securelink.dev", "resource": "securelinks",
                             "subresource": "status", "namespace": "default" });
        ensure!(may(installed, status).await?, "the status of a link in a namespace that is not granted");
        Ok(())
    })
    .await
}

/// What the API server answers when the operator's account asks.
async fn may(installed: &Installed, asked: Value) -> Result<bool> {
    let user = format!("system:serviceaccount:{}:{OPERATOR}", installed.own.name);
    let review = json!({ "metadata": {}, "spec": { "user": user, "resourceAttributes": asked } });
    let reviews = Api::<SubjectAccessReview>::all(installed.cluster.client.clone());
    let review = reviews.create(&kube::api::PostParams::default(), &serde_json::from_value(review)?).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

async fn the_operators_policy_lets_through_what_it_needs_and_nothing_else(world: &World) -> Result<Outcome> {
    each(world, 0, async |installed| {
        let image = world.image()?;
        let part = |part: &str| json!({ "app.kubernetes.io/name": "securelink", "app.kubernetes.io/component": part });
        // It becomes Ready, though the policy lets nobody in: the kubelet's probes are let through.
        let operator = stand_in(&installed.own, &image, "operator", part("operator")).await?;
        let relay = stand_in(&installed.links, &image, "relay", part("relay")).await?;
        let other = stand_in(&installed.links, &image, "other", json!({ "role": "other" })).await?;

        operator.until_connected(&format!("{}:{CONTROL_PORT}", relay.address)).await?;
        operator.until_denied(&format!("{}:{CONTROL_PORT}", other.address)).await?;
        let answer = operator.dial(&format!("{}:{HTTP_PORT}", relay.address), false).await?;
        ensure!(!answer.connected(), "it reaches a port of a relay that it has no business with: {answer:?}");
        // Absolute: else every domain of the search list is asked before, the last of them by a server outside.
        let server = "kubernetes.default.svc.cluster.local.";
        let resolve = async || operator.resolve(server).await;
        asking("it resolves the API server's name", POLICY_LIMIT, |answer: &Answer| answer.success, resolve).await?;
        let dial = async || operator.dial(&format!("{server}:443"), false).await;
        asking("it reaches the API server", POLICY_LIMIT, Answer::connected, dial).await?;

        let metrics = format!("{}:{HTTP_PORT}", operator.address);
        let answer = other.dial(&metrics, false).await?;
        ensure!(!answer.connected(), "metrics are read by whom no value names: {answer:?}");
        let reader = format!(
            "monitoring[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name={}",
            installed.links.name
        );
        installed.helm(&["upgrade", "securelink", "charts/securelink", "--reuse-values", "--set", &reader])?;
        let read = async || other.dial(&metrics, false).await;
        asking("who may read metrics reads them", POLICY_LIMIT, Answer::connected, read).await?;
        let answer = other.dial(&format!("{}:{CONTROL_PORT}", operator.address), true).await?;
        ensure!(!answer.connected(), "who may read metrics reaches another port: {answer:?}");
        Ok(())
    })
    .await
}

/// A pod with the labels of another, which echoes where a relay has its control port and serves where the operator does.
async fn stand_in(namespace: &Namespace, image: &str, name: &str, labels: Value) -> Result<Probe> {
    let mut spec = probe::spec(image);
    spec["containers"][0]["args"] = json!(["serve", "--echo", format!(":{CONTROL_PORT}")]);
    namespace.create::<Pod>(json!({ "metadata": { "name": name, "labels": labels }, "spec": spec })).await?;
    Probe::of(namespace, name).await
}
