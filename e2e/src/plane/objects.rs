//! What was made for the links of a site, and whether the operator has come to rest over it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use securelink_crds::{LinkIdentity, SecureLink};
use serde_json::json;

use super::site::LIMIT;
use super::{LOOK, Operator, Proxy, Site};
use crate::cluster::Kind;
use crate::wait::until;

/// The label of all that belongs to a link.
const OURS: &str = "securelink.dev/link";
/// The annotation by which a link is looked at again.
const POKED: &str = "securelink.dev/e2e-poked";
/// How often in a row nothing may be written until an operator counts as at rest.
const QUIET: usize = 2;

/// Kind and name of an object, and what changes when somebody writes it.
pub type Versions = BTreeMap<String, String>;

impl Site<'_> {
    /// Returns when the identity `default` says what partners pin.
    pub async fn identity_is_ready(&self) -> Result<String> {
        let found = |it: Option<&LinkIdentity>| it?.status.as_ref()?.fingerprint.clone();
        let api = self.api::<LinkIdentity>();
        let identity = until(&api, "default", "have a fingerprint", LIMIT, |it| found(it).is_some()).await?;
        found(identity.as_ref()).context("a fingerprint")
    }

    /// All objects that belong to links here, but pods and what makes them.
    pub async fn versions(&self) -> Result<Versions> {
        let mut versions = Versions::new();
        self.add::<ServiceAccount>(&mut versions).await?;
        self.add::<Secret>(&mut versions).await?;
        self.add::<ConfigMap>(&mut versions).await?;
        self.add::<NetworkPolicy>(&mut versions).await?;
        self.add::<Service>(&mut versions).await?;
        self.add::<PodDisruptionBudget>(&mut versions).await?;
        self.add::<Deployment>(&mut versions).await?;
        Ok(versions)
    }

    async fn add<K>(&self, versions: &mut Versions) -> Result<()>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        for object in self.api::<K>().list(&ListParams::default().labels(OURS)).await?.items {
            let metadata = object.meta();
            // The status of these moves by itself.
            let version = metadata.generation.map(|at| at.to_string()).or(metadata.resource_version.clone());
            let uid = object.uid().unwrap_or_default();
            versions.insert(
                format!("{} {}", K::kind(&()), object.name_any()),
                format!("{uid} {}", version.unwrap_or_default()),
            );
        }
        Ok(())
    }

    /// Returns when all that is left, pods included, is as `kept` says of its kind and name.
    pub async fn until_only(&self, kept: impl Fn(&str) -> bool) -> Result<()> {
        let looked = async {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                let mut left = self.versions().await?;
                self.add::<ReplicaSet>(&mut left).await?;
                self.add::<Pod>(&mut left).await?;
                left.retain(|object, _| !kept(object));
                if left.is_empty() {
                    return anyhow::Ok(());
                }
            }
        };
        match tokio::time::timeout(LIMIT, looked).await {
            Ok(looked) => looked,
            Err(_) => bail!("after {} s there are still {:?}", LIMIT.as_secs(), self.versions().await?),
        }
    }

    /// Returns when a link has so many objects.
    pub async fn until_all(&self, link: &str, count: usize) -> Result<()> {
        let own = |object: &str| object.split_once(' ').is_some_and(|(_, name)| name.starts_with(&format!("{link}-")));
        let looked = async {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                if self.versions().await?.keys().filter(|object| own(object)).count() == count {
                    return anyhow::Ok(());
                }
            }
        };
        match tokio::time::timeout(LIMIT, looked).await {
            Ok(looked) => looked,
            Err(_) => bail!("{link} has not {count} objects after {} s: {:?}", LIMIT.as_secs(), self.versions().await?),
        }
    }

    /// Returns when the relays of these links have all their pods, which stay pending.
    pub async fn until_pods(&self, links: &[&str]) -> Result<()> {
        for link in links {
            let all = |it: Option<&Deployment>| {
                let (wanted, made) =
                    (it.and_then(|it| it.spec.as_ref()?.replicas), it.and_then(|it| it.status.as_ref()));
                made.is_some_and(|made| {
                    made.replicas == wanted && made.observed_generation == it.and_then(|it| it.metadata.generation)
                })
            };
            until(&self.api::<Deployment>(), &format!("{link}-relay"), "have its pods", LIMIT, all).await?;
        }
        Ok(())
    }

    /// Has an operator look at each of these links again. Nothing in them changes that counts.
    pub async fn poke(&self, links: &[&str]) -> Result<()> {
        static TIMES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let time = TIMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { POKED: time.to_string() } } }));
        for link in links {
            self.api::<SecureLink>().patch(link, &PatchParams::default(), &patch).await.context("poke a link")?;
        }
        Ok(())
    }

    /// Returns when an operator has looked at each of these links again and again and written nothing.
    pub async fn until_at_rest(&self, operator: &Operator, proxy: &Proxy, links: &[&str]) -> Result<()> {
        let rested = async {
            let mut quiet = 0;
            while quiet < QUIET {
                let mark = proxy.mark();
                self.look_again(operator, links, LIMIT).await?;
                quiet = if proxy.writes_since(mark).is_empty() { quiet + 1 } else { 0 };
            }
            anyhow::Ok(())
        };
        let mark = proxy.mark();
        match tokio::time::timeout(LIMIT, rested).await {
            Ok(rested) => rested,
            Err(_) => bail!("after {} s it still writes: {:#?}", LIMIT.as_secs(), proxy.writes_since(mark)),
        }
    }

    /// Pokes these links, and returns when an operator has looked as often.
    pub async fn look_again(&self, operator: &Operator, links: &[&str], limit: Duration) -> Result<()> {
        let before = operator.looks().await?;
        self.poke(links).await?;
        #[allow(clippy::cast_precision_loss)] // a few links
        let least = before + links.len() as f64;
        operator.counts("securelink_operator_reconciles_total", "", least, limit).await
    }
}
