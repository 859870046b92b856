//! The one effect on certificates: root, intermediate and leaf are made as the planner decides. Writes nothing: what was
//! made is handed back for its Secret.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_id::Fingerprint;
use securelink_pki::{Intermediate, Leaf, Root, Transitions};
use securelink_plan::certificate::{
    Decision, Facts, IssueReason, RootDecision, RootFacts, RootKey, Stored, Wanted, decide, root,
};
use securelink_plan::objects::{LEAF_CHAIN, LEAF_KEY};
use securelink_plan::{Certificate, LeafInUse, ValidatedLink};
use securelink_relay_config::control::LeafPem;

use crate::keys::Kept;
use crate::traces::Traces;

/// Why an identity cannot issue, in one word and for a person.
pub type Failure = (Reason, String);

/// An identity's keys as they are, and what is to be done about them.
#[derive(Debug)]
pub struct Issuer {
    /// What partners pin, where it is known.
    pub root: Option<Fingerprint>,
    /// The root's end.
    pub root_ends: Option<Timestamp>,
    /// What signs leaves.
    pub intermediate: Option<Intermediate>,
    /// The way from older roots.
    pub transitions: Transitions,
    /// What is wrong.
    pub failure: Option<Failure>,
    /// When the intermediate is renewed.
    pub due: Option<Timestamp>,
    /// What was made just now, to be written before it is used.
    pub made: Made,
}

/// What was made and is nowhere else yet.
#[derive(Debug, Default)]
pub struct Made {
    /// A first root.
    pub root: Option<Root>,
    /// That the intermediate is new.
    pub intermediate: bool,
    /// That the keys were adopted for another object of the name.
    pub adopted: bool,
}

