//! What a watch shows, kept small: of each object its text, packed, and read again whenever somebody looks. As values of their
//! types objects take many times the memory (docs/scale.md). Beside the text stands what most looks are for, so that they
//! read none.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use securelink_crds::keys::LINK;
use securelink_plan::selects_only;
use securelink_relay_config::LinkRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::text::{Pattern, Text, is_better};

/// Objects by namespace, which is empty for those without one, and name.
type Objects = BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<Kept>>>;

/// One object.
struct Kept {
    uid: Box<str>,
    version: Option<Box<str>>,
    /// The uid of its controller.
    owner: Option<Box<str>>,
    /// The link that it concerns, as it says itself.
    link: Option<Box<str>>,
    /// All of it, in JSON.
    text: Text,
}

/// Objects of a kind as a watch shows them. Cheap to clone.
pub struct Store<K> {
    objects: Arc<RwLock<Objects>>,
    ready: watch::Receiver<bool>,
    kind: PhantomData<fn() -> K>,
}

/// Keeps a store.
pub struct Writer<K> {
    objects: Arc<RwLock<Objects>>,
    /// What is being listed: until all of it is there, the store stays as it was.
    listed: Objects,
    /// By what objects are packed from now on.
    pattern: Option<Pattern>,
    ready: watch::Sender<bool>,
    kind: PhantomData<fn() -> K>,
}

/// An object in a store. Cheap to clone.
pub struct Held<K> {
    kept: Arc<Kept>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { objects: Arc::clone(&self.objects), ready: self.ready.clone(), kind: PhantomData }
    }
}

impl<K> Clone for Held<K> {
    fn clone(&self) -> Self {
        Self::of(&self.kept)
    }
}

impl<K> Default for Writer<K> {
    fn default() -> Self {
        let (objects, listed) = (Arc::default(), Objects::default());
        Self { objects, listed, pattern: None, ready: watch::Sender::new(false), kind: PhantomData }
    }
}

impl<K: Resource + Serialize + 'static> Writer<K> {
    /// What it keeps.
    pub fn store(&self) -> Store<K> {
        Store { objects: Arc::clone(&self.objects), ready: self.ready.subscribe(), kind: PhantomData }
    }

    /// Follows an event.
    pub fn apply(&mut self, event: &Event<K>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => put(&mut self.listed, &mut self.pattern, object),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                // What was there is dropped after the lock.
                let _old = std::mem::replace(&mut *write(&self.objects), listed);
                self.ready.send_replace(true);
            }
            Event::Apply(object) => put(&mut write(&self.objects), &mut self.pattern, object),
            Event::Delete(object) => remove(&mut write(&self.objects), object.meta()),
        }
    }
}

impl<K> Store<K> {
    /// Returns when everything has been seen once, or when nobody keeps the store any more.
    pub async fn seen(&self) {
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// An object by its namespace, which is empty where its kind has none, and its name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Held<K>> {
        self.lock().get(namespace)?.get(name).map(Held::of)
    }

    /// An object of our own kinds.
    pub fn at(&self, at: &LinkRef) -> Option<Held<K>> {
        self.get(&at.namespace, &at.name)
    }

    /// Where all objects are.
    pub fn names(&self) -> Vec<LinkRef> {
        let mut names = Vec::new();
        for (namespace, within) in self.lock().iter() {
            names
                .extend(within.keys().map(|name| LinkRef { namespace: namespace.to_string(), name: name.to_string() }));
        }
        names
    }

    /// All objects, by their names.
    pub fn all(&self) -> Vec<Held<K>> {
        self.lock().values().flat_map(BTreeMap::values).map(Held::of).collect()
    }

    /// All objects of a namespace, by their names.
    pub fn within(&self, namespace: &str) -> Vec<Held<K>> {
        self.lock().get(namespace).into_iter().flat_map(BTreeMap::values).map(Held::of).collect()
    }

    /// All objects that say that they concern a link of this name, by their names; or no link.
    pub fn concerning(&self, link: Option<&str>) -> Vec<Held<K>> {
        let objects = self.lock();
        let all = objects.values().flat_map(BTreeMap::values);
        all.filter(|kept| kept.link.as_deref() == link).map(Held::of).collect()
    }

