//! What the process answers on its two ports.

use hyper::body::Incoming;
use hyper::{Method, Request};
use securelink_relay::Relay;
use securelink_relay_config::LinkRef;
use securelink_relay_config::control::{
    CutOrder, CutReply, MAX_PUSH_BYTES, MAX_REQUEST_BYTES, Push, Refused, Refusing, path,
};

use super::Process;
use super::adopt::Running;
use crate::control::{Answer, Health, Holder, body, done, to_the_end, unknown};

impl Holder for Process {
    fn relay(&self, link: &LinkRef) -> Result<Relay, Refused> {
        let relay = self.running()?.relay.clone();
        let here = relay.snapshot().link.clone();
        if here == *link {
            return Ok(relay);
        }
        let why = format!("this relay is of {here}, not of {link}; look its address up again");
        Err(Refused::new(Refusing::UnknownLink, &why))
    }

    async fn own(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let process = self.clone();
        match (request.method(), request.uri().path()) {
            (&Method::GET, path::STATUS) => self.status().map(|status| done(&status)).ok_or_else(not_running),
            (&Method::PUT, path::SNAPSHOT) => {
                let push: Push = body(request, MAX_PUSH_BYTES).await?;
                to_the_end(async move {
                    let reply = process.push(process.running()?, push).await;
                    reply.map(|reply| done(&reply))
                })
                .await
            }
            (&Method::POST, path::CUT) => {
                let order: CutOrder = body(request, MAX_REQUEST_BYTES).await?;
                let relay = self.relay(&order.link)?;
                to_the_end(async move { Ok(done(&process.cut(&relay, order).await)) }).await
            }
            _ => Err(unknown()),
        }
    }
}

impl Process {
    fn running(&self) -> Result<&Running, Refused> {
        self.0.running.get().ok_or_else(not_running)
    }

    async fn cut(&self, relay: &Relay, order: CutOrder) -> CutReply {
        let id = order.cut.id.clone();
        let receipt = relay.cut(order.cut).await;
        let stored = self.0.scratch.keeps_cuts().await;
        if receipt.fresh {
            tracing::warn!(link = %order.link, cut = id, ended = receipt.ended, stored, "cut");
        }
        CutReply { fresh: receipt.fresh, ended: receipt.ended, stored }
    }
}

impl Health for Process {
    /// In words of our own: everybody in reach may look.
    fn not_ready(&self) -> Vec<String> {
        match self.0.running.get() {
            Some(running) if running.relay.is_ready() => Vec::new(),
            Some(_) if self.0.stop.is_cancelled() => vec!["draining".to_owned()],
            Some(_) => vec!["no live connection with the peer".to_owned()],
            None => {
                let reasons: Vec<_> = self.known_faults().values().map(|fault| fault.reason.clone()).collect();
                vec!["nothing to run yet:".to_owned(), reasons.join(", ")]
            }
        }
    }

    fn status(&self) -> Option<Answer> {
        None
    }
}

fn not_running() -> Refused {
    Refused::new(
        Refusing::NotRunning,
        &"the relay does not run yet; see that its configuration and its leaf are mounted",
    )
}
