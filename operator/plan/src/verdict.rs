//! The verdict on a link: on which base it runs, what is wrong, what is cut (contracts 6).
//!
//! An edit is judged three ways and the narrowest wins: invalid keeps what was accepted last, forbidden cuts, narrowing takes
//! effect even beside a mistake. Nothing here reads a clock or a cluster.

use std::collections::{BTreeMap, BTreeSet};

use securelink_crds::conditions::Reason;
use securelink_crds::load;
use securelink_id::TrustDomainError;
use securelink_relay_config::{Cut, CutScope, LinkRef};

use crate::accepted::{Accepted, AcceptedIdentity, MAX_ACCEPTED_BYTES};
use crate::consent;
use crate::gathered::{CutOrder, Declared, Denied, Gathered, Mode};
use crate::guard::{self, Ruling};
use crate::hosting;
use crate::narrowing::{Edit, Narrowing};
use crate::snapshot::Orders;
use crate::validated::{self, ValidatedLink};

/// The verdict on a link.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which link.
    pub link: LinkRef,
    /// The generation it speaks of; absent without a cluster.
    pub generation: Option<i64>,
    /// What runs.
    pub base: Base,
    /// Everything that has to be mended. Those about the whole link stand first.
    pub problems: Vec<Problem>,
    /// What is cut, over the base.
    pub cuts: BTreeSet<Cut>,
    /// Revisions of the objects that were looked at and can cut.
    pub seen: BTreeMap<String, u64>,
    /// What to store as `accepted.json`. Absent: leave what is stored, or remove it with a deleted link.
    pub accepted: Option<Accepted>,
    /// No policy applies: everything is allowed.
    pub no_policy: bool,
    /// What is declared but has no effect here, in words for a log.
    pub notes: Vec<String>,
}

/// What a link runs on.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// The spec as it is declared now.
    New(Box<ValidatedLink>),
    /// What was accepted last, with what the edit narrows.
    LastAccepted(Box<ValidatedLink>),
    /// Nothing.
    None,
}

/// Something to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why, in one word.
    pub reason: Reason,
    /// What it keeps from working.
    pub about: About,
    /// Which field, such as `spec.exports[0].port`; empty where it is not one field.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// What a problem, or a cut, is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The whole link: it is not Accepted.
    Link,
    /// One export: it cannot be used, the link is Accepted.
    Export(String),
    /// One import: it cannot be used, the link is Accepted.
    Import(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl Verdict {
    /// The link to build, if anything runs.
    pub fn validated(&self) -> Option<&ValidatedLink> {
        match &self.base {
            Base::New(link) | Base::LastAccepted(link) => Some(link),
            Base::None => None,
        }
    }

    /// The cuts, as [`snapshot`](crate::snapshot()) takes them.
    pub fn orders(&self) -> Orders<'_> {
        static NOTHING: BTreeSet<String> = BTreeSet::new();
        Orders { cuts: &self.cuts, seen: &self.seen, withdrawn: &NOTHING }
    }

    /// Whether the link is Accepted: nothing is wrong with it as a whole.
    pub fn is_accepted(&self) -> bool {
        self.refusal().is_none() && self.base != Base::None
    }

    /// The first problem about the link as a whole.
    pub fn refusal(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.about == About::Link)
    }

    /// Whether nothing could be looked at in the link's namespace, so that nothing is known of what runs there.
    pub(crate) fn is_denied(&self) -> bool {
        self.refusal().is_some_and(|problem| problem.reason == Reason::NamespaceNotGranted)
    }

    /// Whether there is no such link any more.
    pub(crate) fn is_deleted(&self) -> bool {
        self.base == Base::None && self.problems.is_empty()
    }

    /// The cut of the whole link, if there is one.
    pub fn whole_cut(&self) -> Option<&Cut> {
        self.cuts.iter().find(|cut| cut.scope == CutScope::Link)
    }
}

