//! The status of a `LinkCut`: which relay obeyed, and when. Written by the replica that leads, from what all relays say.

use jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action;
use securelink_crds::keys::FIELD_MANAGER;
use securelink_crds::{GROUP, LinkCut, LinkCutStatus, VERSION};
use securelink_plan::{CutHits, CutOrder, CutRelay, cut_orders, cut_status};
use securelink_relay_config::LinkRef;
use serde_json::json;

use crate::cut::{peers, pods};
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
    let previous: LinkCutStatus = cut.status.clone().unwrap_or_default();
    let status = cut_status(&cut, &hits(world, &cut, at, Timestamp::now()), &previous);
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

/// What a cut hits: every relay that runs for one of its links, whether or not it was reached.
fn hits(world: &World, cut: &LinkCut, at: &LinkRef, now: Timestamp) -> CutHits {
    let declared = &world.sources.caches.declared;
    let space = world.sources.caches.watched_space(&at.namespace);
    let mut hits = CutHits::default();
    for link in declared.all_links().into_iter().filter(|link| link.namespace == at.namespace) {
        let Some(found) = declared.link(&link) else { continue };
        let names = peers(&found.declared, world.relays.basis(&link).as_ref());
        let Some(order) = cut_orders([cut], &link, &names).pop() else { continue };
        let mut words = world.relays.words(&link);
        words.extend(world.relays.parted(&link));
        match space.as_ref().and_then(|space| pods(space, &link)) {
            Some(pods) => hits.relays.extend(pods.iter().map(|pod| {
                let said = words.iter().find(|word| word.pod == pod.name);
                let obeyed_at = said.and_then(|word| obeyed_at(word, &order, now));
                CutRelay { link: link.name.clone(), relay: pod.name.clone(), obeyed_at }
            })),
            None => hits.unlisted.push(link.name.clone()),
        }
    }
    hits
}

/// When a relay obeyed. One that reports the cut in force holds it, whoever told it and when.
fn obeyed_at(word: &Word, order: &CutOrder, now: Timestamp) -> Option<Timestamp> {
    let told = word.obeyed.get(&(order.id.clone(), order.revision)).copied();
    let holds = word.status.as_ref().is_some_and(|status| status.report.cuts.contains(&order.id));
    told.or(holds.then_some(now))
}
