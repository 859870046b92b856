//! The emergency path: an order to cut reaches a running relay before anything else is looked at.
//!
//! It needs nothing but the order: no other link, no slow or full disk and no damage in the state folder keeps a brake
//! from working.

use std::time::Instant;

use securelink_relay_config::LinkRef;
use tokio::task::{JoinError, JoinSet};

use super::declared::Declarations;
use super::engine::Relay;
use super::planning;
use super::report::CutDone;
use super::shared::Shared;
use crate::state::{LinkDir, StateError, StoredCut};

/// Gives an order: obeyed, and meanwhile written down. A disk that is slow or full does not hold it up; the error is of the
/// writing. Returns when nothing that it forbids is left, and the disk has answered.
pub(crate) async fn give(folder: LinkDir, relay: Option<Relay>, order: StoredCut) -> (CutDone, Result<(), StateError>) {
    let began = Instant::now();
    let (cut, path) = (order.cut.clone(), folder.path().to_owned());
    let writing = tokio::task::spawn_blocking(move || folder.save_cut(&order));
    let receipt = match relay {
        Some(relay) => Some(relay.cut(cut).await),
        None => None,
    };
    let took = began.elapsed();
    let (ended, fresh) = receipt.map_or((0, true), |receipt| (receipt.ended, receipt.fresh));
    let broken = |error: JoinError| Err(StateError::Io { action: "writing", path, source: error.into() });
    (CutDone { ended, took, fresh }, writing.await.unwrap_or_else(broken))
}

/// Gives the orders of `LinkCut`s that a running relay does not obey yet.
pub(crate) async fn brake(shared: &Shared, files: &Declarations) {
    if files.cuts.is_empty() && files.broken_cuts.is_empty() {
        return;
    }
    let mut given = JoinSet::new();
    for link in shared.known() {
        let Some(running) = shared.running(&link) else { continue };
        let Ok(folder) = shared.state.link(&link) else { continue };
        let obeyed = running.relay.report().cuts;
        for order in orders(shared, files, &link).into_iter().filter(|order| !obeyed.contains(&order.cut.id)) {
            let (folder, relay, link) = (folder.clone(), running.relay.clone(), link.clone());
            given.spawn(async move {
                let id = order.cut.id.clone();
                let (done, written) = give(folder, Some(relay), order).await;
                tracing::warn!(%link, cut = id, ended = done.ended, "cut by a LinkCut");
                if let Err(error) = written {
                    tracing::error!(%link, cut = id, %error, "the cut is in force, but could not be written down");
                }
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
