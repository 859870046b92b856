//! Our own kinds, judged as an API server of this version would: an object may have been stored under another schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use kube::runtime::reflector::Store;
use securelink_crds::load::{self, Object};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy, SecureLink};
use securelink_plan::Declared;
use securelink_relay_config::LinkRef;
use serde_json::Value;

use super::peers::Peers;
use super::{Links, named, reference};

/// A `SecureLink` as it is now.
#[derive(Clone, Debug)]
pub struct DeclaredLink {
    /// The object: metadata and status.
    pub object: Arc<DynamicObject>,
    /// Its judgment.
    pub declared: Declared,
}

/// A `LinkIdentity` as it is now.
#[derive(Clone, Debug)]
pub struct DeclaredIdentity {
    /// The object: metadata and status.
    pub object: Arc<DynamicObject>,
    /// The identity; absent where it is invalid.
    pub identity: Option<LinkIdentity>,
}

/// The policies.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// The valid ones.
    pub valid: Vec<LinkPolicy>,
    /// Names of those that are not: nothing new is accepted while a guard rail cannot be read.
    pub invalid: Vec<String>,
}

/// The cuts of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    /// The valid ones.
    pub valid: Vec<LinkCut>,
    /// Those that are not, by name: a slip in an emergency must not keep the brake from working.
    pub invalid: Vec<(String, Value)>,
}

/// What an object was judged to be.
type Judgment = Arc<Result<Object, (Value, Vec<load::Problem>)>>;

/// A judged object.
struct Kept {
    /// As it was seen last: of the very same nothing is looked at again.
    seen: Arc<DynamicObject>,
    /// A hash of what was judged: most that is seen anew differs in its status only.
    declared: u64,
    judgment: Judgment,
}

/// Our own kinds.
pub struct Declarations {
    stores: Links,
    peers: Arc<Peers>,
    /// By kind, namespace and name; judging a schema with its rules takes a millisecond, and what is declared seldom changes.
    judged: Mutex<HashMap<(&'static str, String, String), Kept>>,
}

impl Declarations {
    pub(super) fn new(stores: Links, peers: Arc<Peers>) -> Self {
        Self { stores, peers, judged: Mutex::default() }
    }

    pub(super) async fn ready(&self) {
        for store in [&self.stores.links, &self.stores.identities, &self.stores.policies, &self.stores.cuts] {
            let _ = store.wait_until_ready().await;
        }
    }

    /// The store of links, for the driver.
    pub fn links(&self) -> &Store<DynamicObject> {
        &self.stores.links
    }

    /// The store of identities, for the driver.
    pub fn identities(&self) -> &Store<DynamicObject> {
        &self.stores.identities
    }

    /// The store of cuts, for the driver.
    pub fn cut_objects(&self) -> &Store<DynamicObject> {
        &self.stores.cuts
    }

    /// All links.
    pub fn all_links(&self) -> Vec<LinkRef> {
        self.stores.links.state().iter().filter_map(|object| named(object)).collect()
    }

    /// All cuts.
    pub fn all_cuts(&self) -> Vec<LinkRef> {
        self.stores.cuts.state().iter().filter_map(|object| named(object)).collect()
    }

    /// All identities.
    pub fn all_identities(&self) -> Vec<LinkRef> {
        self.stores.identities.state().iter().filter_map(|object| named(object)).collect()
    }

    /// A link, if it is there.
    pub fn link(&self, at: &LinkRef) -> Option<DeclaredLink> {
        let object = self.stores.links.get(&reference::<SecureLink>(at))?;
        let judged = self.judge("SecureLink", &object);
        let declared = match judged.as_ref() {
            Ok(Object::SecureLink(link)) => Declared::Valid(link.clone()),
            Ok(_) => Declared::Invalid { value: Value::Null, problems: Vec::new() },
            Err((value, problems)) => Declared::Invalid { value: value.clone(), problems: problems.clone() },
        };
        Some(DeclaredLink { object, declared })
    }

    /// An identity, if it is there.
    pub fn identity(&self, at: &LinkRef) -> Option<DeclaredIdentity> {
        let object = self.stores.identities.get(&reference::<LinkIdentity>(at))?;
        let identity = match self.judge("LinkIdentity", &object).as_ref() {
            // A judgment is of the spec: the status is as it was read.
            Ok(Object::LinkIdentity(identity)) => Some(LinkIdentity {
                status: serde_json::from_value(object.data["status"].clone()).ok(),
                ..identity.as_ref().clone()
            }),
            _ => None,
        };
        Some(DeclaredIdentity { object, identity })
    }

    /// Whether an identity is there.
    pub fn has_identity(&self, at: &LinkRef) -> bool {
        self.stores.identities.get(&reference::<LinkIdentity>(at)).is_some()
    }

