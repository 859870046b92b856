//! The emergency path: in every replica, without a lease and without a queue of reconciles. What the relays run and what is
//! declared now are compared, and what is not allowed any more is told to them at once. It only narrows, so that all
//! replicas may do it (product, "What keeps, what cuts").
//!
//! A `LinkCut` needs nothing but itself, the relays' pods and what was last known of how they prove themselves: a damaged
//! `ConfigMap`, a right that lacks and a fault in the planner keep none from the relays.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use securelink_crds::keys::LINK;
use securelink_plan::{
    CutOrder, Declared, Sight, Verdict, cut_of_deleted, cut_orders, cuts_in_sight, names, peer_names,
};
use securelink_plan::{salvage_cut, validate};
use securelink_relay_config::{LinkRef, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::caches::{Caches, DeclaredLink, Held, Space};
use crate::gather::gather;
use crate::hub::Change;
use crate::relays::{Basis, RelayPod};
use crate::update_status;
use crate::world::World;

mod basis;

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
        attempt(&world, &link);
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
            Change::Identity(at) => {
                if !world.sources.caches.declared.has_identity(&at) {
                    world.forget_identity(&at);
                }
                self.all(world, |link| link.namespace == at.namespace);
            }
            Change::Namespace(namespace) => self.all(world, |link| link.namespace == namespace),
            Change::Everything => {
                self.all(world, |_| true);
                world.prune();
            }
            Change::Gone(gone) => {
                self.braked.insert(gone.link);
            }
            Change::Cut(_) => {}
        }
    }

    /// All such links, those too of which it was missed that they are gone. Where there are `LinkCut`s is looked first.
    fn all(&mut self, world: &World, wanted: impl Fn(&LinkRef) -> bool) {
        let declared = &world.sources.caches.declared;
        let braked: BTreeSet<String> = declared.all_cuts().into_iter().map(|cut| cut.namespace).collect();
        for link in declared.all_links().into_iter().chain(world.relays.links()).filter(wanted) {
            let urgent = !declared.has_link(&link) || braked.contains(&link.namespace);
            if urgent { &mut self.braked } else { &mut self.others }.insert(link);
        }
    }

    fn next(&mut self) -> Option<LinkRef> {
        self.braked.pop_first().or_else(|| self.others.pop_first())
    }
}

/// One look; a fault in it ends nothing else. It is looked again at the next change.
fn attempt(world: &Arc<World>, link: &LinkRef) {
    if catch_unwind(AssertUnwindSafe(|| look(world, link))).is_err() {
        world.metrics.panics.inc();
        tracing::error!(%link, "a fault of the operator itself in the way of cuts; report it with the log");
    }
}

/// Keeps up with a link's relays, and tells them what is cut: first what needs nothing else, then what the verdict says.
fn look(world: &Arc<World>, link: &LinkRef) {
    let caches = &world.sources.caches;
    let Some(declared) = caches.declared.link(link) else {
        // What is there and could not be read is not gone.
        if !caches.declared.has_link(link) {
            gone(world, link);
        }
        return;
    };
    let space = caches.space(&link.namespace);
    let uid = declared.object.metadata.uid.clone().unwrap_or_default();
    let kept = world.relays.basis(link);
    let looked = Looked { world, link, declared: &declared, space: &space, uid: &uid };
    looked.tell(basis::of(caches, &declared, None, kept.as_ref()), None);
    let Ok(Some(known)) = gather(&world.sources, link) else { return };
    let basis = basis::of(caches, &declared, known.snapshot.as_ref(), kept.as_ref());
    let kept = || basis.as_ref()?.running.as_ref()?.read();
    let running = known.snapshot.clone().or_else(kept);
    looked.tell(basis, Some((&validate(&known.gathered), running.as_ref())));
}

/// A link as it is looked at.
struct Looked<'a> {
    world: &'a Arc<World>,
    link: &'a LinkRef,
    declared: &'a DeclaredLink,
    space: &'a Space,
    uid: &'a str,
}

impl Looked<'_> {
    /// Follows the relays there are, and orders what is cut as far as it is known. Without a basis nobody could be spoken to.
    fn tell(&self, basis: Option<Basis>, judged: Option<(&Verdict, Option<&Snapshot>)>) {
        let (relays, link) = (&self.world.relays, self.link);
        let Some(basis) = basis else { return };
        // Of relays that cannot be listed those are followed that were.
        if let Some(pods) = pods(self.space, link) {
            relays.keep(link, &basis, &pods);
        }
        let orders = orders(&self.world.sources.caches, link, &self.declared.declared, Some(&basis));
        let cuts = cuts_in_sight(&Sight {
            orders: &orders,
            verdict: judged.map(|(verdict, _)| verdict),
            running: judged.and_then(|(_, running)| running),
            before: &relays.ordered(link),
            // Somebody waits for what it owns to go first: its deletion is a cut all the same.
            deleted: self.declared.object.metadata.deletion_timestamp.as_ref().map(|_| self.uid),
        });
        relays.cut(link, &cuts);
    }
}

