//! Our own kinds, judged as an API server of this version would: an object may have been stored under another schema.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use securelink_crds::load::{self, Object};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy, SecureLink, SecureLinkSpec};
use securelink_plan::Declared;
use securelink_relay_config::LinkRef;
use serde::Deserialize as _;
use serde_json::Value;

use super::peers::Peers;
use super::store::Held;
use super::{Kinds, Names, named};

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
#[derive(Clone)]
enum Judgment {
    /// A `SecureLink` that is valid just as it is stored, which nearly all are: there is nothing to keep of it.
    AsStored,
    /// What is to be kept.
    Other(Arc<Result<Object, (Value, Vec<load::Problem>)>>),
}

/// A judged object.
struct Kept {
    /// As which object in which version it was seen last: of the very same nothing is looked at again.
    seen: (String, Option<String>),
    /// A hash of what was judged: most that is seen anew differs in its status only.
    declared: u64,
    judgment: Judgment,
}

/// Our own kinds.
pub struct Declarations {
    stores: Kinds,
    peers: Arc<Peers>,
    /// By kind, namespace and name; judging a schema with its rules takes a millisecond, and what is declared seldom changes.
    judged: Mutex<HashMap<(&'static str, LinkRef), Kept>>,
}

impl Declarations {
    pub(super) fn new(stores: Kinds, peers: Arc<Peers>) -> Self {
        Self { stores, peers, judged: Mutex::default() }
    }

    pub(super) async fn ready(&self) {
        let Kinds { links, identities, policies, cuts } = &self.stores;
        for store in [&links.objects, &identities.objects, policies, &cuts.objects] {
            store.seen().await;
        }
        let _ = links.names.wait_until_ready().await;
        let _ = identities.names.wait_until_ready().await;
        let _ = cuts.names.wait_until_ready().await;
    }

    /// The names of links, for the driver.
    pub fn link_names(&self) -> Names<SecureLink> {
        self.stores.links.names.clone()
    }

    /// The names of identities, for the driver.
    pub fn identity_names(&self) -> Names<LinkIdentity> {
        self.stores.identities.names.clone()
    }

    /// The names of cuts, for the driver.
    pub fn cut_names(&self) -> Names<LinkCut> {
        self.stores.cuts.names.clone()
    }

    /// All links.
    pub fn all_links(&self) -> Vec<LinkRef> {
        self.stores.links.objects.names()
    }

    /// All cuts.
    pub fn all_cuts(&self) -> Vec<LinkRef> {
        self.stores.cuts.objects.names()
    }

    /// All identities.
    pub fn all_identities(&self) -> Vec<LinkRef> {
        self.stores.identities.objects.names()
    }

    /// A link as it is stored, if it is there.
    pub fn held(&self, at: &LinkRef) -> Option<Held<DynamicObject>> {
        self.stores.links.objects.at(at)
    }

    /// Whether a link is there.
    pub fn has_link(&self, at: &LinkRef) -> bool {
        self.stores.links.objects.at(at).is_some()
    }

    /// The links of a namespace, as they are written.
    pub fn links_within(&self, namespace: &str) -> Vec<Arc<DynamicObject>> {
        self.stores.links.objects.within(namespace).iter().filter_map(Held::read).collect()
    }

    /// A link, if it is there.
    pub fn link(&self, at: &LinkRef) -> Option<DeclaredLink> {
        let held = self.stores.links.objects.at(at)?;
        let object = held.read()?;
        let declared = match self.judge(("SecureLink", at), &held, Some(&object))? {
            // It decoded when it was judged.
            Judgment::AsStored => as_stored(&object).map_or_else(
                || Declared::Invalid { value: as_value("SecureLink", &object), problems: Vec::new() },
                |link| Declared::Valid(Box::new(link)),
            ),
            Judgment::Other(judged) => match judged.as_ref() {
                Ok(Object::SecureLink(link)) => Declared::Valid(link.clone()),
                Ok(_) => Declared::Invalid { value: Value::Null, problems: Vec::new() },
                Err((value, problems)) => Declared::Invalid { value: value.clone(), problems: problems.clone() },
            },
        };
        Some(DeclaredLink { object, declared })
    }

