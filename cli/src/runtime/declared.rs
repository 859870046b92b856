//! What the files declare, over what they declared before: an unreadable document deletes nothing and widens nothing.

use std::collections::{BTreeMap, BTreeSet};

use securelink_crds::load::{Loaded, Object, ObjectId, Problem};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy};
use securelink_relay_config::LinkRef;
use serde_json::{Value, json};

use super::planning::Declared;

/// Everything declared, by kind.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    /// By link, in the order of the files.
    pub(crate) links: Vec<(LinkRef, Declared)>,
    /// By namespace and name; nothing where the object is invalid.
    pub(crate) identities: BTreeMap<LinkRef, Option<LinkIdentity>>,
    /// The guard rails.
    pub(crate) policies: Vec<LinkPolicy>,
    /// The brakes.
    pub(crate) cuts: Vec<LinkCut>,
    /// Brakes that are invalid, as they were written.
    pub(crate) broken_cuts: Vec<(ObjectId, Value)>,
    /// What has to be mended.
    pub(crate) problems: Vec<Problem>,
    /// What was passed over.
    pub(crate) notes: Vec<String>,
    /// Some document could not be read: nothing counts as deleted.
    pub(crate) incomplete: bool,
    /// Some guard rail may be missing, and which one is not known: nothing may be widened.
    pub(crate) unguarded: bool,
}

impl Declarations {
    /// Before the first reading: only the guard rails of the last process are known, if there was one.
    pub(crate) fn before_any(policies: Option<Vec<LinkPolicy>>) -> Self {
        Self { unguarded: policies.is_none(), policies: policies.unwrap_or_default(), ..Self::default() }
    }

    /// Takes in what was read. What an incomplete reading lacks is kept from `before`.
    pub(crate) fn new(loaded: Loaded, before: Option<&Self>) -> Self {
        let mut new =
            Self { problems: loaded.problems, notes: loaded.notes, incomplete: loaded.incomplete, ..Self::default() };
        for object in loaded.objects {
            new.add(object);
        }
        let mut broken_policies = BTreeSet::new();
        for salvaged in loaded.invalid {
            let at = place(&salvaged.id);
            match salvaged.id.kind.as_str() {
                "SecureLink" => {
                    let of = |problem: &&Problem| problem.object.as_ref() == Some(&salvaged.id);
                    let problems = new.problems.iter().filter(of).cloned().collect();
                    new.links.push((at, Declared::Invalid { value: salvaged.value, problems }));
                }
                "LinkIdentity" => drop(new.identities.insert(at, None)),
                "LinkPolicy" => drop(broken_policies.insert(salvaged.id.name)),
                _ => new.broken_cuts.push((salvaged.id, salvaged.value)),
            }
        }
        new.keep_guards(&broken_policies, before);
        if new.incomplete {
            for (at, identity) in before.iter().flat_map(|before| &before.identities) {
                new.identities.entry(at.clone()).or_insert_with(|| identity.clone());
            }
        }
        new
    }

    fn add(&mut self, object: Object) {
        match object {
            Object::SecureLink(link) => {
                let at = LinkRef {
                    namespace: link.metadata.namespace.clone().unwrap_or_default(),
                    name: link.metadata.name.clone().unwrap_or_default(),
                };
                self.links.push((at, Declared::Valid(link)));
            }
            Object::LinkIdentity(identity) => {
                let at = LinkRef {
                    namespace: identity.metadata.namespace.clone().unwrap_or_default(),
                    name: identity.metadata.name.clone().unwrap_or_default(),
                };
                self.identities.insert(at, Some(*identity));
            }
            Object::LinkPolicy(policy) => self.policies.push(*policy),
            Object::LinkCut(cut) => self.cuts.push(*cut),
        }
    }

    /// A guard rail that is invalid now, or may be in a document that cannot be read, holds as it was.
    fn keep_guards(&mut self, broken: &BTreeSet<String>, before: Option<&Self>) {
        let name = |policy: &LinkPolicy| policy.metadata.name.clone().unwrap_or_default();
        let present: BTreeSet<_> = self.policies.iter().map(name).collect();
        let lost = |policy: &&LinkPolicy| {
            let name = name(policy);
            broken.contains(&name) || (self.incomplete && !present.contains(&name))
        };
        let kept: Vec<_> = before.iter().flat_map(|before| &before.policies).filter(lost).cloned().collect();
        let known: BTreeSet<_> = kept.iter().map(name).collect();
        let strange = broken.iter().any(|name| !known.contains(name));
        let was = before.is_none_or(|before| before.unguarded);
        self.unguarded = strange || (self.incomplete && was);
        self.policies.extend(kept);
    }

    /// The object that a reading replaces, for the rules on what cannot be changed.
    pub(crate) fn cut_before(&self, id: &ObjectId) -> Option<Value> {
        let same =
            |cut: &&LinkCut| cut.metadata.name.as_deref() == Some(&*id.name) && cut.metadata.namespace == id.namespace;
        let cut = self.cuts.iter().find(same)?;
        serde_json::to_value(cut).ok()
    }

    /// Whether a `LinkCut` of that name is declared, valid or not.
    pub(crate) fn has_cut(&self, namespace: &str, name: &str) -> bool {
        let valid = self.cuts.iter().any(|cut| {
            cut.metadata.namespace.as_deref() == Some(namespace) && cut.metadata.name.as_deref() == Some(name)
        });
        valid || self.broken_cuts.iter().any(|(id, _)| id.namespace.as_deref() == Some(namespace) && id.name == name)
    }
}

fn place(id: &ObjectId) -> LinkRef {
    LinkRef { namespace: id.namespace.clone().unwrap_or_default(), name: id.name.clone() }
}

/// An object as a file would hold it.
pub(crate) fn as_object(kind: &str, at: &LinkRef, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", securelink_crds::GROUP, securelink_crds::VERSION),
        "kind": kind,
        "metadata": {"namespace": at.namespace, "name": at.name},
        "spec": spec,
    })
}
