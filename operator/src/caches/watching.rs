//! One watch: a store that follows it, changes told to the hub, and refusals told to whoever needs to know of them.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::store::{Store, Writer};
use crate::hub::{Change, Hub};
use crate::metrics::Metrics;

/// For one page of a list.
const PAGE: Duration = Duration::from_secs(15);

/// What the API server refused: the verb and the resource that a rule lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// `list` or `watch`.
    pub verb: &'static str,
    /// Such as `secrets`.
    pub resource: String,
    /// Whether the API server knows no such resource at all.
    pub is_absent: bool,
}

/// Told of each refusal, and of each resource of which everything was seen.
pub(super) type OnRights = Arc<dyn Fn(Result<&str, Denial>) + Send + Sync>;

/// What follows from what a watch shows.
struct Follow<S, C> {
    /// In the plural.
    resource: String,
    /// Whether a cluster may do without the kind: then it is a refusal that there is none. Of what is always there an API
    /// server says so while it starts, and is asked again.
    may_lack: bool,
    /// Told of refusals.
    rights: Option<OnRights>,
    /// Shown each event, once the store has followed it.
    saw: S,
    /// What it means that an object changed, or is gone.
    change: C,
    /// What it means that all were listed.
    listed: Change,
}

/// Starts watches.
#[derive(Clone)]
pub struct Watching {
    client: Client,
    hub: Hub,
    metrics: Metrics,
    stop: CancellationToken,
    /// Where watches run, whoever begins them.
    runtime: Handle,
}

impl Watching {
    /// Watches until `stop`.
    pub fn new(client: Client, hub: Hub, metrics: Metrics, stop: CancellationToken) -> Self {
        Self { client, hub, metrics, stop, runtime: Handle::current() }
    }

    /// The client of all watches.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where changes are told.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The same, ended by itself or by `stop`.
    pub fn until(&self, stop: CancellationToken) -> Self {
        Self { stop, ..self.clone() }
    }

    /// What ends these watches.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// One of our own kinds in the whole cluster, undecoded: what no longer decodes must not stop the watch (fault F14).
    /// `saw` is shown each event, once the store has followed it.
    pub fn dynamic<K: Resource<DynamicType = ()>>(
        &self,
        saw: impl FnMut(&Event<DynamicObject>, &Store<DynamicObject>) + Send + 'static,
        change: impl Fn(&DynamicObject, bool) -> Change + Send + 'static,
    ) -> Store<DynamicObject> {
        let resource = ApiResource::erase::<K>(&());
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let writer = Writer::default();
        let store = writer.store();
        let follow = Follow {
            resource: resource.plural,
            may_lack: false,
            rights: None,
            saw,
            change,
            listed: Change::Everything,
        };
        self.spawn((api, watcher::Config::default()), writer, follow);
        store
    }

