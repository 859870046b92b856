//! What was written lately: caches lag, and what they do not show yet must not be written twice.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use securelink_plan::ObjectKind;
use securelink_plan::drift::Differences;
use securelink_relay_config::LinkRef;
use serde_json::Value;

use super::Kind;
use crate::caches::Held;
use crate::gather::is_owned;
use crate::keyed;

/// For how long what was written counts although the cache does not show it: beyond, the cache is believed (fault F10).
pub const LAG: Duration = Duration::from_secs(5);
/// Repairs of one object that are made at once; each further one waits, twice as long as the one before.
const AT_ONCE: u32 = 5;
/// Between two repairs of an object that others keep changing: at first and at last. The last is short, because what they
/// change may be a network policy.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));
/// After as long without a repair, those before are forgotten.
const QUIET: Duration = Duration::from_mins(10);

/// What was written lately, of all links. It stays as long as they do, and is kept small.
#[derive(Default)]
pub struct Memory(Mutex<Links>);

#[derive(Default)]
struct Links(HashMap<LinkRef, BTreeMap<(ObjectKind, Box<str>), Entry>>);

#[derive(Default)]
struct Entry {
    /// The object as the API server answered, and when, until the cache shows it.
    written: Option<Box<(Arc<dyn Any + Send + Sync>, Instant)>>,
    /// The uid of one that was deleted.
    removed: Option<Box<str>>,
    /// Hash of what was wanted.
    wanted: Option<u64>,
    /// What differed right after a write: somebody else's doing that is not fought over.
    settled: Option<Box<Differences>>,
    /// The version that was found to need nothing, and a hash of what it was held against.
    in_place: Option<(Box<str>, u64)>,
    /// How often others' changes were put right, and when last.
    repairs: Option<Box<(u32, Instant)>>,
}

impl Links {
    fn get(&self, kind: ObjectKind, link: &LinkRef, name: &str) -> Option<&Entry> {
        self.0.get(link)?.get(&(kind, name.into()))
    }

    fn get_mut(&mut self, kind: ObjectKind, link: &LinkRef, name: &str) -> Option<&mut Entry> {
        self.0.get_mut(link)?.get_mut(&(kind, name.into()))
    }

    fn of(&mut self, kind: ObjectKind, link: &LinkRef, name: &str) -> &mut Entry {
        self.0.entry(link.clone()).or_default().entry((kind, name.into())).or_default()
    }
}

/// The newest that is known of an object.
pub enum Latest<K> {
    /// What the cache shows.
    Seen(Held<K>),
    /// What was written, and the cache does not show yet.
    Written(Arc<K>),
}

impl<K: Kind> Latest<K> {
    /// Its resourceVersion.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Seen(held) => held.version(),
            Self::Written(object) => object.meta().resource_version.as_deref(),
        }
    }

    /// Whether the link of that uid controls it.
    pub fn is_owned(&self, uid: &str) -> bool {
        match self {
            Self::Seen(held) => held.is_owned(uid),
            Self::Written(object) => is_owned(object.as_ref(), uid),
        }
    }

    /// The object itself.
    pub fn read(&self) -> Option<Arc<K>> {
        match self {
            Self::Seen(held) => held.read(),
            Self::Written(object) => Some(Arc::clone(object)),
        }
    }
}

impl Memory {
    /// The newer of what the cache shows and what was written; whether the cache lags.
    pub fn latest<K: Kind>(&self, link: &LinkRef, name: &str, cached: Option<Held<K>>) -> (Option<Latest<K>>, bool) {
        let seen = |cached: Option<Held<K>>| (cached.map(Latest::Seen), false);
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(K::KIND, link, name) else { return seen(cached) };
        entry.written.take_if(|written| written.1.elapsed() >= LAG);
        let written = entry.written.as_ref().and_then(|written| Arc::clone(&written.0).downcast::<K>().ok());
        match (written, cached) {
            (Some(written), Some(cached))
                if version(written.resource_version().as_deref()) <= version(cached.version()) =>
            {
                entry.written = None;
                seen(Some(cached))
            }
            (Some(written), _) => (Some(Latest::Written(written)), true),
            (None, cached) => seen(cached),
        }
    }

    /// Remembers an answer.
    pub fn written<K: Kind>(&self, link: &LinkRef, wanted: &Value, object: K) -> Arc<K> {
        let object = Arc::new(lean(object));
        let mut entries = self.lock();
        let entry = entries.of(K::KIND, link, &object.name_any());
        entry.written = Some(Box::new((Arc::clone(&object) as Arc<dyn Any + Send + Sync>, Instant::now())));
        entry.wanted = Some(keyed::hash(wanted));
        entry.settled = None;
        object
    }