    /// An identity, if it is there.
    pub fn identity(&self, at: &LinkRef) -> Option<DeclaredIdentity> {
        let held = self.stores.identities.objects.at(at)?;
        let object = held.read()?;
        let identity = match self.judge(("LinkIdentity", at), &held, Some(&object))?.object() {
            // A judgment is of the spec: the status is as it was read.
            Some(Object::LinkIdentity(identity)) => Some(LinkIdentity {
                status: serde_json::from_value(object.data["status"].clone()).ok(),
                ..identity.as_ref().clone()
            }),
            _ => None,
        };
        Some(DeclaredIdentity { object, identity })
    }

    /// Whether an identity is there.
    pub fn has_identity(&self, at: &LinkRef) -> bool {
        self.stores.identities.objects.at(at).is_some()
    }

    /// The policies.
    pub fn policies(&self) -> Policies {
        let mut policies = Policies::default();
        for at in self.stores.policies.names() {
            let Some(held) = self.stores.policies.at(&at) else { continue };
            let judgment = self.judge(("LinkPolicy", &at), &held, None);
            match judgment.as_ref().and_then(Judgment::object) {
                Some(Object::LinkPolicy(policy)) => policies.valid.push(policy.as_ref().clone()),
                _ => policies.invalid.push(at.name),
            }
        }
        policies
    }

    /// The cuts of a namespace.
    pub fn cuts(&self, namespace: &str) -> Cuts {
        let mut cuts = Cuts::default();
        for held in self.stores.cuts.objects.within(namespace) {
            let Some(object) = held.read() else { continue };
            // Being deleted is to be released: what waits is somebody's finalizer.
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let Some(at) = named(object.as_ref()) else { continue };
            let Some(Judgment::Other(judged)) = self.judge(("LinkCut", &at), &held, Some(&object)) else { continue };
            match judged.as_ref() {
                Ok(Object::LinkCut(cut)) => cuts.valid.push(LinkCut {
                    status: serde_json::from_value(object.data["status"].clone()).ok(),
                    ..cut.as_ref().clone()
                }),
                Err((value, _)) => cuts.invalid.push((at.name, value.clone())),
                Ok(_) => {}
            }
        }
        cuts
    }

    /// Other links between the same two organizations, as they are written.
    pub fn rivals(&self, link: &DynamicObject) -> Vec<Arc<DynamicObject>> {
        let own = |object: &DynamicObject| {
            let name = object.data["spec"]["identityRef"]["name"].as_str()?.to_owned();
            let identity = LinkRef { namespace: object.metadata.namespace.clone()?, name };
            let identity = self.stores.identities.objects.at(&identity)?.read()?;
            identity.data["spec"]["trustDomain"].as_str().map(str::to_owned)
        };
        let Some(to) = peer(link) else { return Vec::new() };
        let uid = link.metadata.uid.as_deref().unwrap_or_default();
        let all = self.peers.of(to).into_iter().filter_map(|at| self.stores.links.objects.at(&at));
        let others = all.filter(|other| other.uid() != uid).filter_map(|other| other.read());
        let others: Vec<_> = others.filter(|other| peer(other) == Some(to)).collect();
        // Most have none: then nobody asks who they are from.
        let Some(from) = (!others.is_empty()).then(|| own(link)).flatten() else { return Vec::new() };
        others.into_iter().filter(|other| own(other).as_ref() == Some(&from)).collect()
    }

    /// The links to an organization, and those that were.
    pub fn links_to(&self, peer: &str) -> Vec<LinkRef> {
        self.peers.of(peer)
    }

