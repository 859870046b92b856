//! What is taken in: at the start, from the mounted folders, by a push. One change at a time; a bad one changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use securelink_pki::control::{ControlTlsError, server_config};
use securelink_pki::tls;
use securelink_relay::{AdoptError, Capacity, Credentials, Relay, Setup, StartError};
use securelink_relay_config::control::{LeafPem, Push, PushReply, Refused, Refusing};
use securelink_relay_config::{Digest, Snapshot, SnapshotError};

use super::leaf::{self, LeafError};
use super::mounted::{self, MountedError};
use super::scratch::FAULT;
use super::{Place, Process};
use crate::control::Guard;

/// What was looked at last, so that it is judged once.
#[derive(Default)]
pub(super) struct Judged {
    /// A mounted `relay.json` that was refused for what it says.
    refused: Option<Digest>,
}

/// The relay, from the moment there is something to run.
pub(super) struct Running {
    pub(super) relay: Relay,
    installed: Mutex<Installed>,
}

/// What the relay was given beside its snapshot, and whom the control port trusts. Nobody, where there is no guard.
#[derive(Clone)]
struct Installed {
    credentials: Credentials,
    cas: Vec<String>,
    guard: Option<Guard>,
}

impl Running {
    fn installed(&self) -> Installed {
        self.installed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Process {
    /// Looks at what is mounted, and does what it says.
    pub(super) async fn look(&self) {
        let mut judged = self.0.changing.lock().await;
        let mounted =
            mounted::leaf(&self.0.options.leaf).map_err(|error| self.fault(Place::Leaf, "LeafFailed", &error));
        let config = mounted::config(&self.0.options.config)
            .map_err(|error: MountedError| self.fault(Place::Config, "ConfigFailed", &error));
        if self.0.running.get().is_none() {
            self.boot(mounted.as_ref().ok(), config.as_ref().ok()).await;
        }
        let Some(running) = self.0.running.get() else { return };
        // What could not be written when it was adopted may be by now.
        running.relay.kept(self.0.scratch.kept());
        if let Ok(bytes) = config {
            self.reread(running, &bytes, &mut judged).await;
        }
        if let Ok(credentials) = mounted {
            self.reread_leaf(running, credentials);
        }
    }

    /// Starts the relay with the highest version there is, in scratch or mounted. A mounted one that cannot run makes way for
    /// the one that was in force; for that, nothing does: it is tried again.
    async fn boot(&self, credentials: Option<&Credentials>, config: Option<&Vec<u8>>) {
        let kept = self.0.scratch.snapshot().unwrap_or_else(|fault| {
            self.fault(Place::Scratch, FAULT, &fault.message);
            None
        });
        let mounted = config.and_then(|bytes| match Snapshot::from_bytes(bytes) {
            Ok(snapshot) => {
                self.settle(Place::Config);
                Some(snapshot)
            }
            Err(error) => {
                self.fault(Place::Config, error.reason(), &error);
                None
            }
        });
        let Some(credentials) = credentials else { return };
        // Of one version the kept one: it was in force. And none older than it: what it had narrowed or cut would flow again.
        let newer = mounted.filter(|new| kept.as_ref().is_none_or(|kept| new.version > kept.version));
        for snapshot in newer.into_iter().chain(kept) {
            match self.start_relay(snapshot, credentials).await {
                Ok(()) => return self.settle(Place::Start),
                Err(StartFailed::Leaf(error)) => self.fault(Place::Leaf, "LeafFailed", &error),
                Err(StartFailed::Relay(error)) => self.fault(Place::Start, "StartFailed", &error),
            }
        }
    }

    async fn start_relay(&self, snapshot: Snapshot, credentials: &Credentials) -> Result<(), StartFailed> {
        leaf::judge(credentials, None, &snapshot, self.0.clock.now())?;
        let (memory, faults) = self.0.scratch.memory();
        for fault in faults {
            self.fault(Place::Scratch, FAULT, &fault.message);
        }
        let relay = Relay::start(Setup {
            snapshot: snapshot.clone(),
            credentials: credentials.clone(),
            memory,
            store: Arc::new(self.0.scratch.clone()),
            clock: self.0.clock.clone(),
            metrics: self.0.metrics.clone(),
            capacity: Capacity::of_process(),
        })
        .await?;
        self.settle(Place::Leaf);
        self.keep(&relay, &snapshot).await;
        // Without its controller a relay still carries what it may.
        let guard = self.guard(credentials, &snapshot.control_cas, None).unwrap_or_else(|error| {
            self.fault(Place::Control, "ControlCaFailed", &error);
            None
        });
        let installed = Installed { credentials: credentials.clone(), cas: snapshot.control_cas, guard: guard.clone() };
        self.0.guard.send_replace(guard);
        tracing::info!(link = %snapshot.link, version = snapshot.version, "the relay runs");
        // Nobody else starts one.
        let _ = self.0.running.set(Running { relay, installed: Mutex::new(installed) });
        Ok(())
    }

    /// A mounted `relay.json` beside a running relay. One of the past says nothing: files lag behind what is pushed.
    async fn reread(&self, running: &Running, bytes: &[u8], judged: &mut Judged) {
        let hash = Digest::of(bytes);
        if judged.refused == Some(hash) {
            return;
        }
        let version = Snapshot::from_bytes(bytes).map_or(u64::MAX, |snapshot| snapshot.version);
        let past = version < running.relay.snapshot().version;
        let adopted = if past { Ok(()) } else { self.adopt(running, bytes).await };
        match adopted {
            Ok(()) => self.settle(Place::Config),
            Err(refused) => {
                // What it says stays wrong; a port may be free by the next look.
                let lasting = !matches!(refused.reason, Refusing::BindFailed | Refusing::TlsFailed);
                judged.refused = lasting.then_some(hash);
                self.fault(Place::Config, &format!("{:?}", refused.reason), &refused);
            }
        }
    }

    fn reread_leaf(&self, running: &Running, credentials: Credentials) {
        match self.install(running, credentials) {
            // One of the past: the Secret lags behind what was pushed.
            Ok(()) | Err(InstallFailed::Leaf(LeafError::Older { .. })) => self.settle(Place::Leaf),
            Err(error) => self.fault(Place::Leaf, "LeafFailed", &error),
        }
    }

    /// Takes in what a controller pushed, each part by itself.
    pub(super) async fn push(&self, running: &Running, push: Push) -> Result<PushReply, Refused> {
        let mut judged = self.0.changing.lock().await;
        if push.snapshot.is_none() && push.leaf.is_none() {
            return Err(Refused::new(Refusing::Malformed, &"the push is empty; give a snapshot, a leaf, or both"));
        }
        let adopted = match &push.snapshot {
            Some(snapshot) => self.adopt(running, snapshot.to_string().as_bytes()).await,
            None => Ok(()),
        };
        let installed = push.leaf.as_ref().map_or(Ok(()), |leaf| self.install_pem(running, leaf));
        // A mounted one may be right beside what runs now.
        judged.refused = None;
        adopted.and(installed)?;
        let report = running.relay.report();
        let (serial, not_after) = report.certificate.map(|leaf| (leaf.serial, leaf.not_after)).unwrap_or_default();
        Ok(PushReply { version: report.version, hash: report.hash, serial, not_after })
    }

    /// Puts a `relay.json` in force, or says why not, here and in the relay's report.
    async fn adopt(&self, running: &Running, bytes: &[u8]) -> Result<(), Refused> {
        let relay = &running.relay;
        let refuse = |refused: Refused| {
            relay.refuse(&format!("{:?}", refused.reason), refused.error.clone());
            refused
        };
        let snapshot = Snapshot::from_bytes(bytes).map_err(|error| refuse(unreadable(&error)))?;
        let (before, installed) = (relay.snapshot().version, running.installed());
        let guard = self
            .guard(&installed.credentials, &snapshot.control_cas, Some(&installed))
            .map_err(|error| refuse(Refused::new(Refusing::MalformedSnapshot, &error)))?;
        relay.adopt(snapshot.clone()).await.map_err(|error| not_adopted(&error))?;
        if snapshot.version > before {
            self.keep(relay, &snapshot).await;
            self.admit(running, Installed { cas: snapshot.control_cas, guard, ..installed });
            self.settle(Place::Control);
            tracing::info!(link = %snapshot.link, version = snapshot.version, "another configuration is in force");
        }
        Ok(())
    }

    /// Keeps what was adopted for the next process. What could not be written is among the faults.
    async fn keep(&self, relay: &Relay, snapshot: &Snapshot) {
        self.0.scratch.save_snapshot(snapshot).await;
        relay.kept(self.0.scratch.kept());
    }

    fn install_pem(&self, running: &Running, pem: &LeafPem) -> Result<(), Refused> {
        let unusable = |error: &dyn std::fmt::Display| Refused::new(Refusing::UnusableLeaf, &error.to_string());
        let credentials = mounted::parse(pem).map_err(|error| unusable(&error))?;
        self.install(running, credentials).map_err(|error| match &error {
            InstallFailed::Leaf(LeafError::Older { .. }) => Refused::new(Refusing::OlderLeaf, &error),
            _ => unusable(&error),
        })
    }

    /// Puts a leaf in force if it is newer than the one in use.
    fn install(&self, running: &Running, credentials: Credentials) -> Result<(), InstallFailed> {
        let (snapshot, installed) = (running.relay.snapshot(), running.installed());
        if !leaf::judge(&credentials, Some(&installed.credentials), &snapshot, self.0.clock.now())? {
            return Ok(());
        }
        let guard = self.guard(&credentials, &installed.cas, Some(&installed))?;
        running.relay.install(credentials.clone()).map_err(ControlTlsError::from)?;
        tracing::info!(link = %snapshot.link, until = %credentials.leaf.validity().not_after, "another leaf is in use");
        self.admit(running, Installed { credentials, guard, ..installed });
        Ok(())
    }

    /// The TLS of the control port; none where nobody is trusted.
    fn guard(
        &self,
        credentials: &Credentials,
        cas: &[String],
        before: Option<&Installed>,
    ) -> Result<Option<Guard>, ControlTlsError> {
        if cas.is_empty() {
            return Ok(None);
        }
        let ours = tls::Credentials::new(&credentials.leaf, &credentials.transitions, None)?;
        let same = before.filter(|before| before.cas == cas).and_then(|before| before.guard.as_ref());
        let ended = same.map_or_else(|| self.0.closed.child_token(), |guard| guard.ended.clone());
        Ok(Some(Guard { tls: server_config(&ours, cas, &self.0.clock)?, ended }))
    }

    /// From now on callers are judged so; those who were let in when others were trusted have to knock again.
    fn admit(&self, running: &Running, new: Installed) {
        let mut held = running.installed.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.guard.send_replace(new.guard.clone());
        let old = std::mem::replace(&mut *held, new);
        if old.cas != held.cas
            && let Some(guard) = old.guard
        {
            guard.ended.cancel();
        }
    }
}

/// Why no relay was started.
#[derive(Debug, thiserror::Error)]
enum StartFailed {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error(transparent)]
    Relay(#[from] StartError),
}

/// Why a leaf was not put in force.
#[derive(Debug, thiserror::Error)]
enum InstallFailed {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error(transparent)]
    Tls(#[from] ControlTlsError),
}

fn unreadable(error: &SnapshotError) -> Refused {
    let unsupported = error.reason() == "UnsupportedSnapshot";
    Refused::new(if unsupported { Refusing::UnsupportedSnapshot } else { Refusing::MalformedSnapshot }, error)
}

fn not_adopted(error: &AdoptError) -> Refused {
    let reason = match error {
        AdoptError::Bind(_) => Refusing::BindFailed,
        AdoptError::Tls(_) => Refusing::TlsFailed,
        AdoptError::Snapshot(error) => return unreadable(error),
        AdoptError::Older { .. } => Refusing::OlderSnapshot,
        AdoptError::Conflict { .. } => Refusing::ConflictingSnapshot,
        AdoptError::OtherLink => Refusing::OtherLink,
    };
    Refused::new(reason, error)
}
