//! Status and Events of a link, from what was observed. Written only when something in it changed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _};
use securelink_crds::conditions::{self, Condition, ConditionType, NewCondition};
use securelink_crds::keys::FIELD_MANAGER;
use securelink_crds::{GROUP, SecureLink, SecureLinkStatus, VERSION};
use securelink_plan::certificate::IssueReason;
use securelink_plan::{Observed, Verdict, without_local_ports};
use securelink_relay_config::LinkRef;
use serde_json::json;

use crate::apply::{Applied, ApplyError};
use crate::controller::ReconcileError;
use crate::counted::Counted;
use crate::gather::Known;
use crate::keyed;
use crate::metrics::OfLink;
use crate::newest::Newest;
use crate::world::World;

/// Most bytes of an Event's note that an API server takes (events.k8s.io/v1: 1 kB).
const NOTE: usize = 1024;

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Another replica may lead by now.
    #[error("the lease is not held any more")]
    NotLeading,
    /// The API server.
    #[error("apply status of {link}: {source}")]
    Api {
        /// Of which link.
        link: LinkRef,
        /// Why not.
        source: Box<kube::Error>,
    },
}

/// Statuses that were written, until the cache shows them; and for the metrics, what conditions stand.
#[derive(Debug, Default)]
pub struct Written {
    last: Newest<SecureLinkStatus>,
    conditions: Counted,
    echoes: Mutex<HashMap<LinkRef, Echo>>,
}

/// By what a change is known to be our own writing of a status.
#[derive(Debug, Default)]
struct Echo {
    /// The object without its status, as it was seen last.
    seen: u64,
    /// A hash of the status that was sent last: before an answer comes, so that a watch that is faster meets it, too.
    sent: Option<u64>,
}

impl Written {
    /// The newer of the status that the cache shows and the one that was written.
    fn latest(&self, known: &Known) -> SecureLinkStatus {
        let unseen = self.last.unseen(&known.gathered.link, &known.declared.object.metadata);
        unseen.unwrap_or_else(|| known.status.clone())
    }

    fn forget(&self, link: &LinkRef) {
        self.last.forget(link);
        self.conditions.forget(link);
        self.echoes().remove(link);
    }

    /// Whether all that is new of a link is the status that was sent: looking at it for that would never end where a
    /// sentence of it varies.
    pub fn is_echo(&self, link: &LinkRef, object: &DynamicObject) -> bool {
        self.last.shows(link, object.metadata.uid.as_deref(), object.metadata.resource_version.as_deref());
        let mut echoes = self.echoes();
        let echo = echoes.entry(link.clone()).or_default();
        let seen = without_status(object);
        let same = std::mem::replace(&mut echo.seen, seen) == seen;
        let shown = || {
            serde_json::from_value(object.data["status"].clone())
                .ok()
                .map(|status: SecureLinkStatus| keyed::hash(&status))
        };
        same && echo.sent.is_some() && echo.sent == shown()
    }

    fn sends(&self, link: &LinkRef, status: &SecureLinkStatus) {
        self.echoes().entry(link.clone()).or_default().sent = Some(keyed::hash(status));
    }

    fn echoes(&self) -> MutexGuard<'_, HashMap<LinkRef, Echo>> {
        self.echoes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) {
        self.last.clear();
        self.conditions.clear();
        self.echoes().clear();
    }
}

/// What was found and done in one reconcile.
#[derive(Clone, Copy)]
pub struct Finding<'a> {
    /// The link.
    pub known: &'a Known,
    /// What applying did.
    pub applied: &'a Applied,
    /// Why it did not go through.
    pub failure: Option<&'a ApplyError>,
    /// Why a leaf was issued.
    pub fresh: Option<IssueReason>,
}

/// The status as it is now.
pub fn compute(
    world: &World,
    finding: Finding<'_>,
    verdict: &Verdict,
    observed: Observed<'_>,
    now: Timestamp,
) -> SecureLinkStatus {
    let previous = world.written.latest(finding.known);
    let mut status = securelink_plan::status(verdict, observed, &previous, now);
    let before = conditions::find(&status.conditions, ConditionType::InternalError).cloned();
    conditions::clear(&mut status.conditions, ConditionType::InternalError);
    match finding.failure {
        // These are looked at again at once; a name that is taken is then a condition of its own.
        None | Some(ApplyError::Taken { .. } | ApplyError::Moved { .. }) => {}
        Some(error) => {
            // Since when it stands is kept.
            status.conditions.extend(before);
            let condition = internal_error(&error.to_string(), verdict.generation);
            conditions::set(&mut status.conditions, condition, now);
        }
    }
    status
}