    /// The namespaces that exports name.
    pub(super) fn targets(&self) -> HashSet<String> {
        let mut targets = HashSet::new();
        for link in self.stores.links.objects.all().iter().filter_map(Held::read) {
            let exports = link.data["spec"]["exports"].as_array().into_iter().flatten();
            targets.extend(exports.filter_map(|export| export["target"]["namespace"].as_str().map(str::to_owned)));
        }
        targets
    }

    /// The judgment of an object, which is read only where it is another than before.
    fn judge(
        &self,
        (kind, at): (&'static str, &LinkRef),
        held: &Held<DynamicObject>,
        object: Option<&Arc<DynamicObject>>,
    ) -> Option<Judgment> {
        let (key, seen) = ((kind, at.clone()), (held.uid().to_owned(), held.version().map(str::to_owned)));
        if let Some(kept) = self.judged().get(&key).filter(|kept| kept.seen == seen && seen.1.is_some()) {
            return Some(kept.judgment.clone());
        }
        let object = object.map(Arc::clone).or_else(|| held.read())?;
        let declared = without_status(&object);
        if let Some(kept) = self.judged().get_mut(&key).filter(|kept| kept.declared == declared) {
            kept.seen = seen;
            return Some(kept.judgment.clone());
        }
        let value = as_value(kind, &object);
        let judgment = match load::judge(&value, None) {
            Ok(Object::SecureLink(link)) if as_stored(&object).as_ref() == Some(link.as_ref()) => Judgment::AsStored,
            result => Judgment::Other(Arc::new(result.map_err(|problems| (value, problems)))),
        };
        self.judged().insert(key, Kept { seen, declared, judgment: judgment.clone() });
        Some(judgment)
    }

    fn judged(&self) -> MutexGuard<'_, HashMap<(&'static str, LinkRef), Kept>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the judgments of objects that are gone.
    pub fn forget_gone(&self) {
        let Kinds { links, identities, policies, cuts } = &self.stores;
        self.judged().retain(|(kind, at), _| {
            let store = match *kind {
                "SecureLink" => &links.objects,
                "LinkIdentity" => &identities.objects,
                "LinkPolicy" => policies,
                _ => &cuts.objects,
            };
            store.at(at).is_some()
        });
        self.peers.retain(|link| links.objects.at(link).is_some());
    }
}

impl Judgment {
    /// The valid object, of what is kept.
    fn object(&self) -> Option<&Object> {
        match self {
            Self::AsStored => None,
            Self::Other(judged) => judged.as_ref().as_ref().ok(),
        }
    }
}

/// A link as it is stored, without its status; nothing where its spec does not decode.
fn as_stored(object: &DynamicObject) -> Option<SecureLink> {
    let spec = SecureLinkSpec::deserialize(&object.data["spec"]).ok()?;
    Some(SecureLink { metadata: object.metadata.clone(), spec, status: None })
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube::api::ApiResource;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::caches::Driven;
    use crate::caches::names::names;
    use crate::caches::store::Writer;

    fn link(version: &str, name: &str, change: impl FnOnce(&mut Value)) -> DynamicObject {
        let mut object = DynamicObject::new(name, &ApiResource::erase::<SecureLink>(&())).within("n");
        (object.metadata.uid, object.metadata.resource_version) = (Some(name.to_owned()), Some(version.to_owned()));
        object.data = json!({ "spec": {
            "identityRef": { "name": "default" },
            "peer": {
                "trustDomain": "europol.example",
                "fingerprints": [format!("sha256:{}", "0".repeat(64))],
                "endpoints": [{ "host": "link.europol.example", "port": 443 }],
            },
        } });
        change(&mut object.data);
        object
    }

    fn identity() -> DynamicObject {
        let mut object = DynamicObject::new("default", &ApiResource::erase::<LinkIdentity>(&())).within("n");
        object.data = json!({ "spec": { "trustDomain": "interpol.example", "issuer": { "builtIn": {} } } });
        object
    }

    /// Links as they are shown, one after another, with one identity.
    fn declared(shown: &[DynamicObject]) -> (Declarations, Writer<DynamicObject>) {
        let (mut links, mut identities) = (Writer::default(), Writer::default());
        let (policies, cuts) = (Writer::default(), Writer::default());
        identities.apply(&Event::Apply(identity()));
        let (stores, peers) = (
            Kinds {
                links: Driven { objects: links.store(), names: names().0 },
                identities: Driven { objects: identities.store(), names: names().0 },
                policies: policies.store(),
                cuts: Driven { objects: cuts.store(), names: names().0 },
            },
            Arc::new(Peers::default()),
        );
        for object in shown {
            let event = Event::Apply(object.clone());
            links.apply(&event);
            peers.follow(&event, &links.store());
        }
        (Declarations::new(stores, peers), links)
    }

    fn at(name: &str) -> LinkRef {
        LinkRef { namespace: "n".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn nothing_is_kept_of_a_link_that_is_valid_as_it_is_stored_and_what_is_invalid_says_why() {
        let invalid = |data: &mut Value| data["spec"]["peer"]["trustDomain"] = "no domain".into();
        let (declared, _) = declared(&[link("1", "good", |_| {}), link("1", "bad", invalid)]);
        for _ in 0..2 {
            let Declared::Valid(found) = declared.link(&at("good")).unwrap().declared else { panic!("it is valid") };
            assert_eq!((found.spec.peer.trust_domain.as_str(), found.status), ("europol.example", None));
            let Declared::Invalid { value, problems } = declared.link(&at("bad")).unwrap().declared else {
                panic!("it is invalid")
            };
            assert_eq!(value["kind"], "SecureLink");
            assert!(problems.iter().any(|problem| problem.field.contains("trustDomain")), "{problems:?}");
        }
        let judged = declared.judged();
        let as_stored = |name: &str| matches!(judged[&("SecureLink", at(name))].judgment, Judgment::AsStored);
        assert!(as_stored("good") && !as_stored("bad"));
    }

    #[test]
    fn another_version_is_shown_as_it_is_and_judged_anew_when_it_declares_something_else() {
        let (declared, mut links) = declared(&[link("1", "a", |_| {})]);
        let mut show = |version: &str, change: fn(&mut Value)| {
            links.apply(&Event::Apply(link(version, "a", change)));
            let found = declared.link(&at("a")).unwrap();
            let hash = declared.judged()[&("SecureLink", at("a"))].declared;
            (found.object.metadata.resource_version.clone(), matches!(found.declared, Declared::Valid(_)), hash)
        };
        let (first, same) = (show("1", |_| {}), show("2", |data| data["status"] = json!({ "endpoint": 7 })));
        assert_eq!((first.1, same), (true, (Some("2".to_owned()), true, first.2)), "a status is not judged");
        let other = show("3", |data| data["spec"]["peer"]["trustDomain"] = "no domain".into());
        assert_eq!((other.1, other.2 != first.2), (false, true));
    }

    #[test]
    fn links_to_one_organization_from_another_compete_and_what_is_gone_is_forgotten() {
        let elsewhere = |data: &mut Value| data["spec"]["peer"]["trustDomain"] = "other.example".into();
        let shown = [link("1", "a", |_| {}), link("1", "b", |_| {}), link("1", "c", elsewhere)];
        let (declared, mut links) = declared(&shown);
        let rivals = |declared: &Declarations| {
            let found = declared.rivals(&shown[0]);
            found.iter().filter_map(|other| other.metadata.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(rivals(&declared), ["b"]);
        for link in declared.all_links() {
            drop(declared.link(&link));
        }
        links.apply(&Event::Delete(shown[1].clone()));
        assert!(rivals(&declared).is_empty() && !declared.has_link(&at("b")));
        declared.forget_gone();
        assert_eq!((declared.judged().len(), declared.links_to("europol.example")), (2, vec![at("a")]));
    }
}
