//! The keys that the operator keeps itself: a root is made once, followed by another when its time has come or a person
//! says so, and signs intermediates.

use std::collections::BTreeSet;

use jiff::Timestamp;
use securelink_crds::RootState;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::REPLACE_ROOT;
use securelink_id::{Fingerprint, TrustDomainError};
use securelink_pki::{Intermediate, Root};
use securelink_plan::certificate::{Decision, Facts, RootDecision, RootFacts, RootKey, Stored, Wanted, decide, root};
use securelink_plan::identity;
use securelink_plan::rotation::{Announced, Rotation, RotationFacts, rotation, switch_at};

use super::{Asked, Hands, Issuer, conflict};
use crate::keys::Kept;

/// Judges an identity's keys, and makes what lacks.
pub fn issuer(asked: Asked<'_>, kept: Kept, hands: Hands, now: Timestamp) -> Issuer {
    let Kept { root, intermediate, next, transitions, uid, is_there } = kept;
    let mut issuer = Issuer::default();
    match transitions {
        Ok(transitions) => issuer.transitions = transitions,
        Err(why) => issuer.fail(
            Reason::IssuerFailed,
            format!("transitions.pem of the Secret {}: {why}; restore it from a backup", asked.place),
        ),
    }
    let next = next.unwrap_or_else(|why| {
        let remedy = "restore next.key and next.pem from a backup, or remove both to have another made";
        issuer.fail(Reason::IssuerFailed, format!("the next root in the Secret {}: {why}; {remedy}", asked.place));
        None
    });
    let left = intermediate.as_ref().ok().and_then(Option::as_ref).map(Intermediate::root);
    let asked = Asked { traces: asked.traces.or(left, is_there), ..asked };
    let found = Found { root, made_for: uid.as_deref(), next: next.as_ref().map(Root::fingerprint) };
    let Ok(signer) = issuer.root(asked, found, hands, now) else { return issuer };
    let signer = match signer {
        Some(Signer { root, is_new: false }) if issuer.failure.is_none() => {
            Some(issuer.rotate(asked, root, next, hands, now))
        }
        other => other,
    };
    if let Some(Signer { root, .. }) = &signer {
        issuer.root = Some(root.fingerprint());
        issuer.roots.push(listed(root, RootState::Current));
        let older = issuer.transitions.left_behind().into_iter();
        let retired = |(fingerprint, not_after)| identity::Root { fingerprint, not_after, state: RootState::Retired };
        issuer.roots.extend(older.map(retired));
    }
    issuer.intermediate(intermediate, signer.as_ref().map(|signer| &signer.root), hands, now);
    issuer.made.root = signer.filter(|signer| signer.is_new).map(|signer| signer.root);
    issuer
}

/// What was found of an identity's root.
struct Found<'a> {
    root: Result<Option<Root>, String>,
    made_for: Option<&'a str>,
    next: Option<Fingerprint>,
}

/// The root that signs.
struct Signer {
    root: Root,
    /// It is to be written first.
    is_new: bool,
}

/// Nothing more can be done with an identity's keys; why is in its failure.
struct Stopped;

impl Issuer {
    /// The root's key, if it is there and may be used.
    fn root(
        &mut self,
        asked: Asked<'_>,
        found: Found<'_>,
        hands: Hands,
        now: Timestamp,
    ) -> Result<Option<Signer>, Stopped> {
        let uid = asked.identity.metadata.uid.as_deref();
        let (stored, damage) = match found.root {
            Ok(root) => (root, None),
            Err(why) => (None, Some(why)),
        };
        let key = match &stored {
            Some(root) => RootKey::Present {
                fingerprint: root.fingerprint(),
                made_for_this: found.made_for.is_some() && found.made_for == uid,
            },
            None if damage.is_some() => RootKey::Unreadable,
            None => RootKey::Absent,
        };
        let older: Vec<_> = self.older_than(stored.as_ref());
        let (recorded, expected) = (asked.traces.root, asked.expected());
        let facts = RootFacts { key, recorded, expected, traces: asked.traces.any, older: &older, next: found.next };
        self.root = recorded.or(expected);
        match root(&facts) {
            RootDecision::Use(_) => {
                self.made.adopted = hands == Hands::Making && found.made_for != uid;
                self.belongs(asked, stored.as_ref())?;
                Ok(stored.map(|root| Signer { root, is_new: false }))
            }
            RootDecision::Mint if hands == Hands::Looking => Err(Stopped),
            RootDecision::Mint => match mint(&asked.identity.spec.trust_domain, now) {
                Ok(root) => Ok(Some(Signer { root, is_new: true })),
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
                let (reason, why) = conflict(&format!("the Secret {}", asked.place), found, wanted);
                self.fail(reason, why);
                Err(Stopped)
            }
        }
    }

