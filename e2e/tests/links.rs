//! Two organizations, each with its own cluster, charts, keys and operator, and a link between them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use securelink_crds::conditions::ConditionType;
use securelink_crds::{LinkCut, LinkIdentity, SecureLink};
use securelink_e2e::cluster::Kind;
use securelink_e2e::harness::{self, CLUSTERS};
use securelink_e2e::installed::{OPERATOR, clean};
use securelink_e2e::organization::{LINK, LINK_LIMIT, Organization};
use securelink_e2e::probe::{Answer, ECHO_PORT, Probe};
use securelink_e2e::wait::{asking, until};
use securelink_e2e::{Namespace, Outcome, Test, World};
use serde_json::{Value, json};

/// How long an operator may take to put right what somebody changed (promise: 5 s; the rest is for this machine's API server).
const REPAIRED: Duration = Duration::from_secs(5);
/// How long Kubernetes may take to remove what belonged to a deleted link.
const GONE: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |world| Box::pin($name(world)))),*] };
    }
    harness::run(env!("CARGO_TARGET_TMPDIR"), tests![a_link_between_two_clusters_from_installation_to_deletion])
}

/// One after the other in one pair of installations, since each takes a minute to come up.
async fn a_link_between_two_clusters_from_installation_to_deletion(world: &World) -> Result<Outcome> {
    let [first, second] = CLUSTERS;
    let (a, b) = futures_util::future::try_join(
        Box::pin(Organization::new(world, first)),
        Box::pin(Organization::new(world, second)),
    )
    .await?;
    let (Some(a), Some(b)) = (a, b) else {
        return Ok(Outcome::Skipped("a cluster has the kinds already; remove them to try this".to_owned()));
    };
    let lived = Box::pin(life(world, &a, &b)).await;
    for side in [&a, &b] {
        side.remove().await?;
        clean(&side.installed.cluster).await?;
    }
    lived.map(|()| Outcome::Held)
}

async fn life(world: &World, a: &Organization, b: &Organization) -> Result<()> {
    let image = world.image()?;
    let client = Probe::start(a.links(), &image, "client").await?;
    let other = Probe::start(a.links(), &image, "other").await?;
    let server = Probe::start(b.links(), &image, "server").await?;
    serve(b.links(), &server).await?;
    traffic_flows_and_only_for_the_named_clients(a, b, &client, &other).await.context("traffic")?;
    p01_no_secret_is_in_what_a_person_wrote(a, b).await.context("P1")?;
    p11_relays_have_no_token(a).await.context("P11")?;
    f55_the_same_again_and_a_new_leader_write_nothing(a).await.context("F55")?;
    f26_what_somebody_changes_is_put_right(a).await.context("F26")?;
    p04_a_cut_ends_streams_and_its_deletion_resumes(a, b, &client).await.context("P4")?;
    f70_an_edit_that_suspends_beside_a_mistake_suspends(a, b).await.context("F70")?;
    p06_traffic_and_a_new_relay_need_no_operator(a, &client).await.context("P6")?;
    deleting_the_link_leaves_nothing(a).await.context("deletion")
}

async fn serve(namespace: &Namespace, server: &Probe) -> Result<()> {
    let spec = json!({ "selector": { "role": server.name }, "ports": [{ "port": 7, "targetPort": ECHO_PORT }] });
    namespace.create::<Service>(json!({ "metadata": { "name": "echo" }, "spec": spec })).await.map(drop)
}

fn import() -> String {
    format!("{LINK}-echo:7000")
}

async fn traffic_flows_and_only_for_the_named_clients(
    a: &Organization,
    b: &Organization,
    client: &Probe,
    other: &Probe,
) -> Result<()> {
    let imports = json!({ "imports": [{
        "name": "echo", "port": 7000, "dataClass": "strategic",
        "clients": [{ "podSelector": { "matchLabels": { "role": "client" } } }],
    }]});
    let exports = json!({ "exports": [{ "name": "echo", "dataClass": "strategic", "target": { "service": "echo", "port": 7 } }] });
    a.declare(a.link_to(b, &imports).await?).await?;
    b.declare(b.link_to(a, &exports).await?).await?;
    a.until_says(ConditionType::Ready, "Ready").await?;
    b.until_says(ConditionType::Ready, "Ready").await?;
    client.until_connected(&import()).await?;
    let answer = other.dial(&import(), true).await?;
    ensure!(!answer.connected(), "a pod that no client selector names gets through: {answer:?}");
    Ok(())
}

