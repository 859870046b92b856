//! Objects of a cluster: read, made, changed, removed, waited for. Every call has a deadline of its own.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchParams};
use kube::core::{DeserializeGuard, WatchEvent};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Asked, Cluster, ClusterError};

/// How long one call may take, retries included: as long as a person waits before asking again.
const CALL: Duration = Duration::from_secs(15);
/// How long a watch may be silent before it is looked again, so that a connection that died unseen costs no more.
const SILENCE: u32 = 60;
/// Between two looks where a watch breaks off at once.
const PACE: Duration = Duration::from_secs(1);

/// A kind of object that namespaces have.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + 'static
{
}

/// Which objects are meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// Those of this namespace; none: of all.
    pub namespace: Option<&'a str>,
    /// Only the one of this name.
    pub name: Option<&'a str>,
    /// Only those with these labels.
    pub labels: Option<&'a str>,
}

impl<'a> Scope<'a> {
    /// One object.
    pub fn one(namespace: &'a str, name: &'a str) -> Self {
        Self { namespace: Some(namespace), name: Some(name), labels: None }
    }

    /// All of a namespace.
    pub fn namespace(namespace: &'a str) -> Self {
        Self { namespace: Some(namespace), ..Self::default() }
    }

    fn field(self) -> Option<String> {
        self.name.map(|name| format!("metadata.name={name}"))
    }

    fn asked<K: Kind>(self, verb: &'static str) -> Asked {
        let (kind, resource) = (K::kind(&()).into_owned(), K::plural(&()).into_owned());
        Asked { verb, kind, resource, name: self.name.map(str::to_owned), namespace: self.namespace.map(str::to_owned) }
    }
}

/// Objects as they were at one moment.
#[derive(Debug)]
pub struct Listed<K> {
    /// Those that could be read.
    pub items: Vec<K>,
    /// The others: which, and why not.
    pub unreadable: Vec<String>,
    version: String,
}

impl Cluster {
    /// Objects as they are. One that cannot be read does not hide the others.
    pub async fn list<K: Kind>(&self, scope: Scope<'_>) -> Result<Listed<K>, ClusterError> {
        let params = ListParams {
            field_selector: scope.field(),
            label_selector: scope.labels.map(str::to_owned),
            ..ListParams::default()
        };
        let api = self.guarded::<K>(scope);
        let found = self.call(scope.asked::<K>("list"), api.list(&params)).await?;
        let version = found.metadata.resource_version.unwrap_or_default();
        let mut listed = Listed { items: Vec::new(), unreadable: Vec::new(), version };
        for object in found.items {
            match object.0 {
                Ok(object) => listed.items.push(object),
                Err(error) => {
                    let (meta, kind) = (&error.metadata, K::kind(&()));
                    let part = |text: &Option<String>| text.clone().unwrap_or_default();
                    let name = format!("{kind} {}/{}", part(&meta.namespace), part(&meta.name));
                    listed.unreadable.push(format!(
                        "{name} cannot be read: {}; compare the versions of this program and of the cluster's kinds",
                        error.error
                    ));
                }
            }
        }
        Ok(listed)
    }

    /// One object, if it is there.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, ClusterError> {
        let asked = Scope::one(namespace, name).asked::<K>("get");
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        match self.call(asked, api.get(name)).await {
            Ok(object) => Ok(Some(object)),
            Err(ClusterError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an object; nothing where one of that name is there already.
    pub(super) async fn create<K: Kind>(
        &self,
        namespace: &str,
        object: &K,
        dry_run: bool,
    ) -> Result<Option<K>, ClusterError> {
        let asked = Scope::namespace(namespace).asked::<K>("create");
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let params = PostParams { dry_run, ..PostParams::default() };
        let made = tokio::time::timeout(CALL, api.create(&params, object)).await;
        match made {
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Ok(None),
            Ok(made) => made.map(Some).map_err(|error| ClusterError::of(error, asked, &self.server)),
            Err(_) => Err(self.late(asked)),
        }
    }

    /// Writes an object that was read before, unless somebody else has written it since.
    pub(super) async fn replace<K: Kind>(&self, object: &K, dry_run: bool) -> Result<K, ClusterError> {
        let (namespace, name) = place(object);
        let api = Api::<K>::namespaced(self.client.clone(), &namespace);
        let params = PostParams { dry_run, ..PostParams::default() };
        self.call(Scope::one(&namespace, &name).asked::<K>("update"), api.replace(&name, &params, object)).await
    }

    /// Changes some fields of an object.
    pub(super) async fn merge<K: Kind>(&self, namespace: &str, name: &str, fields: Value) -> Result<K, ClusterError> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(fields));
        self.call(Scope::one(namespace, name).asked::<K>("patch"), api.patch(name, &params, &patch)).await
    }

    /// Removes this very object, not a later one of its name. Whether it was there.
    pub(super) async fn delete<K: Kind>(&self, object: &K) -> Result<bool, ClusterError> {
        let (namespace, name) = place(object);
        let api = Api::<K>::namespaced(self.client.clone(), &namespace);
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.call(Scope::one(&namespace, &name).asked::<K>("delete"), api.delete(&name, &params)).await {
            Ok(_) => Ok(true),
            Err(ClusterError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Looks at objects, and again whenever one has changed, until `judge` has seen enough or the time is over. It looks at
    /// least once.
    pub async fn follow<K: Kind, T>(
        &self,
        scope: Scope<'_>,
        limit: Duration,
        mut judge: impl FnMut(Listed<K>) -> Option<T>,
    ) -> Result<Option<T>, ClusterError> {
        let end = tokio::time::Instant::now() + limit;
        loop {
            let seen = self.list::<K>(scope).await?;
            let version = seen.version.clone();
            if let Some(found) = judge(seen) {
                return Ok(Some(found));
            }
            match tokio::time::timeout_at(end, self.changed::<K>(scope, &version)).await {
                Ok(changed) => changed?,
                Err(_) => return Ok(None),
            }
        }
    }

    /// Waits until one of the objects is no longer as it was at `version`, or may be.
    async fn changed<K: Kind>(&self, scope: Scope<'_>, version: &str) -> Result<(), ClusterError> {
        let api = self.guarded::<K>(scope);
        let params = WatchParams {
            field_selector: scope.field(),
            label_selector: scope.labels.map(str::to_owned),
            timeout: Some(SILENCE),
            ..WatchParams::default()
        };
        let events = self.call(scope.asked::<K>("watch"), api.watch(&params, version)).await?;
        let mut events = std::pin::pin!(events);
        loop {
            match events.next().await {
                Some(Ok(WatchEvent::Bookmark(_))) => {}
                Some(Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_))) => return Ok(()),
                // Too old a version, a server that goes, a connection that broke: the next look says what is so.
                Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => {
                    tokio::time::sleep(PACE).await;
                    return Ok(());
                }
            }
        }
    }

    fn guarded<K: Kind>(&self, scope: Scope<'_>) -> Api<DeserializeGuard<K>> {
        match scope.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    pub(super) async fn call<T>(
        &self,
        asked: Asked,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(answer) => answer.map_err(|error| ClusterError::of(error, asked, &self.server)),
            Err(_) => Err(self.late(asked)),
        }
    }

    fn late(&self, asked: Asked) -> ClusterError {
        ClusterError::TimedOut { server: self.server.clone(), asked, seconds: CALL.as_secs() }
    }
}

/// Namespace and name of an object that an API server gave.
fn place<K: Kind>(object: &K) -> (String, String) {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
