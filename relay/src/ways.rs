//! The ways to the peer: the addresses that the names of its endpoints have now, or had last. Opens no connection.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;

use ipnet::IpNet;
use securelink_relay_config::{Endpoint, Snapshot};

use crate::dial::{permitted, resolve};
use crate::failure::Failure;
use crate::link::locked;

/// Addresses of one name that are used. More replicas than that stand behind an address of their own in no cluster.
const ADDRESSES: usize = 16;

/// One way: an address of an endpoint, or, by a proxy that resolves names itself, the endpoint alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: Option<SocketAddr>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) if address.ip().to_string() != self.endpoint.host => {
                write!(f, "{} ({})", self.endpoint, address.ip())
            }
            _ => self.endpoint.fmt(f),
        }
    }
}

/// The ways by one endpoint.
pub(crate) struct Found {
    pub(crate) ways: Vec<Way>,
    /// Why there are none, or only those of before.
    pub(crate) failure: Option<Failure>,
}

/// The addresses that names had when they last resolved.
#[derive(Default)]
pub(crate) struct Names(Mutex<BTreeMap<Endpoint, Vec<SocketAddr>>>);

impl Names {
    /// The ways by `endpoint`. While its name does not resolve, those that it had last: a certificate says who is there,
    /// no name server, so one that is down costs nothing.
    pub(crate) async fn ways(&self, snapshot: &Snapshot, endpoint: &Endpoint) -> Found {
        let way = |address| Way { endpoint: endpoint.clone(), address };
        if snapshot.peer.proxy.is_some() {
            return Found { ways: vec![way(None)], failure: None };
        }
        let (addresses, failure) = match resolve(endpoint).await {
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(ADDRESSES);
                locked(&self.0).insert(endpoint.clone(), addresses.clone());
                (addresses, None)
            }
            Err(failure) => (locked(&self.0).get(endpoint).cloned().unwrap_or_default(), Some(failure)),
        };
        match permitted(endpoint, addresses, &denied(snapshot)) {
            Ok(addresses) => Found { ways: addresses.into_iter().map(Some).map(way).collect(), failure },
            Err(denied) => Found { ways: Vec::new(), failure: Some(denied) },
        }
    }

    /// Forgets the names of endpoints that are no more.
    pub(crate) fn retain(&self, endpoints: &[Endpoint]) {
        locked(&self.0).retain(|endpoint, _| endpoints.contains(endpoint));
    }
}

/// What is never dialed on the way to the peer.
pub(crate) fn denied(snapshot: &Snapshot) -> [&[IpNet]; 2] {
    [snapshot.dial.denied.as_slice(), snapshot.dial.denied_endpoints.as_slice()]
}
