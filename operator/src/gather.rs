//! Everything a verdict on one link depends on, from the caches only. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt as _};
use securelink_crds::SecureLinkStatus;
use securelink_crds::conditions::{ConditionType, Reason, find};
use securelink_crds::load::Problem;
use securelink_plan::objects::{ACCEPTED_JSON, RELAY_JSON};
use securelink_plan::{Accepted, Cluster, CutOrder, Declared, Denied, Gathered, Mode, ObjectKind, names};
use securelink_relay_config::{LinkRef, Snapshot};
use serde_json::Value;

use crate::apply::{Kind, Memory};
use crate::caches::{Access, Caches, DeclaredIdentity, DeclaredLink, Held, Space, Store};
use crate::settings::Installed;
use crate::sound::Sound;

/// How long a name counts as taken after a create was refused: the objects of somebody else's Secrets, accounts and the
/// like are not watched.
const TAKEN: Duration = Duration::from_secs(30);

/// Why a link cannot be judged yet. What is missing wakes it when it comes.
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// The caches.
    #[error("the objects of the namespace {0} have not all been seen yet")]
    Starting(String),
}

/// What is known of one link.
pub struct Known {
    /// For the planner.
    pub gathered: Gathered,
    /// The object and its metadata.
    pub declared: DeclaredLink,
    /// Its uid.
    pub uid: String,
    /// What belongs to its namespace; absent where that is denied.
    pub space: Option<Arc<Space>>,
    /// Its leaf's Secret.
    pub leaf: Option<Arc<Secret>>,
    /// The configuration its relays have.
    pub snapshot: Option<Snapshot>,
    /// The version of the `ConfigMap` that says so.
    pub stored: Option<String>,
    /// What is stored and cannot be read, in words. It counts as absent and is written anew.
    pub damaged: Vec<String>,
    /// The identity it names.
    pub identity: Option<DeclaredIdentity>,
    /// Its status now.
    pub status: SecureLinkStatus,
}

/// Objects that a create found to be somebody else's.
#[derive(Debug, Default)]
pub struct TakenNames(Mutex<BTreeMap<Name, Holder>>);

/// Namespace, kind and name.
type Name = (String, ObjectKind, String);

/// How to call whose it is, and since when that is known.
type Holder = (String, Instant);

impl TakenNames {
    /// Remembers one: `holder` is how to call whose it is.
    pub fn remember(&self, namespace: &str, kind: ObjectKind, name: &str, holder: String) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, (_, since)| since.elapsed() < TAKEN);
        taken.insert((namespace.to_owned(), kind, name.to_owned()), (holder, Instant::now()));
    }

    fn of(&self, namespace: &str) -> BTreeMap<(ObjectKind, String), String> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = taken.iter().filter(|((at, ..), (_, since))| at == namespace && since.elapsed() < TAKEN);
        fresh.map(|((_, kind, name), (holder, _))| ((*kind, name.clone()), holder.clone())).collect()
    }
}

/// Where everything is gathered from.
pub struct Sources {
    /// What is watched.
    pub caches: Caches,
    /// What was written and is not seen yet.
    pub memory: Memory,
    /// Names found to be somebody else's.
    pub taken: TakenNames,
    /// What was judged before.
    pub sound: Sound,
    /// What is the same for every link.
    pub installation: Installed,
}

