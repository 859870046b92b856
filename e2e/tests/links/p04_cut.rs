//! P4: one person cuts one partner off at once, and nothing but taking the cut back undoes it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use securelink_crds::conditions::ConditionType;
use securelink_crds::{LinkCut, SecureLink};
use securelink_e2e::organization::{LINK, LINK_LIMIT};
use securelink_e2e::pair::{OTHER, Side, import};
use securelink_e2e::stream::Stream;
use securelink_e2e::wait::until;
use securelink_e2e::{Pair, World};
use serde_json::json;

use crate::f26_repair::leader;

/// Within what time the last byte passes (P4).
const SILENT: Duration = Duration::from_secs(1);
/// How often somebody's automation applies the link while it is cut.
const APPLIED: usize = 40;

/// Cuts the first link of a side while streams live on both: those of the first end within a second, without a clean end.
async fn cut(side: &Side) -> Result<()> {
    let (target, other) = (import(LINK), import(OTHER));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(Stream::open(&side.client, &target).await?);
    }
    let other = Stream::open(&side.client, &other).await?;
    let spec = json!({ "linkRef": { "name": LINK }, "reason": "incident 2026-114" });
    side.organization.links().create::<LinkCut>(json!({ "metadata": { "name": "now" }, "spec": spec })).await?;
    let then = SystemTime::now();
    for stream in held {
        stream.ended().await?.is_broken_off(then, SILENT)?;
    }
    let answer = side.client.dial(&target, true).await?;
    ensure!(!answer.connected(), "a stream passes while it is cut: {answer:?}");
    let end = other.finish().await?;
    ensure!(end.is_whole(), "a stream of the other link: {end:?}");
    Ok(())
}

/// Returns when the cut has been obeyed by both relays of the link.
async fn until_obeyed(side: &Side) -> Result<()> {
    let obeyed = |it: Option<&LinkCut>| {
        let status = it.and_then(|it| it.status.as_ref());
        status.is_some_and(|status| status.pending == Some(0) && status.relays.len() == 2)
    };
    let cuts = side.organization.links().api::<LinkCut>();
    until(&cuts, "now", "be obeyed by both relays", LINK_LIMIT, obeyed).await.map(drop)
}

pub(crate) async fn p04_a_cut_ends_streams_within_a_second_and_its_deletion_resumes(
    _: &World,
    pair: &Pair,
) -> Result<()> {
    let (a, b) = (&pair.a.organization, &pair.b.organization);
    cut(&pair.a).await?;
    until_obeyed(&pair.a).await?;
    a.until_says(ConditionType::Agreed, "CutHere").await?;
    let there = b.until_says(ConditionType::Agreed, "CutByPeer").await?;
    ensure!(there.message.contains("incident 2026-114"), "the peer is not told why: {}", there.message);
    a.links().api::<LinkCut>().delete("now", &DeleteParams::default()).await?;
    a.until_says(ConditionType::Ready, "Ready").await?;
    pair.a.client.until_connected(&import(LINK)).await
}

/// The leader alone writes, but every replica carries cuts.
pub(crate) async fn f72_a_cut_is_obeyed_while_the_leader_is_stopped(world: &World, pair: &Pair) -> Result<()> {
    let a = &pair.a.organization;
    let name = leader(a).await?.context("nobody leads")?;
    let uid = a.installed.own.api::<Pod>().get(&name).await?.uid().context("a uid")?;
    let cluster = &a.installed.cluster.name;
    world.lab.freeze(cluster, &uid)?;
    let obeyed = cut(&pair.a).await;
    world.lab.thaw(cluster, &uid)?;
    obeyed?;
    until_obeyed(&pair.a).await
}

/// What a GitOps controller does to the link does not take the cut back.
pub(crate) async fn f71_a_link_that_is_applied_again_and_again_stays_cut(_: &World, pair: &Pair) -> Result<()> {
    let a = &pair.a.organization;
    cut(&pair.a).await?;
    let (name, spec) = pair.a.specs.first().context("a link")?;
    let whole = json!({ "apiVersion": "securelink.dev/v1alpha1", "kind": "SecureLink",
                        "metadata": { "name": name }, "spec": spec });
    let links = a.links().api::<SecureLink>();
    for count in 0..APPLIED {
        links.patch(name, &PatchParams::apply("gitops").force(), &Patch::Apply(&whole)).await?;
        if count % 10 == 0 {
            let answer = pair.a.client.dial(&import(LINK), true).await?;
            ensure!(!answer.connected(), "a stream passes after the link was applied {count} times: {answer:?}");
        }
    }
    until_obeyed(&pair.a).await?;
    a.until_says(ConditionType::Agreed, "CutHere").await.map(drop)
}

pub(crate) async fn f70_an_edit_that_suspends_beside_a_mistake_suspends(_: &World, pair: &Pair) -> Result<()> {
    let (a, b) = (&pair.a.organization, &pair.b.organization);
    // Schema and rules refuse what is wrong with one object; that two imports have one Service name only the operator sees.
    let twice = |name: &str| {
        json!({ "name": name, "port": 7001, "dataClass": "strategic", "serviceName": "same",
                "clients": [{ "podSelector": {} }] })
    };
    let good = a.links().api::<SecureLink>().get(LINK).await?;
    let imports = [serde_json::to_value(&good.spec.imports[0])?, twice("one"), twice("two")];
    a.patch(&json!({ "spec": { "state": "Suspended", "imports": imports } })).await?;
    a.until_says(ConditionType::Accepted, "Invalid").await?;
    a.until_says(ConditionType::Agreed, "SuspendedHere").await?;
    b.until_says(ConditionType::Agreed, "SuspendedByPeer").await?;
    a.patch(&json!({ "spec": { "state": "Active", "imports": [imports[0]] } })).await?;
    a.until_says(ConditionType::Ready, "Ready").await?;
    b.until_says(ConditionType::Ready, "Ready").await.map(drop)
}
