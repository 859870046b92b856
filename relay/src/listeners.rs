//! The sockets of a link: one for the peer, one for each import. Binds before it lets go, so that a snapshot that cannot
//! be bound changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use securelink_relay_config::{Import, Protocol, Snapshot};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::callers::Ticket;
use crate::capacity::{self, descriptors};
use crate::control;
use crate::dial::tune;
use crate::failure::Failure;
use crate::handshake;
use crate::judge::Direction;
use crate::lanes;
use crate::link::Link;
use crate::open::serve_client;
use crate::pool::Pool;
use crate::serve::serve;
use crate::wire::Role;

/// Connections waiting to be accepted.
const BACKLOG: u32 = 1024;
/// Waits after a failed accept, first and longest: usually all file descriptors are in use.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listening socket by what was asked for. Port 0, which only tests ask for, is another socket for each import.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    wanted: SocketAddr,
    import: Option<String>,
}

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{wanted} cannot be listened on for {what}: {error}; free the port or write another")]
pub struct BindError {
    /// The address.
    pub wanted: SocketAddr,
    /// What it is for.
    pub what: String,
    /// The system's word.
    pub error: io::Error,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Listeners {
    peer: Option<(SocketAddr, Listening)>,
    imports: BTreeMap<Key, Listening>,
}

struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sockets that are bound and not yet listened on.
pub(crate) struct Bound {
    peer: Option<(SocketAddr, TcpListener)>,
    imports: Vec<(Key, TcpListener)>,
}

/// Addresses as people see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) imports: BTreeMap<String, SocketAddr>,
}

fn key(import: &Import) -> Key {
    let wanted = import.listen;
    Key { wanted, import: (wanted.port() == 0).then(|| import.name.clone()) }
}

impl Listeners {
    /// Binds what `snapshot` needs and this does not have yet.
    pub(crate) fn bind(&self, snapshot: &Snapshot) -> Result<Bound, BindError> {
        let peer = match snapshot.listen {
            Some(wanted) if self.peer.as_ref().is_none_or(|(have, _)| *have != wanted) => {
                Some((wanted, listen(wanted, None)?))
            }
            _ => None,
        };
        let mut imports = Vec::new();
        if snapshot.peer.protocol == Protocol::SecureLink {
            for import in &snapshot.imports {
                let key = key(import);
                if !self.imports.contains_key(&key) {
                    let listener = listen(import.listen, Some(&import.name))?;
                    imports.push((key, listener));
                }
            }
        }
        Ok(Bound { peer, imports })
    }

    /// Listens on what was bound, and no longer on what `snapshot` does not need.
    pub(crate) fn switch(&mut self, link: &Arc<Link>, snapshot: &Snapshot, bound: Bound) {
        if self.peer.as_ref().is_some_and(|(have, _)| snapshot.listen != Some(*have)) {
            self.peer = None;
        }
        self.imports.retain(|have, _| snapshot.imports.iter().any(|import| key(import) == *have));
        if let Some((wanted, listener)) = bound.peer {
            self.peer = start(link, listener, Door::Peer).map(|listening| (wanted, listening));
        }
        for (key, listener) in bound.imports {
            if let Some(listening) = start(link, listener, Door::Import(key.clone())) {
                self.imports.insert(key, listening);
            }
        }
    }

    /// Where it listens.
    pub(crate) fn addresses(&self, snapshot: &Snapshot) -> Addresses {
        let of = |import| self.imports.get(&key(import)).map(|listening| (import.name.clone(), listening.address));
        Addresses {
            peer: self.peer.as_ref().map(|(_, listening)| listening.address),
            imports: snapshot.imports.iter().filter_map(of).collect(),
        }
    }
}

/// Listens for the peer, or for clients of an import. They are reset where nothing else is said: before the first can come.
fn listen(wanted: SocketAddr, import: Option<&str>) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = if wanted.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
        // A restart must not wait for old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(wanted)?;
        tune(&socket);
        if import.is_some() {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        }
        socket.listen(BACKLOG)
    };
    let what = || import.map_or_else(|| "the peer".to_owned(), |name| format!("import {name}"));
    bind().map_err(|error| BindError { wanted, what: what(), error })
}