/// Gathers for one link; `None` where there is no such `SecureLink`.
pub fn gather(sources: &Sources, link: &LinkRef) -> Result<Option<Known>, NotYet> {
    let caches = &sources.caches;
    let Some(declared) = caches.declared.link(link) else { return Ok(None) };
    let uid = declared.object.metadata.uid.clone().unwrap_or_default();
    let space = caches.space(&link.namespace);
    let (space, denied) = match space.access() {
        Access::Starting => return Err(NotYet::Starting(link.namespace.clone())),
        Access::Denied(denial) => (None, Some(Denied { verb: denial.verb.to_owned(), resource: denial.resource })),
        Access::Ready => (Some(space), None),
    };
    let of = Of { memory: &sources.memory, link, uid: &uid };
    let stored = space.as_ref().and_then(|space| of.owned(&space.config_maps, &names::relay(&link.name)));
    let leaf = space.as_ref().and_then(|space| of.owned(&space.secrets, &names::leaf(&link.name)));
    let mut damaged = Vec::new();
    let last_accepted = stored.as_deref().and_then(|map| accepted((map, &sources.sound), link, &mut damaged));
    let snapshot = stored.as_deref().and_then(|map| snapshot(map, &mut damaged));
    let judged = guarded(caches, &declared.declared);
    let identity = identity_name(&judged).and_then(|name| {
        caches.declared.identity(&LinkRef { namespace: link.namespace.clone(), name: name.to_owned() })
    });
    let cluster = cluster(sources, &judged, last_accepted.as_ref(), space.as_deref(), &of)?;
    let labels = caches.labels(&link.namespace).map(|namespace| namespace.labels().clone()).unwrap_or_default();
    let policies = caches.declared.policies().valid;
    let status: SecureLinkStatus = serde_json::from_value(declared.object.data["status"].clone()).unwrap_or_default();
    let rival = Rival { object: &declared.object, runs: last_accepted.is_some() || runs(&status) };
    let gathered = Gathered {
        link: link.clone(),
        cuts: orders(caches, link, &judged, last_accepted.as_ref()),
        preferred: preferred(caches, &rival),
        declared: judged,
        last_accepted,
        identity: identity.as_ref().and_then(|identity| identity.identity.clone()),
        identity_invalid: identity.as_ref().is_some_and(|identity| identity.identity.is_none()),
        policies: policies
            .into_iter()
            .filter(|policy| securelink_plan::policy_applies(policy, &link.namespace, Some(&labels)))
            .collect(),
        denied,
        mode: Mode::Cluster(cluster),
    };
    let stored = stored.and_then(|map| map.resource_version());
    Ok(Some(Known { gathered, declared, uid, space, leaf, snapshot, stored, damaged, identity, status }))
}

/// Whose objects are looked up.
struct Of<'a> {
    memory: &'a Memory,
    link: &'a LinkRef,
    uid: &'a str,
}

impl Of<'_> {
    /// An object of the link by its name, if it is its own.
    fn owned<K: Kind>(&self, store: &Store<K>, name: &str) -> Option<Arc<K>> {
        let cached = store.get(&self.link.namespace, name);
        let (latest, _) = self.memory.latest(self.link, name, cached);
        latest.filter(|latest| latest.is_owned(self.uid))?.read()
    }
}

/// Whether the link of that uid controls an object. A label proves nothing (fault F83).
pub fn is_owned<K: Resource>(object: &K, uid: &str) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// How to call whose an object is.
pub fn holder<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let controller = object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    match controller {
        Some(owner) => format!("the {} {}", owner.kind, owner.name),
        None => format!("a {} made by somebody else", K::kind(&())),
    }
}

/// As declared; as invalid while a guard rail cannot be read: nothing new is accepted then.
fn guarded(caches: &Caches, declared: &Declared) -> Declared {
    let invalid = caches.declared.policies().invalid;
    match declared {
        Declared::Valid(link) if !invalid.is_empty() => Declared::Invalid {
            value: serde_json::to_value(link).unwrap_or_default(),
            problems: vec![Problem {
                message: format!("nothing new is accepted while the LinkPolicy {} cannot be read", invalid.join(", ")),
                remedy: "the platform's owner has to mend it".to_owned(),
                ..Problem::default()
            }],
        },
        other => other.clone(),
    }
}

fn identity_name(declared: &Declared) -> Option<&str> {
    match declared {
        Declared::Valid(link) => Some(&link.spec.identity_ref.name),
        Declared::Invalid { value, .. } => value["spec"]["identityRef"]["name"].as_str(),
        Declared::Deleted => None,
    }
}

/// What was accepted last. It is input, not truth: one that would not be accepted any more counts for nothing.
fn accepted((map, sound): (&ConfigMap, &Sound), link: &LinkRef, damaged: &mut Vec<String>) -> Option<Accepted> {
    let text = map.data.as_ref()?.get(ACCEPTED_JSON)?;
    read(sound.read(text, link), (map, ACCEPTED_JSON), damaged)
}

