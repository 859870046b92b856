//! Brings a relay to what was decided: starts it, gives it a snapshot or a leaf, or stops it.

use std::sync::Arc;
use std::time::Duration;

use securelink_pki::{Leaf, Transitions};
use securelink_relay_config::{LinkRef, Snapshot};
use tokio_util::sync::CancellationToken;

use super::engine::{Credentials, Memory, Relay, Setup};
use super::held::{Installed, Running};
use super::planning::Certificate;
use super::shared::Shared;
use super::store::{FolderStore, book};
use crate::state::{LinkDir, StoredCut};

/// A leaf if there is one, the way to its root, and what is known of both.
pub(crate) type Issued = (Option<Arc<Leaf>>, Transitions, Certificate);

/// What was decided about a link.
pub(crate) struct Decided<'a> {
    pub(crate) link: &'a LinkRef,
    pub(crate) folder: &'a LinkDir,
    pub(crate) snapshot: Option<&'a Snapshot>,
    pub(crate) leaf: Option<Arc<Leaf>>,
    pub(crate) transitions: Transitions,
    pub(crate) stored: &'a [StoredCut],
}

/// What came of it.
pub(crate) struct Applied {
    pub(crate) running: Option<Running>,
    pub(crate) changed: bool,
    pub(crate) fault: Option<String>,
}

impl Applied {
    fn unchanged(running: Option<Running>) -> Self {
        Self { running, changed: false, fault: None }
    }
}

/// Brings the relay to what was decided.
pub(crate) async fn apply(shared: &Arc<Shared>, decided: Decided<'_>, running: Option<Running>) -> Applied {
    match (decided.snapshot, running) {
        (Some(snapshot), Some(running)) => change(&decided, snapshot, running).await,
        (Some(snapshot), None) => start(shared, &decided, snapshot).await,
        (None, Some(running)) => {
            // A link that is gone or forbidden carries nothing any more: no stream is waited for.
            running.watched.cancel();
            running.relay.drain(Duration::ZERO).await;
            Applied { running: None, changed: true, fault: None }
        }
        (None, None) => Applied::unchanged(None),
    }
}

async fn start(shared: &Arc<Shared>, decided: &Decided<'_>, snapshot: &Snapshot) -> Applied {
    // Without a certificate there is nothing to start; the status says why there is none.
    let Some((credentials, installed)) = credentials(decided) else { return Applied::unchanged(None) };
    let latch = match decided.folder.latch() {
        Ok(latch) => latch,
        Err(error) => return Applied { fault: Some(error.to_string()), ..Applied::unchanged(None) },
    };
    let setup = Setup {
        snapshot: snapshot.clone(),
        credentials,
        memory: Memory { latch, cuts: book(decided.stored) },
        store: Arc::new(FolderStore(decided.folder.clone())),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        capacity: shared.capacity.clone(),
    };
    match Relay::start(setup).await {
        Ok(relay) => {
            relay.kept(snapshot.version);
            let watched = CancellationToken::new();
            shared.watch(decided.link, &relay, watched.clone());
            Applied { running: Some(Running { relay, installed, watched }), changed: true, fault: None }
        }
        Err(error) => Applied { fault: Some(error.to_string()), ..Applied::unchanged(None) },
    }
}

async fn change(decided: &Decided<'_>, snapshot: &Snapshot, mut running: Running) -> Applied {
    let mut applied = Applied::unchanged(None);
    if running.relay.snapshot().version != snapshot.version {
        match running.relay.adopt(snapshot.clone()).await {
            Ok(()) => {
                // Orders are kept apart, and taken back by the runtime itself.
                running.relay.kept(snapshot.version);
                applied.changed = true;
            }
            Err(error) => {
                applied.fault = Some(error.to_string());
                applied.changed = adopt_the_rest(snapshot, &running.relay).await;
            }
        }
    }
    if let Some((credentials, installed)) = credentials(decided).filter(|(_, new)| *new != running.installed) {
        match running.relay.install(credentials) {
            Ok(()) => running.installed = installed,
            Err(error) => applied.fault = Some(error.to_string()),
        }
    }
    Applied { running: Some(running), ..applied }
}

/// Puts in force what needs no other socket: what an edit takes away must not wait for a port that is taken, or for
/// anything else this relay cannot do. Between the version in force and the one decided, which is tried again.
async fn adopt_the_rest(decided: &Snapshot, relay: &Relay) -> bool {
    let running = relay.snapshot();
    let mut rest = Snapshot { version: running.version, listen: running.listen, ..decided.clone() };
    rest.peer.protocol = running.peer.protocol;
    rest.imports.retain(|new| running.imports.iter().any(|old| (&old.name, old.listen) == (&new.name, new.listen)));
    if rest == *running {
        return false;
    }
    rest.version = running.version.saturating_add(1);
    relay.adopt(rest).await.is_ok()
}

fn credentials(decided: &Decided<'_>) -> Option<(Credentials, Installed)> {
    let leaf = decided.leaf.as_ref()?;
    let installed = Installed::new(leaf, &decided.transitions);
    let credentials = Credentials { leaf: Arc::clone(leaf), transitions: decided.transitions.clone() };
    Some((credentials, installed))
}
