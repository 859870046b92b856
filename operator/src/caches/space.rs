//! What is watched in one namespace: what belongs to its links, or the Services that exports lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use securelink_crds::keys::{IDENTITY, ISSUER_OF, LINK, MANAGED_BY, MANAGER};
use securelink_relay_config::LinkRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::store::Store;
use super::watching::{Denial, OnRights, Watching};
use crate::hub::{Change, Hub};

/// Whether a namespace's objects are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not everything was seen yet.
    Starting,
    /// Everything is known.
    Ready,
    /// A right lacks.
    Denied(Denial),
}

/// What belongs to the links of a namespace. Dropped, its watches end.
pub struct Space {
    /// Leaves. Of somebody else's Secrets nothing is read.
    pub secrets: Store<Secret>,
    /// The relays' configurations.
    pub config_maps: Store<ConfigMap>,
    /// The relays' accounts.
    pub service_accounts: Store<ServiceAccount>,
    /// The relays.
    pub deployments: Store<Deployment>,
    /// All Services, for the exports among them.
    pub services: Store<Service>,
    /// All policies, for those that select our relays.
    pub network_policies: Store<NetworkPolicy>,
    /// How many relays may be taken away.
    pub disruption_budgets: Store<PodDisruptionBudget>,
    /// The relays' pods.
    pub pods: Store<Pod>,
    access: watch::Receiver<Access>,
    rights: Arc<Mutex<Rights>>,
    _end: DropGuard,
}

impl Space {
    pub(super) fn start(watching: &Watching, namespace: &str) -> Self {
        let gate = Gate::new(watching, namespace, Change::Namespace(namespace.to_owned()));
        let watches = Watches { gate: &gate, namespace };
        let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
        let space = Self {
            secrets: watches.of(ours()),
            config_maps: watches.of(ours()),
            service_accounts: watches.of(ours()),
            deployments: watches.of(ours()),
            services: watches.of(watcher::Config::default()),
            network_policies: watches.of(watcher::Config::default()),
            disruption_budgets: watches.of(ours()),
            pods: watches.of(ours()),
            access: gate.access.subscribe(),
            rights: Arc::clone(&gate.rights),
            _end: gate.stop.clone().drop_guard(),
        };
        let ready = [
            seen(&space.secrets),
            seen(&space.config_maps),
            seen(&space.service_accounts),
            seen(&space.deployments),
            seen(&space.services),
            seen(&space.network_policies),
            seen(&space.disruption_budgets),
            seen(&space.pods),
        ];
        gate.open_after(ready);
        space
    }

    /// Whether its objects are known.
    pub fn access(&self) -> Access {
        self.access.borrow().clone()
    }

    /// Whether the relays' pods are known, whatever else is.
    pub fn lists_pods(&self) -> bool {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner).lists(&Pod::plural(&()))
    }

    /// Follows it.
    pub fn follow(&self) -> watch::Receiver<Access> {
        self.access.clone()
    }
}

/// The Services of a namespace that exports lead to. Dropped, its watch ends.
pub struct Target {
    /// All of them.
    pub services: Store<Service>,
    access: watch::Receiver<Access>,
    _end: DropGuard,
}

impl Target {
    pub(super) fn start(watching: &Watching, namespace: &str) -> Self {
        // Who exports from here is not known by the Service: all links look.
        let gate = Gate::new(watching, namespace, Change::Everything);
        let all = (Api::namespaced(gate.watching.client(), namespace), watcher::Config::default());
        let services =
            gate.watching.typed(all, Some(gate.rights()), Change::Everything, |_: &Service, _| Change::Everything);
        let target = Self { services, access: gate.access.subscribe(), _end: gate.stop.clone().drop_guard() };
        gate.open_after([seen(&target.services)]);
        target
    }

    /// Whether its Services are known.
    pub fn access(&self) -> Access {
        self.access.borrow().clone()
    }
}

/// The Secrets of a namespace whose owners let identities sign with them. Dropped, its watch ends.
pub struct Issuers {
    /// Those that name an identity; of others nothing is read.
    pub secrets: Store<Secret>,
    access: watch::Receiver<Access>,
    _end: DropGuard,
}

