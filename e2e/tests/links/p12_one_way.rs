//! P12: only one side needs to be reachable.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::ListParams;
use securelink_e2e::organization::LINK;
use securelink_e2e::pair::import;
use securelink_e2e::stream::Stream;
use securelink_e2e::{Pair, World};

pub(crate) async fn p12_services_work_both_ways_though_one_side_cannot_be_dialed(_: &World, pair: &Pair) -> Result<()> {
    let made = ListParams::default().labels(&format!("securelink.dev/link={LINK}"));
    for service in pair.a.organization.links().api::<Service>().list(&made).await? {
        let kind = service.spec.as_ref().and_then(|spec| spec.type_.clone()).unwrap_or_default();
        ensure!(kind == "ClusterIP", "{} of the side that only dials is a {kind}", service.name_any());
    }
    for side in pair.sides() {
        side.client.until_connected(&import(LINK)).await?;
        let end = Stream::open(&side.client, &import(LINK)).await?.finish().await?;
        ensure!(end.is_whole(), "{end:?}");
    }
    Ok(())
}

pub(crate) async fn p12_only_the_named_clients_get_through(_: &World, pair: &Pair) -> Result<()> {
    for side in pair.sides() {
        let answer = side.stranger.dial(&import(LINK), true).await?;
        ensure!(!answer.connected(), "a pod that no client selector names gets through: {answer:?}");
    }
    Ok(())
}
