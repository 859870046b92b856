//! The verbs of the standalone runtime, which holds many links.

use hyper::body::Incoming;
use hyper::{Method, Request};
use securelink_relay::Relay;
use securelink_relay_config::LinkRef;
use securelink_relay_config::control::{MAX_REQUEST_BYTES, Refused, Refusing, path};
use serde::{Deserialize, Serialize};

use super::http::{self, Answer};
use super::verbs::{Holder, to_the_end, unknown};
use crate::runtime::{Runtime, RuntimeError};

/// Reads the files again.
pub(super) const RELOAD: &str = "/v1/reload";
/// Takes back what `cut` ordered.
pub(super) const RESUME: &str = "/v1/resume";

/// What `cut` is asked with: here the process makes the order.
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

impl Holder for Runtime {
    fn relay(&self, link: &LinkRef) -> Result<Relay, Refused> {
        self.running(link).map_err(refused)
    }

    async fn own(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let runtime = self.clone();
        match (request.method(), request.uri().path()) {
            (&Method::GET, path::STATUS) => Ok(http::done(&self.status())),
            (&Method::POST, RELOAD) => to_the_end(async move { Ok(http::done(&runtime.reload().await)) }).await,
            (&Method::POST, path::CUT) => {
                let asked: CutRequest = http::body(request, MAX_REQUEST_BYTES).await?;
                to_the_end(async move {
                    let done = runtime.cut(&asked.link, &asked.reason).await;
                    done.map(|done| http::done(&done)).map_err(refused)
                })
                .await
            }
            (&Method::POST, RESUME) => {
                let asked: ResumeRequest = http::body(request, MAX_REQUEST_BYTES).await?;
                to_the_end(async move {
                    let done = runtime.resume(&asked.link).await;
                    done.map(|done| http::done(&done)).map_err(refused)
                })
                .await
            }
            _ => Err(unknown()),
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err, which hands the error over")]
fn refused(error: RuntimeError) -> Refused {
    let reason = match &error {
        RuntimeError::UnknownLink { .. } => Refusing::UnknownLink,
        RuntimeError::NotRunning(_) => Refusing::NotRunning,
        RuntimeError::CutNotKept(_) => Refusing::NotKept,
        RuntimeError::Greet(_) => Refusing::GreetFailed,
        _ => Refusing::Internal,
    };
    Refused::new(reason, &error)
}