impl Issuers {
    pub(super) fn start(watching: &Watching, namespace: &str) -> Self {
        let all = Change::Namespace(namespace.to_owned());
        let gate = Gate::new(watching, namespace, all.clone());
        let api = Api::namespaced(gate.watching.client(), namespace);
        let config = watcher::Config::default().labels(ISSUER_OF);
        let here = namespace.to_owned();
        let secrets = gate.watching.typed((api, config), Some(gate.rights()), all, move |secret: &Secret, _| {
            let name = secret.labels().get(ISSUER_OF).cloned().unwrap_or_default();
            Change::Identity(LinkRef { namespace: here.clone(), name })
        });
        let issuers = Self { secrets, access: gate.access.subscribe(), _end: gate.stop.clone().drop_guard() };
        gate.open_after([seen(&issuers.secrets)]);
        issuers
    }

    /// Whether they are known.
    pub fn access(&self) -> Access {
        self.access.borrow().clone()
    }
}

/// What cert-manager was asked for in a namespace. Dropped, its watch ends.
pub struct CertificateRequests {
    /// Those requests that we made.
    pub requests: Store<DynamicObject>,
    access: watch::Receiver<Access>,
    _end: DropGuard,
}

impl CertificateRequests {
    pub(super) fn start(watching: &Watching, namespace: &str) -> Self {
        let all = Change::Namespace(namespace.to_owned());
        let gate = Gate::new(watching, namespace, all.clone());
        let config = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
        let (here, every) = (namespace.to_owned(), all.clone());
        let of = (certificate_request(), namespace, config);
        let requests = gate.watching.foreign(of, gate.rights(), all, move |request, _| {
            let name = request.annotations().get(IDENTITY).cloned();
            name.map_or(every.clone(), |name| Change::Identity(LinkRef { namespace: here.clone(), name }))
        });
        let found = Self { requests, access: gate.access.subscribe(), _end: gate.stop.clone().drop_guard() };
        gate.open_after([seen(&found.requests)]);
        found
    }

    /// The request of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        self.requests.get(namespace, name)?.read()
    }

    /// Whether they are known.
    pub fn access(&self) -> Access {
        self.access.borrow().clone()
    }
}

/// How cert-manager is asked.
pub fn certificate_request() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest"))
}

/// Says when a namespace is known, or which right lacks.
struct Gate {
    watching: Watching,
    stop: CancellationToken,
    access: watch::Sender<Access>,
    rights: Arc<Mutex<Rights>>,
    namespace: String,
    /// Whom another access concerns.
    concerned: Change,
}

/// What is known of the rights in a namespace.
#[derive(Debug, Default)]
struct Rights {
    /// Everything was seen once.
    seen: bool,
    /// Resources of which everything was seen once.
    listed: BTreeSet<String>,
    /// By resource: what is refused now.
    denied: BTreeMap<String, Denial>,
}

impl Rights {
    fn access(&self) -> Access {
        match self.denied.values().next() {
            Some(denial) => Access::Denied(denial.clone()),
            None if self.seen => Access::Ready,
            None => Access::Starting,
        }
    }

    fn lists(&self, resource: &str) -> bool {
        self.listed.contains(resource) && !self.denied.contains_key(resource)
    }

    fn told(&mut self, news: Result<&str, Denial>) {
        match news {
            Ok(resource) => {
                self.denied.remove(resource);
                self.listed.insert(resource.to_owned());
            }
            Err(denial) => drop(self.denied.insert(denial.resource.clone(), denial)),
        }
    }
}

impl Gate {
    fn new(watching: &Watching, namespace: &str, concerned: Change) -> Self {
        let stop = watching.stop().child_token();
        let access = watch::Sender::new(Access::Starting);
        let (watching, rights) = (watching.until(stop.clone()), Arc::default());
        Self { watching, stop, access, rights, namespace: namespace.to_owned(), concerned }
    }

