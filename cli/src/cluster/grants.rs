//! What lets the operator work in a namespace: one `RoleBinding`, to a role of the chart.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding, RoleRef, Subject};
use kube::Api;
use kube::api::ObjectMeta;
use securelink_crds::keys::{COMPONENT, MANAGED_BY, MANAGER, NAME, PRODUCT};

use super::{Asked, Cluster, ClusterError, Scope};

/// The value of [`COMPONENT`] on the operator's Deployment (the chart's `securelink.selector`).
const OPERATOR: &str = "operator";
/// API group of roles and bindings.
const RBAC: &str = "rbac.authorization.k8s.io";

/// A namespace, and what the operator may do there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The namespace.
    pub namespace: String,
    /// The chart's role.
    pub role: &'static str,
    /// The operator's own namespace.
    pub operator: String,
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The binding was made.
    Made,
    /// There was one without the operator; it was added.
    Added,
    /// It was granted before.
    Before,
}

impl Grant {
    /// The binding's name. The chart has bindings of its own, by the role's name, and Helm takes over none that it did not
    /// make: a namespace may be granted both ways, and each is taken back as it was given.
    fn name(&self) -> String {
        format!("{}-granted", self.role)
    }

    fn subject(&self) -> Subject {
        Subject {
            kind: "ServiceAccount".to_owned(),
            name: MANAGER.to_owned(),
            namespace: Some(self.operator.clone()),
            ..Subject::default()
        }
    }

    /// The binding that grants it.
    pub fn binding(&self) -> RoleBinding {
        let labels = [(NAME, PRODUCT), ("app.kubernetes.io/part-of", PRODUCT), (MANAGED_BY, "kubectl-securelink")];
        RoleBinding {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
                ..ObjectMeta::default()
            },
            role_ref: RoleRef {
                api_group: RBAC.to_owned(),
                kind: "ClusterRole".to_owned(),
                name: self.role.to_owned(),
            },
            subjects: Some(vec![self.subject()]),
        }
    }
}

impl Cluster {
    /// Namespaces in which an operator's Deployment is.
    pub async fn operators(&self) -> Result<Vec<String>, ClusterError> {
        let labels = format!("{NAME}={PRODUCT},{COMPONENT}={OPERATOR}");
        let scope = Scope { labels: Some(&labels), ..Scope::default() };
        let found = self.list::<Deployment>(scope).await?;
        let mut namespaces: Vec<_> = found.items.into_iter().filter_map(|found| found.metadata.namespace).collect();
        namespaces.dedup();
        Ok(namespaces)
    }

    /// Binds the operator, unless it is bound. With `dry_run` the API server only says whether it would.
    pub async fn grant(&self, grant: &Grant, dry_run: bool) -> Result<Bound, ClusterError> {
        self.role_is_there(grant.role).await?;
        let wanted = grant.binding();
        if self.create(&grant.namespace, &wanted, dry_run).await?.is_some() {
            return Ok(Bound::Made);
        }
        let (namespace, name) = (&grant.namespace, &grant.name());
        let changing = || ClusterError::InTheWay(format!("RoleBinding {name} in {namespace} is changing; ask again"));
        let mut standing = self.get::<RoleBinding>(namespace, name).await?.ok_or_else(changing)?;
        if standing.role_ref != wanted.role_ref {
            return Err(ClusterError::InTheWay(format!(
                "RoleBinding {name} in {namespace} binds {} {}, and what it binds cannot be changed; delete it, and grant again",
                standing.role_ref.kind, standing.role_ref.name
            )));
        }
        let subjects = standing.subjects.get_or_insert_default();
        if subjects.contains(&grant.subject()) {
            return Ok(Bound::Before);
        }
        subjects.push(grant.subject());
        self.replace(&standing, dry_run).await.map(|_| Bound::Added)
    }

    /// A binding to a role that is not there grants nothing. Who may not look is not held up by that.
    async fn role_is_there(&self, role: &str) -> Result<(), ClusterError> {
        let asked = Asked {
            verb: "get",
            kind: "ClusterRole".to_owned(),
            resource: "clusterroles".to_owned(),
            name: Some(role.to_owned()),
            namespace: None,
        };
        match self.call(asked, Api::<ClusterRole>::all(self.client.clone()).get_opt(role)).await {
            Ok(None) => Err(ClusterError::InTheWay(format!(
                "there is no ClusterRole {role} in this cluster; install the chart securelink, or check the context"
            ))),
            Ok(Some(_)) | Err(ClusterError::Forbidden { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
