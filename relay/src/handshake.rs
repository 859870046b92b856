//! From a socket to an authenticated connection: TLS, identity, both HELLOs. The only place that makes connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::CommonState;
use rustls_pki_types::ServerName;
use securelink_pki::Refusal;
use securelink_pki::tls::peer_from_connection;
use securelink_relay_config::Endpoint;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::capacity::descriptors;
use crate::connect;
use crate::connection::{Connection, Proved};
use crate::dial::{dial, dial_address, dial_by_proxy};
use crate::failure::Failure;
use crate::frames::{Fault, Frames};
use crate::link::Link;
use crate::places::Place;
use crate::records::Shaken;
use crate::view::View;
use crate::ways::{Way, denied};
use crate::wire::{Bye, Code, EARLY_DATA, Hello, Message, Role, Session, VERSION, Violation};

/// From accept, or from connect, to HELLO (relay, "Limits").
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Dials the peer by whichever way works, beginning with the endpoint that last did.
pub(crate) async fn connect(link: &Arc<Link>, role: Role) -> Result<Box<Connection>, Failure> {
    let view = link.view();
    let endpoints = &view.snapshot.peer.endpoints;
    let first = link.preferred.load(Ordering::Relaxed);
    let mut last = Failure::NoEndpoint;
    for at in (0..endpoints.len()).map(|step| (first + step) % endpoints.len()) {
        let found = link.names.ways(&view.snapshot, &endpoints[at]).await;
        let mut ways = found.ways;
        ways.sort_by_key(|way| link.replicas.is_failing(way));
        for way in &ways {
            match connect_by(link, way, role).await {
                Ok(connection) => {
                    link.preferred.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(failure) => last = failure,
            }
        }
        // Where the addresses are old ones, that is why they do not work.
        last = found.failure.unwrap_or(last);
    }
    Err(last)
}

/// Dials the peer by one way.
pub(crate) async fn connect_by(link: &Arc<Link>, way: &Way, role: Role) -> Result<Box<Connection>, Failure> {
    let connected = try_way(link, way, role).await;
    match &connected {
        Ok(_) => link.replicas.worked(way),
        // That we have too little says nothing of the way.
        Err(Failure::Shortage(_)) => {}
        Err(_) => link.replicas.failed(way),
    }
    if let Err(failure) = &connected {
        tracing::debug!(link = %link.name, %way, reason = failure.reason(), %failure, "dialing failed");
    }
    connected
}

async fn try_way(link: &Arc<Link>, way: &Way, role: Role) -> Result<Box<Connection>, Failure> {
    let view = link.view();
    let socket = reach(&view, way).await?;
    if role != Role::Control {
        descriptors::admit_socket(&socket)?;
    }
    greet(link, &view, &way.endpoint, socket, role).await
}

/// A socket to the peer by one way.
pub(crate) async fn reach(view: &View, way: &Way) -> Result<TcpStream, Failure> {
    let endpoint = &way.endpoint;
    match (way.address, &view.snapshot.peer.proxy) {
        (Some(address), _) => dial_address(endpoint, address).await,
        (None, Some(proxy)) => dial_by_proxy(proxy, endpoint, &denied(&view.snapshot)).await,
        (None, None) => dial(endpoint, &denied(&view.snapshot)).await,
    }
}

/// TLS and both HELLOs on a socket that was dialed.
pub(crate) async fn greet(
    link: &Arc<Link>,
    view: &View,
    endpoint: &Endpoint,
    socket: TcpStream,
    role: Role,
) -> Result<Box<Connection>, Failure> {
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| Failure::Dns { host: endpoint.host.clone(), error: std::io::Error::other("not a host name") })?;
    let greet = async {
        let shaken = Shaken::dial(&view.tls, name, socket).await;
        let shaken = shaken.map_err(|error| Failure::of_handshake(error, &endpoint.to_string()))?;
        let proved = prove(link, view, shaken.state())?;
        let frames = Frames::new(shaken.into_records().map_err(Fault::Io)?, Session::dialer(role));
        exchange(link, view, frames, proved, Some(role)).await
    };
    timeout(HELLO_TIMEOUT, greet).await.map_err(|_| Failure::Silent(HELLO_TIMEOUT))?
}

