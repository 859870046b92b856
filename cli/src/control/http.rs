//! The little HTTP both servers need: bounded bodies, answers in JSON or text, one connection with its timeouts.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest request body: a greeting of 4 KiB, escaped, and its frame.
pub(super) const MAX_REQUEST: usize = 64 * 1024;
/// Largest head of a request.
const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send a request's head or body: it is on this machine.
const REQUEST: Duration = Duration::from_secs(5);
/// How long a whole connection may live: the longest verb (a greeting over a slow link) stays below.
const CONNECTION: Duration = Duration::from_mins(2);
/// Connections at once; one more waits in the kernel's queue.
pub(super) const CONNECTIONS: usize = 32;
/// Pause after the system refuses a connection for lack of something (files, memory), lest the loop spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer in full.
pub(super) type Answer = Response<Full<Bytes>>;

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

/// Why a request is not answered.
pub(super) struct Refusal(StatusCode, String);

impl Refusal {
    pub(super) fn new(status: StatusCode, why: &impl ToString) -> Self {
        Self(status, why.to_string())
    }

    /// As JSON.
    pub(super) fn answer(&self) -> Answer {
        json(self.0, &json!({"error": self.1}))
    }
}

/// Reads a request's JSON body within its bounds.
pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let read = Limited::new(request.into_body(), MAX_REQUEST).collect();
    let bytes = match tokio::time::timeout(REQUEST, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let why = format!("the request is broken or has more than {MAX_REQUEST} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, &why));
        }
        Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, &"the request did not arrive in time")),
    };
    serde_json::from_slice(&bytes).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, &error))
}

/// Serves one connection until the client is done with it.
pub(super) async fn serve<S, F, W>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Fn(Request<Incoming>) -> W,
    W: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, io::Error>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or stays too long is its own affair.
    let _ = tokio::time::timeout(CONNECTION, connection).await;
}