/// Whom a socket is for.
enum Door {
    Peer,
    Import(Key),
}

fn start(link: &Arc<Link>, listener: TcpListener, door: Door) -> Option<Listening> {
    let address = listener.local_addr().ok()?;
    let stop = link.stop.child_token();
    let (owner, stopped) = (Arc::clone(link), stop.clone());
    link.tasks.spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = accept_loop(&owner, &listener, &door) => {}
        }
    });
    Some(Listening { address, stop })
}

async fn accept_loop(link: &Arc<Link>, listener: &TcpListener, door: &Door) {
    let mut wait = ACCEPT_BACKOFF.0;
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                wait = ACCEPT_BACKOFF.0;
                match door {
                    // With the last descriptors no more handshakes begin than end.
                    Door::Peer => match link.callers.receive(from.ip(), !descriptors::is_last(&socket)) {
                        Some(ticket) => accept_peer(link, socket, ticket),
                        // Nobody waits here: whoever is next may be the peer.
                        None => link.refused(&Failure::Crowded),
                    },
                    Door::Import(key) => accept_client(link, key, socket),
                }
            }
            Err(error) => {
                tracing::warn!(link = %link.name, %error, "accepting failed; maybe all file descriptors are in use");
                sleep(wait).await;
                wait = (wait * 2).min(ACCEPT_BACKOFF.1);
            }
        }
    }
}

/// The peer dials in, or somebody who says so.
fn accept_peer(link: &Arc<Link>, socket: TcpStream, ticket: Ticket) {
    let owner = Arc::clone(link);
    lanes::spawn(&link.tasks, async move {
        let Some(mut visit) = owner.unless_stopped(ticket.enter()).await else { return };
        let shaken = tokio::select! {
            () = owner.stop.cancelled() => return,
            () = visit.turned_out() => Err(Failure::Crowded),
            shaken = Box::pin(handshake::accept(&owner, socket)) => shaken,
        };
        if shaken.is_ok() {
            visit.prove();
        } else {
            drop(visit);
        }
        match shaken {
            Ok(connection) if connection.facts.role == Role::Control => {
                Box::pin(control::drive(&owner, connection)).await;
            }
            Ok(connection) if connection.facts.role == Role::Reverse => Pool::put(&owner, connection),
            Ok(connection) => serve(owner, connection, None).await,
            Err(failure) => {
                if owner.may_say_of_strangers() {
                    tracing::info!(link = %owner.name, reason = failure.reason(), %failure, "a caller was refused");
                }
                owner.refused(&failure);
            }
        }
    });
}

/// A client here wants an import. Which one that is now, the snapshot says: ports may have changed hands. Whoever is turned
/// away is reset: so every client is that is closed, unless its stream has finished.
fn accept_client(link: &Arc<Link>, key: &Key, client: TcpStream) {
    let view = link.view();
    let asked_for =
        |import: &&Import| import.listen == key.wanted && key.import.as_ref().is_none_or(|name| import.name == *name);
    let import = view.snapshot.imports.iter().find(asked_for).filter(|import| view.import(&import.name).is_some());
    let Some(import) = import.filter(|_| !link.is_closing()) else { return };
    match admit_client(link, &client) {
        Ok(place) => {
            lanes::spawn(&link.tasks, serve_client(Arc::clone(link), import.clone(), client, place));
        }
        Err(failure) => {
            link.metrics.ended(Direction::Outgoing, "overloaded");
            link.overloaded(&failure);
        }
    }
}

/// A client's place among all that a link serves, if there is one and this process has room.
fn admit_client(link: &Link, client: &TcpStream) -> Result<OwnedSemaphorePermit, Failure> {
    capacity::admit_socket(client)?;
    Arc::clone(&link.clients).try_acquire_owned().map_err(|_| Failure::TooManyStreams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_is_as_its_listener() {
        let any = "127.0.0.1:0".parse().unwrap();
        for (import, linger) in [(None, None), (Some("at-b"), Some(Duration::ZERO))] {
            let listener = listen(any, import).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let socket = SockRef::from(&accepted);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap(), "{import:?}");
            assert_eq!(socket.linger().unwrap(), linger, "{import:?}");
        }
    }
}