    /// The roots from which a way leads to this one.
    fn older_than(&self, root: Option<&Root>) -> Vec<Fingerprint> {
        let leads_here = root.is_some_and(|root| self.transitions.leads_to() == Some(root.fingerprint()));
        let older = self.transitions.left_behind().into_iter().filter(|_| leads_here);
        older.map(|(fingerprint, _)| fingerprint).collect()
    }

    fn belongs(&mut self, asked: Asked<'_>, root: Option<&Root>) -> Result<(), Stopped> {
        let domain = &asked.identity.spec.trust_domain;
        let Some(stranger) = root.filter(|root| root.trust_domain().as_str() != domain) else { return Ok(()) };
        self.fail(
            Reason::RootConflict,
            format!(
                "the Secret {} holds the root of {}; restore the right one, or create a LinkIdentity of another name",
                asked.place,
                stranger.trust_domain()
            ),
        );
        Err(Stopped)
    }

    /// The root that signs from now on: this one, or the next.
    fn rotate(&mut self, asked: Asked<'_>, current: Root, next: Option<Root>, hands: Hands, now: Timestamp) -> Signer {
        let announced =
            next.as_ref().map(|next| Announced { fingerprint: next.fingerprint(), since: next.validity().not_before });
        let named = asked.identity.metadata.annotations.as_ref().and_then(|all| all.get(REPLACE_ROOT)?.parse().ok());
        let facts = RotationFacts {
            current: current.fingerprint(),
            due: current.due(),
            next: announced,
            expected: asked.expected(),
            replaced: named,
        };
        let stay = |root| Signer { root, is_new: false };
        match (rotation(&facts, now), next) {
            (Rotation::Switch, Some(next)) if hands == Hands::Making => {
                match self.transitions.append(&current, &next, now) {
                    Ok(()) => {
                        self.made.switched = true;
                        return Signer { root: next, is_new: true };
                    }
                    Err(error) => self.fail(Reason::IssuerFailed, format!(
                        "the root {} cannot take over: {error}; restore transitions.pem of the Secret {} from a backup",
                        next.fingerprint(), asked.place
                    )),
                }
                self.roots.push(listed(&next, RootState::Next));
            }
            (Rotation::Announce, None) if hands == Hands::Making => match mint(current.trust_domain().as_str(), now) {
                Ok(next) => {
                    self.roots.push(listed(&next, RootState::Next));
                    self.made.next = Some(next);
                }
                Err(why) => self.fail(Reason::IssuerFailed, why),
            },
            (decided, next) => {
                if let Rotation::Stay { until } = decided {
                    self.wake(until);
                }
                self.switch_at = announced.filter(|_| facts.expected.is_none()).map(switch_at);
                self.roots.extend(next.map(|next| listed(&next, RootState::Next)));
            }
        }
        stay(current)
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
            dns_names: BTreeSet::new(),
            not_before: held.validity().not_before,
            not_after: held.end(),
            renew_at: held.due(),
            superseded: false,
        };
        let stored = match &kept {
            Ok(Some(held)) => Stored::Present(facts(held)),
            Ok(None) => Stored::Missing,
            Err(_) => Stored::Unreadable,
        };
        let mut held = kept.ok().flatten();
        if let (Decision::Issue { .. }, Some(root), Hands::Making) =
            (decide(&stored, &Wanted::intermediate(wanted), now), root, hands)
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
        self.wake(usable.as_ref().map(Intermediate::due));
        self.intermediate = usable;
    }
}

fn listed(root: &Root, state: RootState) -> identity::Root {
    identity::Root { fingerprint: root.fingerprint(), not_after: root.validity().not_after, state }
}

fn mint(trust_domain: &str, now: Timestamp) -> Result<Root, String> {
    let domain = trust_domain.parse().map_err(|error: TrustDomainError| error.to_string())?;
    Root::generate(&domain, now).map_err(|error| error.to_string())
}

fn missing(place: &str, wanted: Option<Fingerprint>, damage: Option<String>) -> String {
    let which = wanted.map(|wanted| format!(" {wanted}")).unwrap_or_default();
    let why = damage.unwrap_or_else(|| "its key is gone".to_owned());
    format!(
        "the root{which} cannot be used: {why}; restore root.key and root.pem of the Secret {place} from a backup, no other root is ever made in its place"
    )
}
