//! The port that shows: `/livez`, `/readyz`, `/metrics`. Changes nothing and shows no secret.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The text format of metrics, as scrapers ask for it.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once: kubelets, scrapers, a person.
const CONNECTIONS: usize = 32;
/// For a connection as a whole: who asks, asks at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// For the head of a request, from the connection or the answer before: places are few, and who holds one without asking
/// keeps it from the kubelet.
const HEAD: Duration = Duration::from_secs(5);
/// Pause after the system refuses a connection for lack of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What is shown.
pub struct Shown {
    /// Of metrics.
    pub registry: Registry,
    /// Whether everything that is watched has been seen once.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Brings metrics up to date before they are shown.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// Opens the port.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // A node without IPv6.
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Answers until `stop`.
pub async fn run(listener: TcpListener, shown: Arc<Shown>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, Arc::clone(&places).try_acquire_owned()) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let shown = Arc::clone(&shown);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&shown, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own affair.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

fn answer(shown: &Shown, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/livez") => (StatusCode::OK, plain, "ok\n".to_owned()),
        (&Method::GET, "/readyz") if (shown.ready)() => (StatusCode::OK, plain, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => {
            let why = "not everything that is watched has been seen yet; see the log for a right that lacks\n";
            (StatusCode::SERVICE_UNAVAILABLE, plain, why.to_owned())
        }
        (&Method::GET, "/metrics") => {
            (shown.refresh)();
            let mut body = String::new();
            match encode(&mut body, &shown.registry) {
                Ok(()) => (StatusCode::OK, METRICS, body),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, plain, error.to_string()),
            }
        }
        _ => (StatusCode::NOT_FOUND, plain, "ask for /livez, /readyz or /metrics\n".to_owned()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    /// On a clock that runs ahead while nothing happens.
    #[tokio::test(start_paused = true)]
    async fn who_connects_and_asks_nothing_loses_the_place_before_the_patience_with_a_connection_ends() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let shown = Shown { registry: Registry::default(), ready: Box::new(|| true), refresh: Box::new(|| ()) };
        tokio::spawn(run(listener, Arc::new(shown), stop.clone()));
        let mut silent = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        let _ = silent.read_to_end(&mut Vec::new()).await;
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        stop.cancel();
    }
}
