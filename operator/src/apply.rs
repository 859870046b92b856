//! Brings the objects of a link to what was built: creates, applies, removes what others added where we own the whole, and
//! sweeps what is not wanted any more. Never writes what is not ours, and never without the lease.
//!
//! A first write is a create, which cannot meet somebody else's object. Every later one is a server-side apply that names
//! the object's uid, so that it fails rather than write to another object of that name.

mod memory;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use securelink_crds::keys::{FIELD_MANAGER, LINK};
use securelink_plan::drift::{differences, without_surplus};
use securelink_plan::objects::Objects;
use securelink_plan::{ObjectKind, names};
use securelink_relay_config::LinkRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::caches::{Held, Space, Store};
use crate::gather::{TakenNames, holder, is_owned};
use crate::keyed;
use crate::lease::Lease;
use crate::metrics::Metrics;

pub use memory::{LAG, Latest, Memory};

/// Why objects could not be brought to what was built.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else has the name.
    #[error("{kind} {name} is {holder}")]
    Taken {
        /// Of what.
        kind: ObjectKind,
        /// Which.
        name: String,
        /// Whose it is.
        holder: String,
    },
    /// Another replica may lead by now.
    #[error("the lease is not held any more")]
    NotLeading,
    /// What is stored is not what the decision to write rests on.
    #[error("{kind} {name} changed meanwhile; it is looked at again")]
    Moved {
        /// Of what.
        kind: ObjectKind,
        /// Which.
        name: String,
    },
    /// The API server.
    #[error("{verb} {kind} {name}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On what.
        kind: ObjectKind,
        /// Which.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
}

/// What applying did.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was made, as `Kind name`.
    pub created: Vec<String>,
    /// What others had changed and was put right.
    pub drifted: Vec<String>,
    /// What is not wanted any more.
    pub removed: Vec<String>,
    /// What did not go through; the first one stands last.
    pub failures: Vec<ApplyError>,
    /// When to look again though nothing changes: the cache did not show all of it yet, or a repair waits its turn.
    pub again: Option<Duration>,
}

impl Applied {
    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |before| before.min(after)));
    }

    /// Whether it went through. A failure holds nothing else up.
    fn went(&mut self, result: Result<(), ApplyError>) -> bool {
        let failed = result.err();
        let went = failed.is_none();
        self.failures.splice(..0, failed);
        went
    }
}

/// Writes for one link.
pub struct Applier<'a> {
    /// For writes.
    pub client: &'a Client,
    /// Who may write.
    pub lease: &'a Lease,
    /// What was written lately.
    pub memory: &'a Memory,
    /// Names found to be taken.
    pub taken: &'a TakenNames,
    /// What is counted.
    pub metrics: &'a Metrics,
    /// The link.
    pub link: &'a LinkRef,
    /// Its uid.
    pub uid: &'a str,
    /// What is known of its namespace.
    pub space: &'a Space,
    /// The version of the `ConfigMap` that was looked at; absent where there was none. What is written follows from it.
    pub stored: Option<&'a str>,
}

/// Which kinds are written, and how they are called.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind.
    const KIND: ObjectKind;
}

macro_rules! kinds {
    ($($kind:ident: $path:path),*) => { $(impl Kind for $path { const KIND: ObjectKind = ObjectKind::$kind; })* };
}
kinds! {
    ServiceAccount: k8s_openapi::api::core::v1::ServiceAccount,
    Secret: k8s_openapi::api::core::v1::Secret,
    ConfigMap: k8s_openapi::api::core::v1::ConfigMap,
    NetworkPolicy: k8s_openapi::api::networking::v1::NetworkPolicy,
    Service: k8s_openapi::api::core::v1::Service,
    PodDisruptionBudget: k8s_openapi::api::policy::v1::PodDisruptionBudget,
    Deployment: k8s_openapi::api::apps::v1::Deployment
}

