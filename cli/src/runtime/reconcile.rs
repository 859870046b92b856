//! The driver: every stage of every link on one screen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use securelink_crds::conditions::Reason;
use securelink_pki::Transitions;
use securelink_relay_config::{LinkRef, Snapshot};

use super::apply::{self, Decided};
use super::brake::brake;
use super::declared::Declarations;
use super::held::Held;
use super::issue::{self, Issuer};
use super::planning::{self, Accepted, AcceptedError, Certificate, CutOrder, Declared, Earlier, Known, Site, Verdict};
use super::report::{LinkProblem, ReloadReport};
use super::shared::Shared;
use crate::state::{CutOrigin, LinkDir, StateError, StoredCut};

/// When a link is tried again that could not be started or changed: a port may be free by then.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// One look at everything.
pub(crate) struct Pass<'a> {
    shared: &'a Arc<Shared>,
    files: &'a Declarations,
    now: Timestamp,
    issuers: BTreeMap<LinkRef, Issuer>,
    earlier: Vec<Earlier>,
    report: ReloadReport,
    deadline: Option<Timestamp>,
}

/// Looks at every identity and link; says what is wrong, what changed, and when to look again.
pub(crate) async fn reconcile(shared: &Arc<Shared>, files: &Declarations) -> (ReloadReport, Option<Timestamp>) {
    let report =
        ReloadReport { problems: files.problems.clone(), notes: files.notes.clone(), ..ReloadReport::default() };
    let (now, issuers, earlier) = (shared.clock.now(), BTreeMap::new(), Vec::new());
    let mut pass = Pass { shared, files, now, issuers, earlier, report, deadline: None };
    brake(shared, files).await;
    for (identity, declared) in &files.identities {
        if declared.is_some() {
            pass.issuer(identity);
        }
    }
    for link in pass.order() {
        if let Err(error) = pass.link(&link).await {
            pass.fault(&link, &error);
        }
    }
    pass.unknown_listeners();
    (pass.report, pass.deadline)
}