    /// Follows which rights lack. One that is withdrawn later counts as well: what was seen before may be wrong by now.
    fn rights(&self) -> OnRights {
        let (access, hub, rights) = (self.access.clone(), self.watching.hub().clone(), Arc::clone(&self.rights));
        let (namespace, concerned) = (self.namespace.clone(), self.concerned.clone());
        Arc::new(move |news| {
            if let Err(denial) = &news {
                tracing::warn!(namespace, verb = denial.verb, resource = denial.resource, "not granted");
            }
            let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
            rights.told(news);
            show(&access, &rights, (&hub, &concerned));
        })
    }

    fn open_after<const N: usize>(&self, ready: [Seen; N]) {
        let (access, hub, stop) = (self.access.clone(), self.watching.hub().clone(), self.stop.clone());
        let (rights, concerned) = (Arc::clone(&self.rights), self.concerned.clone());
        tokio::spawn(async move {
            let all = futures_util::future::join_all(ready);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = all => {}
            }
            let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
            rights.seen = true;
            show(&access, &rights, (&hub, &concerned));
        });
    }
}

/// Tells whom it concerns when it is another access than before.
fn show(access: &watch::Sender<Access>, rights: &Rights, (hub, concerned): (&Hub, &Change)) {
    let now = rights.access();
    if access.send_if_modified(|before| std::mem::replace(before, now.clone()) != now) {
        hub.tell(concerned.clone());
    }
}

type Seen = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn seen<K: 'static>(store: &Store<K>) -> Seen {
    let store = store.clone();
    Box::pin(async move { store.seen().await })
}

struct Watches<'a> {
    gate: &'a Gate,
    namespace: &'a str,
}

impl Watches<'_> {
    /// Watches a kind; what it tells of concerns the link it is labelled with, or all of the namespace.
    fn of<K>(&self, config: watcher::Config) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api = Api::namespaced(self.gate.watching.client(), self.namespace);
        let namespace = self.namespace.to_owned();
        let all = Change::Namespace(namespace.clone());
        self.gate.watching.typed((api, config), Some(self.gate.rights()), all, move |object: &K, gone| {
            // A label is a hint of whom to wake, never a proof of whose the object is. The name of a Service that is gone
            // may be what another link waits for.
            let name_is_free = gone && K::kind(&()) == Service::kind(&());
            match object.labels().get(LINK) {
                Some(name) if !name_is_free => {
                    Change::Link(LinkRef { namespace: namespace.clone(), name: name.clone() })
                }
                _ => Change::Namespace(namespace.clone()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(resource: &str) -> Denial {
        Denial { verb: "list", resource: resource.to_owned(), is_absent: false }
    }

    #[test]
    fn f17_pods_are_known_though_another_right_lacks_and_not_while_theirs_does() {
        let mut rights = Rights::default();
        rights.told(Err(denial("secrets")));
        assert!(!rights.lists("pods"));
        rights.told(Ok("pods"));
        assert!(rights.lists("pods") && !rights.lists("secrets"));
        rights.told(Err(denial("pods")));
        assert!(!rights.lists("pods"), "what was seen may be wrong by now");
        rights.told(Ok("pods"));
        assert!(rights.lists("pods"));
    }

    #[test]
    fn f17_a_namespace_is_denied_while_any_right_lacks_also_one_that_is_withdrawn_later() {
        let mut rights = Rights::default();
        assert_eq!(rights.access(), Access::Starting);
        rights.told(Err(denial("secrets")));
        rights.told(Err(denial("pods")));
        assert_eq!(rights.access(), Access::Denied(denial("pods")));
        rights.told(Ok("pods"));
        assert_eq!(rights.access(), Access::Denied(denial("secrets")));
        rights.told(Ok("secrets"));
        assert_eq!(rights.access(), Access::Starting, "what was not refused may not have been seen yet");
        rights.seen = true;
        assert_eq!(rights.access(), Access::Ready);
        rights.told(Err(denial("services")));
        assert_eq!(rights.access(), Access::Denied(denial("services")));
        rights.told(Ok("services"));
        assert_eq!(rights.access(), Access::Ready);
    }
}
