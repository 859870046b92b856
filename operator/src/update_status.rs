//! Status and Events of a link, from what was observed. Written only when something in it changed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _};
use securelink_crds::conditions::{self, Condition, ConditionType, NewCondition};
use securelink_crds::keys::FIELD_MANAGER;
use securelink_crds::{GROUP, SecureLink, SecureLinkStatus, VERSION};
use securelink_plan::certificate::IssueReason;
use securelink_plan::{Observed, Verdict};
use securelink_relay_config::LinkRef;
use serde_json::json;

use crate::apply::Applied;
use crate::controller::ReconcileError;
use crate::gather::Known;
use crate::metrics::{ByCondition, OfLink};
use crate::world::World;

/// Most bytes of an Event's note that an API server takes (events.k8s.io/v1: 1 kB).
const NOTE: usize = 1024;

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The API server.
    #[error("apply status of {link}: {source}")]
    Api {
        /// Of which link.
        link: LinkRef,
        /// Why not.
        source: Box<kube::Error>,
    },
}

/// Statuses that were written, until the cache shows them; and for the metrics, all of them.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<LinkRef, Last>>);

#[derive(Clone, Debug)]
struct Last {
    uid: Option<String>,
    version: u64,
    status: SecureLinkStatus,
}

impl Written {
    /// The newer of the status that the cache shows and the one that was written.
    fn latest(&self, known: &Known) -> SecureLinkStatus {
        let metadata = &known.declared.object.metadata;
        let shown = number(metadata.resource_version.as_deref());
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(&known.gathered.link) {
            Some(last) if last.uid == metadata.uid && last.version > shown => last.status.clone(),
            _ => known.status.clone(),
        }
    }

    fn keep(&self, link: &LinkRef, last: Last) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(link.clone(), last);
    }

    fn forget(&self, link: &LinkRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(link);
    }

    /// How many links have each condition.
    fn count(&self) -> HashMap<ByCondition, i64> {
        let mut counts = HashMap::new();
        for last in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            for condition in &last.status.conditions {
                let by = ByCondition { condition: condition.type_.clone(), status: condition.status.clone() };
                *counts.entry(by).or_default() += 1;
            }
        }
        counts
    }
}

/// What was found and done in one reconcile.
#[derive(Clone, Copy)]
pub struct Finding<'a> {
    /// The link.
    pub known: &'a Known,
    /// What applying did, if it went through.
    pub applied: Option<&'a Applied>,
    /// Why a leaf was issued.
    pub fresh: Option<IssueReason>,
}

/// The status as it is now.
pub fn compute(
    world: &World,
    known: &Known,
    verdict: &Verdict,
    observed: Observed<'_>,
    now: Timestamp,
) -> SecureLinkStatus {
    let previous = world.written.latest(known);
    let mut status = securelink_plan::status(verdict, observed, &previous, now);
    conditions::clear(&mut status.conditions, ConditionType::InternalError);
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

/// Says in the status that a reconcile failed by a fault that is not the spec's. As far as it can be written.
pub async fn fault(world: &World, link: &LinkRef, error: &ReconcileError) {
    let Some(declared) = world.sources.caches.declared.link(link) else { return };
    let shown: SecureLinkStatus = serde_json::from_value(declared.object.data["status"].clone()).unwrap_or_default();
    let last = world.written.0.lock().unwrap_or_else(PoisonError::into_inner).get(link).cloned();
    let version = number(declared.object.metadata.resource_version.as_deref());
    let previous = last.filter(|last| last.version > version).map_or(shown, |last| last.status);
    let mut status = previous.clone();
    let condition = NewCondition {
        kind: ConditionType::InternalError,
        status: Some(true),
        reason: ConditionType::InternalError.as_str(),
        message: error.to_string(),
        generation: declared.object.metadata.generation,
    };
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
        return Ok(());
    }
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
    let version = number(now.metadata.resource_version.as_deref());
    world.written.keep(link, Last { uid: object.metadata.uid.clone(), version, status: status.clone() });
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
    {
        let mut written = world.written.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.entry(link.clone()).or_insert_with(|| Last { uid: None, version: 0, status: status.clone() });
    }
}

/// Shows how many links have each condition; at every scrape.
pub fn count(world: &World) {
    world.metrics.links.clear();
    for (by, count) in world.written.count() {
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
        for drift in self.applied.iter().flat_map(|applied| &applied.drifted) {
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

fn number(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
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
