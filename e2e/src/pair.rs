//! Two organizations in two clusters and two links between them, which the tests of a file share.
//!
//! By the first link, `partner`, the one side cannot be dialed: it has no inbound address. By the second, `other`, it is the
//! other side that cannot, so that each exposes one link at the one port that reaches it.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use securelink_crds::conditions::ConditionType;
use securelink_crds::{LinkCut, LinkPolicy, SecureLink};
use serde_json::{Value, json};

use crate::harness::{CLUSTERS, World};
use crate::installed::{OPERATOR, clean};
use crate::organization::{IDENTITIES, LINK, Organization};
use crate::probe::{ECHO_PORT, Probe};
use crate::wait::until;

/// The name of the second link on each side.
pub const OTHER: &str = "other";
/// The digest of what both sides have signed.
pub const SIGNED: &str = "sha256:77ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667";
/// How long what a test left may take to be gone.
const GONE: Duration = Duration::from_mins(1);

/// One side: an organization, its links as they were made, and the pods that speak and serve.
pub struct Side {
    /// The organization.
    pub organization: Organization,
    /// A client that the import names.
    pub client: Probe,
    /// A client that no import names.
    pub stranger: Probe,
    /// The specs of its links, by name.
    pub specs: Vec<(&'static str, Value)>,
}

/// The two organizations.
pub struct Pair {
    /// It cannot be dialed by the first link.
    pub a: Side,
    /// It is dialed by the first link.
    pub b: Side,
}

/// Where clients reach the other side's echo by a link.
pub fn import(link: &str) -> String {
    format!("{link}-echo:7000")
}

impl Pair {
    /// Makes everything, and returns when both links are Ready on both sides.
    pub async fn new(world: &World) -> Result<Option<Self>> {
        let [first, second] = CLUSTERS;
        let (a, b) = both(Organization::new(world, first), Organization::new(world, second)).await?;
        let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
        let services = json!({
            "agreement": { "reference": "MoU-2011-10-11", "digest": SIGNED,
                           "effectiveFrom": "2026-01-01T00:00:00Z", "expires": "2046-01-01T00:00:00Z" },
            "exports": [{ "name": "echo", "dataClass": "strategic", "target": { "service": "echo", "port": 7 } }],
            "imports": [{ "name": "echo", "port": 7000, "dataClass": "strategic",
                          "clients": [{ "podSelector": { "matchLabels": { "role": "client" } } }] }],
        });
        let dials = with(&services, json!({ "expose": null }));
        let is_dialed = with(&services, json!({ "peer": { "endpoints": [] } }));
        let [one, two] = IDENTITIES;
        // One relay a side is enough of the link that is only watched.
        let few = |rest: &Value| with(rest, json!({ "relay": { "replicas": 1 } }));
        let of_a =
            vec![(LINK, a.spec_to(&b, one, &dials).await?), (OTHER, a.spec_to(&b, two, &few(&is_dialed)).await?)];
        let of_b =
            vec![(LINK, b.spec_to(&a, one, &is_dialed).await?), (OTHER, b.spec_to(&a, two, &few(&dials)).await?)];
        let image = world.image()?;
        let (a, b) = both(Side::new(a, &image, of_a), Side::new(b, &image, of_b)).await?;
        let pair = Self { a, b };
        pair.restore().await?;
        Ok(Some(pair))
    }

    /// Both sides.
    pub fn sides(&self) -> [&Side; 2] {
        [&self.a, &self.b]
    }

    /// Puts everything back as it was made, and returns when both links are Ready on both sides and serve clients.
    pub async fn restore(&self) -> Result<()> {
        both(self.a.restore(), self.b.restore()).await?;
        both(self.a.until_serves(), self.b.until_serves()).await.map(drop)
    }

    /// Removes everything.
    pub async fn remove(&self) -> Result<()> {
        both(self.a.remove(), self.b.remove()).await.map(drop)
    }
}

impl Side {
    async fn new(organization: Organization, image: &str, specs: Vec<(&'static str, Value)>) -> Result<Self> {
        let at = organization.links();
        let spec = json!({ "selector": { "role": "server" }, "ports": [{ "port": 7, "targetPort": ECHO_PORT }] });
        at.create::<Service>(json!({ "metadata": { "name": "echo" }, "spec": spec })).await?;
        let start = |role: &'static str| Box::pin(Probe::start(at, image, role));
        let (client, stranger, _) =
            futures_util::future::try_join3(start("client"), start("stranger"), start("server")).await?;
        Ok(Self { organization, client, stranger, specs })
    }

    async fn restore(&self) -> Result<()> {
        let at = self.organization.links();
        let operator = self.organization.installed.own.api::<Deployment>();
        let two = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
        operator.patch(OPERATOR, &PatchParams::default(), &two).await?;
        let all = (DeleteParams::default(), ListParams::default());
        at.api::<LinkCut>().delete_collection(&all.0, &all.1).await?;
        Api::<LinkPolicy>::all(at.cluster.client.clone()).delete_collection(&all.0, &all.1).await?;
        let links = at.api::<SecureLink>();
        for left in links.list_metadata(&all.1).await? {
            let name = left.name_any();
            if self.specs.iter().all(|(known, _)| *known != name) {
                links.delete(&name, &all.0).await?;
                until(&links, &name, "be gone", GONE, |it| it.is_none()).await?;
            }
        }
        for (name, spec) in &self.specs {
            self.organization.declare(name, spec).await?;
        }
        Ok(())
    }

    /// Returns when both links are Ready, and Kubernetes leads clients to relays that have found it so.
    async fn until_serves(&self) -> Result<()> {
        for (name, _) in &self.specs {
            let said = self.organization.until_link_says(name, ConditionType::Ready, "Ready").await;
            said.with_context(|| self.organization.domain(IDENTITIES[0]))?;
            self.client.until_connected(&import(name)).await?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        self.organization.remove().await?;
        let installed = &self.organization.installed;
        futures_util::future::try_join(installed.own.remove(), installed.links.remove()).await?;
        clean(&installed.cluster).await
    }
}

/// Does the same on both sides at a time.
fn both<T>(
    one: impl Future<Output = Result<T>>,
    other: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<(T, T)>> {
    // Not an async function: its future would hold the two themselves, which are large.
    futures_util::future::try_join(Box::pin(one), Box::pin(other))
}

fn with(value: &Value, more: Value) -> Value {
    let mut all = value.clone();
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}
