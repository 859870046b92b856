//! The local port: metrics, health and status. Changes nothing, shows no secret, listens on loopback only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::ControlError;
use super::http::{self, Answer};
use crate::runtime::Runtime;

/// The text format of metrics, as scrapers ask for it.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The bound port.
pub(crate) struct Local {
    listener: TcpListener,
    address: SocketAddr,
}

impl Local {
    /// Opens the port.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ControlError> {
        if !address.ip().is_loopback() {
            return Err(ControlError::NotLoopback(address));
        }
        let failed = |source| ControlError::Port { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub(crate) async fn run(self, runtime: Runtime, registry: Arc<Registry>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(http::CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            };
            let (runtime, registry) = (runtime.clone(), Arc::clone(&registry));
            tokio::spawn(async move {
                http::serve(stream, |request| std::future::ready(answer(&runtime, &registry, &request))).await;
                drop(slot);
            });
        }
    }
}

fn answer(runtime: &Runtime, registry: &Registry, request: &Request<Incoming>) -> Answer {
    if !is_local(request) {
        return http::text(StatusCode::FORBIDDEN, "text/plain", "ask for this machine by a loopback address\n".into());
    }
    if request.method() != Method::GET {
        return http::text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "this port only shows\n".to_owned());
    }
    match request.uri().path() {
        "/livez" => http::text(StatusCode::OK, "text/plain", "alive\n".to_owned()),
        "/readyz" => readiness(runtime),
        "/metrics" => {
            let mut body = String::new();
            match encode(&mut body, registry) {
                Ok(()) => http::text(StatusCode::OK, METRICS, body),
                Err(_) => http::text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "metrics failed\n".to_owned()),
            }
        }
        "/status" => http::json(StatusCode::OK, &runtime.status()),
        _ => http::text(StatusCode::NOT_FOUND, "text/plain", "/metrics /livez /readyz /status\n".to_owned()),
    }
}

fn readiness(runtime: &Runtime) -> Answer {
    let waiting = runtime.not_ready();
    if waiting.is_empty() {
        return http::text(StatusCode::OK, "text/plain", "ready\n".to_owned());
    }
    let names: Vec<_> = waiting.iter().map(ToString::to_string).collect();
    http::text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("not ready: {}\n", names.join(" ")))
}

/// Whether a request names this machine: a web page that lets its own name point here must not read the status.
fn is_local(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || literal.is_ok_and(|address| address.is_loopback())
}
