//! An API server that answers as a test says and keeps what it was asked, and the plugin that speaks to it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unnecessary_wraps, reason = "each stands where a test may also leave a request without an answer")]

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::cli_support::Ran;

/// Where the kinds of `securelink.dev` are.
pub(crate) const LIAISON: &str = "/apis/securelink.dev/v1alpha1/namespaces/liaison";

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Asked {
    /// Whether it waits for changes.
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }
}

/// What is answered; nothing: no answer ever.
pub(crate) type Answer = Option<(u16, String)>;

/// 200 and this object.
pub(crate) fn object(object: &Value) -> Answer {
    Some((200, object.to_string()))
}

/// 200 and a list of these.
pub(crate) fn list(items: &[Value]) -> Answer {
    object(&json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "7" }, "items": items }))
}

/// One event of a watch, after which it ends.
pub(crate) fn changed(now: &Value) -> Answer {
    Some((200, format!("{}\n", json!({ "type": "MODIFIED", "object": now }))))
}

/// A refusal as an API server words it.
pub(crate) fn refusal(code: u16, reason: &str, message: &str, about: &Value) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message, "details": about,
    });
    Some((code, status.to_string()))
}

/// There is no such object.
pub(crate) fn not_found(kind: &str, name: &str) -> Answer {
    refusal(404, "NotFound", &format!("{kind} \"{name}\" not found"), &json!({ "kind": kind, "name": name }))
}

/// The one who asks may not.
pub(crate) fn forbidden(kind: &str) -> Answer {
    refusal(403, "Forbidden", &format!("{kind} is forbidden: User \"eve\" cannot do that"), &json!({ "kind": kind }))
}

/// A path that no kind has.
pub(crate) fn no_such_path() -> Answer {
    Some((404, "404 page not found\n".to_owned()))
}

/// The server, a kubeconfig for it, and the plugin under the name by which kubectl finds it.
pub(crate) struct ApiServer {
    asked: Arc<Mutex<Vec<Asked>>>,
    folder: TempDir,
    _runtime: Runtime,
}

impl ApiServer {
    /// Listens and answers.
    pub(crate) fn start(answer: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        runtime.spawn(serve(listener, Arc::new(Mutex::new(answer)), Arc::clone(&asked)));
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_securelink"), folder.path().join("kubectl-securelink")).unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{ "name": "here", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "me", "user": {} }],
            "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "me", "namespace": "liaison" } }],
        });
        std::fs::write(folder.path().join("config"), kubeconfig.to_string()).unwrap();
        Self { asked, folder, _runtime: runtime }
    }

    /// The kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Runs `kubectl securelink` with this on standard input.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = std::process::Command::new(self.folder.path().join("kubectl-securelink"));
        command.args(arguments).env_clear().env("KUBECONFIG", self.kubeconfig());
        Ran::of(&mut command, input)
    }

    /// Runs `kubectl securelink`.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Ran {
        self.kubectl_with(arguments, "")
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The same, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.asked().into_iter().map(|asked| asked.line).collect();
        lines.dedup();
        lines
    }
}

async fn serve(
    listener: TcpListener,
    answer: Arc<Mutex<impl FnMut(&Asked) -> Answer + Send + 'static>>,
    seen: Arc<Mutex<Vec<Asked>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
        let service = service_fn(move |request: Request<Incoming>| {
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            async move {
                let line = format!("{} {}", request.method(), request.uri().path());
                let query = request.uri().query().unwrap_or_default().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let asked = Asked { line, query, body: serde_json::from_slice(&body).unwrap_or_default() };
                seen.lock().unwrap().push(asked.clone());
                let answer = answer.lock().unwrap()(&asked);
                let Some((status, text)) = answer else { return std::future::pending().await };
                let answer = Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(text))).unwrap())
            }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
