//! P6: a link outlives its operator.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use securelink_crds::conditions::ConditionType;
use securelink_e2e::installed::OPERATOR;
use securelink_e2e::organization::{LINK, LINK_LIMIT};
use securelink_e2e::pair::import;
use securelink_e2e::probe::Answer;
use securelink_e2e::stream::Stream;
use securelink_e2e::wait::{asking, until};
use securelink_e2e::{Pair, World};
use serde_json::json;

/// How long a pod may take to be gone: a relay drains for half a minute.
const GONE: Duration = Duration::from_mins(2);

/// Without an operator, a relay that is started anew reads its files and serves.
pub(crate) async fn p06_traffic_and_a_new_relay_need_no_operator(_: &World, pair: &Pair) -> Result<()> {
    let (a, client) = (&pair.a.organization, &pair.a.client);
    let operator = a.installed.own.api::<Deployment>();
    let scale = |replicas: u8| Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let stream = Stream::open(client, &import(LINK)).await?;
    operator.patch(OPERATOR, &PatchParams::default(), &scale(0)).await?;
    let pods = a.installed.own.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await? {
        until(&pods, &pod.name_any(), "be gone", GONE, |it| it.is_none()).await?;
    }
    client.until_connected(&import(LINK)).await?;
    let end = stream.finish().await?;
    ensure!(end.is_whole(), "a stream felt that the operator went: {end:?}");
    let old = a.relays(LINK).await?;
    for relay in &old {
        a.links().api::<Pod>().delete(&relay.name_any(), &DeleteParams::default()).await?;
    }
    for relay in &old {
        until(&a.links().api::<Pod>(), &relay.name_any(), "be gone", GONE, |it| it.is_none()).await?;
    }
    let what = "a client reaches the peer through relays that no operator has seen";
    asking(what, LINK_LIMIT, Answer::connected, async || client.dial(&import(LINK), true).await).await?;
    operator.patch(OPERATOR, &PatchParams::default(), &scale(2)).await?;
    a.until_says(ConditionType::Ready, "Ready").await.map(drop)
}