impl Pass<'_> {
    /// The way of one link: gather, validate, decide, issue, build, apply, status.
    async fn link(&mut self, link: &LinkRef) -> Result<(), StateError> {
        let folder = self.shared.state.link(link)?;
        let accepted = self.accepted(&folder, link)?;
        let declared = planning::declared(self.files, link, accepted.as_ref());
        let gone = matches!(declared, Declared::Deleted);
        let (orders, stored) = self.orders(&folder, link, &declared, accepted.as_ref())?;
        let previous = folder.snapshot()?;

        let known = Known { link, accepted: accepted.as_ref(), stored: orders };
        let verdict = planning::judge(self.files, declared, known, &self.site(link));
        let (leaf, transitions, certificate) = self.certificate(&folder, &verdict);
        let snapshot = planning::snapshot(&verdict, previous.as_ref(), self.now);
        // A full disk must not keep a narrowing from taking effect: it is said, and the next look tries again.
        let kept = keep(&folder, accepted.as_ref(), &verdict, (previous.as_ref(), snapshot.as_ref()));

        let running = self.shared.running(link);
        let decided =
            Decided { link, folder: &folder, snapshot: snapshot.as_ref(), leaf, transitions, stored: &stored };
        let applied = apply::apply(self.shared, decided, running).await;
        if gone && let Err(error) = folder.forget_accepted() {
            self.refuse(link, &error);
            self.wake_at(Some(self.now + RETRY));
        }
        self.report.changed.extend(applied.changed.then(|| link.clone()));
        self.publish(
            link,
            gone,
            Held {
                verdict,
                certificate,
                snapshot,
                running: applied.running,
                faults: kept.err().map(|error| error.to_string()).into_iter().chain(applied.fault).collect(),
                status: self.shared.status_before(link),
            },
        );
        Ok(())
    }

    /// Links in the order in which they may claim ports and peers: those accepted before, then those of the files.
    fn order(&mut self) -> Vec<LinkRef> {
        let mut order = match self.shared.state.links() {
            Ok(links) => links,
            Err(error) => {
                self.report.refused.push(LinkProblem { about: "state".to_owned(), message: error.to_string() });
                Vec::new()
            }
        };
        let accepted = |link: &LinkRef| self.shared.state.link(link).is_ok_and(|dir| dir.accepted_path().exists());
        order.retain(accepted);
        let declared = self.files.links.iter().map(|(link, _)| link.clone()).chain(self.shared.known());
        for link in declared {
            if !order.contains(&link) {
                order.push(link);
            }
        }
        order
    }

    fn site(&self, link: &LinkRef) -> Site<'_> {
        let options = &self.shared.options;
        let listen = options.listen.get(&link.to_string()).or_else(|| options.listen.get(&link.name)).copied();
        let allow_loopback_peers = options.allow_loopback_peers;
        Site { listen, allow_loopback_peers, records: options.records, earlier: &self.earlier }
    }

    /// What was accepted last. It is input, not truth: one that would not be accepted any more counts for nothing.
    fn accepted(&mut self, folder: &LinkDir, link: &LinkRef) -> Result<Option<Accepted>, StateError> {
        let Some(text) = folder.accepted()? else { return Ok(None) };
        match Accepted::from_bytes(text.as_bytes(), link) {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error @ AcceptedError::Invalid(_)) => {
                self.report.refused.push(LinkProblem { about: link.to_string(), message: error.to_string() });
                Ok(None)
            }
            Err(error) => Err(StateError::Damaged { path: folder.accepted_path(), why: error.to_string() }),
        }
    }

    /// The orders over a link. A new one is written down before anything is applied; one whose `LinkCut` is gone is
    /// taken back, unless it may be in a document that cannot be read.
    fn orders(
        &mut self,
        folder: &LinkDir,
        link: &LinkRef,
        declared: &Declared,
        accepted: Option<&Accepted>,
    ) -> Result<(Vec<CutOrder>, Vec<StoredCut>), StateError> {
        let mut stored = folder.cuts()?;
        for order in self.shared.keep_orders(link, folder) {
            if !stored.iter().any(|known| known.cut.id == order.cut.id) {
                stored.push(order);
            }
        }
        for (name, order) in planning::orders(self.files, link, declared, accepted) {
            if !stored.iter().any(|known| known.cut.id == order.id) {
                let new = StoredCut::by_object(&name, &order.id, order.revision, &order.reason);
                if let Err(error) = folder.save_cut(&new) {
                    self.refuse(link, &error);
                }
                stored.push(new);
            }
        }
        let holds = |order: &StoredCut| match &order.origin {
            CutOrigin::Command => true,
            CutOrigin::Object(name) => self.files.incomplete || self.files.has_cut(&link.namespace, name),
        };
        let (mut held, over): (Vec<_>, Vec<_>) = stored.into_iter().partition(holds);
        for order in over {
            match folder.remove_cut(&order.cut.id) {
                Ok(_) => tracing::info!(%link, cut = order.cut.id, "the LinkCut is gone, the link resumes"),
                Err(error) => {
                    self.refuse(link, &error);
                    held.push(order);
                }
            }
        }
        let order = |held: &StoredCut| CutOrder {
            id: held.cut.id.clone(),
            revision: held.cut.revision,
            reason: held.cut.reason.clone(),
        };
        Ok((held.iter().map(order).collect(), held))
    }

    /// The leaf to present. What goes wrong with it is the certificate's affair: the rest of the link goes its way.
    fn certificate(&mut self, folder: &LinkDir, verdict: &Verdict) -> apply::Issued {
        let none = || (None, Transitions::none(), Certificate::default());
        let (Some(link), Some(accepted)) = (verdict.validated(), &verdict.accepted) else { return none() };
        let identity =
            LinkRef { namespace: verdict.link.namespace.clone(), name: accepted.spec.identity_ref.name.clone() };
        let now = self.now;
        let Some(issuer) = self.issuer(&identity) else { return none() };
        let (leaf, certificate) = issue::leaf(folder, issuer, link, now).unwrap_or_else(|error| {
            let failure = Some(planning::failure(Reason::IssuerFailed, error.to_string()));
            (None, Certificate { root: issuer.root, leaf: None, failure })
        });
        (leaf.map(Arc::new), issuer.transitions.clone(), certificate)
    }

    /// An identity's issuer, made ready once in a pass.
    fn issuer(&mut self, at: &LinkRef) -> Option<&Issuer> {
        if !self.issuers.contains_key(at) {
            let folder = match self.shared.state.identity(&at.namespace, &at.name) {
                Ok(folder) => folder,
                Err(error) => {
                    self.report.refused.push(LinkProblem { about: at.to_string(), message: error.to_string() });
                    return None;
                }
            };
            let declared = self.files.identities.get(at).and_then(Option::as_ref);
            let by_leaves = declared
                .filter(|_| matches!(folder.record(), Ok(None)))
                .and_then(|identity| self.shared.state.root_of_leaves(&at.namespace, &identity.spec.trust_domain));
            let issuer = issue::prepare(&folder, declared, by_leaves, self.now);
            if let Some((_, message)) = &issuer.failure {
                self.report.refused.push(LinkProblem { about: format!("LinkIdentity {at}"), message: message.clone() });
            }
            self.report.notes.extend(issuer.note.iter().map(|note| format!("LinkIdentity {at}: {note}")));
            self.wake_at(issuer.due);
            self.issuers.insert(at.clone(), issuer);
        }
        self.issuers.get(at)
    }

    fn publish(&mut self, link: &LinkRef, gone: bool, mut held: Held) {
        if let (Some(validated), Some(snapshot)) = (held.verdict.validated(), &held.snapshot) {
            self.earlier.push(Earlier::new(validated, snapshot));
        }
        let problems = held.verdict.problems.iter().map(ToString::to_string).chain(held.faults.iter().cloned());
        let about = link.to_string();
        self.report.refused.extend(problems.map(|message| LinkProblem { about: about.clone(), message }));
        self.report.notes.extend(held.verdict.notes.iter().map(|note| format!("{link}: {note}")));
        held.refresh(self.now);
        self.wake_at(held.deadline(self.now));
        if !held.faults.is_empty() {
            self.wake_at(Some(self.now + RETRY));
        }
        self.shared.publish(link, (!gone).then_some(held));
    }

    /// A link whose folder cannot be used: what runs goes on, nothing is started or written.
    fn fault(&mut self, link: &LinkRef, error: &StateError) {
        self.refuse(link, error);
        self.shared.set_fault(link, error.to_string());
        self.wake_at(Some(self.now + RETRY));
    }

    fn refuse(&mut self, link: &LinkRef, error: &StateError) {
        self.report.refused.push(LinkProblem { about: link.to_string(), message: error.to_string() });
    }

    fn unknown_listeners(&mut self) {
        let known = self.shared.known();
        let names = |name: &str| known.iter().any(|link| link.name == name || link.to_string() == name);
        for name in self.shared.options.listen.keys().filter(|name| !names(name)) {
            self.report.notes.push(format!("--listen {}: there is no link of that name", name.escape_debug()));
        }
    }

    fn wake_at(&mut self, at: Option<Timestamp>) {
        self.deadline = [self.deadline, at].into_iter().flatten().min();
    }
}

