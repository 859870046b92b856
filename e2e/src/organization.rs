//! One organization as its platform team sees it: the charts, an identity, and a link to another organization.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use securelink_crds::conditions::{Condition, ConditionType, find};
use securelink_crds::{LinkIdentity, SecureLink};
use serde_json::{Value, json};

use crate::installed::{Installed, OPERATOR};
use crate::wait::until;
use crate::{Namespace, World};

/// How long the operator's pods may take to be ready; their image is in the node.
const OPERATOR_LIMIT: Duration = Duration::from_mins(2);
/// How long an identity may take to have its root.
const IDENTITY_LIMIT: Duration = Duration::from_secs(30);
/// How long a link may take to come up, or a condition to say what happened.
pub const LINK_LIMIT: Duration = Duration::from_mins(2);
/// The name of the link on each side.
pub const LINK: &str = "partner";
/// The port of a node at which the other side dials.
pub const NODE_PORT: u16 = 30443;

/// One organization.
pub struct Organization {
    /// The charts, and the namespaces.
    pub installed: Installed,
    /// Its trust domain.
    pub domain: String,
}

impl Organization {
    /// Installs the charts with the operator itself in a cluster, and makes an identity; nothing where somebody else has
    /// installed the kinds.
    pub async fn new(world: &World, cluster: &str) -> Result<Option<Self>> {
        let image = world.product()?;
        let (repository, tag) = image.rsplit_once(':').with_context(|| format!("{image} has no tag"))?;
        let values = format!(
            "image.repository={repository},image.tag={tag},image.pullPolicy=Never,clusterCIDRs={{10.244.0.0/16,10.96.0.0/16}}"
        );
        let Some(installed) = Installed::new(world, cluster, "helm3", &values).await? else { return Ok(None) };
        let organization = Self { domain: format!("{cluster}.example"), installed };
        let ready = |it: Option<&Deployment>| it.and_then(|it| it.status.as_ref()?.ready_replicas) == Some(2);
        until(&organization.installed.own.api(), OPERATOR, "have two ready pods", OPERATOR_LIMIT, ready).await?;
        let spec = json!({ "trustDomain": organization.domain, "issuer": { "builtIn": {} } });
        let identity = json!({ "metadata": { "name": "default" }, "spec": spec });
        organization.links().create::<LinkIdentity>(identity).await?;
        Ok(Some(organization))
    }

    /// Where its link is.
    pub fn links(&self) -> &Namespace {
        &self.installed.links
    }

    /// Its line for the agreement's annex, once there is one.
    pub async fn fingerprint(&self) -> Result<String> {
        let found = |it: &LinkIdentity| it.status.as_ref()?.fingerprint.clone();
        let there = |it: Option<&LinkIdentity>| it.and_then(found).is_some();
        let identity = until(&self.links().api(), "default", "have a fingerprint", IDENTITY_LIMIT, there).await?;
        identity.as_ref().and_then(found).context("a fingerprint")
    }

    /// A link to `peer`, by public facts only; `rest` is merged over it.
    pub async fn link_to(&self, peer: &Self, rest: &Value) -> Result<Value> {
        let mut spec = json!({
            "identityRef": { "name": "default" },
            "peer": {
                "trustDomain": peer.domain,
                "fingerprints": [peer.fingerprint().await?],
                "endpoints": [{ "host": peer.installed.cluster.address, "port": NODE_PORT }],
            },
            "expose": { "type": "NodePort", "hostname": format!("link.{}", self.domain), "port": 443, "nodePort": NODE_PORT },
        });
        merge(&mut spec, rest);
        Ok(json!({ "metadata": { "name": LINK }, "spec": spec }))
    }

    /// Declares a link.
    pub async fn declare(&self, link: Value) -> Result<SecureLink> {
        self.links().create(link).await
    }

    /// Changes its link by a merge patch.
    pub async fn patch(&self, change: &Value) -> Result<SecureLink> {
        let api = self.links().api::<SecureLink>();
        api.patch(LINK, &PatchParams::default(), &Patch::Merge(change)).await.context("patch the link")
    }

    /// Returns as soon as a condition of its link has this reason.
    pub async fn until_says(&self, kind: ConditionType, reason: &str) -> Result<Condition> {
        let holds = |link: Option<&SecureLink>| said(link, kind).is_some_and(|it| it.reason == reason);
        let what = format!("say {} {reason}", kind.as_str());
        let link = until(&self.links().api::<SecureLink>(), LINK, &what, LINK_LIMIT, holds).await?;
        said(link.as_ref(), kind).cloned().context("the condition")
    }

    /// Removes its link and its identity, whether an operator is there to let go of it or not.
    pub async fn remove(&self) -> Result<()> {
        let links = self.links().api::<SecureLink>();
        if links.get_opt(LINK).await?.is_some() {
            links.delete(LINK, &DeleteParams::default()).await?;
        }
        let identities = self.links().api::<LinkIdentity>();
        identities.delete("default", &DeleteParams::default()).await?;
        let none = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
        match identities.patch("default", &PatchParams::default(), &none).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(drop).context("let go of the identity"),
        }
    }

    /// The pods of its relays.
    pub async fn relays(&self) -> Result<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("securelink.dev/link={LINK}"));
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