    /// Names and labels of a kind in the whole cluster.
    pub fn metadata<K>(
        &self,
        change: impl Fn(&PartialObjectMeta<K>) -> Change + Send + 'static,
    ) -> Store<PartialObjectMeta<K>>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let writer = Writer::default();
        let store = writer.store();
        let api = Api::<PartialObjectMeta<K>>::all(self.client.clone());
        let change = move |object: &PartialObjectMeta<K>, _| change(object);
        let resource = K::plural(&()).into_owned();
        let listed = Change::Everything;
        let follow = Follow { resource, may_lack: false, rights: None, saw: |_: &_, _: &_| {}, change, listed };
        self.spawn((api, watcher::Config::default()), writer, follow);
        store
    }

    /// A kind where `api` looks; `rights` is told of each refusal, and of its end. `listed` is whom a complete list concerns.
    pub fn typed<K>(
        &self,
        (api, config): (Api<K>, watcher::Config),
        rights: Option<OnRights>,
        listed: Change,
        change: impl Fn(&K, bool) -> Change + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let writer = Writer::default();
        let store = writer.store();
        let resource = K::plural(&()).into_owned();
        let follow = Follow { resource, may_lack: false, rights, saw: |_: &_, _: &_| {}, change, listed };
        self.spawn((api, config), writer, follow);
        store
    }

    /// A kind of others in one namespace, undecoded.
    pub fn foreign(
        &self,
        (resource, namespace, config): (ApiResource, &str, watcher::Config),
        rights: OnRights,
        listed: Change,
        change: impl Fn(&DynamicObject, bool) -> Change + Send + 'static,
    ) -> Store<DynamicObject> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let writer = Writer::default();
        let (store, resource) = (writer.store(), resource.plural);
        let rights = Some(rights);
        let follow = Follow { resource, may_lack: true, rights, saw: |_: &_, _: &_| {}, change, listed };
        self.spawn((api, config), writer, follow);
        store
    }

    fn spawn<K>(
        &self,
        (api, config): (Api<K>, watcher::Config),
        writer: Writer<K>,
        follow: Follow<impl FnMut(&Event<K>, &Store<K>) + Send + 'static, impl Fn(&K, bool) -> Change + Send + 'static>,
    ) where
        K: Resource + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (hub, metrics, stop) = (self.hub.clone(), self.metrics.clone(), self.stop.clone());
        // What nobody here reads; kept, it would be half of the memory.
        let strip = |object: &mut K| {
            object.managed_fields_mut().clear();
            if let Some(pod) = (object as &mut dyn Any).downcast_mut::<Pod>() {
                pod.spec = None;
                pod.metadata.annotations = None;
            }
        };
        let events = anew_when_refused(api, config).default_backoff().modify(strip);
        let follow = follow.all((events, writer), (hub, metrics));
        self.runtime.spawn(async move { stop.run_until_cancelled(follow).await.unwrap_or_default() });
    }
}

impl<S, C> Follow<S, C> {
    /// Keeps a store, and tells what its events mean.
    async fn all<K>(
        self,
        (events, mut writer): (impl Stream<Item = watcher::Result<Event<K>>>, Writer<K>),
        (hub, metrics): (Hub, Metrics),
    ) where
        S: FnMut(&Event<K>, &Store<K>),
        C: Fn(&K, bool) -> Change,
        K: Resource + Serialize + 'static,
    {
        let Self { resource, may_lack, rights, mut saw, change, listed } = self;
        let store = writer.store();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Ok(event) = &event {
                writer.apply(event);
                saw(event, &store);
            }
            match event {
                Ok(Event::Apply(object)) => hub.tell(change(&object, false)),
                Ok(Event::Delete(object)) => hub.tell(change(&object, true)),
                // It may lack what was deleted meanwhile.
                Ok(Event::InitDone) => {
                    if let Some(told) = &rights {
                        told(Ok(resource.as_str()));
                    }
                    hub.tell(listed.clone());
                }
                Ok(Event::Init | Event::InitApply(_)) => {}
                Err(error) => {
                    metrics.watch_failures.inc();
                    let denial = denial(&error, &resource).filter(|denial| may_lack || !denial.is_absent);
                    tracing::warn!(%error, resource, "a watch failed and begins anew");
                    if let (Some(denial), Some(told)) = (denial, &rights) {
                        told(Err(denial));
                    }
                }
            }
        }
    }
}

/// A watch that begins with a list after each refusal: one that goes on after it says nothing until something changes, and
/// it would not be known that the right was given back. A list that is not answered is asked for again: its connection has
/// the patience of a watch, which may be silent (fault F2).
fn anew_when_refused<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl futures_util::Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let begin = move || kube::runtime::watcher(api.clone(), config.clone()).boxed();
    futures_util::stream::unfold((begin(), begin, true), |(mut stream, begin, mut listing)| async move {
        let event = loop {
            if !listing {
                break stream.next().await?;
            }
            match tokio::time::timeout(PAGE, stream.next()).await {
                Ok(event) => break event?,
                Err(_) => stream = begin(),
            }
        };
        match &event {
            Ok(Event::Init) => listing = true,
            Ok(Event::InitDone) => listing = false,
            _ => {}
        }
        if event.as_ref().err().and_then(|error| denial(error, "")).is_some() {
            (stream, listing) = (begin(), true);
        }
        Some((event, (stream, begin, listing)))
    })
}

