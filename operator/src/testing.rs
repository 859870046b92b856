//! An API server of a test's own: answers as the test wants, and keeps what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What an API server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// An API server, and a client of it.
pub(crate) struct Server {
    pub(crate) client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// One that answers by a code and a body. A watch of it never sees a change.
    pub(crate) async fn new(answers: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        config.default_retry = false;
        let (asked, answers) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(answers));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
                    async move {
                        if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                            return std::future::pending().await;
                        }
                        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let asked = Asked { method, path, body: serde_json::from_slice(&body).unwrap_or_default() };
                        let (code, body) = answers(&asked);
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
                        let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
                        *answer.status_mut() = code.try_into().unwrap();
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { client: Client::try_from(config).unwrap(), asked }
    }

    /// What it was asked by this method, in order.
    pub(crate) fn asked(&self, method: &Method) -> Vec<Asked> {
        let all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|asked| asked.method == *method).cloned().collect()
    }
}

/// A list of objects.
pub(crate) fn list(items: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items })
}

/// A refusal, as an API server words it.
pub(crate) fn refusal(code: u16, why: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Refused" };
    let status = json!({ "status": "Failure", "code": code, "reason": reason, "message": why });
    (code, status)
}
