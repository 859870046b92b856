//! Configurations and one cut, pushed to many relays.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use securelink_crds::{LinkCut, LinkPolicy};
use securelink_e2e::plane::{Addresses, Plane};
use serde_json::{Value, json};

use crate::figures::Relays;
use crate::installation::{Installation, name};
use crate::options::Options;
use crate::ports::{Inside, Ports, Stored};
use crate::progress::{LOOK, SELDOM, until};

/// For all relays; a machine that does something else beside takes its time.
const LIMIT: Duration = Duration::from_mins(30);
/// The label of all that belongs to links.
const OURS: &str = "securelink.dev/link";
/// For how long nothing happens before something is measured.
const PAUSE: Duration = Duration::from_secs(10);

/// Makes links of one relay each, and has them given, limited and cut.
pub async fn measure(options: &Options, plane: &Plane) -> Result<Relays> {
    let (ports, count) = (Ports::default(), options.relays);
    // Of the loopback network, above what control planes and tests take: one for each process.
    let [.., low] = std::process::id().to_be_bytes();
    plane.start_nodes(20, &Addresses::Of(format!("127.{}.0.1/16", 200 + low % 50))).await.context("nodes")?;
    let site = Installation::new(plane, options).await?;
    let idle = site.operator.resident()?;
    let declared = site.declare(count, 1);
    let opened = open_all(plane, &ports, count);
    let ((), _) = tokio::try_join!(opened, declared)?;
    all(&ports, "given their first configuration", count, |inside| inside.is_given).await?;
    pause("before a new configuration").await?;
    let bytes = site.operator.resident()?;
    let before = ports.newest();
    policy(plane, json!({ "limits": { "connections": 77 } })).await?;
    let configured = all(&ports, "given another configuration", count, |inside| inside.version() > before).await?;
    pause("before a cut of one link").await?;
    let one = cut_one(&site, &ports).await?;
    pause("before a cut of all links").await?;
    policy(plane, json!({ "allowedTrustDomains": { "peer": ["nobody.example"] } })).await?;
    let cut =
        all(&ports, "told of the cut", count, |inside| inside.cuts.iter().any(|id| id.starts_with("LinkPolicy/")))
            .await?;
    Ok(Relays {
        count,
        namespaces: options.namespaces,
        configured_seconds: configured.as_secs_f64(),
        cut_one_seconds: one.as_secs_f64(),
        cut_all_seconds: cut.as_secs_f64(),
        idle_bytes: idle,
        resting_bytes: bytes,
        peak_bytes: site.operator.peak()?,
        answering: site.operator.metric("securelink_operator_relays", "answering").await?,
    })
}

/// Opens the control port of each relay as soon as its pod has an address.
async fn open_all(plane: &Plane, ports: &Ports, count: usize) -> Result<()> {
    let client = &plane.cluster.client;
    let opened = Mutex::new(BTreeSet::new());
    let known = |name: &String| opened.lock().is_ok_and(|opened| opened.contains(name));
    until("relays that run", LIMIT, SELDOM, async || {
        let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default().labels(OURS)).await?;
        for pod in pods.items {
            let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else { continue };
            let (namespace, link) = (pod.namespace().unwrap_or_default(), pod.labels()[OURS].clone());
            let name = format!("{namespace}/{link}");
            if !known(&name) {
                ports.open(&address, stored(plane, &namespace, &link).await?).await?;
                opened.lock().map_err(|_| anyhow!("a fault before"))?.insert(name);
            }
        }
        let open = opened.lock().map(|opened| opened.len()).unwrap_or_default();
        Ok((open < count).then(|| format!("{open} of {count}")))
    })
    .await
    .map(drop)
}

async fn stored(plane: &Plane, namespace: &str, link: &str) -> Result<Stored> {
    let client = &plane.cluster.client;
    let config = Api::<ConfigMap>::namespaced(client.clone(), namespace).get(&format!("{link}-relay")).await?;
    let leaf = Api::<Secret>::namespaced(client.clone(), namespace).get(&format!("{link}-leaf")).await?;
    let snapshot = config.data.unwrap_or_default().remove("relay.json").context("relay.json")?;
    let mut files = leaf.data.unwrap_or_default();
    let mut file = |name: &str| files.remove(name).map(|bytes| bytes.0).with_context(|| name.to_owned());
    Ok(Stored { snapshot: serde_json::from_str(&snapshot)?, key: file("tls.key")?, chain: file("tls.crt")? })
}

async fn all(ports: &Ports, what: &str, count: usize, holds: impl Fn(&Inside) -> bool) -> Result<Duration> {
    until(&format!("relays {what}"), LIMIT, LOOK, async || {
        let done = ports.count(&holds);
        Ok((done < count).then(|| format!("{done} of {count}")))
    })
    .await
}

/// Cuts the first link; how long until its relay was told.
async fn cut_one(site: &Installation<'_>, ports: &Ports) -> Result<Duration> {
    let links = &site.sites[0].links;
    let spec = json!({ "linkRef": { "name": name(0) }, "reason": "a drill" });
    links.create::<LinkCut>(json!({ "metadata": { "name": "brake" }, "spec": spec })).await?;
    let link = format!("{}/{}", links.name, name(0));
    until("one link cut", LIMIT, LOOK, async || {
        let told = ports.of(&link).is_some_and(|inside| !inside.cuts.is_empty());
        Ok((!told).then(|| "not yet".to_owned()))
    })
    .await
}

/// Lets what is under way end.
async fn pause(what: &str) -> Result<()> {
    let began = Instant::now();
    until(&format!("a pause {what}"), LIMIT, SELDOM, async || {
        Ok((began.elapsed() < PAUSE).then(|| "waiting".to_owned()))
    })
    .await
    .map(drop)
}

/// The one policy of this bench, from now on.
async fn policy(plane: &Plane, spec: Value) -> Result<()> {
    use kube::api::{Patch, PatchParams};
    let policy = json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkPolicy", "metadata": { "name": "scale" }, "spec": spec,
    });
    let policies = Api::<LinkPolicy>::all(plane.cluster.client.clone());
    let parameters = PatchParams::apply("securelink-e2e").force();
    policies.patch("scale", &parameters, &Patch::Apply(&policy)).await.map(drop).context("a LinkPolicy")
}
