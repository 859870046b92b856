//! One installation on a control plane: a namespace of the operator and one of links, with the rights of the chart.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, TypeMeta};
use kube::core::GroupVersionKind;
use kube::{Api, Resource};
use securelink_crds::conditions::{Condition, ConditionType, find};
use securelink_crds::{LinkIdentity, SecureLink};
use serde_json::{Value, json};

use super::{FIELD_MANAGER, Operator, Plane, Profile, Proxy, checkout};
use crate::cluster::Namespace;
use crate::installed::OPERATOR;
use crate::wait::until;

/// How long an operator on a busy machine may take for what it does at once.
pub const LIMIT: Duration = Duration::from_mins(2);
/// For the length of a test; an hour is the default.
const TOKEN_SECONDS: i64 = 6 * 3600;
/// The Kubernetes that is rendered for.
const FOR: [&str; 2] = ["--kube-version", "1.36.2"];

/// An installation without its operator.
pub struct Site<'a> {
    plane: &'a Plane,
    /// Where the operator is.
    pub own: Namespace,
    /// Where links may be.
    pub links: Namespace,
    /// By which the operator says who it is.
    pub(super) token: String,
    /// The chart's `config.yaml`.
    pub(super) config: String,
    /// What the chart sets in the operator's environment.
    pub(super) environment: Vec<(String, String)>,
}

impl<'a> Site<'a> {
    /// Makes the namespaces, and what the chart makes beside the operator's workload.
    pub async fn new(plane: &'a Plane) -> Result<Self> {
        let (own, links) =
            futures_util::future::try_join(plane.namespace("operator"), plane.namespace("links")).await?;
        let bare = Self { plane, own, links, token: String::new(), config: String::new(), environment: Vec::new() };
        let mut site = bare.with_values(&[])?;
        for object in site.rendered(&[])? {
            if let "ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" =
                object["kind"].as_str().unwrap_or_default()
            {
                site.apply(&object).await?;
            }
        }
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = site.own.api::<ServiceAccount>();
        let answer = accounts.create_token_request(OPERATOR, &PostParams::default(), &request).await;
        site.token = answer.context("a token for the operator")?.status.context("a token for the operator")?.token;
        Ok(site)
    }

