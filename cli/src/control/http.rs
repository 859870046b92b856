//! The little HTTP all servers here need: bounded bodies, answers in JSON or text, one connection with its timeouts.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use securelink_relay_config::control::{Refused, Refusing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Largest head of a request.
const MAX_HEAD: usize = 16 * 1024;
/// How long a request's body may take to arrive: a megabyte from the same machine or cluster.
const BODY: Duration = Duration::from_secs(5);
/// How long a connection that is over may take to finish its last answer: the longest verb stays below.
const PARTING: Duration = Duration::from_mins(1);
/// Connections at once on each way in.
pub(super) const CONNECTIONS: usize = 32;
/// Pause after the system refuses a connection for lack of something (files, memory), lest the loop spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much time a connection has.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Until the head of a request is complete, the next one's too.
    pub(super) head: Duration,
    /// From its beginning to its last request.
    pub(super) whole: Duration,
}

/// For commands and scrapers: they ask at once, and once or a few times.
pub(super) const BRIEF: Patience = Patience { head: Duration::from_secs(5), whole: Duration::from_mins(2) };

/// An answer in full.
pub(crate) type Answer = Response<Full<Bytes>>;

/// An answer of plain text.
pub(super) fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer in JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_string(value) {
        Ok(body) => text(status, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

/// What was asked, in JSON.
pub(crate) fn done<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::OK, value)
}

/// Why it was not done, in JSON.
pub(super) fn refused(refused: &Refused) -> Answer {
    let status = StatusCode::from_u16(refused.reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, refused)
}

/// What lets a caller ask, until it is withdrawn. It goes with each request, among its extensions: a body takes time.
#[derive(Clone)]
pub(super) struct Admission(pub(super) CancellationToken);

impl Admission {
    /// Whether it holds still.
    pub(super) fn judge(&self) -> Result<(), Refused> {
        if self.0.is_cancelled() {
            let why = "the control CA that let you in is no longer trusted here; connect anew";
            return Err(Refused::new(Refusing::Withdrawn, &why));
        }
        Ok(())
    }
}

/// Reads a request's JSON body of at most `max` bytes, from who may still ask once it is there.
pub(crate) async fn body<T: DeserializeOwned>(request: Request<Incoming>, max: usize) -> Result<T, Refused> {
    let admission = request.extensions().get::<Admission>().cloned();
    let read = Limited::new(request.into_body(), max).collect();
    let bytes = match tokio::time::timeout(BODY, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let why = format!("the request is broken or has more than {max} bytes; shorten it");
            return Err(Refused::new(Refusing::TooLarge, &why));
        }
        Err(_) => return Err(Refused::new(Refusing::TooSlow, &"the request did not arrive in time; send it again")),
    };
    admission.map_or(Ok(()), |admission| admission.judge())?;
    // Where, and never what: a body may hold a key.
    serde_json::from_slice(&bytes).map_err(|error| {
        let why = format!(
            "the request is not the JSON it should be (line {}, column {}); see the documentation of the control API",
            error.line(),
            error.column()
        );
        Refused::new(Refusing::Malformed, &why)
    })
}

/// Serves one connection until the client is done with it, its time is over, or `ended`: then what was asked is still
/// answered.
pub(super) async fn serve<S, F, W>(stream: S, patience: Patience, ended: &CancellationToken, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Fn(Request<Incoming>) -> W,
    W: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, io::Error>(answered.await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // Who asks and goes at once has asked.
            .half_close(true)
            .header_read_timeout(patience.head)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        biased;
        () = ended.cancelled() => {}
        // A client that goes away is its own affair.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(patience.whole) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(PARTING, connection).await;
}