    /// Remembers an object that is there although the cache does not show it.
    pub fn found<K: Kind>(&self, link: &LinkRef, object: K) -> Arc<K> {
        let object = Arc::new(lean(object));
        let mut entries = self.lock();
        let entry = entries.of(K::KIND, link, &object.name_any());
        entry.written = Some(Box::new((Arc::clone(&object) as Arc<dyn Any + Send + Sync>, Instant::now())));
        object
    }

    /// Counts a repair that is about to be made; or for how long it has to wait.
    pub fn repair(&self, kind: ObjectKind, link: &LinkRef, name: &str) -> Option<Duration> {
        let mut entries = self.lock();
        let entry = entries.of(kind, link, name);
        let (count, last) = entry.repairs.as_deref().copied().filter(|(_, last)| last.elapsed() < QUIET).unzip();
        let count = count.unwrap_or_default();
        let left = last.and_then(|last| pause(count).checked_sub(last.elapsed())).filter(|left| !left.is_zero());
        if left.is_none() {
            entry.repairs = Some(Box::new((count.saturating_add(1), Instant::now())));
        }
        left
    }

    /// Forgets an object that turned out to be another one, or none.
    pub fn forget(&self, kind: ObjectKind, link: &LinkRef, name: &str) {
        if let Some(of) = self.lock().0.get_mut(link) {
            of.remove(&(kind, name.into()));
        }
    }

    /// Whether just this was wanted, and in place, before: what differs then was changed by others.
    pub fn wanted_before(&self, kind: ObjectKind, link: &LinkRef, name: &str, wanted: &Value) -> bool {
        self.lock().get(kind, link, name).is_some_and(|entry| entry.wanted == Some(keyed::hash(wanted)))
    }

    /// Remembers that this is in place, and what differs all the same.
    pub fn settle(&self, kind: ObjectKind, link: &LinkRef, name: &str, wanted: &Value, found: &Differences) {
        let mut entries = self.lock();
        let entry = entries.of(kind, link, name);
        entry.wanted = Some(keyed::hash(wanted));
        let differs = !found.is_empty();
        if differs {
            tracing::warn!(%link, %kind, name, missing = ?found.missing, surplus = ?found.surplus, "something in this cluster changes an object at once after it is written; it is left so");
        }
        entry.settled = differs.then(|| Box::new(found.clone()));
    }

    /// Whether just these differences were there right after a write of the same.
    pub fn is_settled(
        &self,
        kind: ObjectKind,
        link: &LinkRef,
        name: &str,
        wanted: &Value,
        found: &Differences,
    ) -> bool {
        let entries = self.lock();
        let entry = entries.get(kind, link, name);
        entry.is_some_and(|entry| entry.wanted == Some(keyed::hash(wanted)) && entry.settled.as_deref() == Some(found))
    }

    /// Remembers that just this version of an object needs nothing to be what has this hash.
    pub fn in_place<K: Kind>(&self, link: &LinkRef, live: &K, digest: u64) {
        let mut entries = self.lock();
        let entry = entries.of(K::KIND, link, &live.name_any());
        entry.in_place = live.resource_version().map(|version| (version.into(), digest));
    }

    /// Whether that is remembered: comparing the two again would find nothing.
    pub fn is_in_place<K: Kind>(&self, link: &LinkRef, (name, version): (&str, Option<&str>), digest: u64) -> bool {
        let entries = self.lock();
        let known = entries.get(K::KIND, link, name).and_then(|entry| entry.in_place.as_ref());
        known.is_some_and(|(of, known)| *known == digest && version == Some(of))
    }

    /// Remembers that an object was deleted.
    pub fn removed<K: Kind>(&self, link: &LinkRef, object: &K) {
        let entry = Entry { removed: object.uid().map(Into::into), ..Entry::default() };
        *self.lock().of(K::KIND, link, &object.name_any()) = entry;
    }

    /// Whether an object that the cache shows was deleted.
    pub fn is_gone<K: Kind>(&self, link: &LinkRef, object: &K) -> bool {
        let entries = self.lock();
        let entry = entries.get(K::KIND, link, &object.name_any());
        entry.is_some_and(|entry| entry.removed.is_some() && entry.removed.as_deref() == object.uid().as_deref())
    }

