//! What a relay says about its link: facts, gathered from the link; judged by nobody here.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use securelink_pki::lifetimes::Validity;
use securelink_relay_config::{
    AgreedReport, CertificateReport, Contact, Disagreement, EntryReport, ErrorReport, FORMAT, Head, LinkReport,
    ListenerReport, Millis, PeerReport, SideReport, StreamReport, judge_service,
};

use crate::connection::Facts;
use crate::judge::of_refusal;
use crate::limits::MAX_STREAMS;
use crate::link::{Link, locked};
use crate::listeners::Addresses;
use crate::view::View;

pub(crate) fn report(link: &Link, addresses: &Addresses) -> LinkReport {
    let view = link.view();
    LinkReport {
        link: link.name.clone(),
        version: view.snapshot.version,
        hash: view.hash,
        formats: vec![FORMAT],
        listener: addresses.peer.map(|address| ListenerReport { address }),
        certificate: Some(certificate(&view)),
        peer: peer(link),
        agreed: agreed(link, &view),
        probe: locked(&link.probe).clone(),
        exports: exports(link, &view),
        imports: imports(link, &view, addresses),
        streams: StreamReport {
            live: u64::try_from(link.streams.len()).unwrap_or(u64::MAX),
            limit: u64::from(view.snapshot.limits.connections.unwrap_or(MAX_STREAMS)),
            opened: link.opened.load(Ordering::Relaxed),
            bytes_sent: link.metrics.sent.get(),
            bytes_received: link.metrics.received.get(),
        },
        cuts: view.cuts.iter().map(|cut| cut.id.clone()).collect(),
        rejected: link.rejected(),
    }
}

fn certificate(view: &View) -> CertificateReport {
    let leaf = &view.tls.credentials.leaf;
    let Validity { not_after, .. } = leaf.validity();
    let serial = hexadecimal(leaf.serial());
    CertificateReport { serial, not_after: Millis::from(not_after) }
}

/// Two lower-case digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String has no failing case.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn peer(link: &Link) -> PeerReport {
    let unheard = !link.is_connected() && !link.dials();
    let connections = link.connections();
    let control: Vec<&Facts> = connections.iter().map(|facts| &**facts).filter(|f| f.is_witness()).collect();
    let newest = control.iter().max_by_key(|facts| facts.id);
    let replicas = control.iter().filter(|facts| !facts.is_connect()).map(|facts| facts.replica.to_string());
    let mut replicas: Vec<String> = replicas.collect();
    replicas.sort();
    replicas.dedup();
    let peer = link.peer();
    // Of a partner that was here since, nothing is wrong.
    let since = |refused: &ErrorReport| peer.last_seen.is_none_or(|seen| refused.at > seen);
    let last_refused = peer.last_refused.clone().filter(since);
    PeerReport {
        control_connections: u32::try_from(control.len()).unwrap_or(u32::MAX),
        replicas,
        connected_since: peer.connected_since,
        protocol: newest.map(|facts| facts.version),
        tls_group: newest.map_or(peer.last_group, |facts| facts.tls_group).map(str::to_owned),
        certificate_not_after: newest.map(|facts| Millis::from(facts.peer.not_after)),
        pin_used: newest.map(|facts| facts.peer.pin.to_string()),
        root: newest.map(|facts| facts.peer.root.to_string()),
        pinned_us_by: newest.and_then(|facts| facts.pinned_us_by).map(|pin| pin.to_string()),
        contacts: peer.current().map(|declaration| contacts(&declaration.contacts)).unwrap_or_default(),
        last_error: peer.last_error.clone().or_else(|| last_refused.filter(|_| unheard)),
        last_seen: peer.last_seen,
        last_refused: peer.last_refused.clone(),
        refused: peer.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
    }
}

/// The peer's people, as many and as long as a `SecureLink` may name (contracts 8), escaped.
fn contacts(said: &[Contact]) -> Vec<Contact> {
    let plain = |text: &str| text.escape_debug().take(256).collect();
    said.iter().take(8).map(|said| Contact { name: plain(&said.name), email: plain(&said.email) }).collect()
}

fn side(head: &Head) -> SideReport {
    SideReport { sequence: head.sequence, state: head.state, current: head.current, next: head.next }
}

fn agreed(link: &Link, view: &View) -> AgreedReport {
    let opinion = link.gate();
    let verdict = opinion.map_or(Err(Disagreement::AwaitingDeclaration), |opinion| opinion.verdict);
    let peer = link.peer();
    AgreedReport {
        disagreement: verdict.err(),
        peer_reason: peer
            .current()
            .and_then(|declaration| declaration.note.as_deref())
            .map(|note| note.escape_debug().take(256).collect()),
        digest: verdict.ok().flatten(),
        recheck: opinion.and_then(|opinion| opinion.recheck),
        own: side(&view.head),
        peer: peer.heads.highest().map(side),
    }
}

/// Why a service cannot be used now, in people's words.
fn unusable(link: &Link, view: &View, service: &str, exported: bool) -> Option<String> {
    let peer = link.peer();
    let Some(declaration) = peer.current() else { return Some("the peer has not declared anything yet".to_owned()) };
    let (offers, wants) = if exported { (&view.declaration, declaration) } else { (declaration, &view.declaration) };
    judge_service(offers, wants, service).err().map(|refusal| of_refusal(refusal).text)
}

fn exports(link: &Link, view: &View) -> Vec<EntryReport> {
    let entry = |export: &securelink_relay_config::Export| EntryReport {
        name: export.name.clone(),
        data_class: export.data_class,
        address: None,
        unusable: match view.export(&export.name) {
            // A partner without our software declares no import: it asks.
            Some(_) if view.is_connect() => None,
            Some(_) => unusable(link, view, &export.name, true),
            None => Some("it is cut here".to_owned()),
        },
    };
    view.snapshot.exports.iter().map(entry).collect()
}

fn imports(link: &Link, view: &View, addresses: &Addresses) -> Vec<EntryReport> {
    let entry = |import: &securelink_relay_config::Import| EntryReport {
        name: import.name.clone(),
        data_class: import.data_class,
        address: addresses.imports.get(&import.name).copied(),
        unusable: match view.import(&import.name) {
            Some(_) => unusable(link, view, &import.name, false),
            None => Some("it is cut here".to_owned()),
        },
    };
    view.snapshot.imports.iter().map(entry).collect()
}