    fn lock(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Held<K> {
    fn of(kept: &Arc<Kept>) -> Self {
        Self { kept: Arc::clone(kept), kind: PhantomData }
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        &self.kept.uid
    }

    /// Its resourceVersion.
    pub fn version(&self) -> Option<&str> {
        self.kept.version.as_deref()
    }

    /// Whether the object of that uid controls it. A label proves nothing (fault F83).
    pub fn is_owned(&self, uid: &str) -> bool {
        self.kept.owner.as_deref() == Some(uid)
    }
}

impl<K: DeserializeOwned> Held<K> {
    /// The object itself. What was written here can be read here: nothing comes of a fault of ours only.
    pub fn read(&self) -> Option<Arc<K>> {
        let read = self.kept.text.read().and_then(|text| serde_json::from_slice(&text).ok());
        if read.is_none() {
            tracing::error!(uid = self.uid(), "an object that is kept cannot be read");
        }
        read.map(Arc::new)
    }
}

fn write(objects: &RwLock<Objects>) -> RwLockWriteGuard<'_, Objects> {
    objects.write().unwrap_or_else(PoisonError::into_inner)
}

fn put<K: Resource + Serialize + 'static>(objects: &mut Objects, pattern: &mut Option<Pattern>, object: &K) {
    let metadata = object.meta();
    // Plain values: they always serialize.
    let Ok(text) = serde_json::to_vec(object) else { return remove(objects, metadata) };
    let open = open(object);
    let open = open.as_ref().unwrap_or(&text);
    if is_better(open, pattern.as_ref()) {
        *pattern = Some(open.as_slice().into());
    }
    let boxed = |text: &String| text.as_str().into();
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let kept = Kept {
        uid: metadata.uid.as_ref().map(boxed).unwrap_or_default(),
        version: metadata.resource_version.as_ref().map(boxed),
        owner: owner.map(|owner| boxed(&owner.uid)),
        link: concerned(object).map(Into::into),
        text: Text::of(&text, pattern.as_ref()),
    };
    let (namespace, name) = key(metadata);
    // Looked up first: most objects of a namespace share its name.
    let within = match objects.get_mut(namespace) {
        Some(within) => within,
        None => objects.entry(namespace.into()).or_default(),
    };
    within.insert(name.into(), Arc::new(kept));
}

fn remove(objects: &mut Objects, metadata: &ObjectMeta) {
    let (namespace, name) = key(metadata);
    if let Some(within) = objects.get_mut(namespace) {
        within.remove(name);
        if within.is_empty() {
            objects.remove(namespace);
        }
    }
}

fn key(metadata: &ObjectMeta) -> (&str, &str) {
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// What may stay of an object as long as any other is there: of a Secret nothing that is secret.
fn open<K: 'static>(object: &K) -> Option<Vec<u8>> {
    let mut secret = (object as &dyn Any).downcast_ref::<Secret>()?.clone();
    // Who applied it may have left all of it in an annotation.
    (secret.metadata.annotations, secret.string_data) = (None, None);
    secret.data.get_or_insert_default().retain(|file, _| Path::new(file).extension().is_some_and(|kind| kind == "crt"));
    serde_json::to_vec(&secret).ok()
}