impl Applier<'_> {
    /// All objects of a link, in their order. First come those that a narrowing needs, then `push`: nothing that lacks
    /// elsewhere holds it up.
    pub async fn apply(&self, objects: Objects, push: impl FnOnce()) -> Applied {
        // Without `..`: a kind that is forgotten here does not compile.
        let Objects {
            service_account,
            secret,
            config_map,
            network_policy,
            peer_service,
            import_services,
            pod_disruption_budget,
            deployment,
        } = objects;
        let (mut applied, space) = (Applied::default(), self.space);
        let services: Vec<_> = peer_service.into_iter().chain(import_services).collect();
        let wanted: BTreeSet<String> = services.iter().map(ResourceExt::name_any).collect();
        self.put(&space.network_policies, &network_policy, &mut applied).await;
        if self.put(&space.config_maps, &config_map, &mut applied).await {
            push();
        }
        self.put(&space.service_accounts, &service_account, &mut applied).await;
        if let Some(secret) = &secret {
            self.put(&space.secrets, secret, &mut applied).await;
        }
        for service in &services {
            self.put(&space.services, service, &mut applied).await;
        }
        self.put(&space.disruption_budgets, &pod_disruption_budget, &mut applied).await;
        self.put(&space.deployments, &deployment, &mut applied).await;
        let swept = self.sweep(&space.services, &|name| wanted.contains(name), &mut applied).await;
        applied.went(swept);
        applied
    }

    /// Brings one object to what is wanted; whether that went through.
    async fn put<K: Kind>(&self, store: &Store<K>, desired: &K, applied: &mut Applied) -> bool {
        let result = self.bring(store, desired, applied).await;
        applied.went(result)
    }

    async fn bring<K: Kind>(&self, store: &Store<K>, desired: &K, applied: &mut Applied) -> Result<(), ApplyError> {
        let name = desired.name_any();
        let cached = store.get(&self.link.namespace, &name);
        let (latest, lags) = self.memory.latest(self.link, &name, cached);
        if lags {
            applied.look_again(LAG);
        }
        let digest = keyed::hash(desired);
        if let Some(live) = &latest
            && live.is_owned(self.uid)
            && self.is_current::<K>(live.version())
            && self.memory.is_in_place::<K>(self.link, (&name, live.version()), digest)
        {
            return Ok(());
        }
        let wanted = as_value(desired);
        let live = match latest.and_then(|latest| latest.read()) {
            Some(live) if !is_owned(live.as_ref(), self.uid) => return Err(self.is_taken(live.as_ref())),
            Some(live) => live,
            None if self.waits::<K>(&name, &wanted, applied) => return Ok(()),
            None => match self.create(desired, applied).await? {
                Some(live) => live,
                None => return Ok(()),
            },
        };
        if !self.is_current::<K>(live.meta().resource_version.as_deref()) {
            return Err(ApplyError::Moved { kind: K::KIND, name });
        }
        let found = differences(&as_value(live.as_ref()), &wanted);
        if found.is_empty() {
            self.memory.settle(K::KIND, self.link, &name, &wanted, &found);
            self.memory.in_place(self.link, live.as_ref(), digest);
            return Ok(());
        }
        if self.memory.is_settled(K::KIND, self.link, &name, &wanted, &found) {
            self.memory.in_place(self.link, live.as_ref(), digest);
            return Ok(());
        }
        if self.waits::<K>(&name, &wanted, applied) {
            return Ok(());
        }
        if self.memory.wanted_before(K::KIND, self.link, &name, &wanted) {
            let fields: Vec<&str> = found.missing.iter().chain(&found.surplus).take(5).map(String::as_str).collect();
            applied.drifted.push(format!("{} {name}: {}", K::KIND, fields.join(", ")));
        }
        let mut now = live;
        if !found.missing.is_empty() {
            now = self.patch(desired, now.as_ref()).await?;
        }
        if !differences(&as_value(now.as_ref()), &wanted).surplus.is_empty() {
            now = self.replace(now.as_ref(), &wanted).await?;
        }
        // What a webhook or another controller makes of it at once is not fought over (faults F27, F29).
        let left = differences(&as_value(now.as_ref()), &wanted);
        self.memory.settle(K::KIND, self.link, &name, &wanted, &left);
        Ok(())
    }

    /// Whether an object may be written. A version of the configuration follows from the one before: of two leaders one is
    /// refused.
    fn is_current<K: Kind>(&self, version: Option<&str>) -> bool {
        K::KIND != ObjectKind::ConfigMap || version == self.stored
    }

    /// Whether to leave for now what others changed or removed: who does it again and again is not fought at full speed
    /// (fault F27).
    fn waits<K: Kind>(&self, name: &str, wanted: &Value, applied: &mut Applied) -> bool {
        let before = self.memory.wanted_before(K::KIND, self.link, name, wanted);
        let pause = before.then(|| self.memory.repair(K::KIND, self.link, name)).flatten();
        if let Some(pause) = pause {
            applied.look_again(pause);
        }
        pause.is_some()
    }

    /// Makes an object; one of ours that the cache does not show yet, or that lost its labels, is handed back.
    async fn create<K: Kind>(&self, desired: &K, applied: &mut Applied) -> Result<Option<Arc<K>>, ApplyError> {
        let (api, name) = (self.api::<K>(), desired.name_any());
        self.may_write()?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&parameters, desired).await {
            Ok(made) => {
                self.wrote::<K>("create");
                if self.memory.wanted_before(K::KIND, self.link, &name, &as_value(desired)) {
                    applied.drifted.push(format!("{} {name}: deleted", K::KIND));
                }
                self.memory.written(self.link, &as_value(desired), made);
                applied.created.push(format!("{} {name}", K::KIND));
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = api.get_opt(&name).await.map_err(|source| self.failed::<K>("get", &name, source))?;
                match there {
                    Some(there) if is_owned(&there, self.uid) => Ok(Some(self.memory.found(self.link, there))),
                    Some(there) => Err(self.is_taken(&there)),
                    None => Err(self.failed::<K>("create", &name, kube::Error::Api(status))),
                }
            }
            Err(source) => Err(self.failed::<K>("create", &name, source)),
        }
    }

    async fn patch<K: Kind>(&self, desired: &K, live: &K) -> Result<Arc<K>, ApplyError> {
        let name = desired.name_any();
        let mut body = as_value(desired);
        body["metadata"]["uid"] = live.uid().into();
        // What others own by now is taken back, but only from this very version.
        if K::KIND == ObjectKind::ConfigMap {
            body["metadata"]["resourceVersion"] = live.resource_version().into();
        }
        self.may_write()?;
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let now = self.api::<K>().patch(&name, &parameters, &Patch::Apply(&body)).await;
        let now = now.map_err(|source| self.failed::<K>("apply", &name, source))?;
        self.wrote::<K>("apply");
        Ok(self.memory.written(self.link, &as_value(desired), now))
    }

    async fn replace<K: Kind>(&self, live: &K, wanted: &Value) -> Result<Arc<K>, ApplyError> {
        let name = live.name_any();
        let body: K = serde_json::from_value(without_surplus(&as_value(live), wanted))
            .map_err(|error| self.failed::<K>("replace", &name, kube::Error::SerdeError(error)))?;
        self.may_write()?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let now = self.api::<K>().replace(&name, &parameters, &body).await;
        let now = now.map_err(|source| self.failed::<K>("replace", &name, source))?;
        self.wrote::<K>("replace");
        Ok(self.memory.written(self.link, wanted, now))
    }

    /// Removes what the link owns and does not want any more.
    async fn sweep<K: Kind>(
        &self,
        store: &Store<K>,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        let selector = names::selector(&self.link.name);
        let labelled = store.concerning(selector.get(LINK).map(String::as_str));
        let owned = labelled.iter().filter(|held| held.is_owned(self.uid)).filter_map(Held::read);
        let surplus = owned.filter(|it| it.meta().deletion_timestamp.is_none() && !wanted(&it.name_any()));
        for object in surplus.collect::<Vec<_>>() {
            let name = object.name_any();
            if self.memory.is_gone(self.link, object.as_ref()) {
                continue;
            }
            self.may_write()?;
            let preconditions = Preconditions { uid: object.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            match self.api::<K>().delete(&name, &parameters).await {
                Ok(_) => {
                    self.wrote::<K>("delete");
                    applied.removed.push(format!("{} {name}", K::KIND));
                }
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(source) => return Err(self.failed::<K>("delete", &name, source)),
            }
            self.memory.removed(self.link, object.as_ref());
        }
        Ok(())
    }

    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.link.namespace)
    }

    fn may_write(&self) -> Result<(), ApplyError> {
        if self.lease.holds() { Ok(()) } else { Err(ApplyError::NotLeading) }
    }

    fn wrote<K: Kind>(&self, verb: &'static str) {
        self.metrics.wrote(K::KIND.as_str(), verb);
    }

    fn is_taken<K: Kind>(&self, there: &K) -> ApplyError {
        let (name, holder) = (there.name_any(), holder(there));
        self.taken.remember(&self.link.namespace, K::KIND, &name, holder.clone());
        ApplyError::Taken { kind: K::KIND, name, holder }
    }

    fn failed<K: Kind>(&self, verb: &'static str, name: &str, source: kube::Error) -> ApplyError {
        // Whatever was remembered of it may be what is wrong.
        self.memory.forget(K::KIND, self.link, name);
        ApplyError::Api { verb, kind: K::KIND, name: name.to_owned(), source: Box::new(source) }
    }
}

fn as_value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
