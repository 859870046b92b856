//! What an edit takes away, read from a value that may be invalid, so that it takes effect beside a mistake elsewhere.
//!
//! Nothing here can widen: a [`Narrowing`] only names what is removed or ends earlier, two of them combine to the narrower,
//! and what is removed stays removed until a whole valid edit replaces it.
//!
//! | in the edit | narrows | narrows nothing |
//! |---|---|---|
//! | `state` | `Suspended` | anything else |
//! | `agreement.expires`, `agreement.next.expires` | a time earlier than the accepted one | no time, a later one |
//! | `peer.fingerprints` | each pin that is not listed any more | a problem anywhere in the list, another `trustDomain` |
//! | `exports[]`, `imports[]` | each name not listed any more | an entry without a sound name; no list at all beside an unknown field, which may be the list misspelled |
//! | `exports[].target`, `imports[].port` | another value: the old one is removed, the new one waits | a problem in it |
//! | `imports[].clients` | each client not listed any more; an import without any is removed | a problem anywhere in the list |

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use securelink_crds::{Export, Import, LinkState, SecureLinkSpec};
use securelink_id::Fingerprint;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of a `SecureLink`'s spec: another one may be one of these, misspelled.
const FIELDS: [&str; 10] =
    ["identityRef", "peer", "agreement", "state", "exports", "imports", "expose", "crypto", "maxStaleness", "relay"];

/// What is taken away from a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Narrowing {
    /// The link is suspended.
    pub suspended: bool,
    /// By digest: agreements that end earlier.
    pub ends: BTreeMap<String, Timestamp>,
    /// Pins that are no longer trusted.
    pub pins: BTreeSet<String>,
    /// Exports that are gone.
    pub exports: BTreeSet<String>,
    /// Imports that are gone.
    pub imports: BTreeSet<String>,
    /// By import: clients that are gone, each as JSON.
    pub clients: BTreeMap<String, BTreeSet<String>>,
}

/// An edit as it was written, and where it is wrong.
pub(crate) struct Edit<'a> {
    spec: &'a Value,
    faults: BTreeSet<&'a str>,
}

impl Narrowing {
    /// What `edit` takes away from `base`.
    pub(crate) fn of(edit: &Edit<'_>, base: &SecureLinkSpec) -> Self {
        let mut narrowing = Self { suspended: edit.spec["state"] == "Suspended", ..Self::default() };
        narrowing.end_earlier(edit, base);
        narrowing.drop_pins(edit, base);
        if let Some(exports) = edit.named("exports") {
            let kept =
                |old: &Export| exports.get(old.name.as_str()).is_some_and(|entry| !entry.moved("target", &old.target));
            narrowing.exports = base.exports.iter().filter(|old| !kept(old)).map(|old| old.name.clone()).collect();
        }
        if let Some(imports) = edit.named("imports") {
            let kept =
                |old: &Import| imports.get(old.name.as_str()).is_some_and(|entry| !entry.moved("port", &old.port));
            narrowing.imports = base.imports.iter().filter(|old| !kept(old)).map(|old| old.name.clone()).collect();
            for old in &base.imports {
                let Some(clients) = imports.get(old.name.as_str()).and_then(|entry| entry.list("clients")) else {
                    continue;
                };
                let listed: BTreeSet<String> = clients.iter().map(canonical).collect();
                let gone: BTreeSet<String> = old.clients.iter().map(json).filter(|old| !listed.contains(old)).collect();
                if !gone.is_empty() {
                    narrowing.clients.insert(old.name.clone(), gone);
                }
            }
        }
        narrowing
    }

    /// Adds what `other` takes away.
    pub fn join(&mut self, other: Self) {
        self.suspended |= other.suspended;
        for (digest, end) in other.ends {
            self.ends.entry(digest).and_modify(|known| *known = end.min(*known)).or_insert(end);
        }
        self.pins.extend(other.pins);
        self.exports.extend(other.exports);
        self.imports.extend(other.imports);
        for (import, clients) in other.clients {
            self.clients.entry(import).or_default().extend(clients);
        }
    }

    /// `spec` without what is taken away. Not necessarily a spec that could be applied: it may trust no pin at all.
    pub fn apply(&self, spec: &SecureLinkSpec) -> SecureLinkSpec {
        let mut spec = spec.clone();
        if self.suspended {
            spec.state = LinkState::Suspended;
        }
        if let Some(agreement) = &mut spec.agreement {
            let earlier = |digest: &str, end: &mut Timestamp| {
                *end = self.ends.get(digest).map_or(*end, |known| *known.min(end));
            };
            earlier(&agreement.digest, &mut agreement.expires.0);
            if let Some(next) = &mut agreement.next {
                earlier(&next.digest, &mut next.expires.0);
            }
        }
        spec.peer.fingerprints.retain(|pin| !self.pins.contains(pin));
        spec.exports.retain(|export| !self.exports.contains(&export.name));
        for import in &mut spec.imports {
            if let Some(gone) = self.clients.get(&import.name) {
                import.clients.retain(|client| !gone.contains(&json(client)));
            }
        }
        spec.imports.retain(|import| !self.imports.contains(&import.name) && !import.clients.is_empty());
        spec
    }

