//! The services every relay has: `_probe` echoes, `_greet` signs what it was told. Both ends of both.

use std::sync::Arc;
use std::time::Duration;

use securelink_pki::key::{KeyError, sign_with_leaf, verify_leaf_signature};
use securelink_relay_config::{Digest, GreetReply};
use tokio::time::{Instant, timeout};

use crate::acquire::acquire;
use crate::connection::{Connection, Facts};
use crate::dial::abort_on_close;
use crate::failure::Failure;
use crate::frames::{Fault, Received};
use crate::judge::Direction;
use crate::link::{Link, locked};
use crate::pool::Pool;
use crate::report::hexadecimal;
use crate::stream::{reset_now, say_idle};
use crate::wire::{Code, GREET, MAX_GREETING, Message, Open, PROBE, Reject, Rst, StreamId};

/// Time for the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a SHA-256.
const HASH: usize = 32;
/// Largest answer: the text echoed, or a hash and an ASN.1 signature.
const MAX_ANSWER: usize = MAX_GREETING;

/// Why a greeting or a probe brought nothing back.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// No connection.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The peer refuses.
    #[error("the peer refuses: {code}: {text}")]
    Rejected {
        /// Its code.
        code: &'static str,
        /// Its words, escaped.
        text: String,
    },
    /// Our own side keeps it from being sent.
    #[error("nothing may be sent: {0}; see `securelink status`")]
    NotAgreed(&'static str),
    /// Too long or empty.
    #[error("a greeting has 1 to {MAX_GREETING} bytes, this one has {0}; shorten it")]
    Length(usize),
    /// Nothing came.
    #[error("the peer did not answer within {TIMEOUT:?}; its relay may be overloaded, or the network drops packets")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer is not what was asked for.
    #[error("the peer's answer does not prove that it received the text: {0}")]
    Unproved(String),
}

/// Sends `text` to a reserved service and returns the answer and the connection's time for it.
async fn ask(connection: &mut Connection, link: &Link, service: &str, text: &[u8]) -> Result<Vec<u8>, GreetError> {
    let broken = |fault: Fault| GreetError::Broken(fault.to_string());
    let open = Open {
        stream: StreamId(random()),
        service: service.to_owned(),
        client: service.to_owned(),
        traceparent: None,
        deadline_ms: u32::try_from(TIMEOUT.as_millis()).ok(),
    };
    connection.frames.queue(&Message::Open(open)).map_err(broken)?;
    queue_bytes(connection, text).map_err(broken)?;
    connection.frames.queue(&Message::Fin).map_err(broken)?;
    let answer = match gather(connection, link).await {
        Ok(answer) => answer,
        Err(Gathering::Rejected(reject)) => {
            say_idle(link, connection).await.map_err(broken)?;
            let text = reject.text.escape_debug().take(256).collect();
            return Err(GreetError::Rejected { code: reject.code.as_str(), text });
        }
        Err(Gathering::TooLong) => return Err(GreetError::Unproved("it is too long".to_owned())),
        Err(Gathering::Fault(fault)) => return Err(broken(fault)),
    };
    say_idle(link, connection).await.map_err(broken)?;
    Ok(answer)
}

/// Puts `text` into DATA frames; it is far below what may be sent before ACCEPT.
fn queue_bytes(connection: &mut Connection, text: &[u8]) -> Result<(), Fault> {
    for chunk in text.chunks(MAX_GREETING) {
        let filled = connection.frames.queue_data(chunk.len(), |buffer| {
            buffer[..chunk.len()].copy_from_slice(chunk);
            Ok(chunk.len())
        })?;
        filled?;
    }
    Ok(())
}

enum Gathering {
    Rejected(Reject),
    TooLong,
    Fault(Fault),
}

/// The peer's DATA up to its FIN.
async fn gather(connection: &mut Connection, link: &Link) -> Result<Vec<u8>, Gathering> {
    let mut gathered = Vec::new();
    loop {
        match connection.frames.receive().await.map_err(Gathering::Fault)? {
            Received::Data => {
                let data = connection.frames.data();
                if gathered.len() + data.len() > MAX_ANSWER {
                    return Err(Gathering::TooLong);
                }
                gathered.extend_from_slice(data);
                let count = data.len();
                connection.frames.consume(count);
            }
            Received::Message(Message::Fin) => return Ok(gathered),
            Received::Message(Message::Head(head)) => link.heard_head(&connection.facts, &head),
            Received::Message(Message::Reject(reject)) => return Err(Gathering::Rejected(reject)),
            Received::Message(Message::Rst(_)) => return Err(Gathering::Fault(Fault::Ended)),
            Received::Message(_) => {}
        }
    }
}

/// One exchange on a connection of its own choosing, which goes back to rest.
async fn exchange(link: &Arc<Link>, service: &str, text: &[u8]) -> Result<(Vec<u8>, Arc<Facts>, Duration), GreetError> {
    let unreachable = |failure: Failure| GreetError::Unreachable(failure.to_string());
    let mut connection = acquire(link, None).await.map_err(unreachable)?;
    let facts = Arc::clone(&connection.facts);
    connection.carry_reserved(Direction::Outgoing, service);
    let start = Instant::now();
    let answer = tokio::select! {
        biased;
        why = closed(link, &facts) => {
            abort_on_close(connection.frames.socket());
            return Err(GreetError::NotAgreed(why));
        }
        answer = timeout(TIMEOUT, ask(&mut connection, link, service, text)) => {
            answer.map_err(|_| GreetError::TimedOut)?
        }
    };
    let took = start.elapsed();
    if matches!(answer, Ok(_) | Err(GreetError::Rejected { .. })) {
        Pool::put(link, connection);
    }
    Ok((answer?, facts, took))
}

