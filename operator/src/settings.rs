//! What the operator was installed with: the command line, the pod's environment and the chart's `config.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use securelink_crds::IssuerRef;
use securelink_crds::keys::NAMESPACE_NAME;
use securelink_plan::{DnsServers, Installation};
use securelink_relay_config::RecordLayer;
use serde::{Deserialize, Serialize};

/// Largest `config.yaml` that is read, in bytes: a few dozen lines are expected.
const MAX_CONFIG: u64 = 256 * 1024;

/// Runs the operator: watches links and makes certificates, relays and network policies of them.
#[derive(Debug, Parser)]
#[command(name = "securelink-operator", version)]
pub struct Arguments {
    /// The chart's configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where metrics and health are shown.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// The operator's own namespace: its keys live there.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,
    /// This replica's name, unique among all: who holds the lease.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub name: String,
}

/// The chart's `config.yaml`. An unknown key is an error: a slip must not leave a guard off.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The relays' image.
    pub image: String,
    /// When nodes pull it.
    #[serde(default)]
    pub image_pull_policy: Option<String>,
    /// CPU and memory of a relay whose link does not say.
    #[serde(default)]
    pub resources: ResourceRequirements,
    /// Who makes the records of TLS in relays.
    #[serde(default)]
    pub records: RecordLayer,
    /// Labels of the operator's own pods.
    pub operator_labels: BTreeMap<String, String>,
    /// Who may read relays' metrics.
    #[serde(default)]
    pub monitoring: Vec<NetworkPolicyPeer>,
    /// Where relays resolve names.
    #[serde(default)]
    pub dns: Vec<Dns>,
    /// Networks relays never dial, beside link-local and metadata.
    #[serde(default, rename = "deniedCIDRs")]
    pub denied_cidrs: BTreeSet<IpNet>,
    /// The cluster's own networks, of pods and of Services.
    #[serde(default, rename = "clusterCIDRs")]
    pub cluster_cidrs: BTreeSet<IpNet>,
    /// The domain of the cluster's names.
    #[serde(default = "cluster_local")]
    pub cluster_domain: String,
    /// Whether pods have IPv6 addresses.
    #[serde(default)]
    pub ipv6: bool,
    /// How the log is written.
    #[serde(default)]
    pub log_format: LogFormat,
    /// What cert-manager may be asked.
    #[serde(default)]
    pub cert_manager: CertManager,
}

/// What cert-manager may be asked.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertManager {
    /// The issuers that identities may name. Nothing is asked of others.
    #[serde(default)]
    pub issuers: Vec<ListedIssuer>,
}

/// An issuer of cert-manager that identities may name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ListedIssuer {
    /// Its API group.
    #[serde(default = "cert_manager_group")]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The namespace of the identities that may name it; absent: all of them. An Issuer's is its own.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl ListedIssuer {
    /// Whether an identity of this namespace means it.
    pub fn is(&self, namespace: &str, issuer: &IssuerRef) -> bool {
        let (group, kind, name) = (&issuer.group, &issuer.kind, &issuer.name);
        (&self.group, &self.kind, &self.name) == (group, kind, name)
            && self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

/// Name servers that pods ask.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Who they are.
    pub peers: Vec<NetworkPolicyPeer>,
    /// The port they listen on.
    #[serde(default = "dns_port")]
    pub port: u16,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error("cannot read {path}: {source}; mount the chart's ConfigMap there")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its size.
    #[error("{0} has more than {MAX_CONFIG} bytes; it is not the chart's config.yaml")]
    TooLarge(PathBuf),
    /// Its contents.
    #[error("{path} is not valid: {why}; correct the chart's values")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
}

impl Config {
    /// Reads the file.
    pub fn read(path: &std::path::Path) -> Result<Self, SettingsError> {
        let failed = |source| SettingsError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_CONFIG {
            return Err(SettingsError::TooLarge(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        serde_saphyr::from_str(&text)
            .map_err(|error| SettingsError::Malformed { path: path.to_owned(), why: error.to_string() })
    }

    /// What the planner is told. `api_servers` are never dialed by a relay; `control_cas` are the roots of the control port.
    pub fn installation(
        &self,
        namespace: &str,
        api_servers: impl IntoIterator<Item = IpAddr>,
        control_cas: Vec<String>,
    ) -> Arc<Installation> {
        let select = |labels| Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() });
        let own = BTreeMap::from([(NAMESPACE_NAME.to_owned(), namespace.to_owned())]);
        Arc::new(Installation {
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            resources: self.resources.clone(),
            records: self.records,
            operator: NetworkPolicyPeer {
                namespace_selector: select(own),
                pod_selector: select(self.operator_labels.clone()),
                ip_block: None,
            },
            monitoring: self.monitoring.clone(),
            dns: self.dns.iter().map(|dns| DnsServers { peers: dns.peers.clone(), port: dns.port }).collect(),
            control_cas,
            denied: self.denied_cidrs.iter().copied().chain(api_servers.into_iter().map(IpNet::from)).collect(),
            ranges: self.cluster_cidrs.clone(),
            domain: self.cluster_domain.clone(),
            ipv6: self.ipv6,
        })
    }
}

/// The installation as it is now: the control CAs may be replaced while the operator runs.
#[derive(Debug)]
pub struct Installed(Mutex<Arc<Installation>>);

impl Installed {
    /// As it was at the start.
    pub fn new(installation: Arc<Installation>) -> Self {
        Self(Mutex::new(installation))
    }

    /// As it is.
    pub fn now(&self) -> Arc<Installation> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Relays are to trust these on their control port from now on.
    pub fn trust(&self, control_cas: Vec<String>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(Installation { control_cas, ..held.as_ref().clone() });
    }
}

fn cluster_local() -> String {
    "cluster.local".to_owned()
}

fn dns_port() -> u16 {
    53
}

fn cert_manager_group() -> String {
    "cert-manager.io".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_listed_by_group_kind_name_and_the_namespace_of_who_asks() {
        let listed = |yaml: &str| serde_saphyr::from_str::<ListedIssuer>(yaml);
        let (everywhere, here) =
            ("{kind: ClusterIssuer, name: links}", "{kind: Issuer, name: links, namespace: liaison}");
        let issuer = |group: &str, kind: &str, name: &str| IssuerRef {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let own = "cert-manager.io";
        let rows = [
            (everywhere, "liaison", issuer(own, "ClusterIssuer", "links"), true),
            (everywhere, "desk", issuer(own, "ClusterIssuer", "links"), true),
            (everywhere, "liaison", issuer(own, "ClusterIssuer", "corp"), false),
            (everywhere, "liaison", issuer(own, "Issuer", "links"), false),
            (everywhere, "liaison", issuer("other.example", "ClusterIssuer", "links"), false),
            (here, "liaison", issuer(own, "Issuer", "links"), true),
            (here, "desk", issuer(own, "Issuer", "links"), false),
        ];
        for (yaml, namespace, issuer, wanted) in rows {
            assert_eq!(listed(yaml).unwrap().is(namespace, &issuer), wanted, "{yaml}: {issuer:?} in {namespace}");
        }
        assert!(listed("{kind: ClusterIssuer, nam: links}").is_err() && listed("{name: links}").is_err());
    }
}
