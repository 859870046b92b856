//! What stands between an operator and the API server: it counts, and it makes faults.
//!
//! HTTP to the operator, so that its requests can be read; whose they are it passes on, so that rights are the real ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Plane;
use super::request::{Call, Verb};
use super::rules::{Fate, Fault, On, Refusal, Rule, Rules};
use super::streams::{self, Body, BodyError};

/// A proxy. Dropped, its connections end.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _end: DropGuard,
}

struct State {
    server: Client,
    rules: Rules,
    seen: Mutex<Vec<Call>>,
    count: watch::Sender<usize>,
    closed: watch::Sender<bool>,
    watches: Mutex<CancellationToken>,
}

impl Proxy {
    /// Opens one before a control plane.
    pub async fn start(plane: &Plane) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for a proxy")?;
        let address = listener.local_addr().context("no port for a proxy")?;
        let state = Arc::new(State {
            server: Client::try_from(plane.bare()?).context("no client for a proxy")?,
            rules: Rules::default(),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            watches: Mutex::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&state), stop.clone()));
        Ok(Self { address, state, _end: stop.drop_guard() })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, such requests go wrong so, until the rule is dropped. Of several rules the oldest counts.
    #[must_use = "a rule that is dropped ends"]
    pub fn rule(&self, on: On, fault: Fault) -> Rule {
        self.state.rules.add(on, fault)
    }

    /// Ends all watches that are open, as an API server does now and then.
    pub fn end_watches(&self) {
        let mut watches = self.state.watches.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *watches).cancel();
    }

    /// Breaks all connections and refuses new ones, or takes them again.
    pub fn close(&self, closed: bool) {
        self.state.closed.send_replace(closed);
    }

    /// How many requests have come: a mark for [`Proxy::since`].
    pub fn mark(&self) -> usize {
        *self.state.count.borrow()
    }

    /// The requests after a mark.
    pub fn since(&self, mark: usize) -> Vec<Call> {
        let seen = self.state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(mark..).unwrap_or_default().to_vec()
    }

    /// Of how many requests after a mark this holds.
    pub fn count_since(&self, mark: usize, holds: impl Fn(&Call) -> bool) -> usize {
        let seen = self.state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(mark..).unwrap_or_default().iter().filter(|call| holds(call)).count()
    }

    /// The writes after a mark, but those of a lease.
    pub fn writes_since(&self, mark: usize) -> Vec<Call> {
        self.since(mark).into_iter().filter(Call::is_write).collect()
    }

    /// How many requests of each verb on each resource came after a mark.
    pub fn counts_since(&self, mark: usize) -> BTreeMap<(Verb, String), usize> {
        let mut counts = BTreeMap::new();
        for call in self.since(mark) {
            *counts.entry((call.verb, call.resource)).or_default() += 1;
        }
        counts
    }

    /// Returns as soon as this holds of the requests after a mark.
    pub async fn until(&self, mark: usize, what: &str, limit: Duration, holds: impl Fn(&[Call]) -> bool) -> Result<()> {
        let mut count = self.state.count.subscribe();
        let holds = |_: &usize| holds(&self.since(mark));
        match tokio::time::timeout(limit, count.wait_for(holds)).await {
            Ok(Ok(_)) => Ok(()),
            _ => bail!("{what}: not within {} s; seen: {:?}", limit.as_secs(), self.counts_since(mark)),
        }
    }
}

async fn accept(first: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let Ok(address) = first.local_addr() else { return };
    let (mut listener, mut closed) = (Some(first), state.closed.subscribe());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = closed.changed() => {
                let now = *closed.borrow_and_update();
                if changed.is_err() {
                    return;
                } else if now {
                    listener = None;
                } else if listener.is_none() {
                    listener = TcpListener::bind(address).await.ok();
                }
            }
            accepted = next(listener.as_ref()) => {
                let Ok((stream, _)) = accepted else { continue };
                tokio::spawn(serve(stream, Arc::clone(&state), stop.clone()));
            }
        }
    }
}

async fn next(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let mut closed = state.closed.subscribe();
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        _ = closed.wait_for(|closed| *closed) => {}
        // A client that goes away is its own affair.
        _ = connection => {}
    }
}

/// An answer, or the end of the connection.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, BodyError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let call = Call::read(&head.method, head.uri.path(), head.uri.query(), &body);
    let fate = state.rules.judge(&call);
    state.saw(call.clone());
    let request = Request::from_parts(head, body);
    let Some((fault, ended)) = fate else { return state.pass(&call, request, Duration::ZERO).await };
    state.fault(&call, request, (fault, ended)).await
}

impl State {
    fn saw(&self, call: Call) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        // Not under that lock: who waits for the count looks at what was seen.
        self.count.send_modify(|count| *count += 1);
    }

    async fn fault(
        &self,
        call: &Call,
        request: Request<Bytes>,
        (fault, mut ended): Fate,
    ) -> Result<Response<Body>, BodyError> {
        match fault {
            Fault::Refuse(refusal) => Ok(refused(&refusal)),
            Fault::Hang => std::future::pending().await,
            Fault::Hold => {
                let _ = ended.wait_for(|ended| *ended).await;
                self.pass(call, request, Duration::ZERO).await
            }
            Fault::HoldAnswer => {
                let answer = self.pass(call, request, Duration::ZERO).await;
                let _ = ended.wait_for(|ended| *ended).await;
                answer
            }
            Fault::LoseAnswer => {
                let answer = self.pass(call, request, Duration::ZERO).await?;
                let _ = answer.into_body().collect().await?;
                Err("lost by the test".into())
            }
            Fault::AnswerInstead(refusal) => {
                let answer = self.pass(call, request, Duration::ZERO).await?;
                let _ = answer.into_body().collect().await?;
                Ok(refused(&refusal))
            }
            Fault::Truncate => {
                let (head, body) = self.pass(call, request, Duration::ZERO).await?.into_parts();
                let bytes = body.collect().await?.to_bytes();
                Ok(Response::from_parts(head, streams::half(&bytes)))
            }
            Fault::Garbage => Ok(answered(StatusCode::OK, "\u{1f}no JSON at all")),
            Fault::WatchError(refusal) => {
                let event = json!({ "type": "ERROR", "object": status(&refusal) });
                Ok(answered(StatusCode::OK, format!("{event}\n")))
            }
            Fault::Delay(delay) => self.pass(call, request, delay).await,
        }
    }

    /// Passes a request on, and its answer back.
    async fn pass(&self, call: &Call, request: Request<Bytes>, delay: Duration) -> Result<Response<Body>, BodyError> {
        let (mut head, body) = request.into_parts();
        // The client has its own.
        head.headers.remove(HOST);
        let cut = self.watches.lock().unwrap_or_else(PoisonError::into_inner).child_token();
        let answer = self.server.send(Request::from_parts(head, kube::client::Body::from(body))).await?;
        let (head, body) = answer.into_parts();
        let body = if call.verb == Verb::Watch {
            streams::watched(body, delay, cut)
        } else {
            body.map_err(BodyError::from).boxed_unsync()
        };
        Ok(Response::from_parts(head, body))
    }
}

fn status(refusal: &Refusal) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": refusal.message, "reason": refusal.reason, "code": refusal.code,
    })
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = answered(code, status(refusal).to_string());
    if let Some(seconds) = refusal.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

fn answered(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(streams::whole(text));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
