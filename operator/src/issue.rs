//! The one effect on certificates: root, intermediate and leaf are made as the planner decides. Writes nothing: what was
//! made is handed back for its Secret.

pub mod built_in;
pub mod cert_manager;
pub mod given;
pub mod looked;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_id::Fingerprint;
use securelink_pki::{Intermediate, Leaf, PrivateKey, Root, Transitions};
use securelink_plan::certificate::{Decision, Facts, IssueReason, Stored, Wanted, decide};
use securelink_plan::objects::{LEAF_CHAIN, LEAF_KEY};
use securelink_plan::{Certificate, LeafInUse, ValidatedLink, identity};
use securelink_relay_config::control::LeafPem;

use crate::traces::Traces;

/// Why an identity cannot issue, in one word and for a person.
pub type Failure = (Reason, String);

/// An identity's keys as they are, and what is to be done about them.
#[derive(Debug, Default)]
pub struct Issuer {
    /// What partners pin, where it is known.
    pub root: Option<Fingerprint>,
    /// All roots that are known, for the status.
    pub roots: Vec<identity::Root>,
    /// What signs leaves.
    pub intermediate: Option<Intermediate>,
    /// Whether a leaf by another intermediate than this one is to be replaced at once.
    pub is_given: bool,
    /// The way from older roots.
    pub transitions: Transitions,
    /// What is wrong.
    pub failure: Option<Failure>,
    /// When there is something to do with these keys.
    pub due: Option<Timestamp>,
    /// The earliest end above the leaves, where it is not ours to renew.
    pub ends: Option<Timestamp>,
    /// When the next root is used by itself.
    pub switch_at: Option<Timestamp>,
    /// What else a person may want to see to, though it issues.
    pub note: Option<String>,
    /// What cert-manager is to be asked for.
    pub ask: Option<Ask>,
    /// What was made just now, to be written before it is used.
    pub made: Made,
}

/// A question to cert-manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the `CertificateRequest` is called.
    pub name: String,
    /// PKCS#10, as PEM.
    pub request: String,
}

/// What was made and is nowhere else yet.
#[derive(Debug, Default)]
pub struct Made {
    /// The root that signs from now on: the first one, or one that was announced.
    pub root: Option<Root>,
    /// A root to announce.
    pub next: Option<Root>,
    /// That the root follows another one, to which a way leads from there.
    pub switched: bool,
    /// That the intermediate is new.
    pub intermediate: bool,
    /// A key for which cert-manager is to sign.
    pub request: Option<PrivateKey>,
    /// That the keys were adopted for another object of the name.
    pub adopted: bool,
}

impl Made {
    /// Whether there is anything to write.
    pub fn is_any(&self) -> bool {
        self.root.is_some() || self.next.is_some() || self.intermediate || self.request.is_some() || self.adopted
    }

    /// Whether the root is the first of its identity.
    pub fn is_first(&self) -> bool {
        self.root.is_some() && !self.switched
    }
}

/// Who asks for an identity's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// May make what lacks.
    Making,
    /// Only looks.
    Looking,
}

/// An identity and what is recorded of it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The identity.
    pub identity: &'a LinkIdentity,
    /// What tells of its root beside the Secret.
    pub traces: Traces,
    /// Where its Secret is, for messages.
    pub place: &'a str,
}

impl Asked<'_> {
    /// The root that a person expects.
    fn expected(&self) -> Option<Fingerprint> {
        self.identity.spec.expected_fingerprint.as_ref().and_then(|text| text.parse().ok())
    }
}

impl Issuer {
    /// One that cannot issue.
    pub fn failed(root: Option<Fingerprint>, failure: Failure) -> Self {
        Self { root, failure: Some(failure), ..Self::default() }
    }

    fn fail(&mut self, reason: Reason, why: String) {
        self.failure.get_or_insert((reason, why));
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        self.due = [self.due, at].into_iter().flatten().min();
    }
}

