//! What every part of the operator works with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::runtime::events::Recorder;
use securelink_crds::LinkIdentityStatus;
use securelink_relay_config::LinkRef;

use crate::gather::Sources;
use crate::hub::Hub;
use crate::issue::looked::Looked;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::newest::Newest;
use crate::relays::Relays;
use crate::requests::Requests;
use crate::update_status::Written;

/// Between an error and the next attempt, doubled from the first to the last for each object.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// One operator process.
pub struct World {
    /// For writes. Watches have a client of their own.
    pub client: Client,
    /// Its own namespace.
    pub namespace: String,
    /// What is known.
    pub sources: Sources,
    /// What changes.
    pub hub: Hub,
    /// Who may write.
    pub lease: Arc<Lease>,
    /// The relays.
    pub relays: Arc<Relays>,
    /// What is measured.
    pub metrics: Metrics,
    /// Kubernetes' Events.
    pub recorder: Recorder,
    /// Statuses that were written and are not seen yet.
    pub written: Written,
    /// The same of identities.
    pub identities: Newest<LinkIdentityStatus>,
    /// What their keys were found to be.
    pub looked: Looked,
    /// Requests by annotation.
    pub requests: Requests,
    /// Failures in a row.
    pub failures: Failures,
}

impl World {
    /// Forgets the failures of objects that are gone.
    pub fn prune_failures(&self) {
        let declared = &self.sources.caches.declared;
        let there = [
            ("SecureLink", declared.all_links()),
            ("LinkIdentity", declared.all_identities()),
            ("LinkCut", declared.all_cuts()),
        ];
        self.failures.retain(|kind, object| there.iter().any(|(of, all)| *of == kind && all.contains(object)));
    }
}

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<(&'static str, LinkRef), u32>>);

impl Failures {
    /// One more; how long to wait.
    pub fn failed(&self, kind: &'static str, object: &LinkRef) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry((kind, object.clone())).or_default();
        *count = count.saturating_add(1);
        BACKOFF.0.saturating_mul(1 << (*count - 1).min(16)).min(BACKOFF.1)
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.retain(|_, _| false);
    }

    /// Forgets all but these.
    fn retain(&self, keep: impl Fn(&str, &LinkRef) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(kind, object), _| keep(kind, object));
    }

    /// It went well.
    pub fn succeeded(&self, kind: &'static str, object: &LinkRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, object.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_success() {
        let (failures, link) = (Failures::default(), LinkRef { namespace: "n".to_owned(), name: "l".to_owned() });
        let next = || failures.failed("SecureLink", &link).as_millis();
        assert_eq!([next(), next(), next(), next()], [500, 1000, 2000, 4000]);
        for _ in 0..100 {
            next();
        }
        assert_eq!(next(), 60_000);
        failures.succeeded("SecureLink", &link);
        assert_eq!(failures.failed("SecureLink", &link).as_millis(), 500);
        failures.failed("LinkCut", &link);
        failures.retain(|kind, _| kind == "LinkCut");
        let kept = failures.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect::<Vec<_>>();
        assert_eq!(kept, [("LinkCut", link.clone())]);
    }
}
