//! The lease that lets one replica write. Its holder knows until when it may: a process that was stopped and goes on finds
//! its time over before its next write, without asking anybody (fault F23).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The lease's name in the operator's namespace.
pub const NAME: &str = "securelink-operator";
/// For how long others leave a lease alone that is not renewed (client-go's default).
const DURATION: Duration = Duration::from_secs(15);
/// For how long after a renewal its holder writes (client-go's default): what is under way then has five seconds to end.
const WRITES: Duration = Duration::from_secs(10);
/// Between two renewals or looks (client-go's default).
const EVERY: Duration = Duration::from_secs(2);

/// What a replica knows of the lease.
#[derive(Debug)]
pub struct Lease {
    api: Api<LeaseObject>,
    holder: String,
    until: Mutex<Option<Until>>,
    leads: watch::Sender<bool>,
}

/// The end of the time to write. The monotonic clock stands still while the machine sleeps, and the other one may be set: the
/// first to say that it is over is believed.
#[derive(Clone, Copy, Debug)]
struct Until {
    monotonic: Instant,
    wall: SystemTime,
}

impl Until {
    /// The end of what begins now.
    fn after(began: (Instant, SystemTime)) -> Self {
        Self { monotonic: began.0 + WRITES, wall: began.1 + WRITES }
    }

    fn is_over(self, (monotonic, wall): (Instant, SystemTime)) -> bool {
        monotonic >= self.monotonic || wall >= self.wall
    }
}

/// Both clocks.
fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// Somebody else's lease, as it was last seen to change.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Lease {
    /// The lease of `namespace`, for the replica called `holder`.
    pub fn new(api: Api<LeaseObject>, holder: &str) -> Self {
        Self { api, holder: holder.to_owned(), until: Mutex::default(), leads: watch::Sender::new(false) }
    }

    /// Whether this replica may write now. To be asked right before each write.
    pub fn holds(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| !until.is_over(now()))
    }

    /// Follows whether this replica leads.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Takes, renews and watches the lease until `stop`, then gives it back.
    pub async fn run(&self, stop: CancellationToken) {
        let mut seen = None;
        loop {
            if let Err(error) = tokio::time::timeout(EVERY * 2, self.turn(&mut seen))
                .await
                .unwrap_or_else(|_| Err(kube::Error::Service("the API server does not answer".into())))
            {
                tracing::warn!(%error, "the lease could not be renewed or looked at");
            }
            self.leads.send_if_modified(|leads| std::mem::replace(leads, self.holds()) != self.holds());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        if self.holds() {
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let _ = tokio::time::timeout(EVERY, self.release()).await;
        }
        self.leads.send_replace(false);
    }

    /// One look, and what follows from it.
    async fn turn(&self, seen: &mut Option<Seen>) -> kube::Result<()> {
        let began = now();
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let lease = LeaseObject {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.held(0)),
            };
            self.api.create(&PostParams::default(), &lease).await?;
            self.renewed(began);
            return Ok(());
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(self.holder.as_str());
        if !ours && !is_abandoned(&lease, &spec, seen) {
            return Ok(());
        }
        lease.spec = Some(if ours {
            LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..spec }
        } else {
            self.held(spec.lease_transitions.unwrap_or_default() + 1)
        });
        // Guarded by its resourceVersion: of two that take it one is refused.
        self.api.replace(NAME, &PostParams::default(), &lease).await?;
        self.renewed(began);
        Ok(())
    }

    /// Holds it, as if it had just been renewed.
    #[cfg(test)]
    pub(crate) fn take(&self) {
        self.renewed(now());
    }

    fn held(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Counted from before the request: the server took it at some moment after.
    fn renewed(&self, began: (Instant, SystemTime)) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Until::after(began));
    }

    async fn release(&self) -> kube::Result<()> {
        let mut lease = self.api.get(NAME).await?;
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.holder)) {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.api.replace(NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// Whether somebody else's lease was given back, or not renewed for its duration as this replica's own clock counts it.
fn is_abandoned(lease: &LeaseObject, spec: &LeaseSpec, seen: &mut Option<Seen>) -> bool {
    if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
        return true;
    }
    let version = lease.metadata.resource_version.clone();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    let duration = Duration::from_secs(seconds).max(DURATION);
    match seen {
        Some(before) if before.version == version => before.since.elapsed() >= duration,
        _ => {
            *seen = Some(Seen { version, since: Instant::now() });
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f23_the_time_to_write_is_over_when_either_clock_says_so() {
        let (monotonic, wall) = now();
        let until = Until::after((monotonic, wall));
        let second = Duration::from_secs(1);
        assert!(!until.is_over((monotonic + second, wall + second)));
        assert!(until.is_over((monotonic + WRITES, wall)), "the clock was set back");
        assert!(until.is_over((monotonic + second, wall + WRITES)), "the machine slept");
    }
}