/// Returns why, once nothing may be sent any more. Judged by the highest head: the connection's own may lag after the
/// peer opened again, and the peer judges by its own.
async fn closed(link: &Link, facts: &Facts) -> &'static str {
    let mut generation = link.generation();
    loop {
        if let Some(Err(disagreement)) = link.gate().map(|opinion| opinion.verdict) {
            return disagreement.reason();
        }
        if !link.trusts(facts) {
            return "TrustChanged";
        }
        // Its sender lives as long as the link.
        let _ = generation.changed().await;
    }
}

/// A round trip over the data path: 16 random bytes come back.
pub(crate) async fn probe(link: &Arc<Link>) -> Result<Duration, GreetError> {
    let sent = random();
    let (answer, _, took) = exchange(link, PROBE, &sent).await?;
    if answer == sent { Ok(took) } else { Err(GreetError::Unproved("other bytes came back".to_owned())) }
}

/// The first message: comes back as its hash, signed by the peer's leaf.
pub(crate) async fn greet(link: &Arc<Link>, text: &str) -> Result<GreetReply, GreetError> {
    if text.is_empty() || text.len() > MAX_GREETING {
        return Err(GreetError::Length(text.len()));
    }
    if let Some(Err(disagreement)) = link.gate().map(|opinion| opinion.verdict) {
        return Err(GreetError::NotAgreed(disagreement.reason()));
    }
    let (answer, facts, took) = exchange(link, GREET, text.as_bytes()).await?;
    let (hash, signature) =
        answer.split_at_checked(HASH).ok_or_else(|| GreetError::Unproved("it is too short".to_owned()))?;
    let digest = Digest::of(text.as_bytes());
    if hash != digest.0 {
        return Err(GreetError::Unproved("it hashes another text".to_owned()));
    }
    let view = link.view();
    let context = context(facts.peer.trust_domain.as_str(), view.snapshot.own.as_str());
    verify_leaf_signature(&facts.peer.leaf_key, &context, text.as_bytes(), signature)
        .map_err(|error| GreetError::Unproved(error.to_string()))?;
    Ok(GreetReply {
        digest,
        peer: facts.peer.trust_domain.to_string(),
        signature: hexadecimal(signature),
        round_trip_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    })
}

fn context(server: &str, opener: &str) -> String {
    format!("greet/{server}/{opener}")
}

/// The server's side, after OPEN was admitted. After an error the connection carries no other stream.
pub(crate) async fn serve(link: &Link, connection: &mut Connection, service: &str) -> Result<(), Failure> {
    let facts = Arc::clone(&connection.facts);
    connection.carry_reserved(Direction::Incoming, service);
    tokio::select! {
        biased;
        () = link.stop.cancelled() => Err(Fault::Ended.into()),
        denial = link.denied(&facts, Direction::Incoming, service) => {
            reset_now(connection, denial.code).await;
            Err(Fault::Ended.into())
        }
        answered = timeout(TIMEOUT, answer(link, connection, service)) => Ok(answered.unwrap_or(Err(Fault::Ended))?),
    }
}

async fn answer(link: &Link, connection: &mut Connection, service: &str) -> Result<(), Fault> {
    connection.frames.send(&Message::Accept).await?;
    let text = match gather(connection, link).await {
        Ok(text) => text,
        Err(Gathering::Fault(fault)) => return Err(fault),
        Err(_) => {
            connection.frames.send(&Message::Rst(Rst { code: Code::Limit })).await?;
            return Err(Fault::Ended);
        }
    };
    let Ok(answer) = reply(link, connection, service, &text) else {
        connection.frames.send(&Message::Rst(Rst { code: Code::Internal })).await?;
        return Err(Fault::Ended);
    };
    queue_bytes(connection, &answer)?;
    connection.frames.queue(&Message::Fin)?;
    say_idle(link, connection).await?;
    if service == PROBE {
        // Its bytes came here, went back and were counted there: the data path works both ways.
        let now = link.now();
        locked(&link.probe).last_success.replace(now);
        link.changed();
    }
    Ok(())
}

fn reply(link: &Link, connection: &Connection, service: &str, text: &[u8]) -> Result<Vec<u8>, KeyError> {
    if service == PROBE {
        return Ok(text.to_vec());
    }
    let leaf = &connection.facts.tls.credentials.leaf;
    let identity = leaf.identity();
    let context = context(identity.owner().as_str(), connection.facts.peer.trust_domain.as_str());
    let mut answer = Digest::of(text).0.to_vec();
    answer.extend(sign_with_leaf(leaf.key(), &context, text)?);
    let shown = String::from_utf8_lossy(text).escape_debug().to_string();
    if link.may_say() {
        tracing::info!(link = %link.name, peer = %connection.facts.peer.trust_domain, text = shown, "greeting received");
    }
    Ok(answer)
}

/// Names need to be distinct, not secret.
pub(crate) fn random() -> [u8; 16] {
    fastrand::u128(..).to_be_bytes()
}