/// What both sides wrote holds endpoints and fingerprints; keys are where the operator put them.
async fn p01_no_secret_is_in_what_a_person_wrote(a: &Organization, b: &Organization) -> Result<()> {
    for side in [a, b] {
        let link = side.links().api::<SecureLink>().get(LINK).await?;
        let identity = side.links().api::<LinkIdentity>().get("default").await?;
        let written = format!("{}{}", serde_json::to_string(&link)?, serde_json::to_string(&identity)?);
        ensure!(
            !written.contains("PRIVATE") && !written.contains("KEY-----"),
            "a key is in what a person wrote or reads"
        );
        let beside = side.links().api::<Secret>().list(&ListParams::default()).await?;
        let names: Vec<String> = beside.items.iter().map(ResourceExt::name_any).collect();
        ensure!(names == [format!("{LINK}-leaf")], "beside the relays are {names:?}");
    }
    Ok(())
}

async fn p11_relays_have_no_token(a: &Organization) -> Result<()> {
    let relays = a.relays().await?;
    ensure!(relays.len() == 2, "{} relays", relays.len());
    for relay in relays {
        let spec = relay.spec.context("a spec")?;
        ensure!(spec.automount_service_account_token == Some(false), "a relay is given a token");
        let tokens = spec.volumes.iter().flatten().filter(|volume| volume.projected.is_some()).count();
        ensure!(tokens == 0, "a relay has a projected volume");
    }
    Ok(())
}

/// The versions of what was made of a kind.
async fn of<K>(namespace: &Namespace) -> Result<Vec<(String, Option<String>)>>
where
    K: Kind + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=securelink-operator");
    let found = namespace.api::<K>().list(&ours).await?;
    let version = |object: &K| {
        // A Deployment's status moves by itself.
        let generation = object.meta().generation.map(|at| at.to_string());
        (format!("{} {}", K::kind(&()), object.name_any()), generation.or_else(|| object.resource_version()))
    };
    Ok(found.items.iter().map(version).collect())
}

/// The versions of everything that was made for the link, and of the link itself.
async fn versions(a: &Organization) -> Result<Vec<(String, Option<String>)>> {
    let at = a.links();
    let mut all = of::<Secret>(at).await?;
    all.extend(of::<ConfigMap>(at).await?);
    all.extend(of::<ServiceAccount>(at).await?);
    all.extend(of::<Service>(at).await?);
    all.extend(of::<NetworkPolicy>(at).await?);
    all.extend(of::<PodDisruptionBudget>(at).await?);
    all.extend(of::<Deployment>(at).await?);
    let link = at.api::<SecureLink>().get(LINK).await?;
    all.push(("SecureLink".to_owned(), link.resource_version()));
    Ok(all)
}

async fn f55_the_same_again_and_a_new_leader_write_nothing(a: &Organization) -> Result<()> {
    let before = versions(a).await?;
    ensure!(before.len() == 9, "{before:?}");
    // Both operators go; whoever leads next looks at everything.
    let own = a.installed.own.api::<Pod>();
    own.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let lease = a.installed.own.api::<k8s_openapi::api::coordination::v1::Lease>();
    let held = lease.get(OPERATOR).await?.spec.and_then(|spec| spec.holder_identity);
    let news = |it: Option<&k8s_openapi::api::coordination::v1::Lease>| {
        let now = it.and_then(|it| it.spec.as_ref()?.holder_identity.clone());
        now.as_ref().is_some_and(|now| !now.is_empty()) && now != held
    };
    until(&lease, OPERATOR, "be held by a new operator", LINK_LIMIT, news).await?;
    // Its first look is over when it puts right what somebody changes.
    f26_what_somebody_changes_is_put_right(a).await?;
    let after = versions(a).await?;
    let changed: Vec<_> = after.iter().filter(|now| !before.contains(now)).collect();
    // The Service that was deleted on the way is new.
    ensure!(changed.iter().all(|(name, _)| *name == format!("Service {LINK}-echo")), "{changed:?}");
    Ok(())
}

async fn f26_what_somebody_changes_is_put_right(a: &Organization) -> Result<()> {
    let services = a.links().api::<Service>();
    let name = format!("{LINK}-echo");
    let before = services.get(&name).await?.uid();
    services.delete(&name, &DeleteParams::default()).await?;
    let again =
        |it: Option<&Service>| it.is_some_and(|it| it.uid() != before && it.meta().deletion_timestamp.is_none());
    until(&services, &name, "be made again", REPAIRED * 4, again).await.map(drop)
}

