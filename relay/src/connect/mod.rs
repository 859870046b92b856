//! Partners without our software: one HTTP/1.1 CONNECT over mutual TLS is one stream (contracts 1 and 8).
//!
//! A request is read here and told to the rest of the relay as the frames it stands for, so that the gate, limits, cuts
//! and ends of such a stream are those of every other. Nothing is judged here but how the request is written.

mod request;
mod response;
mod tunnel;

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use securelink_pki::VerifiedPeer;
use securelink_relay_config::Digest;
use tokio::time::{Instant, timeout, timeout_at};

pub use request::{BadRequest, MAX_HEAD, Request, read};
use tunnel::Tunnel;

use crate::failure::Failure;
use crate::frames::Fault;
use crate::link::Link;
use crate::records::Records;
use crate::reserved::random;
use crate::wire::{Hello, Message, Open, ReplicaId, Role, StreamId, VERSION};

/// The application protocol of TLS that stands for this one.
pub(crate) const ALPN: &[u8] = b"http/1.1";
/// Time for a refused partner to take the answer and hang up.
const FAREWELL: Duration = Duration::from_millis(500);

/// Reads the request of `peer` until `deadline` and answers a bad one.
pub(crate) async fn greet(
    link: &Link,
    mut records: Box<dyn Records>,
    peer: &VerifiedPeer,
    deadline: Instant,
) -> Result<Tunnel, Failure> {
    let request = timeout_at(deadline, receive(&mut records)).await.unwrap_or(Err(BadRequest::Slow.into()));
    if let Err(Failure::Request(bad)) = &request {
        // It may have hung up already.
        let _ = timeout(FAREWELL, refuse(&mut records, *bad)).await;
    }
    let Request { export, agreement } = request?;
    let hello = hello(link, peer, agreement);
    let open = Open {
        stream: StreamId(random()),
        service: export,
        client: peer.trust_domain.to_string(),
        traceparent: None,
        deadline_ms: None,
    };
    Ok(Tunnel::new(records, &[Message::Hello(hello), Message::Open(open)]))
}

async fn receive(records: &mut Box<dyn Records>) -> Result<Request, Failure> {
    let (mut head, mut come) = (vec![0; MAX_HEAD], 0);
    loop {
        let count = match poll_fn(|cx| records.poll_read(cx, &mut head[come..])).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(Fault::Io)?,
        };
        if count == 0 {
            return Err(Fault::Ended.into());
        }
        come += count;
        if let Some(request) = read(&head[..come])? {
            return Ok(request);
        }
    }
}

/// Closing while something is unread would take the answer back: what else comes is thrown away first.
async fn refuse(records: &mut Box<dyn Records>, bad: BadRequest) -> io::Result<()> {
    let answer = response::bad_request(bad);
    let mut left = answer.as_slice();
    while !left.is_empty() {
        let count = poll_fn(|cx| records.poll_write(cx, left)).await?;
        left = &left[count..];
    }
    poll_fn(|cx| records.poll_close(cx)).await?;
    let mut scratch = [0; 1024];
    while poll_fn(|cx| records.poll_read(cx, &mut scratch)).await? > 0 {}
    Ok(())
}

/// What the request says as a HELLO: one connection of a replica that has no name, whose head names one agreement.
fn hello(link: &Link, peer: &VerifiedPeer, agreement: Option<Digest>) -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        role: Role::Forward,
        trust_domain: peer.trust_domain.clone(),
        replica: ReplicaId([0; 16]),
        epoch: 0,
        early_data: 0,
        head: link.heard_call(agreement),
        pin: None,
    }
}
