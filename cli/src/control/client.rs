//! The client of a running process's control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use securelink_relay_config::control::{DoctorRequest, GreetRequest, Refused, path};
use securelink_relay_config::{DoctorReport, GreetReply, LinkRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::ControlError;
use super::standalone::{CutRequest, RELOAD, RESUME, ResumeRequest};
use crate::runtime::{CutDone, LinkStatus, ReloadReport, ResumeDone};
use crate::state::StateDir;

/// How long an answer may take; the server's own bound on a connection is longer.
const ANSWER: Duration = Duration::from_mins(1);
/// Largest answer: a status of some hundred links.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Speaks to the process that runs on a state folder. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    dir: PathBuf,
    socket: PathBuf,
}

impl Client {
    /// Finds the process, or says that none runs.
    pub async fn connect(state_dir: &Path) -> Result<Self, ControlError> {
        let client = Self { dir: state_dir.to_owned(), socket: StateDir::socket_in(state_dir) };
        client.stream().await?;
        Ok(client)
    }

    /// The state of every link.
    pub async fn status(&self) -> Result<Vec<LinkStatus>, ControlError> {
        self.ask(Method::GET, path::STATUS, &()).await
    }

    /// Cuts a link; returns when no stream of it is left.
    pub async fn cut(&self, link: &LinkRef, reason: &str) -> Result<CutDone, ControlError> {
        let asked = CutRequest { link: link.clone(), reason: reason.to_owned() };
        self.ask(Method::POST, path::CUT, &asked).await
    }

    /// Takes back what `cut` ordered.
    pub async fn resume(&self, link: &LinkRef) -> Result<ResumeDone, ControlError> {
        self.ask(Method::POST, RESUME, &ResumeRequest { link: link.clone() }).await
    }

    /// Sends a message to the peer, who signs for it.
    pub async fn greet(&self, link: &LinkRef, text: &str) -> Result<GreetReply, ControlError> {
        let asked = GreetRequest { link: link.clone(), text: text.to_owned() };
        self.ask(Method::POST, path::GREET, &asked).await
    }

    /// Looks for what keeps a link from working.
    pub async fn doctor(&self, link: &LinkRef) -> Result<DoctorReport, ControlError> {
        self.ask(Method::POST, path::DOCTOR, &DoctorRequest { link: link.clone() }).await
    }

    /// Reads the files again.
    pub async fn reload(&self) -> Result<ReloadReport, ControlError> {
        self.ask(Method::POST, RELOAD, &()).await
    }

    async fn stream(&self) -> Result<UnixStream, ControlError> {
        UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(self.dir.clone()),
            _ => ControlError::Connect { path: self.socket.clone(), source },
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        asked: &impl Serialize,
    ) -> Result<T, ControlError> {
        let exchange = async {
            let request = request(method, path, asked)?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(self.stream().await?)).await.map_err(broken)?;
            let connection = tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(broken)?;
            let read = read(answer).await;
            connection.abort();
            read
        };
        tokio::time::timeout(ANSWER, exchange).await.unwrap_or(Err(ControlError::TimedOut(ANSWER.as_secs())))
    }
}

fn request(method: Method, path: &str, asked: &impl Serialize) -> Result<Request<Full<Bytes>>, ControlError> {
    let body = if method == Method::GET { Vec::new() } else { serde_json::to_vec(asked).map_err(broken)? };
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "securelink")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)
}

async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ControlError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(broken)?.to_bytes();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(broken);
    }
    match serde_json::from_slice::<Refused>(&body) {
        Ok(refusal) => Err(ControlError::Refused(refusal.error)),
        Err(_) => Err(ControlError::Broken(format!("it answered {status}"))),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err, which hands the error over")]
fn broken(error: impl ToString) -> ControlError {
    ControlError::Broken(error.to_string())
}