fn snapshot(map: &ConfigMap, damaged: &mut Vec<String>) -> Option<Snapshot> {
    let text = map.data.as_ref()?.get(RELAY_JSON)?;
    read(Snapshot::from_bytes(text.as_bytes()), (map, RELAY_JSON), damaged)
}

fn read<T, E: Display>(result: Result<T, E>, (map, key): (&ConfigMap, &str), damaged: &mut Vec<String>) -> Option<T> {
    let describe =
        |error| damaged.push(format!("{key} in the ConfigMap {} counts for nothing: {error}", map.name_any()));
    result.map_err(describe).ok()
}

fn orders(caches: &Caches, link: &LinkRef, declared: &Declared, accepted: Option<&Accepted>) -> Vec<CutOrder> {
    let (peers, cuts) = (securelink_plan::peer_names(declared, accepted), caches.declared.cuts(&link.namespace));
    let mut orders = securelink_plan::cut_orders(&cuts.valid, link, &peers);
    orders.extend(
        cuts.invalid
            .iter()
            .filter_map(|(name, value)| securelink_plan::salvage_cut(value, (&link.namespace, name), link, &peers)),
    );
    orders
}

/// One of several links between the same two organizations.
struct Rival<'a> {
    object: &'a DynamicObject,
    runs: bool,
}

impl Rival<'_> {
    /// The least is accepted: one that runs before one that does not, then the oldest, then the lowest uid (contracts 8).
    fn rank(&self) -> impl Ord {
        let metadata = &self.object.metadata;
        (!self.runs, metadata.creation_timestamp.as_ref().map(|at| at.0), metadata.uid.clone())
    }
}

/// Another link between the same two organizations that is accepted rather than this one. One that nothing would come of
/// keeps nobody from theirs, and none that runs gives way to one that does not: whoever may make links somewhere must not be
/// able to end another's.
fn preferred(caches: &Caches, link: &Rival<'_>) -> Option<LinkRef> {
    let others = caches.declared.rivals(link.object);
    let counts = others.iter().filter_map(|object| {
        let status: SecureLinkStatus = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
        let rival = Rival { object, runs: runs(&status) };
        let refused = find(&status.conditions, ConditionType::Accepted)
            .is_some_and(|accepted| accepted.status != "True" && accepted.reason != Reason::DuplicatePeer.as_str());
        let ends = object.metadata.deletion_timestamp.is_some();
        (rival.runs || !(refused || ends)).then_some(rival)
    });
    let first = counts.min_by(|a, b| a.rank().cmp(&b.rank()))?;
    (first.rank() < link.rank()).then(|| crate::caches::named(first.object)).flatten()
}

/// Whether relays of a link run: a certificate is issued only once it was accepted, and stays with it.
fn runs(status: &SecureLinkStatus) -> bool {
    status.certificate.is_some()
}

/// The cluster as the link sees it.
fn cluster(
    sources: &Sources,
    declared: &Declared,
    accepted: Option<&Accepted>,
    space: Option<&Space>,
    of: &Of<'_>,
) -> Result<Cluster, NotYet> {
    let link = of.link;
    let mut cluster = Cluster {
        services: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        foreign: sources.taken.of(&link.namespace),
        installation: sources.installation.now(),
    };
    let Some(space) = space else { return Ok(cluster) };
    for (export, namespace, name) in targets(declared, accepted, &link.namespace) {
        let service = if namespace == link.namespace {
            space.services.get(&namespace, &name)
        } else {
            // Nothing is watched for a slip of the pen.
            if sources.caches.labels(&namespace).is_none() {
                continue;
            }
            let target = sources.caches.target(&namespace);
            match target.access() {
                Access::Starting => return Err(NotYet::Starting(namespace)),
                Access::Denied(denial) => {
                    cluster.unreadable.insert(namespace.clone(), format!("{} {}", denial.verb, denial.resource));
                    None
                }
                Access::Ready => target.services.get(&namespace, &name),
            }
        };
        if let Some(service) = service.as_ref().and_then(Held::read) {
            cluster.services.insert(export, Arc::unwrap_or_clone(service));
        }
    }
    for (kind, name) in needed(declared, accepted, link) {
        if let Some(holder) = foreign(space, kind, &ObjectName { link, name: &name, uid: of.uid }) {
            cluster.foreign.insert((kind, name), holder);
        }
    }
    Ok(cluster)
}