    /// On which control plane.
    pub fn plane(&self) -> &'a Plane {
        self.plane
    }

    /// The objects of the chart with these further arguments of `helm template`.
    pub fn rendered(&self, more: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(self.plane.helm());
        command.args(["template", "securelink", "charts/securelink", "--namespace", &self.own.name]).args(FOR);
        command.args(["--set", &format!("linkNamespaces={{{}}}", self.links.name)]).args(more);
        let nothing = self.plane.folder().join("helm");
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECONFIG"] {
            command.env(folder, &nothing);
        }
        let output = command.current_dir(checkout()).output().context("cannot run Helm")?;
        ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).context("what Helm renders")?;
        let documents = text.split("\n---\n").map(|one| serde_saphyr::from_str(one).context("what Helm renders"));
        documents.collect()
    }

    /// Applies an object, written as in YAML.
    pub async fn apply(&self, object: &Value) -> Result<DynamicObject> {
        apply(self.plane, object).await
    }

    /// Removes such an object, if it is there.
    pub async fn remove(&self, object: &Value) -> Result<()> {
        let (api, name) = addressed(self.plane, object)?;
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(drop).with_context(|| format!("remove {name}")),
        }
    }

    /// The objects of a kind that is known by its words alone, where links are.
    pub fn dynamic(&self, version: &str, kind: &str) -> Result<Api<DynamicObject>> {
        let namespace = json!({ "namespace": self.links.name, "name": "" });
        let any = json!({ "apiVersion": version, "kind": kind, "metadata": namespace });
        addressed(self.plane, &any).map(|(api, _)| api)
    }

    /// The same installation, with links in another namespace.
    pub fn elsewhere(&self, links: Namespace) -> Self {
        let (token, config, environment) = (self.token.clone(), self.config.clone(), self.environment.clone());
        Self { plane: self.plane, own: self.own.clone(), links, token, config, environment }
    }

    /// The same installation, with an operator that is told of other values by these further arguments of `helm template`.
    pub fn with_values(&self, more: &[&str]) -> Result<Self> {
        let objects = self.rendered(more)?;
        let config = objects.iter().find_map(|object| object["data"]["config.yaml"].as_str()).context("config.yaml")?;
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").context("a Deployment")?;
        let set =
            deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().context("its environment")?;
        let text = |one: &Value, key: &str| one[key].as_str().map(str::to_owned);
        let environment = set.iter().filter_map(|one| Some((text(one, "name")?, text(one, "value")?))).collect();
        Ok(Self { config: config.to_owned(), environment, ..self.elsewhere(self.links.clone()) })
    }

    /// Allows links where they are.
    pub async fn grant(&self) -> Result<()> {
        for object in self.rendered(&[])? {
            if object["kind"] == "RoleBinding" && object["metadata"]["namespace"] == self.links.name {
                self.apply(&object).await?;
            }
        }
        Ok(())
    }

    /// Starts a replica of the operator.
    pub async fn operator(&self, proxy: &Proxy, name: &str) -> Result<Operator> {
        self.operator_of(&Operator::built(Profile::Same).await?, proxy, name)
    }

    /// Starts a replica of this program.
    pub fn operator_of(&self, program: &Path, proxy: &Proxy, name: &str) -> Result<Operator> {
        Operator::start(self, program, proxy, name)
    }

    /// The objects of a kind where links are.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        self.links.api()
    }

    /// Declares the identity `default`.
    pub async fn identity(&self) -> Result<()> {
        let spec = json!({ "trustDomain": "interpol.example", "issuer": { "builtIn": {} } });
        let identity = json!({ "metadata": { "name": "default" }, "spec": spec });
        self.links.create::<LinkIdentity>(identity).await.map(drop)
    }

    /// Declares a link, and its identity with the first. Each name has a partner of its own.
    pub async fn link(&self, name: &str) -> Result<SecureLink> {
        if self.api::<LinkIdentity>().get_opt("default").await?.is_none() {
            self.identity().await?;
        }
        self.links.create(link(name)).await
    }

    /// Returns as soon as a condition of a link has this reason, with the condition.
    pub async fn until_says(&self, link: &str, kind: ConditionType, reason: &str) -> Result<Condition> {
        self.until_told(link, kind, &format!("say {reason}"), |it| it.reason == reason).await
    }

    /// Returns as soon as this holds of a condition of a link, with the condition.
    pub async fn until_told(
        &self,
        link: &str,
        kind: ConditionType,
        what: &str,
        holds: impl Fn(&Condition) -> bool,
    ) -> Result<Condition> {
        let told = |it: Option<&SecureLink>| said(it, kind).is_some_and(&holds);
        let what = format!("{what} in {}", kind.as_str());
        let found = until(&self.api::<SecureLink>(), link, &what, LIMIT, told).await?;
        said(found.as_ref(), kind).cloned().context("the condition")
    }

    /// Returns as soon as a link has no condition of this type.
    pub async fn until_silent(&self, link: &str, kind: ConditionType) -> Result<()> {
        let silent =
            |it: Option<&SecureLink>| it.is_some_and(|it| it.status.is_some() && said(Some(it), kind).is_none());
        let what = format!("have no {}", kind.as_str());
        until(&self.api::<SecureLink>(), link, &what, LIMIT, silent).await.map(drop)
    }
}

/// A link with one import, whose partner is named after it.
pub fn link(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "identityRef": { "name": "default" },
            "peer": {
                "trustDomain": format!("{name}.example"),
                "fingerprints": [format!("sha256:{}", "4b".repeat(32))],
                "endpoints": [{ "host": format!("link.{name}.example"), "port": 443 }],
            },
            "imports": [{
                "name": "siena",
                "port": 8443,
                "dataClass": "operational",
                "clients": [{ "podSelector": { "matchLabels": { "app": "case-desk" } } }],
            }],
            "expose": { "type": "LoadBalancer", "hostname": format!("{name}.interpol.example"), "port": 443 },
        },
    })
}

/// Applies an object anywhere.
pub(super) async fn apply(plane: &Plane, object: &Value) -> Result<DynamicObject> {
    let (api, name) = addressed(plane, object)?;
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("apply {name}"))
}

/// Where an object belongs, and its name.
fn addressed<'a>(plane: &Plane, object: &'a Value) -> Result<(Api<DynamicObject>, &'a str)> {
    let types: TypeMeta = serde_json::from_value(object.clone()).context("a kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).context("a kind")?);
    let client = plane.cluster.client.clone();
    let metadata = &object["metadata"];
    let api = match metadata["namespace"].as_str() {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    Ok((api, metadata["name"].as_str().context("a name")?))
}

fn said(link: Option<&SecureLink>, kind: ConditionType) -> Option<&Condition> {
    find(&link?.status.as_ref()?.conditions, kind)
}
