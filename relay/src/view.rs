//! What a relay runs now: one snapshot with its cuts, our declaration of it, whom we trust and our TLS. Immutable; a
//! change makes a new one. Opens no socket.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use securelink_id::Fingerprint;
use securelink_pki::tls::{self, Clock, Options, TlsError};
use securelink_pki::{Leaf, PeerTrust, Transitions};
use securelink_relay_config::{
    Cut, CutScope, Declaration, Digest, Export, Head, Import, Protocol, RecordLayer, Snapshot,
};

use crate::{connect, wire};

/// Our leaf and the way to its root.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Key and chain.
    pub leaf: Arc<Leaf>,
    /// The roots left behind.
    pub transitions: Transitions,
}

/// See the module.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) hash: Digest,
    /// Everything cut now.
    pub(crate) cuts: BTreeSet<Cut>,
    pub(crate) declaration: Declaration,
    /// What DECLARE carries.
    pub(crate) declared: Vec<u8>,
    pub(crate) head: Head,
    pub(crate) trust: Arc<PeerTrust>,
    pub(crate) tls: Arc<Tls>,
}

/// rustls configurations, and what they were made from.
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) credentials: Credentials,
    allow_classical: bool,
    protocol: Protocol,
    /// Who makes the records of new connections.
    pub(crate) records: RecordLayer,
}

impl View {
    /// `previous` lends what did not change, so that pointers tell whether trust or TLS did.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        cuts: BTreeSet<Cut>,
        credentials: &Credentials,
        clock: &Clock,
        previous: Option<&Self>,
    ) -> Result<Self, TlsError> {
        let trust = trust(&snapshot, &cuts);
        let trust = match previous {
            Some(old) if *old.trust == trust => Arc::clone(&old.trust),
            _ => Arc::new(trust),
        };
        let kept = previous.filter(|old| {
            Arc::ptr_eq(&old.trust, &trust)
                && Arc::ptr_eq(&old.tls.credentials.leaf, &credentials.leaf)
                && old.tls.credentials.transitions == credentials.transitions
                && old.tls.allow_classical == snapshot.allow_classical_key_exchange
                && old.tls.protocol == snapshot.peer.protocol
                && old.tls.records == snapshot.records
        });
        let tls = match kept {
            Some(old) => Arc::clone(&old.tls),
            None => Arc::new(Tls::new(&snapshot, &trust, credentials, clock)?),
        };
        let declaration = declaration(&snapshot, &cuts);
        let declared = declaration.to_bytes();
        let head = snapshot.head(&declared, is_link_cut(&cuts));
        let hash = snapshot.hash();
        Ok(Self { snapshot, hash, cuts, declaration, declared, head, trust, tls })
    }

    /// The export of that name, if it is not cut.
    pub(crate) fn export(&self, name: &str) -> Option<&Export> {
        self.snapshot.exports.iter().find(|export| export.name == name && !is_export_cut(&self.cuts, name))
    }

    /// The import of that name, if it is not cut.
    pub(crate) fn import(&self, name: &str) -> Option<&Import> {
        self.snapshot.imports.iter().find(|import| import.name == name && !is_import_cut(&self.cuts, name))
    }

    /// Whether the peer is a partner without our software.
    pub(crate) fn is_connect(&self) -> bool {
        self.snapshot.peer.protocol == Protocol::Connect
    }

    /// Whether a pin of the peer is cut.
    pub(crate) fn is_pin_cut(&self, pin: Fingerprint) -> bool {
        self.cuts.iter().any(|cut| cut.scope == CutScope::Pin(pin))
    }

    /// Why the whole link is cut, if it is.
    pub(crate) fn cut_reason(&self) -> Option<&str> {
        self.cuts.iter().find(|cut| cut.scope == CutScope::Link).map(|cut| cut.reason.as_str())
    }
}

impl Tls {
    fn new(snapshot: &Snapshot, trust: &PeerTrust, credentials: &Credentials, clock: &Clock) -> Result<Self, TlsError> {
        let allow_classical = snapshot.allow_classical_key_exchange;
        let protocol = snapshot.peer.protocol;
        let records = snapshot.records;
        let options = Options {
            alpn: vec![alpn(protocol).to_vec()],
            allow_classical,
            extract_secrets: records == RecordLayer::InPlace,
            clock: clock.clone(),
        };
        let ours = tls::Credentials::new(&credentials.leaf, &credentials.transitions, None)?;
        Ok(Self {
            server: tls::server_config(&ours, trust, &options)?,
            client: tls::client_config(&ours, trust, &options)?,
            credentials: credentials.clone(),
            allow_classical,
            protocol,
            records,
        })
    }

    /// Whether a handshake that selected `alpn` leads to what this link speaks.
    pub(crate) fn speaks(&self, selected: Option<&[u8]>) -> bool {
        match selected {
            Some(selected) => selected == alpn(self.protocol),
            // Whoever speaks HTTP/1.1 need not say so (RFC 7301 section 1): curl 7.88 does not to a proxy.
            None => self.protocol == Protocol::Connect,
        }
    }
}

/// A link speaks one protocol, so none can be talked into the other: a relay is never served by the weaker assertions of
/// CONNECT, and a partner's HTTP never read as frames.
const fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::SecureLink => wire::ALPN,
        Protocol::Connect => connect::ALPN,
    }
}

fn is_link_cut(cuts: &BTreeSet<Cut>) -> bool {
    cuts.iter().any(|cut| cut.scope == CutScope::Link)
}

fn is_export_cut(cuts: &BTreeSet<Cut>, name: &str) -> bool {
    cuts.iter().any(|cut| matches!(&cut.scope, CutScope::Export(export) if export == name))
}

fn is_import_cut(cuts: &BTreeSet<Cut>, name: &str) -> bool {
    cuts.iter().any(|cut| matches!(&cut.scope, CutScope::Import(import) if import == name))
}

/// Pins that are cut are no pins. The peer stays authenticated by the others while the link as a whole is cut.
fn trust(snapshot: &Snapshot, cuts: &BTreeSet<Cut>) -> PeerTrust {
    let is_cut = |pin| cuts.iter().any(|cut| cut.scope == CutScope::Pin(pin));
    let pins = snapshot.peer.fingerprints.iter().copied().filter(|pin| !is_cut(*pin)).collect();
    PeerTrust { own: snapshot.own.clone(), peer: snapshot.peer.trust_domain.clone(), pins }
}

/// What is cut is not declared; why, goes to the people on the other side.
fn declaration(snapshot: &Snapshot, cuts: &BTreeSet<Cut>) -> Declaration {
    let note = cuts.iter().find(|cut| cut.scope == CutScope::Link).map(|cut| cut.reason.clone());
    let mut declaration = snapshot.declaration(note);
    declaration.exports.retain(|export| !is_export_cut(cuts, &export.name));
    declaration.imports.retain(|import| !is_import_cut(cuts, &import.name));
    declaration
}