/// Judges a link.
pub fn validate(gathered: &Gathered) -> Verdict {
    let mut verdict = Verdict::empty(gathered);
    let edited = match &gathered.declared {
        Declared::Deleted => return verdict,
        Declared::Valid(link) => serde_json::to_value(link.as_ref()).unwrap_or_default(),
        Declared::Invalid { value, .. } => value.clone(),
    };
    if let Some(denied) = &gathered.denied {
        verdict.problems.push(not_granted(&gathered.link, denied));
        return verdict;
    }
    verdict.problems = objections(gathered);
    let mut parsed = None;
    if let (true, Some(accepted)) = (verdict.problems.is_empty(), candidate(gathered)) {
        verdict.problems.extend(oversize(&accepted));
        parsed = verdict.problems.is_empty().then(|| verdict.read(gathered, &accepted)).flatten();
        verdict.accepted = parsed.is_some().then_some(accepted);
    }
    let is_new = parsed.is_some();
    if let (false, Some(last)) = (is_new, &gathered.last_accepted) {
        let mut accepted = last.clone();
        let edit = Edit::new(&edited, verdict.problems.iter().map(|problem| problem.field.as_str()));
        accepted.narrowing.join(Narrowing::of(&edit, &accepted.spec));
        parsed = verdict.read(gathered, &accepted);
        verdict.accepted = Some(accepted);
    }
    if let Some(mut link) = parsed {
        verdict.forbid(guard::apply(&mut link, &gathered.policies));
        verdict.forbid(consent::apply(&mut link, &gathered.mode));
        let link = Box::new(link);
        verdict.base = if is_new { Base::New(link) } else { Base::LastAccepted(link) };
    }
    verdict
}

/// Everything that keeps the declared spec from becoming the base, before it is parsed.
fn objections(gathered: &Gathered) -> Vec<Problem> {
    let mut problems = match &gathered.declared {
        Declared::Valid(link) => hosting::collisions(&gathered.link, &link.spec, &gathered.mode),
        Declared::Invalid { problems, .. } if problems.is_empty() => vec![Problem::invalid(&load::Problem {
            message: "does not validate".to_owned(),
            remedy: "ask `securelink check` why".to_owned(),
            ..load::Problem::default()
        })],
        Declared::Invalid { problems, .. } => problems.iter().map(Problem::invalid).collect(),
        Declared::Deleted => Vec::new(),
    };
    problems.extend(identity(gathered).err());
    // One that was accepted before goes on as it is: to begin first elsewhere must not end it.
    problems.extend(gathered.preferred.as_ref().map(duplicate));
    problems
}

/// The declared spec, as it would be accepted.
fn candidate(gathered: &Gathered) -> Option<Accepted> {
    let Declared::Valid(link) = &gathered.declared else { return None };
    Some(Accepted::new(link.spec.clone(), link.metadata.generation, identity(gathered).ok()?))
}

/// What could not be kept. Half of the bound is for what later edits narrow, which repeats what it takes away.
fn oversize(accepted: &Accepted) -> Option<Problem> {
    let (bytes, most) = (accepted.to_bytes().len(), MAX_ACCEPTED_BYTES / 2);
    (bytes > most).then(|| Problem {
        reason: Reason::Invalid,
        about: About::Link,
        field: "spec".to_owned(),
        message: format!("is too large to be kept: {bytes} bytes as JSON, more than {most}"),
        remedy: "name the clients of imports by fewer or shorter labels".to_owned(),
    })
}

