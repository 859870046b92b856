//! A connection to the peer for one stream: with which replica, at rest or new.

use std::sync::Arc;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::handshake::{connect, connect_by};
use crate::link::Link;
use crate::replicas::Live;
use crate::reverse;
use crate::wire::{ReplicaId, Role};

/// A connection to the replica whose turn it is, else to another one that lives, else by whichever way works. The replica
/// that `failed` the stream before comes last, and what rests with it is not tried again.
pub(crate) async fn acquire(link: &Arc<Link>, failed: Option<ReplicaId>) -> Result<Box<Connection>, Failure> {
    if link.view().is_connect() {
        return Err(Failure::CallsOnly);
    }
    if !link.dials() {
        return reverse::take(link).await;
    }
    let mut turn = link.replicas.turn();
    turn.sort_by_key(|live| Some(live.id) == failed);
    for live in turn {
        let rested = async || if Some(live.id) == failed { None } else { link.pool.take(live.id).await };
        if let Some(connection) = rested().await {
            return Ok(connection);
        }
        // A burst of clients dials in step: the peer's limit of handshakes is not ours to fill. By the time of a permit a
        // connection may be at rest again.
        let _permit = link.dials.acquire().await;
        if let Some(connection) = rested().await {
            return Ok(connection);
        }
        if let Some(connection) = dial(link, &live).await {
            return Ok(connection);
        }
    }
    if let Some(connection) = link.pool.take_any().await {
        return Ok(connection);
    }
    let _permit = link.dials.acquire().await;
    connect(link, Role::Forward).await
}

/// Dials a replica that lives, until it is known not to. Behind its address there may be another one, which is as good.
async fn dial(link: &Arc<Link>, live: &Live) -> Option<Box<Connection>> {
    let way = live.way.as_ref()?;
    let connected = tokio::select! {
        connected = connect_by(link, way, Role::Forward) => connected.ok()?,
        () = link.died(live.id) => return None,
    };
    (!link.replicas.is_leaving(connected.facts.replica)).then_some(connected)
}