/// Writes down what was decided, before it is applied.
fn keep(
    folder: &LinkDir,
    accepted: Option<&Accepted>,
    verdict: &Verdict,
    (previous, snapshot): (Option<&Snapshot>, Option<&Snapshot>),
) -> Result<(), StateError> {
    if let Some(new) = verdict.accepted.as_ref().filter(|new| Some(*new) != accepted) {
        folder.save_accepted(&new.to_bytes())?;
    }
    match snapshot {
        Some(new) if Some(new) != previous => folder.save_snapshot(new),
        _ => Ok(()),
    }
}

/// How long to sleep until a deadline. Never longer than a minute: a machine that slept, or whose clock was set, is noticed.
pub(crate) fn pause(deadline: Option<Timestamp>, now: Timestamp) -> Duration {
    const LONGEST: Duration = Duration::from_mins(1);
    /// For a deadline that has passed and could not be met.
    const OVERDUE: Duration = Duration::from_secs(5);
    let Some(deadline) = deadline else { return LONGEST };
    match Duration::try_from(deadline.duration_since(now)) {
        Ok(left) if !left.is_zero() => left.min(LONGEST),
        _ => OVERDUE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_ends_at_the_deadline_or_after_a_minute_and_an_overdue_one_does_not_spin() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |seconds| Some(now + SignedDuration::from_secs(seconds));
        assert_eq!(pause(after(7), now), Duration::from_secs(7));
        for far in [None, after(60), after(86_400), Some(Timestamp::MAX)] {
            assert_eq!(pause(far, now), Duration::from_mins(1));
        }
        for past in [after(0), after(-1), Some(Timestamp::MIN)] {
            assert_eq!(pause(past, now), Duration::from_secs(5));
        }
    }
}
