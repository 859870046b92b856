//! What is answered on every way in, be it the socket of the standalone runtime or the control port of a relay process:
//! `greet` and `doctor`, which only the relay can do. Everything else is its holder's.

use std::future::Future;

use hyper::body::Incoming;
use hyper::{Method, Request};
use securelink_relay::Relay;
use securelink_relay_config::LinkRef;
use securelink_relay_config::control::{DoctorRequest, GreetRequest, MAX_REQUEST_BYTES, Refused, Refusing, path};

use super::http::{self, Answer};

/// Who holds relays and is asked about them.
pub(crate) trait Holder: Clone + Send + Sync + 'static {
    /// The relay of a link.
    fn relay(&self, link: &LinkRef) -> Result<Relay, Refused>;

    /// Answers what this holder alone knows how to do.
    fn own(&self, request: Request<Incoming>) -> impl Future<Output = Result<Answer, Refused>> + Send;
}

/// Answers one request.
pub(super) async fn answer(holder: impl Holder, request: Request<Incoming>) -> Answer {
    let answered = match (request.method(), request.uri().path()) {
        (&Method::POST, path::GREET) => greet(&holder, request).await,
        (&Method::POST, path::DOCTOR) => doctor(&holder, request).await,
        _ => holder.own(request).await,
    };
    answered.unwrap_or_else(|refused| http::refused(&refused))
}

async fn greet(holder: &impl Holder, request: Request<Incoming>) -> Result<Answer, Refused> {
    let asked: GreetRequest = http::body(request, MAX_REQUEST_BYTES).await?;
    let reply = holder.relay(&asked.link)?.greet(&asked.text).await;
    reply.map(|reply| http::done(&reply)).map_err(|error| Refused::new(Refusing::GreetFailed, &error))
}

async fn doctor(holder: &impl Holder, request: Request<Incoming>) -> Result<Answer, Refused> {
    let asked: DoctorRequest = http::body(request, MAX_REQUEST_BYTES).await?;
    Ok(http::done(&holder.relay(&asked.link)?.doctor().await))
}

/// No request of this API.
pub(crate) fn unknown() -> Refused {
    Refused::new(Refusing::UnknownRequest, &"this version of securelink knows no such request; compare the versions")
}

/// Does what changes something as a whole, also if the client is gone before it has its answer.
pub(crate) async fn to_the_end(
    verb: impl Future<Output = Result<Answer, Refused>> + Send + 'static,
) -> Result<Answer, Refused> {
    tokio::spawn(verb).await.unwrap_or_else(|error| Err(Refused::new(Refusing::Internal, &error)))
}
