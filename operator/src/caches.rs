//! What the operator knows of the cluster, from watches only: nothing here asks the API server for one object.
//!
//! Our own kinds and namespaces are watched in the whole cluster. What belongs to links is watched in the namespaces of
//! links, and Services behind exports in theirs, each only where the operator was granted it (P11).

mod declared;
mod names;
mod peers;
mod space;
mod store;
mod text;
mod watching;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use securelink_crds::keys::{MANAGED_BY, MANAGER};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy, SecureLink};
use securelink_relay_config::LinkRef;
use tokio_util::sync::CancellationToken;

use crate::hub::{Change, Gone, Hub};
use crate::metrics::Metrics;

use peers::Peers;

pub use declared::{Cuts, Declarations, DeclaredIdentity, DeclaredLink, Policies};
pub use names::Names;
pub use space::{Access, CertificateRequests, Issuers, Space, Target, certificate_request};
pub use store::{Held, Store, Writer};
pub use watching::{Denial, Watching};

/// Everything that is watched.
pub struct Caches {
    watching: Watching,
    /// Links, identities, policies and cuts, judged.
    pub declared: Declarations,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    /// The operator's own keys.
    pub keys: Store<Secret>,
    spaces: Mutex<HashMap<String, Arc<Space>>>,
    targets: Mutex<HashMap<String, Arc<Target>>>,
    issuers: Mutex<HashMap<String, Arc<Issuers>>>,
    certificate_requests: Mutex<HashMap<String, Arc<CertificateRequests>>>,
}

impl Caches {
    /// Begins to watch. `namespace` is the operator's own.
    pub fn start(client: &Client, namespace: &str, hub: &Hub, metrics: &Metrics, stop: &CancellationToken) -> Self {
        let watching = Watching::new(client.clone(), hub.clone(), metrics.clone(), stop.clone());
        let peers = Arc::new(Peers::default());
        let saw = {
            let peers = Arc::clone(&peers);
            move |event: &_, store: &_| peers.follow(event, store)
        };
        let stores = Kinds {
            links: Driven::watch(&watching, saw, |object, gone| match (named(object), gone) {
                (Some(link), true) => Change::Gone(Gone {
                    link,
                    uid: object.metadata.uid.clone().unwrap_or_default(),
                    generation: object.metadata.generation.and_then(|at| u64::try_from(at).ok()).unwrap_or_default(),
                    peer: declared::peer(object).unwrap_or_default().to_owned(),
                }),
                (Some(link), false) => Change::Declared(link),
                (None, _) => Change::Everything,
            }),
            identities: Driven::watch(
                &watching,
                |_, _| {},
                |object, _| named(object).map_or(Change::Everything, Change::Identity),
            ),
            policies: watching.dynamic::<LinkPolicy>(|_, _| {}, |_, _| Change::Everything),
            cuts: Driven::watch(
                &watching,
                |_, _| {},
                |object, _| Change::Brake {
                    namespace: object.metadata.namespace.clone().unwrap_or_default(),
                    link: object.data["spec"]["linkRef"]["name"].as_str().map(str::to_owned),
                },
            ),
        };
        let declared = Declarations::new(stores, peers);
        let namespaces = watching.metadata::<Namespace>(|object| in_namespace(object.metadata.name.as_deref()));
        let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
        let keys = (Api::<Secret>::namespaced(client.clone(), namespace), ours);
        let keys = watching.typed(keys, None, Change::Everything, |secret, _| {
            crate::keys::identity_of(secret).map_or(Change::Everything, Change::Identity)
        });
        Self {
            watching,
            declared,
            namespaces,
            keys,
            spaces: Mutex::default(),
            targets: Mutex::default(),
            issuers: Mutex::default(),
            certificate_requests: Mutex::default(),
        }
    }

    /// Waits until everything that is watched in the whole cluster has been seen once.
    pub async fn ready(&self) {
        self.declared.ready().await;
        self.namespaces.seen().await;
        self.keys.seen().await;
    }

    /// The labels of a namespace, if it is there.
    pub fn labels(&self, namespace: &str) -> Option<Arc<PartialObjectMeta<Namespace>>> {
        self.namespaces.get("", namespace)?.read()
    }

    /// What belongs to links in a namespace; watched from now on.
    pub fn space(&self, namespace: &str) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let space =
            spaces.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Space::start(&self.watching, namespace)));
        Arc::clone(space)
    }

    /// What belongs to links in a namespace, if it is watched.
    pub fn watched_space(&self, namespace: &str) -> Option<Arc<Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    /// The Services of a namespace that exports lead to; watched from now on.
    pub fn target(&self, namespace: &str) -> Arc<Target> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let target =
            targets.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Target::start(&self.watching, namespace)));
        Arc::clone(target)
    }

    /// The Secrets of a namespace with which identities may sign; watched from now on.
    pub fn issuers(&self, namespace: &str) -> Arc<Issuers> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            issuers.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Issuers::start(&self.watching, namespace)));
        Arc::clone(found)
    }

    /// What cert-manager was asked for in a namespace; watched from now on.
    pub fn certificate_requests(&self, namespace: &str) -> Arc<CertificateRequests> {
        let mut all = self.certificate_requests.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Arc::new(CertificateRequests::start(&self.watching, namespace));
        Arc::clone(all.entry(namespace.to_owned()).or_insert_with(start))
    }

    /// Ends the watches that no link needs any more, and forgets what was judged of objects that are gone.
    pub fn forget_gone(&self) {
        self.declared.forget_gone();
        let spaces: HashSet<String> = self.declared.all_links().into_iter().map(|link| link.namespace).collect();
        let targets = self.declared.targets();
        let mut watched = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|namespace, _| spaces.contains(namespace));
        drop(watched);
        let mut watched = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|namespace, _| targets.contains(namespace));
        drop(watched);
        let identities: HashSet<String> =
            self.declared.all_identities().into_iter().map(|identity| identity.namespace).collect();
        let mut watched = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|namespace, _| identities.contains(namespace));
        drop(watched);
        let mut watched = self.certificate_requests.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|namespace, _| identities.contains(namespace));
    }
}

/// The stores of our own kinds.
struct Kinds {
    links: Driven<SecureLink>,
    identities: Driven<LinkIdentity>,
    policies: Store<DynamicObject>,
    cuts: Driven<LinkCut>,
}

/// One of our own kinds whose objects are driven.
struct Driven<K: Resource<DynamicType = ()> + 'static> {
    objects: Store<DynamicObject>,
    names: Names<K>,
}

impl<K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static> Driven<K> {
    fn watch(
        watching: &Watching,
        mut saw: impl FnMut(&Event<DynamicObject>, &Store<DynamicObject>) + Send + 'static,
        change: impl Fn(&DynamicObject, bool) -> Change + Send + 'static,
    ) -> Self {
        let (names, mut follow) = names::names();
        let saw = move |event: &_, store: &_| {
            follow(event);
            saw(event, store);
        };
        Self { objects: watching.dynamic::<K>(saw, change), names }
    }
}

/// The namespace and name of an object.
pub fn named<K: Resource>(object: &K) -> Option<LinkRef> {
    let metadata = object.meta();
    Some(LinkRef { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
}

fn in_namespace(namespace: Option<&str>) -> Change {
    namespace.map_or(Change::Everything, |namespace| Change::Namespace(namespace.to_owned()))
}