    /// The policies.
    pub fn policies(&self) -> Policies {
        let mut policies = Policies::default();
        for object in self.stores.policies.state() {
            match self.judge("LinkPolicy", &object).as_ref() {
                Ok(Object::LinkPolicy(policy)) => policies.valid.push(policy.as_ref().clone()),
                _ => policies.invalid.push(object.metadata.name.clone().unwrap_or_default()),
            }
        }
        policies.valid.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        policies
    }

    /// The cuts of a namespace.
    pub fn cuts(&self, namespace: &str) -> Cuts {
        let mut cuts = Cuts::default();
        let here = |object: &DynamicObject| object.metadata.namespace.as_deref() == Some(namespace);
        for object in self.stores.cuts.state_filter(here) {
            // Being deleted is to be released: what waits is somebody's finalizer.
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            match self.judge("LinkCut", &object).as_ref() {
                Ok(Object::LinkCut(cut)) => cuts.valid.push(LinkCut {
                    status: serde_json::from_value(object.data["status"].clone()).ok(),
                    ..cut.as_ref().clone()
                }),
                Err((value, _)) => {
                    cuts.invalid.push((object.metadata.name.clone().unwrap_or_default(), value.clone()));
                }
                Ok(_) => {}
            }
        }
        cuts.valid.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        cuts
    }

    /// Other links between the same two organizations, as they are written.
    pub fn rivals(&self, link: &DynamicObject) -> Vec<Arc<DynamicObject>> {
        let own = |object: &DynamicObject| {
            let name = object.data["spec"]["identityRef"]["name"].as_str()?.to_owned();
            let identity = LinkRef { namespace: object.metadata.namespace.clone()?, name };
            let identity = self.stores.identities.get(&reference::<LinkIdentity>(&identity))?;
            identity.data["spec"]["trustDomain"].as_str().map(str::to_owned)
        };
        let (Some(to), Some(from)) = (peer(link), own(link)) else { return Vec::new() };
        let is_rival = |other: &Arc<DynamicObject>| {
            other.metadata.uid != link.metadata.uid && peer(other) == Some(to) && own(other).as_ref() == Some(&from)
        };
        let all = self.peers.of(to).into_iter();
        all.filter_map(|at| self.stores.links.get(&reference::<SecureLink>(&at))).filter(is_rival).collect()
    }

    /// The links to an organization, and those that were.
    pub fn links_to(&self, peer: &str) -> Vec<LinkRef> {
        self.peers.of(peer)
    }

    fn judge(&self, kind: &'static str, object: &Arc<DynamicObject>) -> Judgment {
        let metadata = &object.metadata;
        let key = (kind, metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        if let Some(kept) = self.judged().get(&key).filter(|kept| Arc::ptr_eq(&kept.seen, object)) {
            return Arc::clone(&kept.judgment);
        }
        let declared = without_status(object);
        if let Some(kept) = self.judged().get_mut(&key).filter(|kept| kept.declared == declared) {
            kept.seen = Arc::clone(object);
            return Arc::clone(&kept.judgment);
        }
        let value = as_value(kind, object);
        let judgment = Arc::new(load::judge(&value, None).map_err(|problems| (value, problems)));
        let kept = Kept { seen: Arc::clone(object), declared, judgment: Arc::clone(&judgment) };
        self.judged().insert(key, kept);
        judgment
    }

    fn judged(&self) -> MutexGuard<'_, HashMap<(&'static str, String, String), Kept>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the judgments of objects that are gone.
    pub fn forget_gone(&self) {
        let of = |store: &Store<DynamicObject>| {
            let name = |object: &Arc<DynamicObject>| {
                (
                    object.metadata.namespace.clone().unwrap_or_default(),
                    object.metadata.name.clone().unwrap_or_default(),
                )
            };
            store.state().iter().map(name).collect::<std::collections::HashSet<_>>()
        };
        let there = [
            ("SecureLink", of(&self.stores.links)),
            ("LinkIdentity", of(&self.stores.identities)),
            ("LinkPolicy", of(&self.stores.policies)),
            ("LinkCut", of(&self.stores.cuts)),
        ];
        let is_there = |(kind, namespace, name): &(&str, String, String)| {
            there.iter().any(|(of, names)| of == kind && names.contains(&(namespace.clone(), name.clone())))
        };
        self.judged().retain(|key, _| is_there(key));
        self.peers.retain(|link| self.stores.links.get(&reference::<SecureLink>(link)).is_some());
    }
}

/// A hash of what is judged: all but the status, and what each write of it moves.
fn without_status(object: &DynamicObject) -> u64 {
    let mut metadata = object.metadata.clone();
    (metadata.resource_version, metadata.managed_fields) = (None, None);
    crate::keyed::hash(&(metadata, &object.data["spec"]))
}

/// The organization on the other side of a link, as it is written.
pub(super) fn peer(object: &DynamicObject) -> Option<&str> {
    object.data["spec"]["peer"]["trustDomain"].as_str()
}

fn as_value(kind: &str, object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    // A list leaves both out of its items.
    value["apiVersion"] = format!("{}/{}", securelink_crds::GROUP, securelink_crds::VERSION).into();
    value["kind"] = kind.into();
    value
}
