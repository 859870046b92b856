//! What a relay counts. Labels come from our own configuration and from fixed words, never from a peer (fault F52).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use securelink_relay_config::LinkRef;

use crate::judge::Direction;

/// The metrics of all relays in a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    streams: Family<StreamLabels, Gauge>,
    opened: Family<StreamLabels, Counter>,
    ended: Family<OutcomeLabels, Counter>,
    bytes: Family<BytesLabels, Counter>,
    connections: Family<ConnectionLabels, Gauge>,
    refused: Family<ReasonLabels, Counter>,
    agreed: Family<LinkLabels, Gauge>,
    ready: Family<LinkLabels, Gauge>,
    version: Family<LinkLabels, Gauge>,
    rtt: Family<LinkLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabels {
    namespace: String,
    link: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    namespace: String,
    link: String,
    direction: &'static str,
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    namespace: String,
    link: String,
    direction: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BytesLabels {
    namespace: String,
    link: String,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    namespace: String,
    link: String,
    role: &'static str,
    side: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    namespace: String,
    link: String,
    reason: &'static str,
}

impl Metrics {
    /// Registers them all, under the prefix `securelink`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let registry = registry.sub_registry_with_prefix("securelink");
        registry.register("streams_live", "Streams that live now", all.streams.clone());
        registry.register("streams_opened", "Streams opened", all.opened.clone());
        registry.register("streams_ended", "Streams ended, by outcome", all.ended.clone());
        registry.register_with_unit("payload", "Payload carried, by destination", Unit::Bytes, all.bytes.clone());
        registry.register("connections", "Connections with the peer", all.connections.clone());
        registry.register("refused", "Connections refused or failed, by reason", all.refused.clone());
        registry.register("agreed", "1 while both sides agree", all.agreed.clone());
        registry.register("ready", "1 while the relay can carry a stream", all.ready.clone());
        registry.register("snapshot_version", "Version of the snapshot in force", all.version.clone());
        registry.register_with_unit("peer_round_trip", "Last heartbeat's", Unit::Seconds, all.rtt.clone());
        all
    }

    /// Those of one link.
    pub(crate) fn link(&self, link: &LinkRef) -> LinkMetrics {
        let labels = LinkLabels { namespace: link.namespace.clone(), link: link.name.clone() };
        let bytes = |to| {
            let labels = BytesLabels { namespace: link.namespace.clone(), link: link.name.clone(), to };
            self.bytes.get_or_create(&labels).clone()
        };
        LinkMetrics {
            sent: bytes("peer"),
            received: bytes("here"),
            agreed: self.agreed.get_or_create(&labels).clone(),
            ready: self.ready.get_or_create(&labels).clone(),
            version: self.version.get_or_create(&labels).clone(),
            rtt: self.rtt.get_or_create(&labels).clone(),
            all: self.clone(),
            labels,
        }
    }
}

/// The metrics of one link.
pub(crate) struct LinkMetrics {
    all: Metrics,
    labels: LinkLabels,
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    pub(crate) agreed: Gauge,
    pub(crate) ready: Gauge,
    pub(crate) version: Gauge,
    pub(crate) rtt: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl LinkMetrics {
    /// Counts a stream that opens; the gauge is to be lowered when it ends.
    pub(crate) fn opened(&self, direction: Direction, service: &str) -> Gauge {
        let labels = StreamLabels {
            namespace: self.labels.namespace.clone(),
            link: self.labels.link.clone(),
            direction: direction.as_str(),
            service: service.to_owned(),
        };
        self.all.opened.get_or_create(&labels).inc();
        let gauge = self.all.streams.get_or_create(&labels).clone();
        gauge.inc();
        gauge
    }

    pub(crate) fn ended(&self, direction: Direction, outcome: &'static str) {
        let (namespace, link) = (self.labels.namespace.clone(), self.labels.link.clone());
        let labels = OutcomeLabels { namespace, link, direction: direction.as_str(), outcome };
        self.all.ended.get_or_create(&labels).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        let labels = ReasonLabels { namespace: self.labels.namespace.clone(), link: self.labels.link.clone(), reason };
        self.all.refused.get_or_create(&labels).inc();
    }

    pub(crate) fn connections(&self, role: &'static str, side: &'static str) -> Gauge {
        let labels =
            ConnectionLabels { namespace: self.labels.namespace.clone(), link: self.labels.link.clone(), role, side };
        self.all.connections.get_or_create(&labels).clone()
    }
}