/// The objects that a link needs, by the spec as it is and by the one accepted last. Others of its namespace are not looked at:
/// with many links there, that would be most of what is done for one.
fn needed(declared: &Declared, accepted: Option<&Accepted>, link: &LinkRef) -> BTreeSet<(ObjectKind, String)> {
    let now = match declared {
        Declared::Valid(link) => Some(&link.spec),
        _ => None,
    };
    let specs = now.into_iter().chain(accepted.map(|accepted| &accepted.spec));
    specs.flat_map(|spec| names::needed(&link.name, spec)).map(|needed| (needed.kind, needed.name)).collect()
}

/// An object that a link needs.
struct ObjectName<'a> {
    link: &'a LinkRef,
    name: &'a str,
    uid: &'a str,
}

/// Whose an object is, if it is not the link's.
fn foreign(space: &Space, kind: ObjectKind, wanted: &ObjectName<'_>) -> Option<String> {
    match kind {
        ObjectKind::ServiceAccount => wanted.holder(&space.service_accounts),
        ObjectKind::Secret => wanted.holder(&space.secrets),
        ObjectKind::ConfigMap => wanted.holder(&space.config_maps),
        ObjectKind::NetworkPolicy => wanted.holder(&space.network_policies),
        ObjectKind::Service => wanted.holder(&space.services),
        ObjectKind::PodDisruptionBudget => wanted.holder(&space.disruption_budgets),
        ObjectKind::Deployment => wanted.holder(&space.deployments),
    }
}

impl ObjectName<'_> {
    fn holder<K: Kind>(&self, store: &Store<K>) -> Option<String> {
        let found = store.get(&self.link.namespace, self.name).filter(|found| !found.is_owned(self.uid))?;
        Some(holder(found.read()?.as_ref()))
    }
}

/// The Services that exports name, of the spec as it is and of the one accepted last: export, namespace, name.
fn targets(declared: &Declared, accepted: Option<&Accepted>, here: &str) -> Vec<(String, String, String)> {
    let now = match declared {
        Declared::Valid(link) => serde_json::to_value(&link.spec.exports).unwrap_or_default(),
        Declared::Invalid { value, .. } => value["spec"]["exports"].clone(),
        Declared::Deleted => Value::Null,
    };
    // Last, so that of an export whose target an edit changes the one that runs is known when the edit is invalid.
    let valid = matches!(declared, Declared::Valid(_));
    let before = accepted.filter(|_| !valid).map(|old| serde_json::to_value(&old.spec.exports).unwrap_or_default());
    let of = |exports: &Value| {
        let target = |export: &Value| {
            let target = &export["target"];
            Some((
                export["name"].as_str()?.to_owned(),
                target["namespace"].as_str().unwrap_or(here).to_owned(),
                target["service"].as_str()?.to_owned(),
            ))
        };
        exports.as_array().into_iter().flatten().filter_map(target).collect::<Vec<_>>()
    };
    of(&now).into_iter().chain(before.iter().flat_map(of)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_services_of_an_invalid_edit_are_those_that_run() {
        let value = json!({"spec": {"exports": [
            {"name": "a", "target": {"service": "one", "port": 1}},
            {"name": "b", "target": {"service": "two", "namespace": "records", "port": 1}},
            {"name": "c", "target": {"host": "10.0.0.1", "port": 1}},
        ]}});
        let declared = Declared::Invalid { value, problems: Vec::new() };
        let found = targets(&declared, None, "liaison");
        let expected = [("a", "liaison", "one"), ("b", "records", "two")];
        assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn a_name_is_taken_for_a_while_and_in_its_namespace_only() {
        let taken = TakenNames::default();
        taken.remember("liaison", ObjectKind::Secret, "europol-leaf", "a Secret made by somebody else".to_owned());
        assert_eq!(taken.of("liaison").len(), 1);
        assert!(taken.of("other").is_empty());
    }
}