async fn p04_a_cut_ends_streams_and_its_deletion_resumes(
    a: &Organization,
    b: &Organization,
    client: &Probe,
) -> Result<()> {
    let spec = json!({ "linkRef": { "name": LINK }, "reason": "incident 2026-114" });
    a.links().create::<LinkCut>(json!({ "metadata": { "name": "now" }, "spec": spec })).await?;
    let obeyed = |it: Option<&LinkCut>| {
        let status = it.and_then(|it| it.status.as_ref());
        status.is_some_and(|status| status.pending == Some(0) && status.relays.len() == 2)
    };
    until(&a.links().api::<LinkCut>(), "now", "be obeyed by both relays", LINK_LIMIT, obeyed).await?;
    let answer = client.dial(&import(), true).await?;
    ensure!(!answer.connected(), "a stream passes while it is cut: {answer:?}");
    a.until_says(ConditionType::Agreed, "CutHere").await?;
    let there = b.until_says(ConditionType::Agreed, "CutByPeer").await?;
    ensure!(there.message.contains("incident 2026-114"), "the peer is not told why: {}", there.message);
    a.links().api::<LinkCut>().delete("now", &DeleteParams::default()).await?;
    a.until_says(ConditionType::Ready, "Ready").await?;
    client.until_connected(&import()).await
}

async fn f70_an_edit_that_suspends_beside_a_mistake_suspends(a: &Organization, b: &Organization) -> Result<()> {
    // Schema and rules refuse what is wrong with one object; that two imports have one Service name only the operator sees.
    let twice = |name: &str| {
        json!({ "name": name, "port": 7001, "dataClass": "strategic", "serviceName": "same",
                "clients": [{ "podSelector": {} }] })
    };
    let good = a.links().api::<SecureLink>().get(LINK).await?;
    let imports = [serde_json::to_value(&good.spec.imports[0])?, twice("one"), twice("two")];
    a.patch(&json!({ "spec": { "state": "Suspended", "imports": imports } })).await?;
    a.until_says(ConditionType::Accepted, "Invalid").await?;
    a.until_says(ConditionType::Agreed, "SuspendedHere").await?;
    b.until_says(ConditionType::Agreed, "SuspendedByPeer").await?;
    a.patch(&json!({ "spec": { "state": "Active", "imports": [imports[0]] } })).await?;
    a.until_says(ConditionType::Ready, "Ready").await?;
    b.until_says(ConditionType::Ready, "Ready").await.map(drop)
}

/// Without an operator, a relay that is started anew reads its files and serves.
async fn p06_traffic_and_a_new_relay_need_no_operator(a: &Organization, client: &Probe) -> Result<()> {
    let operator = a.installed.own.api::<Deployment>();
    let scale = |replicas: u8| Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    operator.patch(OPERATOR, &PatchParams::default(), &scale(0)).await?;
    let pods = a.installed.own.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await? {
        until(&pods, &pod.name_any(), "be gone", GONE, |it| it.is_none()).await?;
    }
    client.until_connected(&import()).await?;
    let old = a.relays().await?;
    for relay in &old {
        a.links().api::<Pod>().delete(&relay.name_any(), &DeleteParams::default()).await?;
    }
    for relay in &old {
        until(&a.links().api::<Pod>(), &relay.name_any(), "be gone", GONE, |it| it.is_none()).await?;
    }
    let what = "a client reaches the peer through relays that no operator has seen";
    asking(what, LINK_LIMIT, Answer::connected, async || client.dial(&import(), true).await).await?;
    operator.patch(OPERATOR, &PatchParams::default(), &scale(2)).await?;
    a.until_says(ConditionType::Ready, "Ready").await.map(drop)
}

/// Waits until all of a kind that were made are gone.
async fn gone<K>(namespace: &Namespace, made: &[(String, Option<String>)]) -> Result<()>
where
    K: Kind + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    let api: Api<K> = namespace.api();
    for (name, _) in made {
        if let Some(name) = name.strip_prefix(&format!("{} ", K::kind(&()))) {
            until(&api, name, "be gone", GONE, |it| it.is_none()).await?;
        }
    }
    Ok(())
}

async fn deleting_the_link_leaves_nothing(a: &Organization) -> Result<()> {
    let made = versions(a).await?;
    a.links().api::<SecureLink>().delete(LINK, &DeleteParams::default()).await?;
    let at = a.links();
    gone::<Secret>(at, &made).await?;
    gone::<ConfigMap>(at, &made).await?;
    gone::<ServiceAccount>(at, &made).await?;
    gone::<Service>(at, &made).await?;
    gone::<NetworkPolicy>(at, &made).await?;
    gone::<PodDisruptionBudget>(at, &made).await?;
    gone::<Deployment>(at, &made).await?;
    let left: Value = serde_json::to_value(at.api::<ReplicaSet>().list(&ListParams::default()).await?.items)?;
    ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
    Ok(())
}
