//! The port that shows: metrics and health, and on loopback the status too. Changes nothing and shows no secret.

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

/// Whose health is shown.
pub(crate) trait Health: Clone + Send + Sync + 'static {
    /// What cannot carry a stream, in words for everybody; empty where all can.
    fn not_ready(&self) -> Vec<String>;

    /// For `/status`, if this holder shows it.
    fn status(&self) -> Option<Answer>;
}

impl Health for Runtime {
    fn not_ready(&self) -> Vec<String> {
        Runtime::not_ready(self).iter().map(ToString::to_string).collect()
    }

    fn status(&self) -> Option<Answer> {
        Some(http::done(&Runtime::status(self)))
    }
}

/// The text format of metrics, as scrapers ask for it.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The bound port.
pub(crate) struct HealthPort {
    listener: TcpListener,
    address: SocketAddr,
    /// Only this machine may ask.
    local: bool,
}

impl HealthPort {
    /// Opens it for this machine.
    pub(crate) async fn bind_local(address: SocketAddr) -> Result<Self, ControlError> {
        if !address.ip().is_loopback() {
            return Err(ControlError::NotLoopback(address));
        }
        Ok(Self { local: true, ..Self::bind(address).await? })
    }

    /// Opens it for whoever the network lets through, as kubelets and scrapers.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Port { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, local: false })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub(crate) async fn run(self, shown: impl Health, registry: Arc<Registry>, stop: CancellationToken) {
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
            let (shown, registry, stop, local) = (shown.clone(), Arc::clone(&registry), stop.clone(), self.local);
            tokio::spawn(async move {
                let answer = |request| {
                    let stranger = local && !is_local(&request);
                    std::future::ready(if stranger { elsewhere() } else { answer(&shown, &registry, &request) })
                };
                http::serve(stream, http::BRIEF, &stop, answer).await;
                drop(slot);
            });
        }
    }
}

fn elsewhere() -> Answer {
    http::text(StatusCode::FORBIDDEN, "text/plain", "ask for this machine by a loopback address\n".to_owned())
}

fn answer(shown: &impl Health, registry: &Registry, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return http::text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "this port only shows\n".to_owned());
    }
    match request.uri().path() {
        "/livez" => http::text(StatusCode::OK, "text/plain", "alive\n".to_owned()),
        "/readyz" => readiness(shown),
        "/metrics" => {
            let mut body = String::new();
            match encode(&mut body, registry) {
                Ok(()) => http::text(StatusCode::OK, METRICS, body),
                Err(_) => http::text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "metrics failed\n".to_owned()),
            }
        }
        "/status" => shown.status().unwrap_or_else(unknown),
        _ => unknown(),
    }
}

fn unknown() -> Answer {
    http::text(StatusCode::NOT_FOUND, "text/plain", "/metrics /livez /readyz, and on loopback /status\n".to_owned())
}

fn readiness(shown: &impl Health) -> Answer {
    let waiting = shown.not_ready();
    if waiting.is_empty() {
        return http::text(StatusCode::OK, "text/plain", "ready\n".to_owned());
    }
    http::text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("not ready: {}\n", waiting.join(" ")))
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
