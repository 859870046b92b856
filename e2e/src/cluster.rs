//! One cluster of the lab as a client sees it, and the namespaces that tests make in it.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, ServiceAccount};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::wait::until;

/// How long a namespace may take to get its service account, or to go with all that is in it.
const NAMESPACE_LIMIT: Duration = Duration::from_secs(90);

/// The label of every namespace that a test made.
const MADE_BY_A_TEST: &str = "securelink.dev/e2e";

/// A kind of object that a test makes and waits for.
pub trait Kind: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static {}

impl<K> Kind for K where K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static {}

/// One organization's cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The lab's name for it, as `org-a`.
    pub name: String,
    /// The address at which other clusters dial it.
    pub address: String,
    /// A client with every right.
    pub client: Client,
}

impl Cluster {
    /// A client for a cluster that is up.
    pub async fn connect(lab: &Lab, name: &str) -> Result<Self> {
        let path = lab.kubeconfig(name)?;
        let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("{} is no kubeconfig", path.display()))?;
        config.connect_timeout = Some(Duration::from_secs(5));
        let client = Client::try_from(config).with_context(|| format!("cannot make a client for {name}"))?;
        client.apiserver_version().await.with_context(|| format!("the API server of {name} does not answer"))?;
        Ok(Self { name: name.to_owned(), address: lab.address(name)?, client })
    }

    /// Makes a namespace in which only restricted pods may run, named after `purpose`.
    pub async fn namespace(&self, purpose: &str) -> Result<Namespace> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("e2e-{purpose}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        self.namespace_named(purpose, name).await
    }

    /// The same under a name that something else gives.
    pub async fn namespace_named(&self, purpose: &str, name: String) -> Result<Namespace> {
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted", MADE_BY_A_TEST: purpose });
        let object = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))?;
        Api::<KubeNamespace>::all(self.client.clone())
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("{}: cannot make namespace {name}", self.name))?;
        let namespace = Namespace { cluster: self.clone(), name };
        // It appears a moment later, and no pod can start before it.
        until(&namespace.api::<ServiceAccount>(), "default", "be there", NAMESPACE_LIMIT, |found| found.is_some())
            .await?;
        Ok(namespace)
    }

    /// Creates an object of the whole cluster, written as in YAML.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Kind + Resource<Scope = ClusterResourceScope>,
    {
        create(&Api::<K>::all(self.client.clone()), &PostParams::default(), object)
            .await
            .with_context(|| self.name.clone())
    }

    /// Removes an object of the whole cluster, and returns when it is gone.
    pub async fn remove<K>(&self, name: &str) -> Result<()>
    where
        K: Kind + Resource<Scope = ClusterResourceScope>,
    {
        let api = Api::<K>::all(self.client.clone());
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot remove {} {name}", K::kind(&()))),
            Ok(_) => {}
        }
        until(&api, name, "be gone", NAMESPACE_LIMIT, |found| found.is_none()).await.map(drop)
    }

    /// Whether a test made the namespace of this name, be it gone by now.
    pub async fn is_of_a_test(&self, namespace: &str) -> Result<bool> {
        let found = Api::<KubeNamespace>::all(self.client.clone()).get_opt(namespace).await?;
        Ok(match found {
            Some(found) => found.metadata.labels.is_some_and(|labels| labels.contains_key(MADE_BY_A_TEST)),
            None => namespace.starts_with("e2e-"),
        })
    }

    /// Removes the namespaces of a run that was killed: they hold node ports that the next run needs.
    pub async fn sweep(&self) -> Result<()> {
        let ours = ListParams::default().labels(MADE_BY_A_TEST);
        let all = Api::<KubeNamespace>::all(self.client.clone());
        let found = all.list_metadata(&ours).await.with_context(|| format!("{}: cannot list namespaces", self.name))?;
        let names = found.items.into_iter().filter_map(|object| object.metadata.name);
        let left: Vec<Namespace> = names.map(|name| Namespace { cluster: self.clone(), name }).collect();
        try_join_all(left.iter().map(Namespace::remove)).await.map(drop)
    }
}

/// A namespace of one test. The harness removes it when the test has ended.
#[derive(Clone)]
pub struct Namespace {
    /// The cluster it is in.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// The objects of a kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// Creates an object, written as in YAML.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        self.post(&PostParams::default(), object).await
    }

    /// Has an object judged as if it were created.
    pub async fn dry_run<K>(&self, object: Value) -> Result<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        self.post(&PostParams { dry_run: true, ..PostParams::default() }, object).await
    }

    async fn post<K>(&self, how: &PostParams, object: Value) -> Result<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        create(&self.api::<K>(), how, object).await.with_context(|| format!("{}/{}", self.cluster.name, self.name))
    }

    /// Removes it, and returns when all that was in it is gone.
    pub async fn remove(&self) -> Result<()> {
        self.cluster.remove::<KubeNamespace>(&self.name).await
    }
}

async fn create<K: Kind>(api: &Api<K>, how: &PostParams, object: Value) -> Result<K> {
    let kind = K::kind(&()).into_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
    let object = serde_json::from_value(object).with_context(|| format!("{name} is no {kind}"))?;
    api.create(how, &object).await.with_context(|| format!("cannot make {kind} {name}"))
}