fn denial(error: &watcher::Error, resource: &str) -> Option<Denial> {
    let code = |error: &kube::Error| match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    };
    let (verb, code) = match error {
        watcher::Error::InitialListFailed(error) => ("list", code(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => ("watch", code(error)),
        watcher::Error::WatchError(status) => ("watch", status.code),
        watcher::Error::NoResourceVersion => ("watch", 0),
    };
    let (is_forbidden, is_absent) = (code == 403, code == 404);
    (is_forbidden || is_absent).then(|| Denial { verb, resource: resource.to_owned(), is_absent })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use securelink_crds::SecureLink;
    use serde_json::json;

    use super::*;
    use crate::caches::peers::Peers;

    fn link(name: &str) -> DynamicObject {
        let mut object = DynamicObject::new(name, &ApiResource::erase::<SecureLink>(&())).within("n");
        object.data = json!({ "spec": { "peer": { "trustDomain": "europol.example" } } });
        object
    }

    #[tokio::test]
    async fn f06_whoever_forgets_what_is_gone_during_a_long_list_forgets_nothing_of_it() {
        let (peers, writer) = (Arc::new(Peers::default()), Writer::default());
        let (index, store) = (Arc::clone(&peers), writer.store());
        let pages = ["a", "b"].map(|name| Event::InitApply(link(name)));
        let events = [Event::Init].into_iter().chain(pages).chain([Event::InitDone]);
        let forgets = move |_: &watcher::Result<Event<DynamicObject>>| {
            index.retain(|at| store.at(at).is_some());
        };
        let follow = Follow {
            resource: "securelinks".to_owned(),
            may_lack: false,
            rights: None,
            saw: {
                let peers = Arc::clone(&peers);
                move |event: &_, store: &_| peers.follow(event, store)
            },
            change: |_: &DynamicObject, _| Change::Everything,
            listed: Change::Everything,
        };
        let (hub, (metrics, _)) = (Hub::default(), Metrics::new());
        let mut changes = hub.listen();
        follow.all((stream::iter(events.map(Ok)).inspect(forgets), writer), (hub, metrics)).await;
        let names: Vec<_> = peers.of("europol.example").into_iter().map(|at| at.name).collect();
        assert_eq!((names, changes.waiting()), (vec!["a".to_owned(), "b".to_owned()], Some(Change::Everything)));
    }

    #[tokio::test]
    async fn that_a_kind_is_unknown_is_a_refusal_only_where_a_cluster_may_do_without_it() {
        for may_lack in [false, true] {
            let unknown = kube::core::Status::failure("the server could not find the requested resource", "NotFound");
            let unknown = kube::Error::Api(unknown.with_code(404).boxed());
            let events = stream::iter([Err::<Event<DynamicObject>, _>(watcher::Error::InitialListFailed(unknown))]);
            let (told, refusals) = std::sync::mpsc::channel();
            let told = std::sync::Mutex::new(told);
            let follow = Follow {
                resource: "things".to_owned(),
                may_lack,
                rights: Some(Arc::new(move |right: Result<&str, Denial>| {
                    told.lock().unwrap().send(right.map(str::to_owned)).unwrap();
                })),
                saw: |_: &_, _: &_| {},
                change: |_: &DynamicObject, _| Change::Everything,
                listed: Change::Everything,
            };
            follow.all((events, Writer::default()), (Hub::default(), Metrics::new().0)).await;
            let refusals: Vec<_> = refusals.iter().collect();
            let absent = Denial { verb: "list", resource: "things".to_owned(), is_absent: true };
            assert_eq!(refusals, if may_lack { vec![Err(absent)] } else { vec![] });
        }
    }
}
