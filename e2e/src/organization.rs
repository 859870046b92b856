//! One organization as its platform team sees it: the charts, an identity, and a link to another organization.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use securelink_crds::conditions::{Condition, ConditionType, find};
use securelink_crds::{LinkIdentity, SecureLink};
use serde_json::{Value, json};

use crate::installed::{Installed, OPERATOR, release};
use crate::wait::until;
use crate::{Namespace, World};

/// How long the operator's pods may take to be ready; their image is in the node.
const OPERATOR_LIMIT: Duration = Duration::from_mins(2);
/// How long an identity may take to have its root.
const IDENTITY_LIMIT: Duration = Duration::from_secs(30);
/// How long a link may take to come up, or a condition to say what happened.
pub const LINK_LIMIT: Duration = Duration::from_mins(2);
/// The name of the first link on each side.
pub const LINK: &str = "partner";
/// The port of a node at which the other side dials.
pub const NODE_PORT: u16 = 30443;

/// The names of the identities that each organization has: one for each of its two links.
pub const IDENTITIES: [&str; 2] = ["default", "second"];

/// One organization.
pub struct Organization {
    /// The charts, and the namespaces.
    pub installed: Installed,
}

impl Organization {
    /// Installs the charts with the operator itself in a cluster, and makes the identities; nothing where somebody else has
    /// installed the kinds.
    pub async fn new(world: &World, cluster: &str) -> Result<Option<Self>> {
        let image = world.product()?;
        let (repository, tag) = image.rsplit_once(':').with_context(|| format!("{image} has no tag"))?;
        let values = format!(
            "image.repository={repository},image.tag={tag},image.pullPolicy=Never,clusterCIDRs={{10.244.0.0/16,10.96.0.0/16}}"
        );
        let Some(installed) = Installed::new(world, cluster, "helm3", &values).await? else { return Ok(None) };
        let organization = Self { installed };
        organization.until_operators(2).await?;
        for identity in IDENTITIES {
            organization.identify(identity, &organization.domain(identity)).await?;
        }
        Ok(Some(organization))
    }

    /// Returns when so many operators are ready.
    pub async fn until_operators(&self, count: i32) -> Result<()> {
        let ready = |it: Option<&Deployment>| it.and_then(|it| it.status.as_ref()?.ready_replicas) == Some(count);
        let what = format!("have {count} ready pods");
        until(&self.installed.own.api(), OPERATOR, &what, OPERATOR_LIMIT, ready).await.map(drop)
    }

    /// The trust domain of one of its identities.
    pub fn domain(&self, identity: &str) -> String {
        let name = &self.installed.cluster.name;
        if identity == IDENTITIES[0] { format!("{name}.example") } else { format!("{identity}.{name}.example") }
    }

    /// Makes an identity.
    pub async fn identify(&self, name: &str, domain: &str) -> Result<()> {
        let spec = json!({ "trustDomain": domain, "issuer": { "builtIn": {} } });
        self.links().create::<LinkIdentity>(json!({ "metadata": { "name": name }, "spec": spec })).await.map(drop)
    }

    /// Where its links are.
    pub fn links(&self) -> &Namespace {
        &self.installed.links
    }

    /// The line of an identity for the agreement's annex, once there is one.
    pub async fn fingerprint(&self, identity: &str) -> Result<String> {
        let found = |it: &LinkIdentity| it.status.as_ref()?.fingerprint.clone();
        let there = |it: Option<&LinkIdentity>| it.and_then(found).is_some();
        let identity = until(&self.links().api(), identity, "have a fingerprint", IDENTITY_LIMIT, there).await?;
        identity.as_ref().and_then(found).context("a fingerprint")
    }

    /// The spec of a link to the identity of that name of `peer`, by public facts only; `rest` is merged over it.
    pub async fn spec_to(&self, peer: &Self, identity: &str, rest: &Value) -> Result<Value> {
        let mut spec = json!({
            "identityRef": { "name": identity },
            "peer": {
                "trustDomain": peer.domain(identity),
                "fingerprints": [peer.fingerprint(identity).await?],
                "endpoints": [{ "host": peer.installed.cluster.address, "port": NODE_PORT }],
            },
            "expose": {
                "type": "NodePort", "hostname": format!("link.{}", self.domain(identity)), "port": 443, "nodePort": NODE_PORT,
            },
        });
        merge(&mut spec, rest);
        Ok(spec)
    }

    /// Declares a link so and not otherwise, whatever was declared before.
    pub async fn declare(&self, name: &str, spec: &Value) -> Result<SecureLink> {
        let links = self.links().api::<SecureLink>();
        let mut object = json!({ "apiVersion": "securelink.dev/v1alpha1", "kind": "SecureLink",
                                 "metadata": { "name": name }, "spec": spec });
        loop {
            let Some(standing) = links.get_opt(name).await? else { return self.links().create(object).await };
            object["metadata"]["resourceVersion"] = standing.resource_version().into();
            object["metadata"]["annotations"] = serde_json::to_value(standing.annotations())?;
            let wanted: SecureLink = serde_json::from_value(object.clone())?;
            match links.replace(name, &PostParams::default(), &wanted).await {
                // The operator wrote a status since it was read.
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                other => return other.with_context(|| format!("declare {name}")),
            }
        }
    }

    /// Changes its first link by a merge patch.
    pub async fn patch(&self, change: &Value) -> Result<SecureLink> {
        let api = self.links().api::<SecureLink>();
        api.patch(LINK, &PatchParams::default(), &Patch::Merge(change)).await.context("patch the link")
    }

    /// Returns as soon as a condition of its first link has this reason.
    pub async fn until_says(&self, kind: ConditionType, reason: &str) -> Result<Condition> {
        self.until_link_says(LINK, kind, reason).await
    }

    /// Returns as soon as a condition of a link has this reason, and speaks of the link as it is declared now.
    pub async fn until_link_says(&self, name: &str, kind: ConditionType, reason: &str) -> Result<Condition> {
        let holds = |link: Option<&SecureLink>| {
            let generation = link.and_then(|link| link.metadata.generation);
            said(link, kind).is_some_and(|it| it.reason == reason && it.observed_generation == generation)
        };
        let what = format!("say {} {reason}", kind.as_str());
        let link = until(&self.links().api::<SecureLink>(), name, &what, LINK_LIMIT, holds).await?;
        said(link.as_ref(), kind).cloned().context("the condition")
    }

    /// Removes its links and identities, whether an operator is there to let go of them or not.
    pub async fn remove(&self) -> Result<()> {
        let links = self.links().api::<SecureLink>();
        links.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let identities = self.links().api::<LinkIdentity>();
        identities.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        release(&self.links().cluster).await
    }

    /// The pods of the relays of a link.
    pub async fn relays(&self, link: &str) -> Result<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("securelink.dev/link={link}"));
        Ok(self.links().api::<Pod>().list(&selector).await?.items)
    }
}

fn said(link: Option<&SecureLink>, kind: ConditionType) -> Option<&Condition> {
    find(&link?.status.as_ref()?.conditions, kind)
}

/// Puts `over` into `value`, field by field; null removes one.
fn merge(value: &mut Value, over: &Value) {
    match (value, over) {
        (Value::Object(fields), Value::Object(new)) => {
            for (key, change) in new {
                if change.is_null() {
                    fields.remove(key);
                } else {
                    merge(fields.entry(key.clone()).or_insert(Value::Null), change);
                }
            }
        }
        (value, over) => *value = over.clone(),
    }
}
