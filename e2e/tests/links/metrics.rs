//! What the chart's alerts and dashboard ask for (its list of metrics) is what operators and relays export.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use securelink_e2e::organization::{LINK, NODE_PORT};
use securelink_e2e::pair::import;
use securelink_e2e::stream::Stream;
use securelink_e2e::{Namespace, Pair, World};
use serde_json::Value;

/// Where the operator's pod exports its metrics.
const OPERATOR_PORT: u16 = 8080;
/// Where a relay's pod exports its own.
const RELAY_PORT: u16 = 15_445;
/// What the chart lists.
const LIST: &str = include_str!("../../../charts/securelink/files/metrics.yaml");

/// The type and the labels of each metric.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

pub(crate) async fn metrics_of_the_list_are_exported(_: &World, pair: &Pair) -> Result<()> {
    let (a, b) = (&pair.a.organization, &pair.b.organization);
    // Some metrics are there from their first event: a stream that ended, a caller who was refused.
    let end = Stream::open(&pair.a.client, &import(LINK)).await?.finish().await?;
    ensure!(end.is_whole(), "{end:?}");
    let door = format!("{}:{NODE_PORT}", b.installed.cluster.address);
    pair.a.client.dial(&door, true).await?;

    let operators = exported(&a.installed.own, "app.kubernetes.io/component=operator", OPERATOR_PORT).await?;
    let relays = exported(b.links(), &format!("securelink.dev/link={LINK}"), RELAY_PORT).await?;
    for (part, exported) in [("operator", operators), ("relay", relays)] {
        for (name, listed) in listed(part)? {
            let found = exported.get(&name).with_context(|| format!("no {part} exports {name}: {exported:#?}"))?;
            ensure!(*found == listed, "{name} is {found:?}, and listed as {listed:?}");
        }
    }
    Ok(())
}

/// What the chart lists of a part.
fn listed(part: &str) -> Result<Metrics> {
    let list: Value = serde_saphyr::from_str(LIST)?;
    let of_part = list[part].as_object().context("no such part")?;
    let metrics = of_part.iter().map(|(name, metric)| {
        let labels = metric["labels"].as_object().context("labels")?.keys().cloned().collect();
        Ok((name.clone(), (metric["type"].as_str().context("a type")?.to_owned(), labels)))
    });
    metrics.collect()
}

/// What pods export together, asked through the API server.
async fn exported(at: &Namespace, selector: &str, port: u16) -> Result<Metrics> {
    let mut all = Metrics::new();
    for pod in at.api::<Pod>().list(&ListParams::default().labels(selector)).await? {
        let path = format!("/api/v1/namespaces/{}/pods/{}:{port}/proxy/metrics", at.name, pod.name_any());
        let text =
            at.cluster.client.request_text(hyper::http::Request::get(&path).body(Vec::new())?).await.context(path)?;
        read(&text, &mut all);
    }
    Ok(all)
}

/// Reads an exposition: <https://github.com/prometheus/OpenMetrics>.
fn read(text: &str, all: &mut Metrics) {
    let mut family = ("", "");
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            family = typed.split_once(' ').unwrap_or_default();
        }
        if line.starts_with('#') {
            continue;
        }
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let labels = line[end..].strip_prefix('{').and_then(|rest| rest.rsplit_once('}')).map_or("", |(all, _)| all);
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        // A counter is asked for by its sample's name, a histogram by its family's.
        let name = if family.1 == "histogram" { family.0 } else { &line[..end] };
        let (_, known) = all.entry(name.to_owned()).or_insert_with(|| (family.1.to_owned(), BTreeSet::new()));
        known.extend(labels.filter(|label| label != "le"));
    }
}
