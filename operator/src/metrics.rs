//! What the operator measures of itself. Values that move by themselves live here and not in status.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a reconcile ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// `ok` or `error`.
    pub result: &'static str,
}

/// A write to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// The object's kind.
    pub kind: &'static str,
    /// What was done to it.
    pub verb: &'static str,
}

/// Links by a condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCondition {
    /// The condition's type.
    pub condition: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// Relays by what the operator knows of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByState {
    /// `answering` or `silent`.
    pub state: &'static str,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfLink {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub link: String,
}

/// The operator's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reconciles by how they ended.
    pub reconciles: Family<Ended, Counter>,
    /// How long they took, in seconds.
    pub duration: Histogram,
    /// Writes by kind and verb.
    pub writes: Family<Write, Counter>,
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Links by condition and status.
    pub links: Family<ByCondition, Gauge>,
    /// Relays by whether they answer.
    pub relays: Family<ByState, Gauge>,
    /// Reconciles that ended in a fault of our own.
    pub panics: Counter,
    /// End of each link's certificate, in seconds since 1970.
    pub expiry: Family<OfLink, Gauge<f64, AtomicU64>>,
    /// Watches that failed and began anew.
    pub watch_failures: Counter,
}

impl Metrics {
    /// New metrics, and the registry that shows them.
    pub fn new() -> (Self, Registry) {
        let metrics = Self {
            reconciles: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            writes: Family::default(),
            leader: Gauge::default(),
            links: Family::default(),
            relays: Family::default(),
            panics: Counter::default(),
            expiry: Family::default(),
            watch_failures: Counter::default(),
        };
        let mut registry = Registry::with_prefix("securelink_operator");
        let all = &metrics;
        registry.register("reconciles", "Reconciles by how they ended", all.reconciles.clone());
        registry.register("reconcile_duration_seconds", "How long reconciles took", all.duration.clone());
        registry.register("writes", "Writes to the API server by kind and verb", all.writes.clone());
        registry.register("leader", "Whether this replica leads", all.leader.clone());
        registry.register("links", "Links by condition and status", all.links.clone());
        registry.register("relays", "Relays by whether they answer", all.relays.clone());
        registry.register("panics", "Reconciles that ended in a fault of the operator", all.panics.clone());
        registry.register(
            "certificate_expiry_seconds",
            "End of each link's certificate, in seconds since 1970",
            all.expiry.clone(),
        );
        registry.register("watch_failures", "Watches that failed and began anew", all.watch_failures.clone());
        (metrics, registry)
    }

    /// Counts a write.
    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&Write { kind, verb }).inc();
    }
}
