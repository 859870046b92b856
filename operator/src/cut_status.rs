//! The status of a `LinkCut`: which relay obeyed, and when. Written by the replica that leads, from what all relays say.

use jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action;
use securelink_crds::keys::FIELD_MANAGER;
use securelink_crds::{GROUP, LinkCut, LinkCutStatus, VERSION};
use securelink_plan::{CutOrder, CutRelay, cut_orders, cut_status, peer_names};
use securelink_relay_config::LinkRef;
use serde_json::json;

use crate::relays::Word;
use crate::world::World;

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
#[error("apply status of the LinkCut {at}: {source}")]
pub struct CutStatusError {
    /// Of which cut.
    at: LinkRef,
    /// Why not.
    source: Box<kube::Error>,
}

/// One look at a cut.
pub async fn reconcile(at: &LinkRef, world: &World) -> Result<Action, CutStatusError> {
    let declared = &world.sources.caches.declared;
    let cuts = declared.cuts(&at.namespace).valid;
    let Some(cut) = cuts.into_iter().find(|cut| cut.metadata.name.as_deref() == Some(&at.name)) else {
        return Ok(Action::await_change());
    };
    let now = Timestamp::now();
    let mut relays = Vec::new();
    for link in declared.all_links().into_iter().filter(|link| link.namespace == at.namespace) {
        let Some(found) = declared.link(&link) else { continue };
        let Some(order) = cut_orders([&cut], &link, &peer_names(&found.declared, None)).pop() else { continue };
        relays.extend(world.relays.words(&link).iter().map(|word| relay(&link, word, &order, now)));
    }
    let previous: LinkCutStatus = cut.status.clone().unwrap_or_default();
    let status = cut_status(&cut, &relays, &previous);
    if status != previous && world.lease.holds() {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "LinkCut",
            "metadata": {"name": at.name, "namespace": at.namespace, "uid": cut.metadata.uid},
            "status": status,
        });
        let api = Api::<DynamicObject>::namespaced_with(
            world.client.clone(),
            &at.namespace,
            &ApiResource::erase::<LinkCut>(&()),
        );
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let failed = |source| CutStatusError { at: at.clone(), source: Box::new(source) };
        api.patch_status(&at.name, &parameters, &Patch::Apply(&body)).await.map_err(failed)?;
        world.metrics.wrote("LinkCut", "status");
    }
    Ok(Action::await_change())
}

/// What a relay did about a cut. One that reports it in force holds it, whoever told it and when.
fn relay(link: &LinkRef, word: &Word, order: &CutOrder, now: Timestamp) -> CutRelay {
    let told = word.obeyed.get(&(order.id.clone(), order.revision)).copied();
    let holds = word.status.as_ref().is_some_and(|status| status.report.cuts.contains(&order.id));
    CutRelay { link: link.name.clone(), relay: word.pod.clone(), obeyed_at: told.or(holds.then_some(now)) }
}
