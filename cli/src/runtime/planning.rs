//! The planner, as the runtime uses it: what it needs is put together here, and nowhere else.

use std::net::SocketAddr;

use jiff::Timestamp;
use securelink_crds::SecureLinkStatus;
use securelink_crds::conditions::Reason;
use securelink_crds::load::Problem;
pub(crate) use securelink_plan::certificate::{
    Decision, Facts, RootDecision, RootFacts, RootKey, Stored, Wanted, decide, root,
};
pub(crate) use securelink_plan::identity::follows;
pub(crate) use securelink_plan::rotation::{Announced, Rotation, RotationFacts, rotation, switch_at};
pub(crate) use securelink_plan::{
    Accepted, AcceptedError, Certificate, CutOrder, Declared, LeafInUse, ValidatedLink, Verdict, validate,
};
use securelink_plan::{Gathered, Mode, Observed, Standalone, Taken};
use securelink_relay_config::{LinkRef, LinkReport, Millis, RecordLayer, Snapshot};
use serde_json::Value;

use super::declared::{Declarations, as_object};

/// What is known of a link beside the files.
pub(crate) struct Known<'a> {
    /// Which link.
    pub(crate) link: &'a LinkRef,
    /// What was accepted last.
    pub(crate) accepted: Option<&'a Accepted>,
    /// Orders to gather beside those in the files.
    pub(crate) stored: Vec<CutOrder>,
}

/// The machine, for one link.
pub(crate) struct Site<'a> {
    /// `--listen`.
    pub(crate) listen: Option<SocketAddr>,
    /// `--allow-loopback-peers`.
    pub(crate) allow_loopback_peers: bool,
    /// `--records`.
    pub(crate) records: RecordLayer,
    /// Links judged before this one, each with its snapshot and trust domains.
    pub(crate) earlier: &'a [Earlier],
}

/// A link that was judged before another.
pub(crate) struct Earlier {
    pub(crate) link: LinkRef,
    pub(crate) own: String,
    pub(crate) peer: String,
    pub(crate) listeners: Vec<SocketAddr>,
}

impl Earlier {
    pub(crate) fn new(link: &ValidatedLink, snapshot: &Snapshot) -> Self {
        Self {
            link: link.link.clone(),
            own: link.own.to_string(),
            peer: link.peer.trust_domain.to_string(),
            listeners: securelink_plan::listeners(snapshot),
        }
    }
}

/// The orders in the files for one link, each with its `LinkCut`'s name.
pub(crate) fn orders(
    files: &Declarations,
    link: &LinkRef,
    declared: &Declared,
    accepted: Option<&Accepted>,
) -> Vec<(String, CutOrder)> {
    let peers = securelink_plan::peer_names(declared, accepted);
    let valid = files.cuts.iter().flat_map(|cut| {
        let name = cut.metadata.name.clone().unwrap_or_default();
        securelink_plan::cut_orders([cut], link, &peers).into_iter().map(move |order| (name.clone(), order))
    });
    let broken = files.broken_cuts.iter().filter_map(|(id, value)| {
        let namespace = id.namespace.as_deref().unwrap_or_default();
        let order = securelink_plan::salvage_cut(value, (namespace, &id.name), link, &peers)?;
        Some((id.name.clone(), order))
    });
    valid.chain(broken).collect()
}

/// What is declared of a link now. A link that an incomplete reading lacks stands as it was accepted, and nothing is
/// accepted while a guard rail may be missing.
pub(crate) fn declared(files: &Declarations, link: &LinkRef, accepted: Option<&Accepted>) -> Declared {
    let found = files.links.iter().find(|(at, _)| at == link).map(|(_, declared)| declared.clone());
    let unread = || files.problems.iter().filter(|problem| problem.object.is_none()).cloned().collect();
    match (found, accepted) {
        (Some(Declared::Valid(new)), _) if files.unguarded => {
            let value = serde_json::to_value(&new).unwrap_or_default();
            Declared::Invalid { value, problems: vec![unguarded()] }
        }
        (Some(found), _) => found,
        (None, Some(accepted)) if files.incomplete => {
            let spec: Value = serde_json::to_value(&accepted.spec).unwrap_or_default();
            Declared::Invalid { value: as_object("SecureLink", link, &spec), problems: unread() }
        }
        (None, _) => Declared::Deleted,
    }
}

fn unguarded() -> Problem {
    Problem {
        message: "nothing new is accepted while a LinkPolicy, or a document that may hold one, cannot be read"
            .to_owned(),
        remedy: "mend that document".to_owned(),
        ..Problem::default()
    }
}