/// The link that an object concerns: by its label, a policy by whose relays it selects.
fn concerned<K: Resource + 'static>(object: &K) -> Option<&str> {
    match (object as &dyn Any).downcast_ref::<NetworkPolicy>() {
        Some(policy) => selects_only(policy),
        None => object.meta().labels.as_ref()?.get(LINK).map(String::as_str),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    fn map(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let metadata = json!({
            "namespace": namespace, "name": name, "uid": format!("{namespace}/{name}"), "resourceVersion": version,
            "labels": { LINK: name }, "annotations": {},
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "A", "name": "a", "uid": "beside" },
                { "apiVersion": "v1", "kind": "A", "name": "a", "uid": "owner", "controller": true },
            ],
        });
        serde_json::from_value(json!({ "metadata": metadata, "data": { "text": "\u{fc}\n" } })).unwrap()
    }

    fn listed(writer: &mut Writer<ConfigMap>, maps: &[ConfigMap]) {
        writer.apply(&Event::Init);
        for map in maps {
            writer.apply(&Event::InitApply(map.clone()));
        }
        writer.apply(&Event::InitDone);
    }

    fn names(store: &Store<ConfigMap>) -> Vec<String> {
        store.names().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_object_is_read_as_it_was_shown_and_is_known_without_reading() {
        let (mut writer, one) = (Writer::default(), map("n", "a", "7"));
        let store = writer.store();
        writer.apply(&Event::Apply(one.clone()));
        let held = store.get("n", "a").unwrap();
        assert_eq!((held.uid(), held.version()), ("n/a", Some("7")));
        assert!(held.is_owned("owner") && !held.is_owned("beside") && !held.is_owned(""));
        assert_eq!(*held.read().unwrap(), one);
        assert!(store.get("m", "a").is_none() && store.get("", "a").is_none());
    }

    #[test]
    fn a_list_replaces_all_at_once_when_it_is_complete() {
        let mut writer = Writer::default();
        let store = writer.store();
        listed(&mut writer, &[map("n", "a", "1"), map("n", "b", "1")]);
        writer.apply(&Event::Init);
        writer.apply(&Event::InitApply(map("n", "lost", "2")));
        // The list broke off, and begins anew.
        writer.apply(&Event::Init);
        writer.apply(&Event::InitApply(map("n", "b", "2")));
        writer.apply(&Event::InitApply(map("m", "c", "2")));
        assert_eq!(names(&store), ["n/a", "n/b"], "what is listed does not count yet");
        writer.apply(&Event::InitDone);
        assert_eq!(names(&store), ["m/c", "n/b"], "what was deleted meanwhile is gone");
        assert_eq!(store.get("n", "b").unwrap().version(), Some("2"));
    }

    #[test]
    fn what_changes_is_replaced_and_what_is_deleted_goes() {
        let mut writer = Writer::default();
        let store = writer.store();
        listed(&mut writer, &[map("n", "a", "1"), map("m", "b", "1")]);
        writer.apply(&Event::Apply(map("n", "a", "2")));
        let before = store.get("n", "a").unwrap();
        writer.apply(&Event::Delete(map("n", "a", "3")));
        assert_eq!((names(&store), before.version()), (vec!["m/b".to_owned()], Some("2")));
        assert!(store.within("n").is_empty() && store.lock().get("n").is_none());
        assert_eq!((store.all().len(), store.within("m").len()), (1, 1));
    }

    #[tokio::test]
    async fn a_store_is_seen_when_its_first_list_is_complete_by_all_who_wait() {
        let mut writer = Writer::<ConfigMap>::default();
        let (one, other) = (writer.store(), writer.store());
        let waiting = [one, other].map(|store| tokio::spawn(async move { store.seen().await }));
        writer.apply(&Event::Apply(map("n", "a", "1")));
        writer.apply(&Event::Init);
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        writer.apply(&Event::InitDone);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        let late = writer.store();
        drop(writer);
        late.seen().await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_store_that_is_kept_no_more() {
        let writer = Writer::<ConfigMap>::default();
        let store = writer.store();
        drop(writer);
        store.seen().await;
    }

    #[test]
    fn a_secret_that_is_gone_leaves_nothing_secret_behind() {
        let secret = |name: &str| -> Secret {
            let data = json!({ "tls.key": "c2VjcmV0", "tls.crt": "b3Blbg==", "password": "c2VjcmV0" });
            let metadata = json!({ "namespace": "n", "name": name, "annotations": { "applied": "c2VjcmV0" } });
            serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
        };
        let mut writer = Writer::default();
        let store = writer.store();
        writer.apply(&Event::Apply(secret("a")));
        writer.apply(&Event::Delete(secret("a")));
        let pattern = writer.pattern.clone().unwrap();
        let left: Value = serde_json::from_slice(&pattern).unwrap();
        assert_eq!(left["data"], json!({ "tls.crt": "b3Blbg==" }));
        assert!(!String::from_utf8_lossy(&pattern).contains("c2VjcmV0"));
        writer.apply(&Event::Apply(secret("b")));
        assert_eq!(*store.get("n", "b").unwrap().read().unwrap(), secret("b"));
        assert!(Arc::ptr_eq(&pattern, writer.pattern.as_ref().unwrap()), "the next is no better");
    }

    #[test]
    fn objects_are_found_by_the_link_that_they_are_labelled_with() {
        let mut writer = Writer::default();
        let store = writer.store();
        let mut bare = map("n", "bare", "1");
        bare.metadata.labels = None;
        listed(&mut writer, &[map("n", "a", "1"), map("n", "b", "1"), bare]);
        let found = |link| store.concerning(link).iter().map(|held| held.uid().to_owned()).collect::<Vec<_>>();
        assert_eq!(found(Some("a")), ["n/a"]);
        assert_eq!((found(None), found(Some("c"))), (vec!["n/bare".to_owned()], vec![]));
    }

    #[test]
    fn f82_a_policy_concerns_the_link_whose_relays_it_selects_whatever_it_is_labelled() {
        let policy = |name: &str, spec: Value| -> NetworkPolicy {
            let metadata = json!({ "namespace": "n", "name": name, "labels": { LINK: "claimed" } });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
        };
        let mut writer = Writer::default();
        let store = writer.store();
        writer.apply(&Event::Apply(policy("one", json!({ "podSelector": { "matchLabels": { LINK: "a" } } }))));
        writer.apply(&Event::Apply(policy("all", json!({ "podSelector": {} }))));
        let found = |link| {
            let held = store.concerning(link);
            held.iter().filter_map(|held| held.read()?.metadata.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found(Some("a")), ["one"]);
        assert_eq!((found(None), found(Some("claimed"))), (vec!["all".to_owned()], vec![]));
    }
}
