//! A link with every field parsed: the only input of the builders. Decides nothing about policies or cuts.

mod parse;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
pub(crate) use parse::{data_class, parse};
use securelink_crds::{Expose, RelayPods};
use securelink_id::{SpiffeId, TrustDomain};
use securelink_relay_config::{
    Agreements, Contact, DataClass, DialRules, Endpoint, Limits, LinkRef, LinkState, Peer, Protocol, RecordLayer,
};

use crate::service::ServiceTarget;

/// A link that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedLink {
    /// Which link.
    pub link: LinkRef,
    /// Our trust domain.
    pub own: TrustDomain,
    /// The one organization it trusts. No fingerprints: an invalid edit removed them all, so nobody is trusted.
    pub peer: Peer,
    /// Planned state.
    pub state: LinkState,
    /// The agreements declared.
    pub agreements: Agreements,
    /// The exports that can be used, sorted by name.
    pub exports: Vec<ValidatedExport>,
    /// The imports that can be used, sorted by name.
    pub imports: Vec<ValidatedImport>,
    /// Where our relays listen for the peer; absent when we only dial.
    pub listen: Option<SocketAddr>,
    /// The address that imports listen on, where the slot decides their port.
    pub bind: IpAddr,
    /// How the peer reaches them in a cluster.
    pub expose: Option<ValidatedExpose>,
    /// Networks they may dial for this peer; empty: anywhere that is not forbidden.
    pub egress: Vec<IpNet>,
    /// How they run in a cluster.
    pub pods: RelayPods,
    /// Our line in the agreement's annex: where the peer reaches us.
    pub endpoint: Option<Endpoint>,
    /// Whether we accept a key exchange without a post-quantum part.
    pub allow_classical_key_exchange: bool,
    /// How long the peer's last word holds.
    pub max_staleness: Duration,
    /// The most the link may carry, over all relays.
    pub limits: Limits,
    /// Number of relays that share the limits.
    pub replicas: u16,
    /// Who makes the records of TLS.
    pub records: RecordLayer,
    /// Addresses never dialed.
    pub dial: DialRules,
    /// Roots of the control port, PEM.
    pub control_cas: Vec<String>,
    /// Whom the peer calls.
    pub contacts: Vec<Contact>,
}

/// A service here that the peer may reach.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedExport {
    /// Its name on the wire.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// What it carries.
    pub data_class: DataClass,
    /// The most the peer may use of it, over all relays.
    pub limits: Limits,
}

/// Where an exported service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host that somebody wrote down.
    Host(Endpoint),
    /// A Service, and what it leads to.
    Service(ServiceTarget),
}

impl Target {
    /// What a relay dials.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Host(endpoint) => endpoint,
            Self::Service(service) => &service.endpoint,
        }
    }
}

/// How the peer reaches our relays in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedExpose {
    /// As it was declared, for the builders of a cluster's objects.
    pub declared: Expose,
    /// Networks the peer dials from; empty: anywhere.
    pub allowed_sources: Vec<IpNet>,
}

/// A service of the peer that we may reach.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedImport {
    /// The export's name on the other side.
    pub name: String,
    /// Where clients connect on this machine; in a cluster the slot decides.
    pub listen: Option<SocketAddr>,
    /// The widest data accepted.
    pub data_class: DataClass,
    /// As it was declared: Service and clients, for the builders of a cluster's objects.
    pub declared: securelink_crds::Import,
}

impl ValidatedLink {
    /// The identity our relays present on this link.
    pub fn identity(&self) -> SpiffeId {
        SpiffeId::link(self.own.clone(), self.peer.trust_domain.clone())
    }

    /// Whether the peer is a partner without our software.
    pub fn is_connect(&self) -> bool {
        self.peer.protocol == Protocol::Connect
    }

    /// The DNS names of our leaf: the annex's, unless it is an address.
    pub fn dns_names(&self) -> BTreeSet<String> {
        let host = self.endpoint.iter().map(|endpoint| endpoint.host.clone());
        host.filter(|host| host.parse::<IpAddr>().is_err()).collect()
    }
}
