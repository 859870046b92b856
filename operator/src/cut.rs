//! The emergency path: in every replica, without a lease and without a queue of reconciles. What the relays run and what is
//! declared now are compared, and what is not allowed any more is told to them at once. It only narrows, so that all
//! replicas may do it (product, "What keeps, what cuts").

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use securelink_crds::keys::LINK;
use securelink_pki::PeerTrust;
use securelink_plan::{cuts_ahead, names, validate};
use securelink_relay_config::{Cut, CutScope, LinkRef};
use tokio_util::sync::CancellationToken;

use crate::caches::Space;
use crate::gather::{Known, gather};
use crate::hub::{Change, Gone};
use crate::relays::RelayPod;
use crate::update_status;
use crate::world::World;

/// Links to look at. Those under a brake come first: a cut does not wait for a rollout.
#[derive(Default)]
struct Pending {
    braked: BTreeSet<LinkRef>,
    others: BTreeSet<LinkRef>,
}

/// Follows all changes until `stop`.
pub async fn run(world: Arc<World>, stop: CancellationToken) {
    let mut changes = world.hub.listen();
    let mut pending = Pending::default();
    pending.add(&world, Change::Everything);
    loop {
        let Some(link) = pending.next() else {
            let change = tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => change,
            };
            match change {
                Some(change) => pending.add(&world, change),
                None => return,
            }
            continue;
        };
        look(&world, &link);
        // What came meanwhile may be more urgent than what waits.
        while let Some(change) = changes.waiting() {
            pending.add(&world, change);
        }
        tokio::task::yield_now().await;
    }
}

impl Pending {
    fn add(&mut self, world: &World, change: Change) {
        let all = || world.sources.caches.declared.all_links();
        match change {
            Change::Link(link) | Change::Declared(link) => {
                self.others.insert(link);
            }
            Change::Brake { namespace, link: Some(name) } => {
                self.braked.insert(LinkRef { namespace, name });
            }
            Change::Brake { namespace, link: None } => {
                self.braked.extend(all().into_iter().filter(|link| link.namespace == namespace));
            }
            Change::Identity(LinkRef { namespace, .. }) | Change::Namespace(namespace) => {
                self.others.extend(all().into_iter().filter(|link| link.namespace == namespace));
            }
            Change::Everything => self.others.extend(all()),
            Change::Gone(gone) => part(world, &gone),
            Change::Cut(_) => {}
        }
    }

    fn next(&mut self) -> Option<LinkRef> {
        self.braked.pop_first().or_else(|| self.others.pop_first())
    }
}

/// Keeps up with a link's relays, and tells them what is cut.
fn look(world: &Arc<World>, link: &LinkRef) {
    let known = match gather(&world.sources, link) {
        Ok(Some(known)) => known,
        Ok(None) => return forget(world, link),
        // What is missing comes with a change of its own.
        Err(_) => return,
    };
    let metadata = &known.declared.object.metadata;
    if metadata.deletion_timestamp.is_some() {
        // Somebody waits for what it owns to go first: its deletion is a cut all the same.
        let generation = metadata.generation.and_then(|at| u64::try_from(at).ok()).unwrap_or_default();
        return part(world, &Gone { link: link.clone(), uid: known.uid, generation });
    }
    let (Some(space), Some(trust)) = (&known.space, trust(&known)) else { return };
    world.relays.keep(link, &trust, &pods(space, link));
    let verdict = validate(&known.gathered);
    let cuts = known.snapshot.as_ref().map_or_else(BTreeSet::new, |running| cuts_ahead(running, &verdict));
    world.relays.cut(link, &cuts);
}

/// A deleted link is cut: its relays go on for a while until Kubernetes has ended them.
fn part(world: &World, gone: &Gone) {
    let cut = Cut {
        id: format!("SecureLink/{}", gone.uid),
        revision: gone.generation.saturating_add(1),
        scope: CutScope::Link,
        reason: "the SecureLink was deleted".to_owned(),
    };
    world.relays.cut(&gone.link, &BTreeSet::from([cut]));
}

/// Once the relays of a link that is gone are gone too, there is nobody left to tell.
fn forget(world: &World, link: &LinkRef) {
    let space = world.sources.caches.watched_space(&link.namespace);
    if space.is_none_or(|space| pods(&space, link).is_empty()) {
        world.relays.forget(link);
        world.sources.memory.forget_link(link);
        world.sources.caches.forget_gone();
        update_status::forget(world, link);
    }
}

/// The relays' pods of a link.
pub fn pods(space: &Space, link: &LinkRef) -> BTreeSet<RelayPod> {
    relay_pods(space, link).iter().filter_map(|pod| RelayPod::of(pod)).collect()
}

/// The same, as they are.
pub fn relay_pods(space: &Space, link: &LinkRef) -> Vec<Arc<Pod>> {
    let selector = names::selector(&link.name);
    let ours = |pod: &Pod| {
        pod.labels().contains_key(LINK) && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    space.pods.state_filter(ours)
}

/// By what a relay of this link proves itself: a leaf of ours for this peer. Absent before the first configuration.
fn trust(known: &Known) -> Option<PeerTrust> {
    let running = known.snapshot.as_ref()?;
    let identity =
        known.identity.as_ref().and_then(|identity| identity.identity.as_ref()?.status.as_ref()?.fingerprint.clone());
    let pins = [identity, known.status.fingerprint.clone()].into_iter().flatten();
    Some(PeerTrust {
        own: running.peer.trust_domain.clone(),
        peer: running.own.clone(),
        pins: pins.filter_map(|text| text.parse().ok()).collect(),
    })
}