/// Writes a status that differs from the one that is there, and tells what changed.
pub async fn write(world: &World, finding: Finding<'_>, status: SecureLinkStatus) -> Result<(), StatusError> {
    let known = finding.known;
    let previous = world.written.latest(known);
    let mut events = finding.events();
    if status != previous {
        put(world, &known.gathered.link, &known.declared.object, &status).await?;
        events.extend(transitions(&previous.conditions, &status.conditions));
    }
    measure(world, &known.gathered.link, &status);
    for event in events {
        if !world.lease.holds() {
            break;
        }
        let regarding = known.declared.object.object_ref(&kube::api::ApiResource::erase::<SecureLink>(&()));
        if let Err(error) = world.recorder.publish(&event, &regarding).await {
            tracing::warn!(link = %known.gathered.link, %error, "an Event was not written");
        }
        world.metrics.wrote("Event", "create");
    }
    Ok(())
}

/// Forgets a link that is gone.
pub fn forget(world: &World, link: &LinkRef) {
    world.written.forget(link);
    world.metrics.expiry.remove(&OfLink { namespace: link.namespace.clone(), link: link.name.clone() });
}

/// Another replica leads: what was measured and written here is its to say from now on.
pub fn hand_over(world: &World) {
    world.written.clear();
    world.metrics.links.clear();
    world.metrics.expiry.clear();
}

/// Says in the status that a reconcile failed by a fault that is not the spec's. As far as it can be written.
pub async fn fault(world: &World, link: &LinkRef, error: &ReconcileError) {
    let Some(declared) = world.sources.caches.declared.link(link) else { return };
    let shown: SecureLinkStatus = serde_json::from_value(declared.object.data["status"].clone()).unwrap_or_default();
    let previous = world.written.last.unseen(link, &declared.object.metadata).unwrap_or(shown);
    let mut status = previous.clone();
    let condition = internal_error(&error.to_string(), declared.object.metadata.generation);
    conditions::set(&mut status.conditions, condition, Timestamp::now());
    if status != previous
        && let Err(error) = put(world, link, &declared.object, &status).await
    {
        tracing::warn!(%link, %error, "the fault could not be shown in the status");
    }
}

async fn put(
    world: &World,
    link: &LinkRef,
    object: &DynamicObject,
    status: &SecureLinkStatus,
) -> Result<(), StatusError> {
    let failed = |source| StatusError::Api { link: link.clone(), source: Box::new(source) };
    if !world.lease.holds() {
        return Err(StatusError::NotLeading);
    }
    world.written.sends(link, status);
    let resource = kube::api::ApiResource::erase::<SecureLink>(&());
    let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), &link.namespace, &resource);
    // The uid: a status must not land on another link of the name.
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "SecureLink",
        "metadata": {"name": link.name, "namespace": link.namespace, "uid": object.metadata.uid},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let now = api.patch_status(&link.name, &parameters, &Patch::Apply(&body)).await.map_err(failed)?;
    world.metrics.wrote("SecureLink", "status");
    world.written.last.wrote(link, &now.metadata, status.clone());
    // A watch may be faster than the answer: then nothing else would have it forgotten.
    if let Some(shown) = world.sources.caches.declared.held(link) {
        world.written.last.shows(link, Some(shown.uid()), shown.version());
    }
    Ok(())
}

fn measure(world: &World, link: &LinkRef, status: &SecureLinkStatus) {
    let of = OfLink { namespace: link.namespace.clone(), link: link.name.clone() };
    match &status.certificate {
        #[allow(clippy::cast_precision_loss)] // seconds since 1970 have 31 bits
        Some(certificate) => {
            world.metrics.expiry.get_or_create(&of).set(certificate.not_after.0.as_second() as f64);
        }
        None => drop(world.metrics.expiry.remove(&of)),
    }
    world.written.conditions.stand(link, &status.conditions);
}

/// Shows how many links have each condition; at every scrape.
pub fn count(world: &World) {
    world.metrics.links.clear();
    for (by, count) in world.written.conditions.count() {
        world.metrics.links.get_or_create(&by).set(count);
    }
}

impl Finding<'_> {
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(reason) = self.fresh {
            events.push(event(
                EventType::Normal,
                "Issued",
                "IssueLeaf",
                &format!("issued a certificate: {}", reason.as_str()),
            ));
        }
        for damage in &self.known.damaged {
            events.push(event(EventType::Warning, "Damaged", "Repair", damage));
        }
        for drift in &self.applied.drifted {
            events.push(event(
                EventType::Warning,
                "Drift",
                "Repair",
                &format!("changed by somebody else, put right: {drift}"),
            ));
        }
        events
    }
}

