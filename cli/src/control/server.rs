//! The control socket: the verbs of a running process, for its owner only.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use securelink_relay_config::LinkRef;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::ControlError;
use super::http::{self, Answer, Refusal};
use crate::runtime::Runtime;

/// What `cut` is asked with.
#[derive(Serialize, Deserialize)]
pub(super) struct CutRequest {
    pub(super) link: LinkRef,
    pub(super) reason: String,
}

/// What `resume` is asked with.
#[derive(Serialize, Deserialize)]
pub(super) struct ResumeRequest {
    pub(super) link: LinkRef,
}

/// What `greet` is asked with.
#[derive(Serialize, Deserialize)]
pub(super) struct GreetRequest {
    pub(super) link: LinkRef,
    pub(super) text: String,
}

/// The bound socket. Removed when dropped.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket. The caller holds the state folder's lock: a socket that is there is a dead process's.
    pub(crate) fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until `stop`.
    pub(crate) async fn run(self, runtime: Runtime, stop: CancellationToken) {
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
            let runtime = runtime.clone();
            tokio::spawn(async move {
                http::serve(stream, |request| answer(runtime.clone(), request)).await;
                drop(slot);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket left behind is removed by the next process that holds the lock.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(runtime: Runtime, request: Request<Incoming>) -> Answer {
    match verb(&runtime, request).await {
        Ok(answer) => answer,
        Err(refusal) => refusal.answer(),
    }
}

async fn verb(runtime: &Runtime, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/v1/status") => Ok(http::json(StatusCode::OK, &runtime.status())),
        (&Method::POST, "/v1/reload") => {
            let runtime = runtime.clone();
            to_the_end(async move { Ok(http::json(StatusCode::OK, &runtime.reload().await)) }).await
        }
        (&Method::POST, "/v1/cut") => {
            let (runtime, asked) = (runtime.clone(), http::body::<CutRequest>(request).await?);
            to_the_end(async move { done(runtime.cut(&asked.link, &asked.reason).await) }).await
        }
        (&Method::POST, "/v1/resume") => {
            let (runtime, asked) = (runtime.clone(), http::body::<ResumeRequest>(request).await?);
            to_the_end(async move { done(runtime.resume(&asked.link).await) }).await
        }
        (&Method::POST, "/v1/greet") => {
            let asked: GreetRequest = http::body(request).await?;
            done(runtime.greet(&asked.link, &asked.text).await)
        }
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, &"this version of securelink knows no such request")),
    }
}

/// Does what changes something as a whole, also if the client is gone before it has its answer.
async fn to_the_end(verb: impl Future<Output = Result<Answer, Refusal>> + Send + 'static) -> Result<Answer, Refusal> {
    let failed = |error| Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, &error));
    tokio::spawn(verb).await.unwrap_or_else(failed)
}

fn done<T: Serialize, E: ToString>(result: Result<T, E>) -> Result<Answer, Refusal> {
    match result {
        Ok(value) => Ok(http::json(StatusCode::OK, &value)),
        Err(error) => Err(Refusal::new(StatusCode::CONFLICT, &error)),
    }
}