    /// Forgets all of a link that is gone.
    pub fn forget_link(&self, link: &LinkRef) {
        self.lock().0.remove(link);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object as the caches have it. Who manages which field takes ten times the memory of the object, and nobody reads it.
fn lean<K: Kind>(mut object: K) -> K {
    object.managed_fields_mut().clear();
    object
}

/// How long after the last of `count` repairs the next one may be made.
fn pause(count: u32) -> Duration {
    match count.checked_sub(AT_ONCE) {
        Some(more) => PAUSES.0.saturating_mul(1 << more.min(16)).min(PAUSES.1),
        None => Duration::ZERO,
    }
}

/// A resourceVersion as a number, which it is for every kind written here; 0 where it is none.
fn version(of: Option<&str>) -> u64 {
    of.and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceAccount;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::caches::Writer;

    fn account(version: &str) -> ServiceAccount {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some("a".to_owned());
        account.metadata.uid = Some("1".to_owned());
        account.metadata.resource_version = Some(version.to_owned());
        account
    }

    fn link() -> LinkRef {
        LinkRef { namespace: "n".to_owned(), name: "l".to_owned() }
    }

    #[test]
    fn what_was_written_counts_until_the_cache_shows_it() {
        let (memory, link) = (Memory::default(), link());
        memory.written(&link, &json!(1), account("7"));
        let latest = |cached: Option<&str>| {
            let mut cache = Writer::default();
            if let Some(at) = cached {
                cache.apply(&Event::Apply(account(at)));
            }
            let (found, lags) = memory.latest(&link, "a", cache.store().get("", "a"));
            (found.and_then(|found| found.version().map(str::to_owned)), lags)
        };
        assert_eq!(latest(None), (Some("7".to_owned()), true));
        assert_eq!(latest(Some("6")), (Some("7".to_owned()), true));
        assert_eq!(latest(Some("10")), (Some("10".to_owned()), false));
        assert_eq!(latest(None), (None, false), "seen once, its absence is a deletion");
    }

    #[test]
    fn an_object_that_was_written_is_kept_no_longer_than_it_counts_and_all_goes_with_its_link() {
        let (memory, link, mut cache) = (Memory::default(), link(), Writer::default());
        let keeps = || memory.lock().0.values().flat_map(BTreeMap::values).any(|entry| entry.written.is_some());
        let written = || drop(memory.written(&link, &json!(1), account("7")));
        written();
        assert!(keeps());
        cache.apply(&Event::Apply(account("7")));
        memory.latest(&link, "a", cache.store().get("", "a"));
        assert!(!keeps(), "the cache shows it");
        written();
        for of in memory.lock().0.values_mut().flat_map(BTreeMap::values_mut) {
            of.written.iter_mut().for_each(|written| written.1 -= LAG);
        }
        assert!(memory.latest::<ServiceAccount>(&link, "a", None).0.is_none());
        assert!(!keeps(), "the cache is believed");
        memory.forget_link(&link);
        assert!(memory.lock().0.is_empty());
    }

    #[test]
    fn of_what_was_written_no_more_is_kept_than_the_caches_keep() {
        let (memory, link, mut account) = (Memory::default(), link(), account("7"));
        account.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        assert_eq!(memory.written(&link, &json!(1), account.clone()).managed_fields(), []);
        assert_eq!(memory.found(&link, account).managed_fields(), []);
    }

    #[test]
    fn what_is_in_place_is_not_compared_again_until_either_side_changes() {
        let (memory, link) = (Memory::default(), link());
        let wanted = |name: &str| keyed::hash(&json!({ "spec": name }));
        let is_in_place =
            |version: &str, digest| memory.is_in_place::<ServiceAccount>(&link, ("a", Some(version)), digest);
        assert!(!is_in_place("7", wanted("a")));
        memory.in_place(&link, &account("7"), wanted("a"));
        assert!(is_in_place("7", wanted("a")));
        assert!(!is_in_place("8", wanted("a")), "somebody wrote it");
        assert!(!is_in_place("7", wanted("b")), "something else is wanted");
        memory.forget(ObjectKind::ServiceAccount, &link, "a");
        assert!(!is_in_place("7", wanted("a")));
    }

    #[test]
    fn a_few_repairs_are_made_at_once_and_further_ones_wait() {
        let (memory, link) = (Memory::default(), link());
        let repair = || memory.repair(ObjectKind::Deployment, &link, "a");
        assert_eq!([repair(), repair(), repair(), repair(), repair()], [None; 5]);
        assert!(repair().is_some_and(|left| left <= PAUSES.0));
        assert!(memory.repair(ObjectKind::Service, &link, "a").is_none(), "each object by itself");
        let pauses = [4, 5, 6, 7, 8, 9, u32::MAX].map(|count| pause(count).as_secs());
        assert_eq!(pauses, [0, 5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_difference_is_drift_only_where_the_same_was_in_place_and_is_not_fought_over_twice() {
        let (memory, link) = (Memory::default(), link());
        let differs = Differences { missing: vec!["spec.replicas".to_owned()], surplus: Vec::new() };
        let kind = ObjectKind::Deployment;
        assert!(!memory.wanted_before(kind, &link, "a", &json!(1)));
        memory.settle(kind, &link, "a", &json!(1), &Differences::default());
        assert!(memory.wanted_before(kind, &link, "a", &json!(1)));
        assert!(!memory.wanted_before(kind, &link, "a", &json!(2)));
        assert!(!memory.is_settled(kind, &link, "a", &json!(1), &differs));
        memory.settle(kind, &link, "a", &json!(1), &differs);
        assert!(memory.is_settled(kind, &link, "a", &json!(1), &differs));
        assert!(!memory.is_settled(kind, &link, "a", &json!(2), &differs));
    }
}
