//! Both charts in a cluster, as a user installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use securelink_crds::LinkIdentity;

use crate::cluster::{Cluster, Kind, Namespace};
use crate::harness::World;

/// The name of all that is the operator's: its `Deployment`, its account, its lease.
pub const OPERATOR: &str = "securelink-operator";
/// The label of all that the chart makes.
const OF_THE_CHART: &str = "app.kubernetes.io/part-of=securelink";

/// One organization with both charts, installed by one version of Helm.
pub struct Installed {
    helm: PathBuf,
    kubeconfig: PathBuf,
    /// Where.
    pub cluster: Cluster,
    /// Where the operator is.
    pub own: Namespace,
    /// Where links may be.
    pub links: Namespace,
    /// Values of the chart, as `--set` takes them, beside `linkNamespaces`.
    values: String,
}

impl Installed {
    /// Installs both charts by a version of Helm and with these values, as `--set` takes them; nothing where others have
    /// installed the kinds, who may not want them removed.
    pub async fn new(world: &World, cluster: &str, helm: &str, values: &str) -> Result<Option<Self>> {
        let cluster = Cluster::connect(&world.lab, cluster).await?;
        if !is_free(&cluster).await? {
            return Ok(None);
        }
        // Of a run that was killed.
        release(&cluster).await?;
        let cluster = world.cluster(&cluster.name).await?;
        clean(&cluster).await?;
        let own = world.namespace(&cluster, "operator").await?;
        let links = world.namespace(&cluster, "links").await?;
        let helm = world.lab.tools(&[helm])?.join(helm);
        let kubeconfig = world.lab.kubeconfig(&cluster.name)?;
        let installed = Self { helm, kubeconfig, cluster, own, links, values: values.to_owned() };
        installed.install("install")?;
        Ok(Some(installed))
    }

    /// Helm's `install` or `upgrade` of both.
    pub fn install(&self, how: &str) -> Result<()> {
        let values = format!("linkNamespaces={{{}}},{}", self.links.name, self.values);
        self.helm(&[how, "securelink-crds", "charts/securelink-crds"])?;
        self.helm(&[how, "securelink", "charts/securelink", "--set", &values])
    }

    /// Helm's `uninstall` of both.
    pub fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", "securelink"])?;
        self.helm(&["uninstall", "securelink-crds"])
    }

    /// Runs Helm in the operator's namespace.
    pub fn helm(&self, arguments: &[&str]) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new(&self.helm);
        command.args(arguments).args(["--namespace", &self.own.name]).env("KUBECONFIG", &self.kubeconfig);
        let output = command.current_dir(root).output().with_context(|| format!("{}", self.helm.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {}: {said}", self.helm.display(), arguments.join(" "));
        Ok(())
    }

    /// The kinds.
    pub fn definitions(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.cluster.client.clone())
    }

    /// The uids and generations of the kinds.
    pub async fn kinds(&self) -> Result<Vec<(Option<String>, Option<i64>)>> {
        let mut kinds = Vec::new();
        for definition in securelink_crds::definitions() {
            let found = self.definitions().get(&definition.name_any()).await?;
            kinds.push((found.uid(), found.metadata.generation));
        }
        Ok(kinds)
    }
}

/// Whether the kinds are absent, or of a test that was killed.
pub async fn is_free(cluster: &Cluster) -> Result<bool> {
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    for definition in securelink_crds::definitions() {
        let Some(found) = definitions.get_opt(&definition.name_any()).await? else { continue };
        let namespace = found.annotations().get("meta.helm.sh/release-namespace");
        let ours = match namespace {
            Some(namespace) => cluster.is_of_a_test(namespace).await?,
            None => false,
        };
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets go of every identity, as an operator does that is not there any more.
pub async fn release(cluster: &Cluster) -> Result<()> {
    let none = Patch::Merge(serde_json::json!({ "metadata": { "finalizers": [] } }));
    let all = Api::<LinkIdentity>::all(cluster.client.clone());
    let found = match all.list_metadata(&ListParams::default()).await {
        // A kind that is not there is a page that is not there.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        other => other?,
    };
    for identity in found.items {
        let (namespace, name) = (identity.namespace().unwrap_or_default(), identity.name_any());
        let there = Api::<LinkIdentity>::namespaced(cluster.client.clone(), &namespace);
        match there.patch(&name, &PatchParams::default(), &none).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other.with_context(|| format!("let go of identity {namespace}/{name}"))?),
        }
    }
    Ok(())
}

/// Removes what the charts make outside of namespaces, whether it is there or not.
pub async fn clean(cluster: &Cluster) -> Result<()> {
    clean_kind::<ClusterRoleBinding>(cluster).await?;
    clean_kind::<ClusterRole>(cluster).await?;
    for definition in securelink_crds::definitions() {
        cluster.remove::<CustomResourceDefinition>(&definition.name_any()).await?;
    }
    Ok(())
}

/// By label: a list of names would miss what the chart makes next.
async fn clean_kind<K>(cluster: &Cluster) -> Result<()>
where
    K: Kind + Resource<Scope = ClusterResourceScope>,
{
    let ours = ListParams::default().labels(OF_THE_CHART);
    for object in Api::<K>::all(cluster.client.clone()).list_metadata(&ours).await?.items {
        cluster.remove::<K>(&object.name_any()).await?;
    }
    Ok(())
}
