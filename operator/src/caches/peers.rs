//! Links by the organization on their other side, so that nobody has to look through all of them for the few that compete.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use securelink_relay_config::LinkRef;

use super::declared::peer;
use super::named;
use super::store::{Held, Store};

/// What was seen. A link that is gone, or has another peer by now, may still be here: who asks looks at the link itself.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<HashMap<String, BTreeSet<LinkRef>>>);

impl Peers {
    /// Keeps up with a watch. All that were listed are seen again when the list is complete: until then the store has those
    /// of the list before, and whoever forgets what is not in it forgets of this list what is new.
    pub(super) fn follow(&self, event: &Event<DynamicObject>, store: &Store<DynamicObject>) {
        match event {
            Event::Apply(object) => self.saw(object),
            Event::InitDone => store.all().iter().filter_map(Held::read).for_each(|object| self.saw(&object)),
            Event::Init | Event::InitApply(_) | Event::Delete(_) => {}
        }
    }

    /// Remembers whom a link is to.
    fn saw(&self, object: &DynamicObject) {
        if let (Some(link), Some(peer)) = (named(object), peer(object)) {
            self.lock().entry(peer.to_owned()).or_default().insert(link);
        }
    }

    /// The links that are, or were, to this organization.
    pub(super) fn of(&self, peer: &str) -> Vec<LinkRef> {
        self.lock().get(peer).into_iter().flatten().cloned().collect()
    }

    /// Forgets all links but these.
    pub(super) fn retain(&self, is_there: impl Fn(&LinkRef) -> bool) {
        self.lock().retain(|_, links| {
            links.retain(&is_there);
            !links.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<LinkRef>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use securelink_crds::SecureLink;
    use serde_json::json;

    use super::*;

    #[test]
    fn links_are_found_by_their_peer_until_they_are_gone() {
        let (peers, resource) = (Peers::default(), ApiResource::erase::<SecureLink>(&()));
        let saw = |name: &str, peer: &str| {
            let mut object = DynamicObject::new(name, &resource).within("n");
            object.data = json!({ "spec": { "peer": { "trustDomain": peer } } });
            peers.saw(&object);
        };
        saw("a", "one.example");
        saw("b", "one.example");
        saw("b", "one.example");
        saw("c", "other.example");
        let names = |peer: &str| peers.of(peer).into_iter().map(|link| link.name).collect::<Vec<_>>();
        assert_eq!(names("one.example"), ["a", "b"]);
        peers.retain(|link| link.name != "a" && link.name != "c");
        assert_eq!((names("one.example"), names("other.example")), (vec!["b".to_owned()], vec![]));
    }
}
