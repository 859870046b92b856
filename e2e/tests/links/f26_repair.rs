//! F26: what somebody changes by hand is put right. F55: a new leader has nothing to write.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams};
use kube::{Resource, ResourceExt};
use securelink_crds::SecureLink;
use securelink_e2e::cluster::Kind;
use securelink_e2e::installed::OPERATOR;
use securelink_e2e::organization::{LINK, LINK_LIMIT, Organization};
use securelink_e2e::wait::until;
use securelink_e2e::{Namespace, Pair, World};

/// How long an operator may take to put right what somebody changed (promise: 5 s), and as much for the API server of a busy
/// machine.
const REPAIRED: Duration = Duration::from_secs(20);

/// The versions of what was made of a kind for a link.
async fn of<K>(namespace: &Namespace, link: &str) -> Result<Vec<(String, Option<String>)>>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let ours = ListParams::default().labels(&format!("securelink.dev/link={link}"));
    let found = namespace.api::<K>().list(&ours).await?;
    let version = |object: &K| {
        // A Deployment's status moves by itself.
        let generation = object.meta().generation.map(|at| at.to_string());
        (format!("{} {}", K::kind(&()), object.name_any()), generation.or_else(|| object.resource_version()))
    };
    Ok(found.items.iter().map(version).collect())
}

/// The versions of everything that was made for a link, and of the link itself.
pub(crate) async fn versions(at: &Organization, link: &str) -> Result<Vec<(String, Option<String>)>> {
    let at = at.links();
    let mut all = of::<Secret>(at, link).await?;
    all.extend(of::<ConfigMap>(at, link).await?);
    all.extend(of::<ServiceAccount>(at, link).await?);
    all.extend(of::<Service>(at, link).await?);
    all.extend(of::<NetworkPolicy>(at, link).await?);
    all.extend(of::<PodDisruptionBudget>(at, link).await?);
    all.extend(of::<Deployment>(at, link).await?);
    let object = at.api::<SecureLink>().get(link).await?;
    // With its status, so that a failure shows what was written.
    let status = serde_json::to_string(&object.status)?;
    all.push(("SecureLink".to_owned(), object.resource_version().map(|version| format!("{version} {status}"))));
    Ok(all)
}

/// Who leads.
pub(crate) async fn leader(at: &Organization) -> Result<Option<String>> {
    let lease = at.installed.own.api::<Lease>().get(OPERATOR).await?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
}

pub(crate) async fn f26_what_somebody_changes_is_put_right(_: &World, pair: &Pair) -> Result<()> {
    let services = pair.a.organization.links().api::<Service>();
    let name = format!("{LINK}-echo");
    let before = services.get(&name).await?.uid();
    services.delete(&name, &DeleteParams::default()).await?;
    let again =
        |it: Option<&Service>| it.is_some_and(|it| it.uid() != before && it.meta().deletion_timestamp.is_none());
    until(&services, &name, "be made again", REPAIRED, again).await.map(drop)
}

pub(crate) async fn f55_a_new_leader_writes_nothing(world: &World, pair: &Pair) -> Result<()> {
    let a = &pair.a.organization;
    let before = versions(a, LINK).await?;
    ensure!(before.len() == 8, "{before:?}");
    // Both operators go; whoever leads next looks at everything.
    let held = leader(a).await?;
    let own = a.installed.own.api::<Pod>();
    own.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let news = |it: Option<&Lease>| {
        let now = it.and_then(|it| it.spec.as_ref()?.holder_identity.clone());
        now.as_ref().is_some_and(|now| !now.is_empty()) && now != held
    };
    until(&a.installed.own.api::<Lease>(), OPERATOR, "be held by a new operator", LINK_LIMIT, news).await?;
    // Its first look is over when it puts right what somebody changes.
    f26_what_somebody_changes_is_put_right(world, pair).await?;
    let after = versions(a, LINK).await?;
    let changed: Vec<_> = after.iter().filter(|now| !before.contains(now)).collect();
    // The Service that was deleted on the way is new.
    let others = changed.iter().all(|(name, _)| *name == format!("Service {LINK}-echo"));
    ensure!(others, "{changed:?}, before: {before:?}");
    Ok(())
}
