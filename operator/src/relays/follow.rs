//! What goes on with one relay: its status is read, it is given what it is to run, and it is told what to cut.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use securelink_pki::PeerTrust;
use securelink_relay_config::control::{CutOrder, CutReply, Push, PushReply, RelayStatus, path};
use securelink_relay_config::{Cut, LinkRef, Millis, ProbeReport, StreamReport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AskFailed, Connection, Heard, Relays};
use crate::hub::Change;

/// Between two looks at a relay's status.
const LOOK: Duration = Duration::from_secs(2);
/// A status, and a cut: milliseconds, but on a node that is out of breath.
const BRIEF: Duration = Duration::from_secs(5);
/// A snapshot is written to the relay's disk before it is answered.
const PUSH: Duration = Duration::from_secs(10);
/// Between two attempts to connect, doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// One relay, as it is followed.
pub(super) struct Followed {
    pub(super) relays: Arc<Relays>,
    pub(super) link: LinkRef,
    pub(super) address: SocketAddr,
    pub(super) trust: watch::Receiver<PeerTrust>,
    pub(super) heard: Arc<Mutex<Heard>>,
    /// How often a connection came up: a relay that was restarted is told everything again.
    pub(super) connected: watch::Sender<u64>,
}

impl Followed {
    pub(super) fn start(
        self,
        push: watch::Receiver<Option<Arc<Push>>>,
        cuts: watch::Receiver<Arc<BTreeSet<Cut>>>,
        end: &CancellationToken,
    ) {
        let followed = Arc::new(self);
        for work in [
            Box::pin(Arc::clone(&followed).look(push)) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
            Box::pin(followed.order(cuts)),
        ] {
            let end = end.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = work => {}
                }
            });
        }
    }

    /// Reads the status again and again, and gives what is to be run.
    async fn look(self: Arc<Self>, mut push: watch::Receiver<Option<Arc<Push>>>) {
        let mut pause = PAUSES.0;
        loop {
            match self.open().await {
                Ok(mut connection) => {
                    pause = PAUSES.0;
                    self.connected.send_modify(|count| *count += 1);
                    let why = self.converse(&mut connection, &mut push).await;
                    self.hear_nothing(&why);
                }
                Err(why) => self.hear_nothing(&why.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Until the connection breaks; why it did.
    async fn converse(&self, connection: &mut Connection, push: &mut watch::Receiver<Option<Arc<Push>>>) -> String {
        let mut given: Option<Arc<Push>> = None;
        loop {
            let wanted = push.borrow_and_update().clone();
            if let Some(wanted) = wanted.filter(|wanted| given.as_ref() != Some(wanted)) {
                match connection.send::<_, PushReply>(Method::PUT, path::SNAPSHOT, wanted.as_ref(), PUSH).await {
                    Ok(_) => given = Some(wanted),
                    // What it refuses it would refuse again; its status says so too.
                    Err(error) if error.is_refusal() => {
                        tracing::warn!(link = %self.link, %error, "a relay refused what it was given");
                        given = Some(wanted);
                    }
                    Err(error) => return error.to_string(),
                }
            }
            match connection.get::<RelayStatus>(path::STATUS, BRIEF).await {
                Ok(status) => self.hear(status),
                Err(error) => return error.to_string(),
            }
            tokio::select! {
                changed = push.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Tells what to cut, at once and until it is obeyed; again whenever the relay may have been restarted.
    async fn order(self: Arc<Self>, mut cuts: watch::Receiver<Arc<BTreeSet<Cut>>>) {
        let (mut connected, mut connection) = (self.connected.subscribe(), None);
        let mut told: (u64, BTreeSet<(String, u64)>) = Default::default();
        let mut pause = PAUSES.0;
        loop {
            let (ordered, count) = (cuts.borrow_and_update().clone(), *connected.borrow_and_update());
            if told.0 != count {
                told = (count, BTreeSet::new());
            }
            let mut failed = false;
            for cut in ordered
                .iter()
                .filter(|cut| !told.1.contains(&(cut.id.clone(), cut.revision)))
                .cloned()
                .collect::<Vec<_>>()
            {
                match self.tell(&mut connection, &cut).await {
                    Ok(()) => drop(told.1.insert((cut.id.clone(), cut.revision))),
                    Err(error) => {
                        tracing::warn!(link = %self.link, cut = cut.id, %error, "a relay could not be told of a cut yet");
                        failed = true;
                        break;
                    }
                }
            }
            if ordered.is_empty() {
                connection = None;
            }
            if !failed {
                pause = PAUSES.0;
                tokio::select! {
                    changed = cuts.changed() => if changed.is_err() { return },
                    changed = connected.changed() => if changed.is_err() { return },
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                _ = connected.changed() => {}
            }
        }
    }

    async fn tell(&self, connection: &mut Option<Connection>, cut: &Cut) -> Result<(), AskFailed> {
        let order = CutOrder { link: self.link.clone(), cut: cut.clone() };
        let open = match connection {
            Some(open) => open,
            None => connection.insert(self.open().await?),
        };
        match open.send::<_, CutReply>(Method::POST, path::CUT, &order, BRIEF).await {
            Ok(_) => {}
            Err(error) => {
                *connection = None;
                return Err(error.into());
            }
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.obeyed.insert((cut.id.clone(), cut.revision), Timestamp::now());
        drop(heard);
        self.relays.hub.tell(Change::Cut(self.link.clone()));
        Ok(())
    }

    async fn open(&self) -> Result<Connection, AskFailed> {
        let trust = self.trust.borrow().clone();
        Ok(Connection::open(self.address, self.relays.tls(&trust)?).await?)
    }

    fn hear(&self, status: RelayStatus) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let news = heard.status.as_ref().map(coarse) != Some(coarse(&status));
        heard.status = Some(status);
        heard.error = None;
        drop(heard);
        if news {
            self.relays.hub.tell(Change::Link(self.link.clone()));
        }
    }

    fn hear_nothing(&self, why: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let news = heard.status.take().is_some() || heard.error.is_none();
        heard.error = Some(why.to_owned());
        drop(heard);
        if news {
            self.relays.hub.tell(Change::Link(self.link.clone()));
        }
    }
}

/// A status without what moves by itself: only another one of these is worth a look.
fn coarse(status: &RelayStatus) -> RelayStatus {
    let mut status = status.clone();
    let report = &mut status.report;
    report.streams = StreamReport::default();
    report.probe = ProbeReport {
        last_success: report.probe.last_success.map(|_| Millis::default()),
        round_trip_micros: None,
        ..report.probe.clone()
    };
    report.peer.refused.clear();
    report.peer.last_refused = None;
    report.peer.last_seen = report.peer.last_seen.map(|_| Millis::default());
    if let Some(error) = &mut report.peer.last_error {
        error.at = Millis::default();
    }
    status
}