/// Who we are, or why that is not known.
fn identity(gathered: &Gathered) -> Result<AcceptedIdentity, Problem> {
    let not_ready = |message: &str, remedy: &str| Problem {
        reason: Reason::IdentityNotReady,
        about: About::Link,
        field: "spec.identityRef".to_owned(),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    };
    let Some(identity) = &gathered.identity else {
        return Err(if gathered.identity_invalid {
            not_ready("the LinkIdentity is invalid", "mend it")
        } else {
            not_ready("there is no LinkIdentity of that name in this namespace", "create it, or correct the name")
        });
    };
    let standalone = matches!(gathered.mode, Mode::Standalone(_));
    if standalone && identity.spec.issuer.built_in.is_none() {
        return Err(not_ready("the LinkIdentity's issuer needs a cluster", "write `issuer: {builtIn: {}}`"));
    }
    let trust_domain = identity.spec.trust_domain.parse().map_err(|error: TrustDomainError| {
        not_ready(&format!("the LinkIdentity's trust domain cannot be used: {error}"), "correct it there")
    })?;
    Ok(AcceptedIdentity { trust_domain, contacts: identity.spec.contacts.clone() })
}

fn duplicate(preferred: &LinkRef) -> Problem {
    Problem {
        reason: Reason::DuplicatePeer,
        about: About::Link,
        field: "spec.peer.trustDomain".to_owned(),
        message: format!("{preferred} is the link to that organization"),
        remedy: "delete one of the two".to_owned(),
    }
}

fn not_granted(link: &LinkRef, denied: &Denied) -> Problem {
    let namespace = &link.namespace;
    Problem {
        reason: Reason::NamespaceNotGranted,
        about: About::Link,
        field: "metadata.namespace".to_owned(),
        message: format!("the operator may not {denied} in {namespace}"),
        remedy: format!("ask an administrator of the cluster to run `kubectl securelink grant {namespace}`"),
    }
}

impl Verdict {
    fn empty(gathered: &Gathered) -> Self {
        let (uid, generation) = match &gathered.declared {
            Declared::Valid(link) => (link.metadata.uid.as_deref(), link.metadata.generation),
            Declared::Invalid { value, .. } => {
                (value["metadata"]["uid"].as_str(), value["metadata"]["generation"].as_i64())
            }
            Declared::Deleted => (None, None),
        };
        let revision = generation.and_then(|generation| u64::try_from(generation).ok());
        let own = uid.zip(revision).map(|(uid, revision)| (format!("SecureLink/{uid}"), revision));
        let policies = gathered.policies.iter().map(guard::identify);
        let policies = policies.filter_map(|(id, revision)| Some((id, revision?)));
        let consents = consent::seen(&gathered.link, &gathered.mode);
        Self {
            link: gathered.link.clone(),
            generation,
            base: Base::None,
            problems: Vec::new(),
            cuts: gathered.cuts.iter().map(CutOrder::cut).collect(),
            seen: own.into_iter().chain(policies).chain(consents).collect(),
            accepted: None,
            no_policy: gathered.policies.is_empty(),
            notes: Vec::new(),
        }
    }

    /// Parses what was accepted, without what was narrowed; what is wrong with it is added to the problems.
    fn read(&mut self, gathered: &Gathered, accepted: &Accepted) -> Option<ValidatedLink> {
        let spec = accepted.narrowing.apply(&accepted.spec);
        let (link, problems) = validated::parse(&gathered.link, &spec, accepted, &gathered.mode);
        // Of a spec that will not run, only what keeps it from running is worth a word.
        self.problems.extend(problems.into_iter().filter(|problem| link.is_some() || problem.about == About::Link));
        self.notes = hosting::notes(&spec, &gathered.mode);
        link
    }

    /// What is forbidden stands first: it explains why nothing flows.
    fn forbid(&mut self, ruling: Ruling) {
        self.cuts.extend(ruling.cuts);
        self.problems.splice(..0, ruling.problems);
        self.problems.sort_by_key(|problem| problem.about != About::Link);
    }
}

impl Problem {
    fn invalid(problem: &load::Problem) -> Self {
        Self {
            reason: Reason::Invalid,
            about: About::Link,
            field: problem.field.clone(),
            message: problem.message.clone(),
            remedy: problem.remedy.clone(),
        }
    }
}
