//! F53, F55: the chart is upgraded under a live link; YAML that did not change changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use securelink_e2e::installed::OPERATOR;
use securelink_e2e::organization::{LINK, Organization};
use securelink_e2e::pair::{OTHER, import};
use securelink_e2e::people::Person;
use securelink_e2e::stream::Stream;
use securelink_e2e::wait::until;
use securelink_e2e::{Pair, World};
use serde_json::json;

use crate::f26_repair::{f26_what_somebody_changes_is_put_right, versions};

/// How long a rollout of the operator may take.
const ROLLED_OUT: Duration = Duration::from_mins(2);

/// A person applies what was applied before, by kubectl and on both sides.
pub(crate) async fn f55_the_same_yaml_again_changes_nothing(world: &World, pair: &Pair) -> Result<()> {
    for side in pair.sides() {
        let person = Person::at(world, side.organization.links())?;
        let items = side.specs.iter().map(|(name, spec)| {
            json!({ "apiVersion": "securelink.dev/v1alpha1", "kind": "SecureLink", "metadata": { "name": name }, "spec": spec })
        });
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>() }).to_string();
        person.told(&["apply", "-f", "-"], &list).await?.expect(0)?;
        let state = async || {
            let first = versions(&side.organization, LINK).await?;
            anyhow::Ok([first, versions(&side.organization, OTHER).await?].concat())
        };
        let before = state().await?;
        let said = person.told(&["apply", "-f", "-"], &list).await?.expect(0)?;
        ensure!(said.out.lines().all(|line| line.ends_with(" unchanged")), "{}", said.out);
        // Whatever the operator would do about it is done when it has put right what somebody changes.
        if side.organization.installed.cluster.name == pair.a.organization.installed.cluster.name {
            f26_what_somebody_changes_is_put_right(world, pair).await?;
        }
        let after = state().await?;
        let changed: Vec<_> = after.iter().filter(|now| !before.contains(now)).collect();
        let others = changed.iter().all(|(name, _)| *name == format!("Service {LINK}-echo"));
        ensure!(others, "{changed:?}, before: {before:?}");
    }
    Ok(())
}

/// The names of all relays of a side.
async fn relays(at: &Organization) -> Result<Vec<String>> {
    let all = ListParams::default().labels("securelink.dev/link");
    let mut names: Vec<String> =
        at.links().api::<Pod>().list(&all).await?.items.iter().map(ResourceExt::name_any).collect();
    names.sort_unstable();
    Ok(names)
}

pub(crate) async fn an_upgrade_of_the_chart_leaves_a_stream_alone(_: &World, pair: &Pair) -> Result<()> {
    let a = &pair.a.organization;
    let stream = Stream::open(&pair.a.client, &import(LINK)).await?;
    let before = relays(a).await?;
    let deployments = a.installed.own.api::<Deployment>();
    let generation = deployments.get(OPERATOR).await?.metadata.generation.context("a generation")?;
    for format in ["text", "json"] {
        let value = format!("operator.logFormat={format}");
        a.installed.helm(&["upgrade", "securelink", "charts/securelink", "--reuse-values", "--set", &value])?;
        let rolled_out = |it: Option<&Deployment>| {
            let status = it.and_then(|it| Some((it.metadata.generation?, it.status.as_ref()?)));
            status.is_some_and(|(now, status)| {
                now > generation
                    && status.observed_generation == Some(now)
                    && status.updated_replicas == Some(2)
                    && status.replicas == Some(2)
                    && status.ready_replicas == Some(2)
            })
        };
        until(&deployments, OPERATOR, "be rolled out", ROLLED_OUT, rolled_out).await?;
    }
    let end = stream.finish().await?;
    ensure!(end.is_whole(), "{end:?}");
    ensure!(relays(a).await? == before, "relays were replaced");
    Ok(())
}
