//! What every part of the operator works with.

use std::collections::{HashMap, HashSet};
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
use crate::settings::ListedIssuer;
use crate::update_status::Written;

/// Between an error and the next attempt, doubled from the first to the last for each object.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// One operator process.
pub struct World {
    /// For writes. Watches have a client of their own.
    pub client: Client,
    /// Its own namespace.
    pub namespace: String,
    /// The issuers of cert-manager that may be asked.
    pub listed: Vec<ListedIssuer>,
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
    /// Forgets an identity that is gone: its keys, what was written of it, its failures. Takes no look at all the others: whoever
    /// may label Secrets names identities that never were, as often as they like.
    pub fn forget_identity(&self, at: &LinkRef) {
        self.looked.forget(at);
        self.identities.forget(at);
        self.failures.succeeded("LinkIdentity", at);
    }

    /// Forgets the failures of objects that are gone, and the keys of identities.
    pub fn prune(&self) {
        let declared = &self.sources.caches.declared;
        let of = |all: Vec<LinkRef>| all.into_iter().collect::<HashSet<_>>();
        let identities = of(declared.all_identities());
        self.looked.retain(|at| identities.contains(at));
        self.identities.retain(|at| identities.contains(at));
        let there = [
            ("SecureLink", of(declared.all_links())),
            ("LinkIdentity", identities),
            ("LinkCut", of(declared.all_cuts())),
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

/// A world for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod testing {
    use jiff::Timestamp;
    use kube::runtime::events::Reporter;
    use kube::{Api, Config};
    use securelink_pki::control::ControlAuthority;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::caches::Caches;
    use crate::control::Controller;
    use crate::settings::{self, Installed};

    /// One whose API server nobody reaches: nothing is seen, nothing can be written.
    pub(crate) fn alone() -> World {
        with(Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap())
    }

    /// One with this API server.
    pub(crate) fn with(client: Client) -> World {
        let (hub, (metrics, _), stop) = (Hub::default(), Metrics::new(), CancellationToken::new());
        let issuers = json!([{ "kind": "Issuer", "name": "partner-ca", "namespace": "liaison" }]);
        let config = json!({ "image": "securelink:1", "operatorLabels": {}, "certManager": { "issuers": issuers } });
        let config: settings::Config = serde_json::from_value(config).unwrap();
        let controller = Arc::new(Controller::new(ControlAuthority::generate(Timestamp::now()).unwrap()));
        World {
            namespace: "securelink".to_owned(),
            listed: config.cert_manager.issuers.clone(),
            sources: Sources {
                caches: Caches::start(&client, "securelink", &hub, &metrics, &stop),
                memory: crate::apply::Memory::default(),
                taken: crate::gather::TakenNames::default(),
                sound: crate::sound::Sound::default(),
                installation: Installed::new(config.installation("securelink", None, controller.authorities())),
            },
            lease: Arc::new(Lease::new(Api::namespaced(client.clone(), "securelink"), "one")),
            relays: Arc::new(Relays::new(controller, hub.clone(), metrics.clone(), stop)),
            recorder: Recorder::new(client.clone(), Reporter::from("securelink")),
            client,
            hub,
            metrics,
            written: Written::default(),
            identities: Newest::default(),
            looked: Looked::default(),
            requests: Requests::default(),
            failures: Failures::default(),
        }
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