/// The names of a link's peer, as far as they are known.
pub fn peers(declared: &Declared, basis: Option<&Basis>) -> BTreeSet<String> {
    let mut peers = peer_names(declared, None);
    peers.extend(basis.map(|basis| basis.trust.own.to_string()));
    peers
}

/// The `LinkCut`s over a link, by its name or by those of its peer.
fn orders(caches: &Caches, link: &LinkRef, declared: &Declared, basis: Option<&Basis>) -> Vec<CutOrder> {
    let peers = peers(declared, basis);
    let cuts = caches.declared.cuts(&link.namespace);
    let mut orders = cut_orders(&cuts.valid, link, &peers);
    let salvaged = |(name, value): &(String, _)| salvage_cut(value, (&link.namespace, name), link, &peers);
    orders.extend(cuts.invalid.iter().filter_map(salvaged));
    orders
}

/// A deleted link is cut: its relays go on for a while until Kubernetes has ended them. Once they are gone too there is nobody
/// left to tell.
fn gone(world: &Arc<World>, link: &LinkRef) {
    let space = world.sources.caches.watched_space(&link.namespace);
    let (Some(basis), Some(space)) = (world.relays.basis(link), space) else { return forget(world, link) };
    if let Some(pods) = pods(&space, link) {
        if pods.is_empty() {
            return forget(world, link);
        }
        world.relays.keep(link, &basis, &pods);
    }
    world.relays.cut(link, &BTreeSet::from([cut_of_deleted(&basis.uid)]));
}

fn forget(world: &World, link: &LinkRef) {
    world.relays.forget(link);
    world.sources.memory.forget_link(link);
    world.sources.sound.forget(link);
    world.requests.forget(link);
    world.prune();
    update_status::forget(world, link);
    let declared = &world.sources.caches.declared;
    // While others are being parted with, the watch that says when their relays are gone goes on.
    if world.relays.links().iter().all(|link| declared.has_link(link)) {
        world.sources.caches.forget_gone();
    }
}

/// The relays' pods of a link that run; nothing where they cannot be listed.
pub fn pods(space: &Space, link: &LinkRef) -> Option<BTreeSet<RelayPod>> {
    space.lists_pods().then(|| relay_pods(space, link).iter().filter_map(|pod| RelayPod::of(pod)).collect())
}

/// The relays' pods of a link, as they are.
pub fn relay_pods(space: &Space, link: &LinkRef) -> Vec<Arc<Pod>> {
    let (selector, deployment) = (names::selector(&link.name), names::relay(&link.name));
    let ours = |pod: &Arc<Pod>| {
        selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)) && is_of(pod, &deployment)
    };
    let labelled = space.pods.concerning(selector.get(LINK).map(String::as_str));
    labelled.iter().filter_map(Held::read).filter(ours).collect()
}

/// Whether a Deployment's pod: its `ReplicaSet` has the Deployment's name and a hash. A label proves nothing.
fn is_of(pod: &Pod, deployment: &str) -> bool {
    let owners = pod.owner_references().iter();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet");
    controllers.any(|owner| owner.name.rsplit_once('-').is_some_and(|(name, _)| name == deployment))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::issue::Issuer;
    use crate::world::testing;

    #[tokio::test]
    async fn the_keys_of_an_identity_are_forgotten_when_it_is_gone() {
        let at = LinkRef { namespace: "liaison".to_owned(), name: "default".to_owned() };
        for change in [Change::Identity(at.clone()), Change::Everything] {
            let (world, versions, now) = (testing::alone(), (None, None), Timestamp::now());
            world.looked.keep(&at, versions.clone(), Issuer::default(), now);
            Pending::default().add(&world, change);
            assert!(world.looked.get(&at, &versions, now).is_none());
        }
    }

    #[tokio::test]
    async fn a_name_that_no_identity_ever_had_costs_no_look_at_the_others() {
        let of = |name: &str| LinkRef { namespace: "liaison".to_owned(), name: name.to_owned() };
        let (world, versions, now) = (testing::alone(), (None, None), Timestamp::now());
        world.looked.keep(&of("default"), versions.clone(), Issuer::default(), now);
        Pending::default().add(&world, Change::Identity(of("ghost")));
        assert!(world.looked.get(&of("default"), &versions, now).is_some(), "all were gone through");
    }

    #[test]
    fn a_pod_is_a_relay_by_its_controller_and_not_by_its_labels() {
        let pod = |kind: &str, name: &str, controller: bool| -> Pod {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": controller});
            serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}})).unwrap_or_default()
        };
        assert!(is_of(&pod("ReplicaSet", "europol-relay-5d8f7c9b6d", true), "europol-relay"));
        assert!(!is_of(&pod("ReplicaSet", "europol-relay-2-5d8f7c9b6d", true), "europol-relay"));
        assert!(!is_of(&pod("ReplicaSet", "europol-relay", true), "europol-relay"));
        assert!(!is_of(&pod("ReplicaSet", "europol-relay-5d8f7c9b6d", false), "europol-relay"));
        assert!(!is_of(&pod("Job", "europol-relay-5d8f7c9b6d", true), "europol-relay"));
        assert!(!is_of(&Pod::default(), "europol-relay"));
    }
}
