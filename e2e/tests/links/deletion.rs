//! Deleting a link removes all that was made for it, and nothing else.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Resource};
use securelink_crds::SecureLink;
use securelink_e2e::cluster::Kind;
use securelink_e2e::organization::LINK;
use securelink_e2e::pair::OTHER;
use securelink_e2e::wait::until;
use securelink_e2e::{Namespace, Pair, World};

use crate::f26_repair::versions;

/// How long Kubernetes may take to remove what belonged to a deleted link.
const GONE: Duration = Duration::from_mins(2);

/// Waits until all of a kind that were made are gone.
async fn gone<K>(namespace: &Namespace, made: &[(String, Option<String>)]) -> Result<()>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let api: Api<K> = namespace.api();
    for (name, _) in made {
        if let Some(name) = name.strip_prefix(&format!("{} ", K::kind(&()))) {
            until(&api, name, "be gone", GONE, |it| it.is_none()).await?;
        }
    }
    Ok(())
}

pub(crate) async fn deleting_a_link_leaves_nothing(_: &World, pair: &Pair) -> Result<()> {
    let a = &pair.a.organization;
    let (made, others) = (versions(a, LINK).await?, versions(a, OTHER).await?);
    let at = a.links();
    at.api::<SecureLink>().delete(LINK, &DeleteParams::default()).await?;
    gone::<Secret>(at, &made).await?;
    gone::<ConfigMap>(at, &made).await?;
    gone::<ServiceAccount>(at, &made).await?;
    gone::<Service>(at, &made).await?;
    gone::<NetworkPolicy>(at, &made).await?;
    gone::<PodDisruptionBudget>(at, &made).await?;
    gone::<Deployment>(at, &made).await?;
    let of_link = ListParams::default().labels(&format!("securelink.dev/link={LINK}"));
    let left = at.api::<ReplicaSet>().list(&of_link).await?.items;
    ensure!(left.is_empty(), "{left:?}");
    ensure!(versions(a, OTHER).await? == others, "the other link was touched: {others:?}");
    Ok(())
}
