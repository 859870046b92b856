//! How an object of ours in the cluster differs from what is applied (faults F26, F27, F29, F81).
//!
//! What is missing or different server-side apply mends; what others added where we own the whole it cannot take away. What the
//! API server fills in, what it assigns, and metadata of others are no difference: else every look would write.

mod owned;
mod quantity;

use serde_json::{Map, Value};

/// What apply leaves alone at the top of an object: what it is, and what others report about it.
const NOT_APPLIED: [&str; 3] = ["apiVersion", "kind", "status"];

/// How a live object differs from the desired one: paths such as `spec.template.spec.containers[relay].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Where the live object lacks, or has otherwise, what is applied.
    pub missing: Vec<String>,
    /// What others added where we own the whole.
    pub surplus: Vec<String>,
}

impl Differences {
    /// Whether there is nothing to mend.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }
}

/// How `live` differs from `desired`, an object of [`Objects`](crate::objects::Objects) as it is applied.
pub fn differences(live: &Value, desired: &Value) -> Differences {
    compare(live.clone(), desired).1
}

/// `live` without what others added where we own the whole: what replaces it, guarded by its `resourceVersion`.
pub fn without_surplus(live: &Value, desired: &Value) -> Value {
    compare(live.clone(), desired).0
}

fn compare(mut live: Value, desired: &Value) -> (Value, Differences) {
    let mut walk = Walk {
        kind: desired["kind"].as_str().unwrap_or_default(),
        fields: Vec::new(),
        shown: String::new(),
        found: Differences::default(),
    };
    let empty = Map::new();
    if !live.is_object() {
        live = Value::Object(empty.clone());
    }
    walk.object(&mut live, desired.as_object().unwrap_or(&empty));
    (live, walk.found)
}

/// A place in two objects at once, and what was found on the way there.
struct Walk<'a> {
    kind: &'a str,
    /// The fields that lead here; entries of lists are not among them.
    fields: Vec<String>,
    /// The same for people, entries of lists included.
    shown: String,
    found: Differences,
}

impl Walk<'_> {
    fn value(&mut self, live: &mut Value, desired: &Value) {
        match desired {
            Value::Object(wanted) if live.is_object() => self.object(live, wanted),
            Value::Array(wanted) if live.is_array() => self.list(live, wanted),
            _ if is_same(&self.fields, live, desired) => {}
            _ => self.found.missing.push(self.shown.clone()),
        }
    }

    fn object(&mut self, live: &mut Value, desired: &Map<String, Value>) {
        let Value::Object(fields) = live else { return };
        for (name, wanted) in desired {
            let passed = wanted.is_null() || self.fields.is_empty() && NOT_APPLIED.contains(&name.as_str());
            match fields.get_mut(name).filter(|found| !found.is_null()) {
                _ if passed => {}
                Some(found) => self.below(name, |walk| walk.value(found, wanted)),
                None if owned::is_stored_as_nothing(name, wanted) => {}
                None => self.below(name, |walk| walk.found.missing.push(walk.shown.clone())),
            }
        }
        fields.retain(|name, found| {
            let named = desired.get(name).is_some_and(|wanted| !wanted.is_null());
            named || is_empty(found) || self.below(name, |walk| walk.is_kept(found))
        });
    }

    /// Whether a field that nothing was desired of may stay; what is ours below it is looked at.
    fn is_kept(&mut self, live: &mut Value) -> bool {
        let owned = owned::is_ours(self.kind, &self.fields);
        match live {
            Value::Array(_) if owned => self.list(live, &[]),
            _ if owned => self.found.surplus.push(self.shown.clone()),
            Value::Object(_) => self.object(live, &Map::new()),
            _ => {}
        }
        !owned || live.is_array()
    }

    fn list(&mut self, live: &mut Value, desired: &[Value]) {
        let Value::Array(items) = live else { return };
        let order = owned::order(self.kind, &self.fields);
        let mut left: Vec<(usize, Value)> = std::mem::take(items).into_iter().enumerate().collect();
        for (at, wanted) in desired.iter().enumerate() {
            // Of a list without keys the next one is meant.
            let same = |(_, item): &(usize, Value)| order.is_same(item, wanted);
            let name = order.name(wanted, at);
            match left.iter().position(same) {
                Some(found) => {
                    let (_, mut found) = left.remove(found);
                    if !order.is_whole() {
                        self.entry(&name, |walk| walk.value(&mut found, wanted));
                    }
                    items.push(found);
                }
                None => self.entry(&name, |walk| walk.found.missing.push(walk.shown.clone())),
            }
        }
        // In metadata others have entries of their own.
        let shared = self.fields.first().is_some_and(|field| field == "metadata");
        for (at, item) in left {
            if shared {
                items.push(item);
            } else {
                self.entry(&order.name(&item, at), |walk| walk.found.surplus.push(walk.shown.clone()));
            }
        }
    }

    fn below<T>(&mut self, field: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.shown.len();
        // A key of data or of labels has dots of its own.
        let (before, after) = if field.contains('.') { ("[", "]") } else { (".", "") };
        self.shown.extend([before, field, after]);
        if length == 0 {
            field.clone_into(&mut self.shown);
        }
        self.fields.push(field.to_owned());
        let seen = look(self);
        self.fields.pop();
        self.shown.truncate(length);
        seen
    }

    fn entry(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let length = self.shown.len();
        self.shown.extend(["[", name, "]"]);
        look(self);
        self.shown.truncate(length);
    }
}

/// Whether two values mean the same: quantities do by what they amount to.
fn is_same(fields: &[String], live: &Value, desired: &Value) -> bool {
    let measured = fields.iter().any(|field| ["limits", "requests", "sizeLimit"].contains(&field.as_str()));
    live == desired || measured && quantity::is_same(live, desired)
}

/// Whether a field says as much as it would by being absent.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
