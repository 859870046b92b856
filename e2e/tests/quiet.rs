//! What the operator writes where nothing is wrong: all that a link needs, once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use securelink_crds::SecureLink;
use securelink_crds::conditions::ConditionType;
use securelink_e2e::plane::{Call, Installed, LIMIT, Operator, Plane, Proxy, Site, Test, Verb, harness, link};
use securelink_e2e::wait::until;
use serde_json::json;

/// Links over which an operator is restarted.
const LINKS: usize = 20;

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |plane| Box::pin($name(plane)))),*] };
    }
    harness::run(
        env!("CARGO_TARGET_TMPDIR"),
        tests![
            a_link_is_made_with_the_rights_of_the_chart_and_without_reading_an_object
            f55_the_same_yaml_applied_again_changes_no_object
            an_operator_that_is_restarted_over_twenty_links_writes_no_object_of_theirs
            an_operator_at_rest_sends_no_write_at_all
            a_deleted_link_leaves_nothing_behind
        ],
    )
}

async fn a_link_is_made_with_the_rights_of_the_chart_and_without_reading_an_object(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let mark = proxy.mark();
    site.link("europol").await?;
    site.until_says("europol", ConditionType::RelayAvailable, "Pending").await?;
    looked(&site, &operator, &["europol"]).await?;
    let (all, writes) = (proxy.since(mark), writes(&proxy, mark));
    // Eight objects, and the Event that says that a certificate was issued.
    ensure!(writes.len() == 9, "{} writes: {writes:#?}", writes.len());
    let reads: Vec<_> = all.iter().filter(|call| call.verb == Verb::Get && call.resource != "leases").collect();
    ensure!(reads.is_empty(), "it asks for objects: {reads:?}");
    Ok(())
}

async fn f55_the_same_yaml_applied_again_changes_no_object(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = made(plane, &["europol"]).await?;
    let before = site.versions().await?;
    ensure!(before.len() >= 7, "only {before:?}");
    let mark = proxy.mark();
    let again = |rest: &str| {
        let mut again = link("europol");
        again["apiVersion"] = "securelink.dev/v1alpha1".into();
        again["kind"] = "SecureLink".into();
        again["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": rest });
        again
    };
    for rest in ["once", "twice"] {
        let parameters = PatchParams::apply("kubectl").force();
        site.api::<SecureLink>().patch("europol", &parameters, &Patch::Apply(&again(rest))).await?;
    }
    looked(&site, &operator, &["europol"]).await?;
    ensure!(writes(&proxy, mark).is_empty(), "it writes {:?}", writes(&proxy, mark));
    ensure!(site.versions().await? == before, "an object was written");
    Ok(())
}

async fn an_operator_that_is_restarted_over_twenty_links_writes_no_object_of_theirs(plane: &Plane) -> Result<()> {
    let names: Vec<String> = (0..LINKS).map(|number| format!("partner-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (site, proxy, operator) = made(plane, &names).await?;
    let before = site.versions().await?;
    ensure!(operator.stop().await?.success(), "it does not end well");
    let mark = proxy.mark();
    let mut operator = site.operator(&proxy, "two").await?;
    operator.leads().await?;
    looked(&site, &operator, &names).await?;
    let writes = writes(&proxy, mark);
    ensure!(writes.is_empty(), "{} writes: {writes:#?}", writes.len());
    ensure!(site.versions().await? == before, "an object was written");
    Ok(())
}

async fn an_operator_at_rest_sends_no_write_at_all(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = made(plane, &["europol"]).await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}

async fn a_deleted_link_leaves_nothing_behind(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = made(plane, &["europol", "frontex"]).await?;
    let mut kept = site.versions().await?;
    kept.retain(|object, _| object.contains("frontex"));
    let links = site.api::<SecureLink>();
    links.delete("europol", &DeleteParams::default()).await?;
    until(&links, "europol", "be gone", LIMIT, |it| it.is_none()).await?;
    site.until_only(|object| object.contains("frontex")).await?;
    let mark = proxy.mark();
    looked(&site, &operator, &["frontex"]).await?;
    ensure!(writes(&proxy, mark).is_empty(), "it writes {:?}", writes(&proxy, mark));
    ensure!(site.versions().await? == kept, "the other link was touched");
    Ok(())
}

/// The writes after a mark, but those of the links' own status.
fn writes(proxy: &Proxy, mark: usize) -> Vec<Call> {
    proxy.writes_since(mark).into_iter().filter(|call| call.resource != "securelinks/status").collect()
}

/// Returns when the operator has looked at these links again, twice.
async fn looked(site: &Site<'_>, operator: &Operator, names: &[&str]) -> Result<()> {
    site.look_again(operator, names, LIMIT).await?;
    site.look_again(operator, names, LIMIT).await
}

/// An installation with links that are made as far as they can be where no relay starts, looked at once more.
async fn made<'a>(plane: &'a Plane, names: &[&str]) -> Result<Installed<'a>> {
    let (site, proxy, operator) = plane.with_links(names.iter().map(|name| link(name)).collect()).await?;
    looked(&site, &operator, names).await?;
    let relays = site.api::<Deployment>().list(&kube::api::ListParams::default()).await?;
    let relays: Vec<String> = relays.items.iter().map(ResourceExt::name_any).collect();
    ensure!(relays.len() == names.len(), "relays: {relays:?}");
    Ok((site, proxy, operator))
}