/// Takes a socket from the peer's listener.
pub(crate) async fn accept(link: &Arc<Link>, socket: TcpStream) -> Result<Box<Connection>, Failure> {
    let view = link.view();
    let deadline = Instant::now() + HELLO_TIMEOUT;
    let late = |_| Failure::Silent(HELLO_TIMEOUT);
    let shaken = timeout_at(deadline, Shaken::accept(&view.tls, socket)).await.map_err(late)?;
    let shaken = shaken.map_err(|error| Failure::of_handshake(error, "the caller"))?;
    let proved = prove(link, &view, shaken.state())?;
    let mut records = shaken.into_records().map_err(Fault::Io)?;
    if view.is_connect() {
        records = Box::new(connect::greet(link, records, &proved.peer, deadline).await?);
    }
    let exchanging = exchange(link, &view, Frames::new(records, Session::acceptor()), proved, None);
    timeout_at(deadline, exchanging).await.map_err(late)?
}

/// Asks the finished handshake who is there.
fn prove(link: &Link, view: &View, tls: &CommonState) -> Result<Proved, Failure> {
    // rustls lets a peer pass that names no protocol at all.
    if !view.tls.speaks(tls.alpn_protocol()) {
        return Err(Refusal::NoCommonProtocol.into());
    }
    let peer = peer_from_connection(tls, &view.trust, link.clock.now())?;
    Ok(Proved {
        chain: link.chains.share(peer.chain_hash, tls.peer_certificates().unwrap_or_default()),
        peer,
        tls_group: tls.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
        trust: Arc::clone(&view.trust),
        tls: Arc::clone(&view.tls),
        snapshot: Arc::clone(&view.snapshot),
    })
}

/// HELLO first each way; an acceptor repeats the role the dialer said.
async fn exchange(
    link: &Arc<Link>,
    view: &View,
    mut frames: Frames,
    proved: Proved,
    role: Option<Role>,
) -> Result<Box<Connection>, Failure> {
    let told = view.head.clone();
    if let Some(role) = role {
        frames.send(&Message::Hello(hello(link, view, &proved, role))).await.map_err(Failure::of_first_frames)?;
    }
    let heard = match frames.message().await {
        Ok(Message::Hello(heard)) => heard,
        Ok(Message::Bye(bye)) => return Err(Failure::of_bye(&bye)),
        // The session lets nothing else pass.
        Ok(_) => return Err(Failure::Fault(Fault::Ended)),
        Err(fault) => return Err(refuse(&mut frames, fault).await),
    };
    if heard.trust_domain != proved.peer.trust_domain {
        return Err(Failure::HelloIdentity);
    }
    let place = match role {
        Some(_) => None,
        None => Some(answer(link, view, &mut frames, (&proved, heard.role)).await?),
    };
    Connection::new(link, frames, proved, told, place).ok_or(Failure::Fault(Fault::Ended))
}

/// The acceptor's HELLO, where there is a place for the connection; BYE, where there is none.
async fn answer(
    link: &Link,
    view: &View,
    frames: &mut Frames,
    (proved, role): (&Proved, Role),
) -> Result<Place, Failure> {
    let place = link.places.admit(role, frames.socket());
    let answer = if place.is_ok() {
        Message::Hello(hello(link, view, proved, role))
    } else {
        // What the peer learns is that there is too much, not how this side is built.
        let text = "this side keeps as many connections without a stream as it can".to_owned();
        Message::Bye(Bye { code: Code::Overloaded, text })
    };
    frames.send(&answer).await.map_err(Failure::of_first_frames)?;
    place
}

/// Tells a peer that broke the protocol, or speaks another version of it, so before it is left.
async fn refuse(frames: &mut Frames, fault: Fault) -> Failure {
    let bye = match &fault {
        Fault::Violation(Violation::Version { .. }) => {
            Some(Bye { code: Code::Version, text: format!("this relay speaks version {VERSION} only") })
        }
        Fault::Violation(_) | Fault::Wire(_) => Some(Bye { code: Code::Protocol, text: fault.to_string() }),
        Fault::Io(_) | Fault::Ended => None,
    };
    if let Some(bye) = bye {
        // It may have closed already.
        let _ = frames.send(&Message::Bye(bye)).await;
    }
    Failure::of_first_frames(fault)
}

fn hello(link: &Link, view: &View, proved: &Proved, role: Role) -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        role,
        trust_domain: view.snapshot.own.clone(),
        replica: link.replica,
        epoch: link.epoch,
        early_data: u32::try_from(EARLY_DATA).unwrap_or(u32::MAX),
        head: view.head.clone(),
        pin: Some(proved.peer.pin),
    }
}
