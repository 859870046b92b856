//! Everything a verdict on one link depends on. The caller reads it from caches or files; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use securelink_crds::load::Problem;
use securelink_crds::{LinkIdentity, LinkPolicy, SecureLink};
use securelink_relay_config::{Endpoint, LinkRef};
use serde_json::Value;

use crate::accepted::Accepted;

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
    /// An older link between the same two trust domains.
    pub older_duplicate: Option<LinkRef>,
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

/// What the cluster has resolved for a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// By export: where its Service is. An export without an entry cannot be used.
    pub targets: BTreeMap<String, Endpoint>,
    /// Roots of the control port, PEM, at most two.
    pub control_cas: Vec<String>,
    /// Networks never dialed on top of link-local and metadata: the API server's addresses, in CIDR notation.
    pub denied: BTreeSet<String>,
}