    fn end_earlier(&mut self, edit: &Edit<'_>, base: &SecureLinkSpec) {
        let Some(agreement) = &base.agreement else { return };
        let current = (agreement.digest.as_str(), agreement.expires.0);
        let next = agreement.next.as_ref().map(|next| (next.digest.as_str(), next.expires.0));
        let written = &edit.spec["agreement"];
        for (written, in_place) in [(written, Some(current)), (&written["next"], next)] {
            let Some(end) = written["expires"].as_str().and_then(|text| text.parse::<Timestamp>().ok()) else {
                continue;
            };
            // Meant is the agreement of that digest, or the one in the same place where the digest says nothing.
            let named = [Some(current), next].into_iter().flatten().find(|(digest, _)| written["digest"] == *digest);
            if let Some((digest, accepted)) = named.or(in_place).filter(|(_, accepted)| end < *accepted) {
                let known = self.ends.entry(digest.to_owned()).or_insert(accepted);
                *known = end.min(*known);
            }
        }
    }

    fn drop_pins(&mut self, edit: &Edit<'_>, base: &SecureLinkSpec) {
        let peer = &edit.spec["peer"];
        // The pins of another organization say nothing about this one's.
        if peer["trustDomain"] != base.peer.trust_domain.as_str() || !edit.is_sound("spec.peer.fingerprints") {
            return;
        }
        let readable = |listed: &Vec<String>| listed.iter().all(|pin| pin.parse::<Fingerprint>().is_ok());
        if let Some(listed) = read::<Vec<String>>(&peer["fingerprints"]).filter(readable) {
            self.pins = base.peer.fingerprints.iter().filter(|pin| !listed.contains(pin)).cloned().collect();
        }
    }
}

/// One entry of a list in an edit.
struct Entry<'a> {
    edit: &'a Edit<'a>,
    value: &'a Value,
    path: String,
}

impl<'a> Edit<'a> {
    /// `object` is the whole object, `faults` the fields that have a problem.
    pub(crate) fn new(object: &'a Value, faults: impl IntoIterator<Item = &'a str>) -> Self {
        Self { spec: &object["spec"], faults: faults.into_iter().collect() }
    }

    /// Whether nothing is wrong at `path` or below it.
    fn is_sound(&self, path: &str) -> bool {
        let below =
            |fault: &&str| fault.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        !self.faults.iter().any(below)
    }

    /// The entries of a list by name, if all the names can be relied on.
    fn named(&'a self, list: &str) -> Option<BTreeMap<&'a str, Entry<'a>>> {
        let path = format!("spec.{list}");
        let fields = self.spec.as_object()?;
        let items = match fields.get(list) {
            Some(Value::Array(items)) if !self.faults.contains(path.as_str()) => items.as_slice(),
            Some(Value::Null) => &[],
            None if fields.keys().all(|field| FIELDS.contains(&field.as_str())) => &[],
            _ => return None,
        };
        let entry = |(index, value): (usize, &'a Value)| {
            let path = format!("{path}[{index}]");
            let name = value["name"].as_str()?;
            self.is_sound(&format!("{path}.name")).then_some((name, Entry { edit: self, value, path }))
        };
        items.iter().enumerate().map(entry).collect()
    }
}

impl Entry<'_> {
    /// Whether a field is sound and says something else than `old`.
    fn moved<T: DeserializeOwned + Serialize + PartialEq>(&self, field: &str, old: &T) -> bool {
        self.is_sound(field) && read::<T>(&self.value[field]).is_some_and(|new| new != *old)
    }

    /// A list, if nothing in it is wrong.
    fn list(&self, field: &str) -> Option<&Vec<Value>> {
        self.value[field].as_array().filter(|_| self.is_sound(field))
    }

    fn is_sound(&self, field: &str) -> bool {
        self.edit.is_sound(&format!("{}.{field}", self.path))
    }
}

/// A value that means what it says: it parses, and no part of it was passed over.
fn read<T: DeserializeOwned + Serialize>(value: &Value) -> Option<T> {
    let read: T = serde_json::from_value(value.clone()).ok()?;
    (json(&read) == canonical(value)).then_some(read)
}

/// The text by which two values are the same. Fields are sorted; nulls, which mean absence, are left out.
fn canonical(value: &Value) -> String {
    fn without_nulls(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = fields.iter().filter(|(_, field)| !field.is_null());
                let sorted: BTreeMap<_, _> = kept.map(|(name, field)| (name.clone(), without_nulls(field))).collect();
                Value::Object(sorted.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
            other => other.clone(),
        }
    }
    without_nulls(value).to_string()
}

fn json(value: &impl Serialize) -> String {
    canonical(&serde_json::to_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use securelink_crds::definitions;

    use super::*;

    #[test]
    fn the_fields_are_the_schemas() {
        let link = serde_json::to_value(&definitions()[0]).unwrap();
        let schema = &link["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let known: BTreeSet<&str> = schema.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(known, FIELDS.into_iter().collect());
    }
}
