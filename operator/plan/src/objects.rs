//! The Kubernetes objects of one link, one file for each kind. Pure: the same inputs give the same objects.
//!
//! What changes in a running link (imports, exports, agreements, cuts, the leaf) is in the `ConfigMap` and the Secret and is
//! pushed; the pod template holds nothing of it, so that no such change restarts a relay.

mod config_map;
mod deployment;
mod network_policy;
mod pod;
mod pod_disruption_budget;
mod secret;
mod service;
mod service_account;

use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use securelink_relay_config::Snapshot;
use securelink_relay_config::control::LeafPem;

use crate::accepted::Accepted;
use crate::gathered::Installation;
use crate::names::{self, Component};
use crate::validated::ValidatedLink;

pub use config_map::{ACCEPTED_JSON, RELAY_JSON};
pub use secret::{LEAF_CHAIN, LEAF_KEY, LEAF_TRANSITIONS, LEAF_TYPE};

/// Everything that is made for a link, in the order in which it is applied: what a pod mounts and what guards it stand
/// before the Deployment.
#[derive(Clone, PartialEq)]
pub struct Objects {
    /// The relays' account, without a token and without a right.
    pub service_account: ServiceAccount,
    /// The leaf. Absent until there is one; what is there already stays.
    pub secret: Option<Secret>,
    /// `relay.json` and `accepted.json`.
    pub config_map: ConfigMap,
    /// Who may reach the relays, and whom they may reach.
    pub network_policy: NetworkPolicy,
    /// Where the peer reaches the relays; absent when we only dial.
    pub peer_service: Option<Service>,
    /// Where clients here reach the peer's services, one for each import.
    pub import_services: Vec<Service>,
    /// How many relays may be taken away at a time.
    pub pod_disruption_budget: PodDisruptionBudget,
    /// The relays.
    pub deployment: Deployment,
}

/// Without contents: one of them is a key.
impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
        f.debug_struct("Objects").field("deployment", &name).finish_non_exhaustive()
    }
}

/// What the objects of a link are made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The `SecureLink`'s uid: it owns them.
    pub uid: &'a str,
    /// The link.
    pub link: &'a ValidatedLink,
    /// What to keep as `accepted.json`.
    pub accepted: &'a Accepted,
    /// What the relays run, made from this link with [`snapshot`](crate::snapshot()); it says each import's slot.
    pub snapshot: &'a Snapshot,
    /// The leaf, once there is one.
    pub leaf: Option<&'a LeafPem>,
    /// Where it all runs.
    pub installation: &'a Installation,
}

impl Objects {
    /// Builds them all.
    pub fn build(inputs: &Inputs<'_>) -> Self {
        Self {
            service_account: service_account::build(inputs),
            secret: secret::build(inputs),
            config_map: config_map::build(inputs),
            network_policy: network_policy::build(inputs),
            peer_service: service::peer(inputs),
            import_services: service::imports(inputs),
            pod_disruption_budget: pod_disruption_budget::build(inputs),
            deployment: deployment::build(inputs),
        }
    }
}

impl Inputs<'_> {
    fn name(&self) -> &str {
        &self.link.link.name
    }

    /// The port of an import in the pods: its slot's.
    fn import_port(&self, name: &str) -> Option<u16> {
        self.snapshot.imports.iter().find(|import| import.name == name).map(|import| import.listen.port())
    }

    fn metadata(&self, name: String, component: Component) -> ObjectMeta {
        names::metadata(&self.link.link, self.uid, name, component)
    }

    /// The metadata of what belongs to the relays and has their name.
    fn relay_metadata(&self) -> ObjectMeta {
        self.metadata(names::relay(self.name()), Component::Relay)
    }
}
