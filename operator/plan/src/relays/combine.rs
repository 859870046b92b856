//! One report for a link of several relays. The same whatever the order in which they answered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use securelink_relay_config::{
    AgreedReport, EntryReport, ErrorReport, LinkReport, PeerReport, ProbeReport, Snapshot, StreamReport,
};

/// What the relays of a link report together; nothing where none does. `snapshot` is what they should run: a relay that runs it
/// speaks for all where another one refused it, and a report on another link is left out.
///
/// | of | is |
/// |---|---|
/// | version, leaf, listener, agreement | what the relay of the newest version says that knows the peer's newest word |
/// | peer | connected if any is; replicas of all; what is known of it, from a relay that is connected |
/// | exports, imports | usable if a relay of the newest version can use it |
/// | probe | the newest success |
/// | streams, refusals | added up |
/// | cuts, formats | what all have |
/// | refused snapshot | one that every relay which is up to date complains of |
pub fn combine(reports: &[LinkReport], snapshot: Option<&Snapshot>) -> Option<LinkReport> {
    let meant = |report: &&LinkReport| snapshot.is_none_or(|snapshot| snapshot.link == report.link);
    let mut reports: Vec<&LinkReport> = reports.iter().filter(meant).collect();
    reports.sort_by_cached_key(|report| order(report));
    let first = *reports.first()?;
    let newest: Vec<&LinkReport> = reports.iter().copied().filter(|report| report.version == first.version).collect();
    Some(LinkReport {
        link: first.link.clone(),
        version: first.version,
        hash: first.hash,
        formats: common(&reports, |report| report.formats.iter().copied().collect()),
        listener: first.listener.clone(),
        certificate: first.certificate.clone(),
        peer: peer(&reports),
        agreed: first.agreed.clone(),
        probe: probe(&reports),
        exports: entries(&newest, |report| &report.exports),
        imports: entries(&newest, |report| &report.imports),
        streams: streams(&reports),
        cuts: common(&reports, |report| report.cuts.iter().cloned().collect()),
        rejected: rejected(&reports, snapshot),
    })
}

/// Who speaks first: the newest version, then the peer's newest word, then who agrees; last anything that always decides.
type Order = (Reverse<u64>, Reverse<Option<u64>>, bool, String);

fn order(report: &LinkReport) -> Order {
    let AgreedReport { disagreement, peer, .. } = &report.agreed;
    let heard = peer.as_ref().map(|side| side.sequence);
    // A struct of plain values: serialization has no failing case.
    let text = serde_json::to_string(report).unwrap_or_default();
    (Reverse(report.version), Reverse(heard), disagreement.is_some(), text)
}

fn common<T: Ord + Clone>(reports: &[&LinkReport], of: impl Fn(&LinkReport) -> BTreeSet<T>) -> Vec<T> {
    let all = reports.iter().map(|report| of(report));
    all.reduce(|kept, more| kept.intersection(&more).cloned().collect()).into_iter().flatten().collect()
}

fn peer(reports: &[&LinkReport]) -> PeerReport {
    let connected = |peer: &&PeerReport| peer.control_connections > 0;
    let peers = || reports.iter().map(|report| &report.peer);
    // What was learned last is known by who is connected; else by who ever was.
    let known = peers().find(connected).or_else(|| peers().find(|peer| peer.root.is_some()));
    let mut refused = BTreeMap::new();
    for (reason, count) in peers().flat_map(|peer| &peer.refused) {
        let sum: &mut u64 = refused.entry(reason.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
    let replicas: BTreeSet<String> = peers().flat_map(|peer| peer.replicas.iter().cloned()).collect();
    let error = peers().filter_map(|peer| peer.last_error.as_ref());
    PeerReport {
        control_connections: peers().fold(0, |sum, peer| sum.saturating_add(peer.control_connections)),
        replicas: replicas.into_iter().collect(),
        connected_since: peers().filter(connected).filter_map(|peer| peer.connected_since).min(),
        last_error: steady(error).filter(|_| peers().all(|peer| !connected(&peer))),
        last_seen: peers().filter_map(|peer| peer.last_seen).max(),
        last_refused: peers().filter_map(|peer| peer.last_refused.clone()).max_by_key(|error| (error.at, told(error))),
        refused,
        ..known.or(peers().next()).cloned().unwrap_or_default()
    }
}

/// One error of several. Not the newest one: relays that fail each in their own way would take turns, and every turn would be
/// written into status.
fn steady<'a>(errors: impl Iterator<Item = &'a ErrorReport>) -> Option<ErrorReport> {
    errors.min_by_key(|error| (told(error), error.at)).cloned()
}

fn told(error: &ErrorReport) -> (String, String) {
    (error.reason.clone(), error.message.clone())
}

/// The newest success; without any, why there is none.
fn probe(reports: &[&LinkReport]) -> ProbeReport {
    let probes = reports.iter().map(|report| &report.probe);
    let newest = probes.min_by_key(|probe| (Reverse(probe.last_success), probe.error.clone(), probe.round_trip_micros));
    newest.cloned().unwrap_or_default()
}

fn entries(reports: &[&LinkReport], of: impl Fn(&LinkReport) -> &Vec<EntryReport>) -> Vec<EntryReport> {
    let mut entries: BTreeMap<&str, &EntryReport> = BTreeMap::new();
    for entry in reports.iter().flat_map(|report| of(report)) {
        let usable = |entry: &EntryReport| (entry.unusable.is_some(), entry.unusable.clone(), entry.address);
        let best = entries.entry(&entry.name).or_insert(entry);
        if usable(entry) < usable(best) {
            *best = entry;
        }
    }
    entries.into_values().cloned().collect()
}

fn streams(reports: &[&LinkReport]) -> StreamReport {
    reports.iter().map(|report| report.streams).fold(StreamReport::default(), |sum, more| StreamReport {
        live: sum.live.saturating_add(more.live),
        limit: sum.limit.saturating_add(more.limit),
        opened: sum.opened.saturating_add(more.opened),
        bytes_sent: sum.bytes_sent.saturating_add(more.bytes_sent),
        bytes_received: sum.bytes_received.saturating_add(more.bytes_received),
    })
}

/// What was refused, unless a relay that is up to date refused nothing: one is enough to carry.
fn rejected(reports: &[&LinkReport], snapshot: Option<&Snapshot>) -> Option<ErrorReport> {
    let wanted = snapshot.map_or(0, |snapshot| snapshot.version);
    let current = |report: &&&LinkReport| report.version >= wanted;
    // That a relay sent a paused controller's word away is as it should be.
    let content =
        |report: &&LinkReport| report.rejected.as_ref().is_none_or(|rejected| rejected.reason == "OlderSnapshot");
    if reports.iter().filter(current).any(content) {
        return None;
    }
    steady(reports.iter().filter_map(|report| report.rejected.as_ref()))
}
