//! `relay.json` from a validated link and the cuts over it. The same inputs give the same bytes and the same version.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use securelink_relay_config::{Cut, Export, FORMAT, Import, Limits, Millis, Snapshot};

use crate::hosting::FIRST_IMPORT_PORT;
use crate::validated::{ValidatedExport, ValidatedImport, ValidatedLink};

/// Most cuts remembered as released. A relay needs the entry only until it has adopted one snapshot that has it.
const MAX_RELEASED: usize = 256;
/// Most cuts that are found to be withdrawn at once: what relays say must not fill the list of those released.
const MAX_WITHDRAWN: usize = 64;
/// Longest identifier of a cut: a kind, a namespace and a name, and an entry.
const MAX_ID: usize = 512;
/// How far from now a version may be that a relay claims: clocks differ by less, and a relay whose key was stolen must not
/// drive the versions of its link to where there is no next one. One day, in milliseconds.
const CLAIM: u64 = 24 * 60 * 60 * 1000;
/// The highest revision that an object can have: a generation and a `resourceVersion` are signed there.
const MAX_REVISION: u64 = i64::MAX as u64;

/// The cuts over a link, and what was looked at to know them.
#[derive(Clone, Copy, Debug)]
pub struct Orders<'a> {
    /// What is cut now.
    pub cuts: &'a BTreeSet<Cut>,
    /// By `kind/uid`: the revision of every object that can cut and that was looked at.
    pub seen: &'a BTreeMap<String, u64>,
    /// Identifiers of cuts that relays hold and whose object is known to be gone; see [`unordered`].
    pub withdrawn: &'a BTreeSet<String>,
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

/// The same snapshot above every version that relays claim to run: the cluster was restored from its past.
#[must_use]
pub fn above(mut next: Snapshot, claimed: impl IntoIterator<Item = u64>, now: Millis) -> Snapshot {
    let credible = |version: &u64| *version <= now.0.saturating_add(CLAIM);
    if let Some(ahead) = claimed.into_iter().filter(credible).max().filter(|ahead| *ahead > next.version) {
        next.version = ahead.saturating_add(1).max(now.0);
    }
    next
}

/// Of the cuts that relays hold, by identifier, those that nobody orders as far as is known here, and that no snapshot will
/// end by itself: a `LinkCut` was withdrawn before any snapshot named it. A cache may lag behind the one that ordered the cut:
/// whoever releases one of these has to make sure that its object is gone.
pub fn unordered(orders: Orders<'_>, previous: Option<&Snapshot>, held: &BTreeSet<String>) -> BTreeSet<String> {
    let ended = |id: &str| {
        let known = |old: &Snapshot| old.seen.contains_key(id) || old.released.iter().any(|released| released == id);
        orders.seen.contains_key(id) || previous.is_some_and(known)
    };
    let ordered = |id: &str| orders.cuts.iter().any(|cut| cut.id == id);
    let open = |id: &&String| id.len() <= MAX_ID && !ordered(id) && !ended(id) && !ended(object(id));
    held.iter().filter(open).take(MAX_WITHDRAWN).cloned().collect()
}

/// The object that orders a cut, without the scope that may stand behind it.
fn object(id: &str) -> &str {
    id.split_once('#').map_or(id, |(object, _)| object)
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
        records: link.records,
        max_staleness_seconds: link.max_staleness.as_secs(),
        dial: link.dial.clone(),
        limits: share(link.limits, link.replicas),
        contacts: link.contacts.clone(),
        cuts_in_force: orders.cuts.iter().cloned().collect(),
        released: released(&seen, orders.withdrawn, previous),
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

/// What was looked at. A revision never goes back: a cache that lags must not make an obeyed cut new again. One that no object
/// can have was written by somebody else, and would have every later cut ignored.
fn seen(orders: Orders<'_>, previous: Option<&Snapshot>) -> BTreeMap<String, u64> {
    let cuts = orders.cuts.iter().map(|cut| (cut.id.clone(), cut.revision));
    let mut seen = BTreeMap::new();
    for (id, revision) in cuts.chain(orders.seen.iter().map(|(id, revision)| (id.clone(), *revision))) {
        let before = previous.and_then(|old| old.seen.get(&id)).copied().filter(|before| *before <= MAX_REVISION);
        let entry = seen.entry(id).or_insert(before.unwrap_or(0));
        *entry = revision.max(*entry);
    }
    seen
}

/// Objects that were looked at once and are gone now, and cuts that were withdrawn before: relays may forget them.
fn released(seen: &BTreeMap<String, u64>, withdrawn: &BTreeSet<String>, previous: Option<&Snapshot>) -> Vec<String> {
    let before = previous.map(|old| old.released.as_slice()).unwrap_or_default();
    let gone = previous.into_iter().flat_map(|old| old.seen.keys()).chain(withdrawn);
    // Who is looked at again orders again, and is not to be taken for one whose order ended.
    let is_gone = |id: &&String| !seen.contains_key(*id) && !seen.contains_key(object(id));
    let mut released: Vec<String> = before.iter().filter(is_gone).cloned().collect();
    for id in gone.filter(is_gone) {
        if !released.contains(id) {
            released.push(id.clone());
        }
    }
    let excess = released.len().saturating_sub(MAX_RELEASED);
    released.drain(..excess);
    released
}