/// The root that is there is not the one that is known.
fn conflict(place: &str, found: Fingerprint, wanted: Option<Fingerprint>) -> Failure {
    let why = match wanted {
        Some(wanted) => format!(
            "{place} holds the root {found}, expected is {wanted}; restore the expected root, or, once every partner pins the one found, put `expectedFingerprint: {found}` into spec"
        ),
        None => format!(
            "{place} holds the root {found} of a LinkIdentity of this name that was deleted; put `expectedFingerprint: {found}` into spec to adopt it, or use a LinkIdentity of another name"
        ),
    };
    (Reason::RootConflict, why)
}

/// A link's leaf: what to mount, and what is known of it.
#[derive(Debug, Default)]
pub struct Issued {
    /// The leaf's files; absent where there is none.
    pub files: Option<LeafPem>,
    /// For the status.
    pub certificate: Certificate,
    /// Why it was issued just now.
    pub fresh: Option<IssueReason>,
}

/// The leaf of a link: the stored one, or a new one.
pub fn leaf(keys: &Issuer, stored: Option<&Secret>, link: &ValidatedLink, now: Timestamp) -> Issued {
    let mut issued = Issued {
        certificate: Certificate { root: keys.root, leaf: None, failure: keys.failure.clone() },
        ..Issued::default()
    };
    let Some(root) = keys.root else { return issued };
    let wanted = Wanted::leaf(root, link);
    let mut held = read(stored);
    let described = match &held {
        Ok(Some(leaf)) => Stored::Present(facts(leaf, keys, now)),
        Ok(None) => Stored::Missing,
        Err(()) => Stored::Unreadable,
    };
    if let Decision::Issue { reason } = decide(&described, &wanted, now) {
        match issue(keys, link, now) {
            Ok(new) => {
                issued.fresh = Some(reason);
                held = Ok(Some(new));
            }
            Err(why) => {
                issued.certificate.failure.get_or_insert((Reason::IssuerFailed, why));
            }
        }
    }
    // What cannot be renewed is presented as long as it is this link's: an end or a wrong name the peer would refuse.
    let usable =
        held.ok().flatten().filter(|leaf| Some(leaf.identity()) == wanted.identity.as_ref() && leaf.root() == root);
    if let Some(leaf) = usable {
        issued.certificate.leaf =
            Some(LeafInUse { serial: leaf.serial_hex(), not_after: leaf.validity().not_after, renew_at: leaf.due() });
        issued.files = Some(LeafPem {
            key: leaf.key().to_pem().to_string(),
            chain: leaf.chain_pem(),
            transitions: keys.transitions.to_pem(),
        });
    }
    issued
}

fn facts(leaf: &Leaf, keys: &Issuer, now: Timestamp) -> Facts {
    let given = keys.intermediate.as_ref().filter(|_| keys.is_given);
    Facts {
        key_matches: true,
        root: leaf.chains_to(now),
        identity: Some(leaf.identity().clone()),
        dns_names: leaf.dns_names().iter().cloned().collect(),
        not_before: leaf.validity().not_before,
        not_after: leaf.validity().not_after,
        renew_at: leaf.due(),
        superseded: given.is_some_and(|given| leaf.chain()[1..] != *given.chain()),
    }
}

fn read(stored: Option<&Secret>) -> Result<Option<Leaf>, ()> {
    let Some(data) = stored.and_then(|secret| secret.data.as_ref()) else { return Ok(None) };
    let text = |file: &str| data.get(file).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let (Some(key), Some(chain)) = (text(LEAF_KEY), text(LEAF_CHAIN)) else { return Err(()) };
    Leaf::from_pem(key, chain).map(Some).map_err(|_| ())
}

fn issue(issuer: &Issuer, link: &ValidatedLink, now: Timestamp) -> Result<Leaf, String> {
    let Some(intermediate) = &issuer.intermediate else {
        return Err("there is no intermediate to issue it; see the LinkIdentity".to_owned());
    };
    intermediate.leaf_for(&link.identity(), &link.dns_names(), now).map_err(|error| error.to_string())
}
