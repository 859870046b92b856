//! Cuts from the API server to a relay, where something on the way lacks (faults F17, F73).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use securelink_crds::conditions::ConditionType;
use securelink_crds::{LinkCut, SecureLink};
use securelink_e2e::plane::{Fault, Installed, LIMIT, On, Plane, Refusal, Relay, Site, Test, Verb, harness, link};
use securelink_e2e::wait::until;
use serde_json::json;

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |plane| Box::pin($name(plane)))),*] };
    }
    harness::run(
        env!("CARGO_TARGET_TMPDIR"),
        tests![
            f17_a_cut_reaches_a_relay_and_is_seen_to_be_obeyed_where_a_right_lacks
            a_cut_that_came_and_went_before_it_was_written_down_does_not_cut_for_ever
            f73_a_relay_that_starts_while_the_deletion_of_its_link_waits_is_cut
        ],
    )
}

async fn f17_a_cut_reaches_a_relay_and_is_seen_to_be_obeyed_where_a_right_lacks(plane: &Plane) -> Result<()> {
    let (site, proxy, _operator) = made(plane).await?;
    let mut relay = heard(&site).await?;
    let lists = On::verbs([Verb::List, Verb::Watch]).of("secrets").within(&site.links.name);
    let _rule = proxy.rule(lists, Fault::Refuse(Refusal::code(403)));
    proxy.end_watches();
    let told = |condition: &securelink_crds::conditions::Condition| condition.reason == "NamespaceNotGranted";
    site.until_told("europol", ConditionType::Accepted, "say that a right lacks", told).await?;
    brake(&site).await?;
    relay.until_cut("LinkCut", true, LIMIT).await?;
    let obeyed = |cut: Option<&LinkCut>| {
        let status = cut.and_then(|cut| cut.status.as_ref());
        status.is_some_and(|status| status.pending == Some(0) && status.relays.len() == 1)
    };
    let cut = until(&site.api::<LinkCut>(), "brake", "be obeyed", LIMIT, obeyed).await?;
    let status = cut.and_then(|cut| cut.status).unwrap_or_default();
    ensure!(status.relays[0].relay == relay.pod, "{:?}", status.relays);
    Ok(())
}

async fn a_cut_that_came_and_went_before_it_was_written_down_does_not_cut_for_ever(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = made(plane).await?;
    let mut relay = heard(&site).await?;
    let rule = proxy.rule(On::writes().of("configmaps").within(&site.links.name), Fault::Hang);
    brake(&site).await?;
    relay.until_cut("LinkCut", true, LIMIT).await?;
    operator.kill().await?;
    site.api::<LinkCut>().delete("brake", &DeleteParams::default()).await?;
    drop(rule);
    let mut next = site.operator(&proxy, "one").await?;
    next.leads().await?;
    relay.until_cut("LinkCut", false, LIMIT).await
}

async fn f73_a_relay_that_starts_while_the_deletion_of_its_link_waits_is_cut(plane: &Plane) -> Result<()> {
    let (site, _proxy, _operator) = made(plane).await?;
    let links = site.api::<SecureLink>();
    let waits = |finalizers: &[&str]| Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    links.patch("europol", &PatchParams::default(), &waits(&["securelink.dev/e2e"])).await?;
    links.delete("europol", &DeleteParams::default()).await?;
    let cut = async { Relay::start(&site, "europol").await?.until_cut("SecureLink", true, LIMIT).await }.await;
    // Or its namespace would stay for ever.
    links.patch("europol", &PatchParams::default(), &waits(&[])).await?;
    cut
}

/// An installation with a link of one relay, as far as it is made where no pod starts.
async fn made(plane: &Plane) -> Result<Installed<'_>> {
    let mut europol = link("europol");
    europol["spec"]["relay"] = json!({ "replicas": 1 });
    plane.with_links(vec![europol]).await
}

/// The link's relay, when the operator has heard of it.
async fn heard(site: &Site<'_>) -> Result<Relay> {
    let relay = Relay::start(site, "europol").await?;
    let heard = |condition: &securelink_crds::conditions::Condition| condition.reason != "Pending";
    site.until_told("europol", ConditionType::RelayAvailable, "say what the relay says", heard).await?;
    Ok(relay)
}

async fn brake(site: &Site<'_>) -> Result<()> {
    let spec = json!({ "linkRef": { "name": "europol" }, "reason": "a drill" });
    site.links.create::<LinkCut>(json!({ "metadata": { "name": "brake" }, "spec": spec })).await.map(drop)
}
