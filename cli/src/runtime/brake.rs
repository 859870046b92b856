//! The emergency path: a new `LinkCut` reaches every running relay before anything else is looked at.
//!
//! It needs nothing but the files: no other link, and no damage in the state folder, keeps a brake from working.

use securelink_relay_config::LinkRef;
use tokio::task::JoinSet;

use super::declared::Declarations;
use super::planning;
use super::shared::Shared;
use crate::state::StoredCut;

/// Gives the orders that a running relay does not obey yet. Returns when nothing that they forbid is left.
pub(crate) async fn brake(shared: &Shared, files: &Declarations) {
    if files.cuts.is_empty() && files.broken_cuts.is_empty() {
        return;
    }
    let mut given = JoinSet::new();
    for link in shared.known() {
        let Some(running) = shared.running(&link) else { continue };
        let obeyed = running.relay.report().cuts;
        for order in orders(shared, files, &link).into_iter().filter(|order| !obeyed.contains(&order.cut.id)) {
            write_down(shared, &link, &order);
            let (relay, link) = (running.relay.clone(), link.clone());
            given.spawn(async move {
                let id = order.cut.id.clone();
                let receipt = relay.cut(order.cut).await;
                tracing::warn!(%link, cut = id, ended = receipt.ended, "cut by a LinkCut");
            });
        }
    }
    given.join_all().await;
}

fn orders(shared: &Shared, files: &Declarations, link: &LinkRef) -> Vec<StoredCut> {
    let links = shared.links();
    let accepted = links.get(link).and_then(|held| held.verdict.accepted.as_ref());
    let declared = planning::declared(files, link, accepted);
    let orders = planning::orders(files, link, &declared, accepted).into_iter();
    orders.map(|(name, order)| StoredCut::by_object(&name, &order.id, order.revision, &order.reason)).collect()
}

/// Before it is given; but one that cannot be written down is given all the same.
fn write_down(shared: &Shared, link: &LinkRef, order: &StoredCut) {
    let written = shared.state.link(link).and_then(|folder| folder.save_cut(order));
    if let Err(error) = written {
        tracing::error!(%link, %error, "a cut could not be written down; it is given all the same");
    }
}