/// Judges one link.
pub(crate) fn judge(files: &Declarations, declared: Declared, known: Known<'_>, site: &Site<'_>) -> Verdict {
    let link = known.link;
    let identity_name = match &declared {
        Declared::Valid(new) => Some(new.spec.identity_ref.name.as_str()),
        Declared::Invalid { value, .. } => value["spec"]["identityRef"]["name"].as_str(),
        Declared::Deleted => None,
    };
    let identity = identity_name
        .and_then(|name| files.identities.get(&LinkRef { namespace: link.namespace.clone(), name: name.to_owned() }));
    let applies =
        |policy: &&securelink_crds::LinkPolicy| securelink_plan::policy_applies(policy, &link.namespace, None);
    let gathered = Gathered {
        link: link.clone(),
        last_accepted: known.accepted.cloned(),
        identity: identity.cloned().flatten(),
        identity_invalid: identity.is_some_and(Option::is_none),
        policies: files.policies.iter().filter(applies).cloned().collect(),
        cuts: known.stored,
        preferred: duplicate(&declared, identity.and_then(Option::as_ref), site.earlier),
        denied: None,
        mode: Mode::Standalone(Standalone {
            listen: site.listen,
            allow_loopback_peers: site.allow_loopback_peers,
            records: site.records,
            taken: taken(site.earlier),
        }),
        declared,
    };
    validate(&gathered)
}

/// The verdict on a link about which nothing can be known, because of `fault`.
pub(crate) fn broken(link: &LinkRef, fault: &str) -> Verdict {
    let (message, remedy) = fault.split_once("; ").unwrap_or((fault, "mend it"));
    let problem = Problem { message: message.to_owned(), remedy: remedy.to_owned(), ..Problem::default() };
    validate(&Gathered {
        link: link.clone(),
        declared: Declared::Invalid { value: Value::Null, problems: vec![problem] },
        last_accepted: None,
        identity: None,
        identity_invalid: true,
        policies: Vec::new(),
        cuts: Vec::new(),
        preferred: None,
        denied: None,
        mode: Mode::Standalone(Standalone::default()),
    })
}

fn duplicate(
    declared: &Declared,
    identity: Option<&securelink_crds::LinkIdentity>,
    earlier: &[Earlier],
) -> Option<LinkRef> {
    let Declared::Valid(link) = declared else { return None };
    let own = &identity?.spec.trust_domain;
    let same = |other: &&Earlier| other.own == *own && other.peer == link.spec.peer.trust_domain;
    earlier.iter().find(same).map(|other| other.link.clone())
}

fn taken(earlier: &[Earlier]) -> Vec<Taken> {
    let of = |link: &Earlier| {
        let by = link.link.clone();
        link.listeners.clone().into_iter().map(move |address| Taken { address, by: by.clone() })
    };
    earlier.iter().flat_map(of).collect()
}

/// The next `relay.json`, or the previous one where nothing changed; nothing where nothing runs.
pub(crate) fn snapshot(verdict: &Verdict, previous: Option<&Snapshot>, now: Timestamp) -> Option<Snapshot> {
    let link = verdict.validated()?;
    Some(securelink_plan::snapshot(link, verdict.orders(), previous, Millis::from(now)))
}

/// What is observed of a link, for its status.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) certificate: &'a Certificate,
    pub(crate) snapshot: Option<&'a Snapshot>,
    pub(crate) report: Option<&'a LinkReport>,
}

impl<'a> Seen<'a> {
    fn observed(self) -> Observed<'a> {
        Observed {
            certificate: self.certificate,
            snapshot: self.snapshot,
            report: self.report,
            hindrance: None,
            widened: &[],
        }
    }
}

/// The status of a link.
pub(crate) fn status(
    verdict: &Verdict,
    seen: Seen<'_>,
    previous: &SecureLinkStatus,
    now: Timestamp,
) -> SecureLinkStatus {
    securelink_plan::status(verdict, seen.observed(), previous, now)
}

/// When to look at a link again.
pub(crate) fn next_deadline(verdict: &Verdict, seen: Seen<'_>, now: Timestamp) -> Option<Timestamp> {
    securelink_plan::next_deadline(verdict, seen.observed(), now)
}

/// A failure of the certificate, for the status.
pub(crate) fn failure(reason: Reason, message: impl Into<String>) -> (Reason, String) {
    (reason, message.into())
}
