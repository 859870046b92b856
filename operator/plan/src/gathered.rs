//! Everything a verdict on one link depends on. The caller reads it from caches or files; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ResourceRequirements, Service};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use securelink_crds::load::Problem;
use securelink_crds::{LinkIdentity, LinkPolicy, SecureLink};
use securelink_relay_config::{Cut, CutScope, LinkRef, RecordLayer};
use serde_json::Value;

use crate::accepted::Accepted;
use crate::names::ObjectKind;

/// All inputs for one link.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Which link.
    pub link: LinkRef,
    /// What stands in its place now.
    pub declared: Declared,
    /// What was accepted last, read back with [`Accepted::from_bytes`].
    pub last_accepted: Option<Accepted>,
    /// The identity that `identityRef` names, if it exists and is valid.
    pub identity: Option<LinkIdentity>,
    /// That identity exists, but is invalid.
    pub identity_invalid: bool,
    /// The policies that apply: those for which [`policy_applies`](crate::policy_applies) holds.
    pub policies: Vec<LinkPolicy>,
    /// The cuts that hit this link, from [`cut_orders`](crate::cut_orders) and from `securelink cut`.
    pub cuts: Vec<CutOrder>,
    /// Another link between the same two trust domains, which is accepted rather than this one.
    pub preferred: Option<LinkRef>,
    /// What the API server denied in the link's namespace, so that nothing more could be looked at.
    pub denied: Option<Denied>,
    /// Where the link runs.
    pub mode: Mode,
}

/// What a person declares about the link.
#[derive(Clone, Debug)]
pub enum Declared {
    /// A `SecureLink` that schema and rules let pass.
    Valid(Box<SecureLink>),
    /// One that they do not.
    Invalid {
        /// As it was written: input for narrowing, never for widening.
        value: Value,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// Nothing any more.
    Deleted,
}

/// An order to carry nothing, already known to hit this link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutOrder {
    /// `LinkCut/<uid>`, or `LinkCut/<namespace>/<name>` without a cluster.
    pub id: String,
    /// A revision once seen is never obeyed twice; a `LinkCut`'s is 1, it cannot be changed.
    pub revision: u64,
    /// Why, for people on both sides.
    pub reason: String,
}

impl CutOrder {
    /// As relays are told: a `LinkCut` cuts the whole link.
    pub(crate) fn cut(&self) -> Cut {
        Cut { id: self.id.clone(), revision: self.revision, scope: CutScope::Link, reason: self.reason.clone() }
    }
}

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The verb, such as `list`.
    pub verb: String,
    /// On what, such as `deployments`.
    pub resource: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)
    }
}

/// Where a link runs.
#[derive(Clone, Debug)]
pub enum Mode {
    /// In a process of its own on some machine.
    Standalone(Standalone),
    /// In a cluster.
    Cluster(Cluster),
}

/// The machine a standalone link runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standalone {
    /// Where the peer's listener binds instead of `0.0.0.0:<expose.port>`.
    pub listen: Option<SocketAddr>,
    /// Whether a peer may be dialed on this very machine.
    pub allow_loopback_peers: bool,
    /// Who makes the records of TLS.
    pub records: RecordLayer,
    /// Addresses of the other links here that were accepted before this one; see [`listeners`](crate::listeners).
    pub taken: Vec<Taken>,
}

/// An address another link listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The address.
    pub address: SocketAddr,
    /// Whose it is.
    pub by: LinkRef,
}

/// The cluster a link runs in.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// By export: the Service that its target names, as it is now. An export of a Service without an entry cannot be used.
    pub services: BTreeMap<String, Service>,
    /// By namespace: what was denied there, such as `list services`. An export into it cannot be used, and is not cut: its
    /// Service's owner has withdrawn nothing.
    pub unreadable: BTreeMap<String, String>,
    /// Objects in the link's namespace that are not this link's, by kind and name: whose they are, as it stands after "taken
    /// by", such as `SecureLink liaison/other` or `a Service made by somebody else`. Any may be listed; those matter whose
    /// name the link needs.
    pub foreign: BTreeMap<(ObjectKind, String), String>,
    /// What is the same for every link.
    pub installation: Arc<Installation>,
}

/// What the operator was installed with, and what it found out about its cluster.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The relays' image.
    pub image: String,
    /// When nodes pull it; absent: what Kubernetes does by default.
    pub image_pull_policy: Option<String>,
    /// CPU and memory of a relay whose link does not say.
    pub resources: ResourceRequirements,
    /// Who makes the records of TLS in relays.
    pub records: RecordLayer,
    /// The operator's own pods: who may use the control port.
    pub operator: NetworkPolicyPeer,
    /// Who may read metrics, beside the operator.
    pub monitoring: Vec<NetworkPolicyPeer>,
    /// Where relays resolve names.
    pub dns: Vec<DnsServers>,
    /// Roots of the control port, PEM, at most two.
    pub control_cas: Vec<String>,
    /// Networks never dialed, on top of link-local and metadata: the API server's addresses, and what the values deny.
    pub denied: BTreeSet<IpNet>,
    /// The cluster's own networks, of pods and of Services.
    pub ranges: BTreeSet<IpNet>,
    /// The domain of the cluster's names, such as `cluster.local`.
    pub domain: String,
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
}

/// Name servers that pods ask.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsServers {
    /// Who they are.
    pub peers: Vec<NetworkPolicyPeer>,
    /// The port they listen on, UDP and TCP: 53, or 5353 on `OpenShift`.
    pub port: u16,
}

impl Installation {
    /// The address that stands for every address of a pod: with IPv6, one socket takes both families.
    pub(crate) fn any_address(&self) -> IpAddr {
        if self.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}