/// One Event for each condition that changed its status or its reason; the first status tells of none.
fn transitions(before: &[Condition], now: &[Condition]) -> Vec<Event> {
    let same = |a: &Condition, b: &Condition| a.type_ == b.type_ && a.status == b.status && a.reason == b.reason;
    let changed = now.iter().filter(|new| !before.is_empty() && !before.iter().any(|old| same(old, new)));
    changed
        .map(|new| {
            let kind = if new.status == "False" { EventType::Warning } else { EventType::Normal };
            event(kind, &new.reason, &new.type_, &new.message)
        })
        .collect()
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    let note = &note[..note.floor_char_boundary(NOTE)];
    Event { type_, reason: reason.to_owned(), note: Some(note.to_owned()), action: action.to_owned(), secondary: None }
}

fn internal_error(message: &str, generation: Option<i64>) -> NewCondition {
    let kind = ConditionType::InternalError;
    let message = without_local_ports(message);
    NewCondition { kind, status: Some(true), reason: kind.as_str(), message, generation }
}

/// A hash of what a link is beside its status.
fn without_status(object: &DynamicObject) -> u64 {
    let metadata = &object.metadata;
    let who = (&metadata.uid, metadata.generation, &metadata.annotations, &metadata.labels);
    keyed::hash(&(who, metadata.deletion_timestamp.is_some(), &metadata.finalizers))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use securelink_crds::conditions::Time;

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "x".repeat(3000),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    fn link(generation: i64, status: &SecureLinkStatus) -> DynamicObject {
        let mut object = DynamicObject::new("l", &kube::api::ApiResource::erase::<SecureLink>(&()));
        object.metadata.generation = Some(generation);
        object.data = json!({"status": status});
        object
    }

    /// A sentence that varies, such as a webhook's, would otherwise be written, seen and written for ever.
    #[test]
    fn f16_a_change_that_is_the_status_that_was_sent_is_an_echo_and_any_other_is_not() {
        let (written, at) = (Written::default(), LinkRef { namespace: "n".to_owned(), name: "l".to_owned() });
        let of = |message: &str| SecureLinkStatus {
            conditions: vec![Condition {
                message: message.to_owned(),
                ..condition("InternalError", "True", "InternalError")
            }],
            ..SecureLinkStatus::default()
        };
        assert!(!written.is_echo(&at, &link(1, &SecureLinkStatus::default())), "it was never seen");
        written.sends(&at, &of("first"));
        assert!(written.is_echo(&at, &link(1, &of("first"))));
        written.sends(&at, &of("second"));
        assert!(!written.is_echo(&at, &link(1, &of("somebody else's"))));
        assert!(written.is_echo(&at, &link(1, &of("second"))));
        assert!(!written.is_echo(&at, &link(2, &of("second"))), "its spec is another one");
        assert!(written.is_echo(&at, &link(2, &of("second"))));
    }

    #[test]
    fn who_leads_no_more_counts_no_link_and_takes_no_change_for_its_own() {
        let (written, at) = (Written::default(), LinkRef { namespace: "n".to_owned(), name: "l".to_owned() });
        let status =
            SecureLinkStatus { conditions: vec![condition("Ready", "True", "Ready")], ..SecureLinkStatus::default() };
        written.conditions.stand(&at, &status.conditions);
        written.sends(&at, &status);
        let is_echo = || [0, 1].map(|_| written.is_echo(&at, &link(1, &status)))[1];
        assert_eq!((written.conditions.count().len(), is_echo()), (1, true));
        written.clear();
        assert_eq!((written.conditions.count().len(), is_echo()), (0, false));
    }

    #[test]
    fn an_event_tells_of_what_changed_and_its_note_is_short_enough_to_be_taken() {
        let before = [condition("Ready", "False", "DnsFailed"), condition("Accepted", "True", "Accepted")];
        let now = [condition("Ready", "False", "Refused"), condition("Accepted", "True", "Accepted")];
        let events = transitions(&before, &now);
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].reason.as_str(), events[0].action.as_str()), ("Refused", "Ready"));
        assert_eq!(events[0].note.as_ref().map(String::len), Some(NOTE));
        assert!(transitions(&[], &now).is_empty(), "the first status is no change");
    }
}
