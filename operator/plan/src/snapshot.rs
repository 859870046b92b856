//! `relay.json` from a validated link and the cuts over it. The same inputs give the same bytes and the same version.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use securelink_relay_config::{Cut, Export, FORMAT, Import, Limits, Millis, Snapshot};

use crate::hosting::FIRST_IMPORT_PORT;
use crate::validated::{ValidatedExport, ValidatedImport, ValidatedLink};

/// Most cuts remembered as released. A relay needs the entry only until it has adopted one snapshot that has it.
const MAX_RELEASED: usize = 256;

/// The cuts over a link, and what was looked at to know them.
#[derive(Clone, Copy, Debug)]
pub struct Orders<'a> {
    /// What is cut now.
    pub cuts: &'a BTreeSet<Cut>,
    /// By `kind/uid`: the revision of every object that can cut and that was looked at.
    pub seen: &'a BTreeMap<String, u64>,
}

/// The next snapshot, or `previous` itself where nothing but the version would change.
pub fn snapshot(link: &ValidatedLink, orders: Orders<'_>, previous: Option<&Snapshot>, now: Millis) -> Snapshot {
    let mut next = build(link, orders, previous);
    let Some(previous) = previous else {
        next.version = now.0.max(1);
        return next;
    };
    next.version = previous.version;
    if next != *previous {
        next.version = previous.version.saturating_add(1).max(now.0);
    }
    next
}

/// The addresses a snapshot listens on, for [`Taken`](crate::Taken).
pub fn listeners(snapshot: &Snapshot) -> Vec<SocketAddr> {
    snapshot.listen.into_iter().chain(snapshot.imports.iter().map(|import| import.listen)).collect()
}

fn build(link: &ValidatedLink, orders: Orders<'_>, previous: Option<&Snapshot>) -> Snapshot {
    let seen = seen(orders, previous);
    Snapshot {
        format: FORMAT,
        version: 0,
        requires: Vec::new(),
        link: link.link.clone(),
        own: link.own.clone(),
        peer: link.peer.clone(),
        listen: link.listen,
        state: link.state,
        agreements: link.agreements.clone(),
        exports: link.exports.iter().map(|entry| export(entry, link.replicas)).collect(),
        imports: imports(&link.imports, link.bind, previous),
        allow_classical_key_exchange: link.allow_classical_key_exchange,
        max_staleness_seconds: link.max_staleness.as_secs(),
        dial: link.dial.clone(),
        limits: share(link.limits, link.replicas),
        contacts: link.contacts.clone(),
        cuts_in_force: orders.cuts.iter().cloned().collect(),
        released: released(&seen, previous),
        seen,
        control_cas: link.control_cas.clone(),
    }
}

fn export(entry: &ValidatedExport, replicas: u16) -> Export {
    Export {
        name: entry.name.clone(),
        target: entry.target.endpoint().clone(),
        data_class: entry.data_class,
        limits: share(entry.limits, replicas),
    }
}

/// Slots are first-fit, stay with an import's name, and are not reused in the version that frees them: a client that
/// still dials the old port must not reach another service.
fn imports(entries: &[ValidatedImport], bind: IpAddr, previous: Option<&Snapshot>) -> Vec<Import> {
    let before: BTreeMap<&str, u16> =
        previous.into_iter().flat_map(|old| &old.imports).map(|old| (old.name.as_str(), old.slot)).collect();
    let mut taken: BTreeSet<u16> = before.values().copied().collect();
    let mut slot = |name: &str| {
        before.get(name).copied().unwrap_or_else(|| {
            let free = (0..u16::MAX).find(|slot| !taken.contains(slot)).unwrap_or(u16::MAX);
            taken.insert(free);
            free
        })
    };
    let import = |entry: &ValidatedImport| {
        let slot = slot(&entry.name);
        let by_slot = || (bind, FIRST_IMPORT_PORT.saturating_add(slot)).into();
        let listen = entry.listen.unwrap_or_else(by_slot);
        Import { name: entry.name.clone(), slot, listen, data_class: entry.data_class }
    };
    entries.iter().map(import).collect()
}

/// One relay's share, rounded up: a limit of 1 over two relays must not become 0.
fn share(limits: Limits, replicas: u16) -> Limits {
    let replicas = replicas.max(1);
    Limits {
        connections: limits.connections.map(|all| all.div_ceil(u32::from(replicas))),
        new_connections_per_second: limits.new_connections_per_second.map(|all| all.div_ceil(u32::from(replicas))),
        bytes_per_second: limits.bytes_per_second.map(|all| all.div_ceil(u64::from(replicas))),
    }
}

/// What was looked at. A revision never goes back: a cache that lags must not make an obeyed cut new again.
fn seen(orders: Orders<'_>, previous: Option<&Snapshot>) -> BTreeMap<String, u64> {
    let cuts = orders.cuts.iter().map(|cut| (cut.id.clone(), cut.revision));
    let mut seen = BTreeMap::new();
    for (id, revision) in cuts.chain(orders.seen.iter().map(|(id, revision)| (id.clone(), *revision))) {
        let before = previous.and_then(|old| old.seen.get(&id)).copied().unwrap_or(0);
        let entry = seen.entry(id).or_insert(before);
        *entry = revision.max(*entry);
    }
    seen
}

/// Objects that were looked at once and are gone now: relays may forget the cuts they ordered.
fn released(seen: &BTreeMap<String, u64>, previous: Option<&Snapshot>) -> Vec<String> {
    let Some(previous) = previous else { return Vec::new() };
    let gone = previous.seen.keys().filter(|id| !previous.released.contains(id));
    let mut released: Vec<String> =
        previous.released.iter().chain(gone).filter(|id| !seen.contains_key(*id)).cloned().collect();
    let excess = released.len().saturating_sub(MAX_RELEASED);
    released.drain(..excess);
    released
}
