//! What is cut ahead of the snapshot: a relay must not go on with what a new verdict takes away until somebody has written and
//! pushed the next version (contracts 4).

use std::collections::BTreeSet;

use securelink_crds::conditions::Reason;
use securelink_relay_config::{Cut, CutScope, LinkState, Snapshot};

use crate::gathered::CutOrder;
use crate::validated::ValidatedLink;
use crate::verdict::{About, Verdict};

/// What the cuts of a `SecureLink` are known by, before its uid.
const KIND: &str = "SecureLink/";
/// What the cuts of `LinkCut`s are known by.
const BRAKE: &str = "LinkCut/";

/// What is known of a link when its relays are told of cuts. Only the cuts that name it are always there.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The `LinkCut`s that name it.
    pub orders: &'a [CutOrder],
    /// The verdict; absent while not everything can be read that it depends on.
    pub verdict: Option<&'a Verdict>,
    /// What its relays run, as far as that was ever known.
    pub running: Option<&'a Snapshot>,
    /// What its relays were told before.
    pub before: &'a BTreeSet<Cut>,
    /// The uid of a link that is being deleted.
    pub deleted: Option<&'a str>,
}

/// The cuts to tell a link's relays. A `LinkCut` needs nothing beside itself: neither a verdict nor a configuration. What else
/// was ordered stays so while there is no verdict.
pub fn cuts_in_sight(sight: &Sight<'_>) -> BTreeSet<Cut> {
    let mut cuts: BTreeSet<Cut> = sight.orders.iter().map(CutOrder::cut).collect();
    match (sight.verdict, sight.running) {
        (Some(verdict), Some(running)) => cuts.extend(cuts_ahead(running, verdict)),
        (Some(verdict), None) => cuts.extend(verdict.cuts.iter().cloned()),
        (None, _) => cuts.extend(sight.before.iter().filter(|cut| !cut.id.starts_with(BRAKE)).cloned()),
    }
    if let Some(uid) = sight.deleted {
        let whole = cut_of_deleted(uid);
        cuts.retain(|cut| cut.id != whole.id);
        cuts.insert(whole);
    }
    cuts
}

/// The cut of a `SecureLink` that is deleted, or is being deleted, at a revision that no snapshot outdoes: there is no way
/// back.
pub fn cut_of_deleted(uid: &str) -> Cut {
    Cut {
        id: format!("{KIND}{uid}"),
        revision: u64::MAX,
        scope: CutScope::Link,
        reason: "the SecureLink was deleted".to_owned(),
    }
}

/// The cuts to push to a relay that runs `running`: the verdict's own, and for everything that the relay may carry and the
/// verdict does not allow, one that is ordered by the `SecureLink` itself: `SecureLink/<uid>`, or with the scope behind it,
/// `SecureLink/<uid>#exports/notices`, at the `SecureLink`'s generation.
///
/// They last until the snapshot of this verdict, or of a later generation, is adopted: it has seen that generation. What was
/// taken away at a generation that the relay has seen already (a Service that leads elsewhere now) is left to the snapshot, as
/// is what cannot be read off the two: ends of agreements, limits, clients. Nothing is cut because the operator may not look:
/// a namespace not granted, a target's namespace that cannot be read.
pub fn cuts_ahead(running: &Snapshot, verdict: &Verdict) -> BTreeSet<Cut> {
    let mut cuts = verdict.cuts.clone();
    if verdict.is_denied() {
        return cuts;
    }
    let Some((id, revision)) = author(running, verdict) else { return cuts };
    let cut = |(scope, reason): (CutScope, String)| {
        let id = match &scope {
            CutScope::Link => id.clone(),
            CutScope::Export(name) => format!("{id}#exports/{name}"),
            CutScope::Import(name) => format!("{id}#imports/{name}"),
            CutScope::Pin(pin) => format!("{id}#pins/{pin}"),
        };
        Cut { id, revision, scope, reason }
    };
    cuts.extend(gone(running, verdict).into_iter().map(cut));
    cuts
}

/// The `SecureLink` as the one who orders, and its revision; nothing where the relay would take the order for an old one.
fn author(running: &Snapshot, verdict: &Verdict) -> Option<(String, u64)> {
    let is_link = |id: &str| id.starts_with(KIND) && !id.contains('#');
    let known = running.seen.iter().find(|(id, _)| is_link(id));
    match verdict.seen.iter().find(|(id, _)| is_link(id)) {
        Some((id, revision)) => {
            let news = running.seen.get(id).is_none_or(|seen| seen < revision);
            news.then(|| (id.clone(), *revision))
        }
        // It is deleted: there is no generation any more, and there will be no snapshot.
        None => known.filter(|_| verdict.is_deleted()).map(|(id, seen)| (id.clone(), seen.saturating_add(1))),
    }
}

fn gone(running: &Snapshot, verdict: &Verdict) -> Vec<(CutScope, String)> {
    let whole = |reason: &str| vec![(CutScope::Link, reason.to_owned())];
    let Some(link) = verdict.validated() else {
        return whole(if verdict.is_deleted() {
            "the SecureLink is deleted"
        } else {
            "nothing of the link is accepted"
        });
    };
    // Also where a policy, whose order the relay has seen, forbids what an edit makes of the link.
    if let Some(cut) = verdict.whole_cut() {
        return whole(&cut.reason);
    }
    if link.own != running.own || link.peer.trust_domain != running.peer.trust_domain {
        return whole("the link is between other organizations now");
    }
    if link.state == LinkState::Suspended && running.state == LinkState::Active {
        return whole("the link is suspended");
    }
    exports(running, link, verdict).chain(imports(running, link)).chain(pins(running, link)).collect()
}

fn exports(running: &Snapshot, link: &ValidatedLink, verdict: &Verdict) -> impl Iterator<Item = (CutScope, String)> {
    let unread = |name: &str| {
        let about = About::Export(name.to_owned());
        verdict.problems.iter().any(|it| it.reason == Reason::NamespaceNotGranted && it.about == about)
    };
    let gone = running.exports.iter().filter(move |old| {
        let same = link.exports.iter().any(|new| new.name == old.name && *new.target.endpoint() == old.target);
        !same && !unread(&old.name)
    });
    gone.map(|old| {
        (CutScope::Export(old.name.clone()), format!("{} is not exported to the same place any more", old.name))
    })
}

fn imports(running: &Snapshot, link: &ValidatedLink) -> impl Iterator<Item = (CutScope, String)> {
    let kept = |name: &str| link.imports.iter().any(|new| new.name == name);
    let gone = running.imports.iter().filter(move |old| !kept(&old.name));
    gone.map(|old| (CutScope::Import(old.name.clone()), format!("{} is not imported any more", old.name)))
}

fn pins(running: &Snapshot, link: &ValidatedLink) -> impl Iterator<Item = (CutScope, String)> {
    let gone = running.peer.fingerprints.iter().filter(|pin| !link.peer.fingerprints.contains(pin));
    gone.map(|pin| (CutScope::Pin(*pin), "that root is not pinned any more".to_owned()))
}
