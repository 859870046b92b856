//! P1: everything a person commits is public. P11: relays have no token.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ListParams;
use securelink_crds::{LinkIdentity, SecureLink};
use securelink_e2e::organization::{IDENTITIES, LINK};
use securelink_e2e::pair::OTHER;
use securelink_e2e::{Pair, World};

/// What both sides wrote holds endpoints and fingerprints; keys are where the operator put them.
pub(crate) async fn p01_no_secret_is_in_what_a_person_wrote(_: &World, pair: &Pair) -> Result<()> {
    for side in pair.sides() {
        let at = side.organization.links();
        for (link, identity) in [(LINK, IDENTITIES[0]), (OTHER, IDENTITIES[1])] {
            let link = at.api::<SecureLink>().get(link).await?;
            let identity = at.api::<LinkIdentity>().get(identity).await?;
            let written = format!("{}{}", serde_json::to_string(&link)?, serde_json::to_string(&identity)?);
            let found = written.contains("PRIVATE") || written.contains("KEY-----");
            ensure!(!found, "a key is in what a person wrote or reads");
        }
        let beside = at.api::<Secret>().list(&ListParams::default()).await?;
        let names: Vec<String> = beside.items.iter().map(ResourceExt::name_any).collect();
        ensure!(names == [format!("{OTHER}-leaf"), format!("{LINK}-leaf")], "beside the relays are {names:?}");
    }
    Ok(())
}

pub(crate) async fn p11_relays_have_no_token(_: &World, pair: &Pair) -> Result<()> {
    let relays = pair.a.organization.relays(LINK).await?;
    ensure!(relays.len() == 2, "{} relays", relays.len());
    for relay in relays {
        let spec = relay.spec.context("a spec")?;
        ensure!(spec.automount_service_account_token == Some(false), "a relay is given a token");
        let tokens = spec.volumes.iter().flatten().filter(|volume| volume.projected.is_some()).count();
        ensure!(tokens == 0, "a relay has a projected volume");
    }
    Ok(())
}