impl Made {
    /// Whether there is anything to write.
    pub fn is_any(&self) -> bool {
        self.root.is_some() || self.intermediate || self.adopted
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

/// Judges an identity's keys.
pub fn issuer(asked: Asked<'_>, kept: Kept, hands: Hands, now: Timestamp) -> Issuer {
    let transitions = kept.transitions.as_ref().ok().cloned().unwrap_or_default();
    let mut issuer = Issuer {
        root: None,
        root_ends: None,
        intermediate: None,
        transitions,
        failure: None,
        due: None,
        made: Made::default(),
    };
    if asked.identity.spec.issuer.built_in.is_none() {
        let why = "this version issues by `issuer: {builtIn: {}}` only; write that, or wait for a version that has secret and certManager";
        issuer.failure = Some((Reason::IssuerFailed, why.to_owned()));
        return issuer;
    }
    if let Err(why) = kept.transitions {
        issuer.failure = Some((
            Reason::IssuerFailed,
            format!("transitions.pem of the Secret {}: {why}; restore it from a backup", asked.place),
        ));
    }
    let left = kept.intermediate.as_ref().ok().and_then(Option::as_ref).map(Intermediate::root);
    let asked = Asked { traces: asked.traces.or(left, kept.is_there), ..asked };
    let Ok(held) = issuer.root(asked, kept.root, kept.uid.as_deref(), hands, now) else { return issuer };
    issuer.intermediate(kept.intermediate, held.as_ref(), hands, now);
    issuer
}

impl Issuer {
    /// One that cannot issue.
    pub fn failed(root: Option<Fingerprint>, failure: Failure) -> Self {
        Self {
            root,
            root_ends: None,
            intermediate: None,
            transitions: Transitions::none(),
            failure: Some(failure),
            due: None,
            made: Made::default(),
        }
    }
}

/// Nothing more can be done with an identity's keys; why is in its failure.
struct Stopped;

impl Issuer {
    /// The root's key, if it is there and may be used.
    fn root(
        &mut self,
        asked: Asked<'_>,
        kept: Result<Option<Root>, String>,
        made_for: Option<&str>,
        hands: Hands,
        now: Timestamp,
    ) -> Result<Option<Root>, Stopped> {
        let spec = &asked.identity.spec;
        let recorded = asked.traces.root;
        let expected = spec.expected_fingerprint.as_ref().and_then(|text| text.parse().ok());
        let uid = asked.identity.metadata.uid.as_deref();
        let (stored, damage) = match kept {
            Ok(root) => (root, None),
            Err(why) => (None, Some(why)),
        };
        let key = match &stored {
            Some(root) => RootKey::Present {
                fingerprint: root.fingerprint(),
                made_for_this: made_for.is_some() && made_for == uid,
            },
            None if damage.is_some() => RootKey::Unreadable,
            None => RootKey::Absent,
        };
        self.root = recorded.or(expected);
        match root(&RootFacts { key, recorded, expected, traces: asked.traces.any }) {
            RootDecision::Use(fingerprint) => {
                self.root = Some(fingerprint);
                self.root_ends = stored.as_ref().map(|root| root.validity().not_after);
                self.made.adopted = hands == Hands::Making && made_for != uid;
                if let Some(root) = stored.as_ref().filter(|root| root.trust_domain().as_str() != spec.trust_domain) {
                    self.fail(Reason::RootConflict, format!(
                        "the Secret {} holds the root of {}; restore the right one, or create a LinkIdentity of another name",
                        asked.place, root.trust_domain()
                    ));
                    return Err(Stopped);
                }
                Ok(stored)
            }
            RootDecision::Mint if hands == Hands::Looking => Err(Stopped),
            RootDecision::Mint => match mint(&spec.trust_domain, now) {
                Ok(new) => {
                    self.root = Some(new.fingerprint());
                    self.root_ends = Some(new.validity().not_after);
                    self.made.root = Some(new);
                    Ok(None)
                }
                Err(why) => {
                    self.fail(Reason::IssuerFailed, why);
                    Err(Stopped)
                }
            },
            RootDecision::RootMissing { wanted } => {
                self.root = wanted.or(self.root);
                self.fail(Reason::RootMissing, missing(asked.place, wanted, damage));
                // Leaves go on as long as the intermediate does.
                Ok(None)
            }
            RootDecision::RootConflict { found, wanted } => {
                self.fail(Reason::RootConflict, conflict(asked.place, found, wanted));
                Err(Stopped)
            }
        }
    }

    /// The intermediate: kept, or issued anew.
    fn intermediate(
        &mut self,
        kept: Result<Option<Intermediate>, String>,
        root: Option<&Root>,
        hands: Hands,
        now: Timestamp,
    ) {
        let Some(wanted) = self.root else { return };
        let facts = |held: &Intermediate| Facts {
            key_matches: true,
            root: Some(held.root()),
            identity: None,
            dns_names: std::collections::BTreeSet::new(),
            not_before: held.validity().not_before,
            not_after: held.end(),
            renew_at: held.due(),
        };
        let stored = match &kept {
            Ok(Some(held)) => Stored::Present(facts(held)),
            Ok(None) => Stored::Missing,
            Err(_) => Stored::Unreadable,
        };
        let mut held = kept.ok().flatten();
        let signer = self.made.root.as_ref().or(root);
        if let (Decision::Issue { .. }, Some(root), Hands::Making) =
            (decide(&stored, &Wanted::intermediate(wanted), now), signer, hands)
        {
            match root.issue_intermediate(now) {
                Ok(new) => {
                    held = Some(new);
                    self.made.intermediate = true;
                }
                Err(error) => self.fail(Reason::IssuerFailed, error.to_string()),
            }
        }
        // One that is due and cannot be renewed goes on to its end, if it is of our root.
        let usable = held.filter(|held| held.root() == wanted && now < held.end() && held.validity().contains(now));
        self.due = usable.as_ref().map(Intermediate::due);
        self.intermediate = usable;
    }

    fn fail(&mut self, reason: Reason, why: String) {
        self.failure.get_or_insert((reason, why));
    }
}

fn mint(trust_domain: &str, now: Timestamp) -> Result<Root, String> {
    let domain = trust_domain.parse().map_err(|error: securelink_id::TrustDomainError| error.to_string())?;
    Root::generate(&domain, now).map_err(|error| error.to_string())
}

fn missing(place: &str, wanted: Option<Fingerprint>, damage: Option<String>) -> String {
    let which = wanted.map(|wanted| format!(" {wanted}")).unwrap_or_default();
    let why = damage.unwrap_or_else(|| "its key is gone".to_owned());
    format!(
        "the root{which} cannot be used: {why}; restore root.key and root.pem of the Secret {place} from a backup, no other root is ever made in its place"
    )
}

fn conflict(place: &str, found: Fingerprint, wanted: Option<Fingerprint>) -> String {
    match wanted {
        Some(wanted) => format!(
            "the Secret {place} holds the root {found}, expected is {wanted}; restore the expected root, or correct expectedFingerprint"
        ),
        None => format!(
            "the Secret {place} holds the root {found} of a LinkIdentity of this name that was deleted; set expectedFingerprint to it to adopt it, or use a LinkIdentity of another name"
        ),
    }
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
        Ok(Some(leaf)) => Stored::Present(facts(leaf, now)),
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

fn facts(leaf: &Leaf, now: Timestamp) -> Facts {
    Facts {
        key_matches: true,
        root: leaf.chains_to(now),
        identity: Some(leaf.identity().clone()),
        dns_names: leaf.dns_names().iter().cloned().collect(),
        not_before: leaf.validity().not_before,
        not_after: leaf.validity().not_after,
        renew_at: leaf.due(),
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
