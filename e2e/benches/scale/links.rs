//! Many links made at once, and the rest after that.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::ListParams;
use securelink_crds::SecureLink;
use securelink_e2e::plane::{Addresses, Call, Operator, Plane, Proxy, Verb};

use crate::figures::{Again, Links, Rest};
use crate::installation::Installation;
use crate::options::Options;
use crate::progress::{LOOK, SELDOM, until};

/// What a link has, beside its pods.
const OBJECTS: usize = 8;
/// Its relays.
const RELAYS: u16 = 2;
/// For all links; a machine that does something else beside takes its time.
const LIMIT: Duration = Duration::from_mins(30);
/// For how long nothing may be written until the operator counts as at rest.
const QUIET: Duration = Duration::from_secs(15);
/// The label of all that belongs to links.
const OURS: &str = "securelink.dev/link";

/// Makes the links and waits.
pub async fn measure(options: &Options, plane: &Plane) -> Result<Links> {
    plane.start_nodes(20, &Addresses::None).await.context("nodes")?;
    let site = Installation::new(plane, options).await?;
    let (operator, proxy, count) = (&site.operator, &site.proxy, options.links);
    let (idle, before, looks) = (operator.resident()?, seconds(operator)?, operator.looks().await?);
    let others = plane.processor()?;
    let (mark, began) = (proxy.mark(), Instant::now());
    let (declared, made) = tokio::join!(site.declare(count, RELAYS), async {
        until("objects of all links", LIMIT, LOOK, || left(plane, proxy, mark, count)).await
    });
    let (declared, made) = (declared?, made?);
    let (at_once, processor) = (operator.resident()?, seconds(operator)? - before);
    let others = plane.processor()?.saturating_sub(others);
    until("statuses of all links", LIMIT, SELDOM, || untold(plane, count)).await?;
    quiet(proxy).await?;
    let settled = began.elapsed().saturating_sub(QUIET);
    let (writes, gets) = (proxy.writes_since(mark), gets(proxy, mark));
    let (reconciles, processor_seconds) = (operator.looks().await? - looks, seconds(operator)? - before);
    let (peak, rest) = (operator.peak()?, rest(operator, proxy, options.rest).await?);
    Ok(Links {
        count,
        namespaces: options.namespaces,
        declared_seconds: declared.as_secs_f64(),
        made_seconds: made.saturating_sub(declared).as_secs_f64(),
        settled_seconds: settled.saturating_sub(declared).as_secs_f64(),
        writes_per_link: ratio(writes.len(), count),
        writes: by_kind(&writes, count),
        gets,
        reconciles_per_link: reconciles / ratio(count, 1),
        processor_seconds: processor,
        settled_processor_seconds: processor_seconds,
        others_processor_seconds: others.as_secs_f64(),
        idle_bytes: idle,
        made_bytes: at_once,
        peak_bytes: peak,
        rest,
        again: again(site).await?,
    })
}

/// Ends the operator and starts it anew: all is there, and it has to see that.
async fn again(site: Installation<'_>) -> Result<Again> {
    let Installation { sites, proxy, operator, program } = site;
    operator.stop().await?;
    let (mark, began) = (proxy.mark(), Instant::now());
    let mut operator = sites[0].operator_of(&program, &proxy, "two")?;
    operator.leads().await?;
    let leads = began.elapsed();
    quiet(&proxy).await?;
    Ok(Again {
        leads_seconds: leads.as_secs_f64(),
        writes: proxy.count_since(mark, Call::is_write),
        processor_seconds: seconds(&operator)?,
        bytes: operator.resident()?,
        peak_bytes: operator.peak()?,
    })
}

/// What is left until all links have all their objects. The last of each is its Deployment.
async fn left(plane: &Plane, proxy: &Proxy, mark: usize, links: usize) -> Result<Option<String>> {
    let wanted = links * OBJECTS;
    let asked = proxy.count_since(mark, |call| call.verb == Verb::Create && call.resource != "events");
    if asked < wanted {
        return Ok(Some(format!("{asked} of {wanted}")));
    }
    let all = Api::<Deployment>::all(plane.cluster.client.clone());
    let made = all.list_metadata(&ListParams::default().labels(OURS)).await?.items.len();
    Ok((made < links).then(|| format!("all objects asked for, {made} of {links} Deployments made")))
}

async fn untold(plane: &Plane, wanted: usize) -> Result<Option<String>> {
    let all = Api::<SecureLink>::all(plane.cluster.client.clone()).list(&ListParams::default()).await?;
    let told = all.items.iter().filter(|link| link.status.as_ref().is_some_and(|it| it.certificate.is_some())).count();
    Ok((told < wanted).then(|| format!("{told} of {wanted}")))
}

/// Returns when nothing was written for a while.
async fn quiet(proxy: &Proxy) -> Result<()> {
    let last = Cell::new((proxy.mark(), Instant::now()));
    let waited = until("rest", LIMIT, LOOK, async || {
        let (mark, since) = last.get();
        let writes = proxy.count_since(mark, Call::is_write);
        if writes > 0 {
            last.set((proxy.mark(), Instant::now()));
            return Ok(Some(format!("{writes} writes")));
        }
        Ok((since.elapsed() < QUIET).then(|| format!("none for {} s", since.elapsed().as_secs())))
    });
    waited.await.map(drop)
}

/// Watches the operator do nothing.
async fn rest(operator: &Operator, proxy: &Proxy, time: Duration) -> Result<Rest> {
    let (mark, before, began) = (proxy.mark(), seconds(operator)?, Instant::now());
    let all = |call: &Call| call.resource != "leases";
    until("at rest", LIMIT + time, SELDOM, async || {
        Ok((began.elapsed() < time).then(|| format!("{} writes", proxy.count_since(mark, Call::is_write))))
    })
    .await?;
    Ok(Rest {
        seconds: time.as_secs(),
        writes: proxy.count_since(mark, Call::is_write),
        reads: proxy.count_since(mark, |call| all(call) && !call.is_write()),
        processor_seconds: seconds(operator)? - before,
        bytes: operator.resident()?,
    })
}

/// The processor time that an operator has used.
fn seconds(operator: &Operator) -> Result<f64> {
    Ok(operator.processor()?.as_secs_f64())
}

fn gets(proxy: &Proxy, mark: usize) -> usize {
    proxy.count_since(mark, |call| call.verb == Verb::Get && call.resource != "leases")
}

fn by_kind(writes: &[Call], links: usize) -> std::collections::BTreeMap<String, f64> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for call in writes {
        *counts.entry(format!("{} {}", call.verb.as_str(), call.resource)).or_default() += 1;
    }
    counts.into_iter().map(|(what, count)| (what, ratio(count, links))).collect()
}

#[allow(clippy::cast_precision_loss)] // thousands
fn ratio(count: usize, of: usize) -> f64 {
    count as f64 / of as f64
}
