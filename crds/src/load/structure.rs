//! Judges a value by a structural schema, as an API server with strict field validation does.
//!
//! Only the keywords our own schemas use are known here; a test says so. CEL is judged elsewhere.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::problem::{Problem, shown};
use super::{MAX_PROBLEMS, spelling};

/// What a walk over a value found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Some list, map or text is beyond its bound: CEL rules, whose cost the bounds hold, must not run.
    pub(super) oversize: bool,
}

/// Drops every null that means absence, as an API server does for what is not nullable.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl Findings {
    /// Judges `value`, which stands at `path`, by `schema`.
    pub(super) fn check(&mut self, schema: &Value, value: &Value, path: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return match value {
                Value::String(text) => self.check_text(schema, text, path),
                Value::Number(number) if number.is_i64() => {}
                _ => self.wrong_type("a whole number or text", value, path),
            };
        }
        match (schema["type"].as_str(), value) {
            (Some("object"), Value::Object(fields)) => self.check_object(schema, fields, path),
            (Some("array"), Value::Array(items)) => self.check_list(schema, items, path),
            (Some("string"), Value::String(text)) => self.check_text(schema, text, path),
            (Some("integer"), Value::Number(number)) if number.as_i64().is_some() => {
                self.check_number(schema, number.as_i64().unwrap_or_default(), path);
            }
            (Some("boolean"), Value::Bool(_)) | (None, _) => {}
            (Some("integer"), Value::Number(number)) if number.is_u64() => {
                self.check_number(schema, i64::MAX, path);
            }
            (Some(expected), _) => self.wrong_type(noun(expected), value, path),
        }
    }

    fn check_object(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            self.check_bounds(schema, "Properties", fields.len(), path);
            for (name, value) in fields {
                self.check(values, value, &format!("{path}[{}]", shown(name)));
            }
            return;
        }
        let Some(known) = schema["properties"].as_object() else { return };
        for (name, value) in fields {
            match known.get(name) {
                Some(schema) => self.check(schema, value, &join(path, name)),
                None => self.unknown(name, known, path),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.missing(name, &known[name], path);
            }
        }
    }

    fn unknown(&mut self, name: &str, known: &Map<String, Value>, path: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            let remedy = spelling::remedy(name, known.keys().map(String::as_str));
            let plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric());
            let name = if plain { name.to_owned() } else { shown(name) };
            self.push(&join(path, &name), "is not a field of the API".to_owned(), remedy);
        }
    }

    fn missing(&mut self, name: &str, schema: &Value, path: &str) {
        let about = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        let about = about.split_inclusive(". ").next().unwrap_or_default().trim_end();
        let example = schema["example"].as_str().or(schema["items"]["example"].as_str());
        let example = example.map(|example| format!(", such as {example}")).unwrap_or_default();
        self.push(&join(path, name), format!("is required: {about}"), format!("set it{example}"));
    }

    fn check_list(&mut self, schema: &Value, items: &[Value], path: &str) {
        self.check_bounds(schema, "Items", items.len(), path);
        let keys: Vec<&str> =
            schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let unique = !keys.is_empty() || schema["x-kubernetes-list-type"] == "set";
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            if self.problems.len() >= MAX_PROBLEMS {
                return;
            }
            let at = format!("{path}[{index}]");
            self.check(&schema["items"], item, &at);
            if !unique {
                continue;
            }
            let identity: Vec<String> = match keys.as_slice() {
                [] => vec![item.to_string()],
                keys => keys.iter().filter_map(|key| item.get(key)).map(Value::to_string).collect(),
            };
            let text = identity.join(", ");
            if identity.len() == keys.len().max(1) && !seen.insert(identity) {
                let at = keys.first().map_or_else(|| at.clone(), |key| join(&at, key));
                let message = format!("{} is there twice", shown(text.trim_matches('"')));
                self.push(&at, message, "remove or rename one of the two".to_owned());
            }
        }
    }

    fn check_text(&mut self, schema: &Value, text: &str, path: &str) {
        self.check_bounds(schema, "Length", text.chars().count(), path);
        if let Some(known) = schema["enum"].as_array() {
            let known: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
            if !known.contains(&text) {
                let message = format!("{} is not one of {}", shown(text), known.join(", "));
                let remedy = spelling::remedy(text, known.into_iter());
                self.push(path, message, remedy);
            }
        }
        if schema["format"] == "date-time" && !is_instant(text) {
            let message = format!("{} is not a time", shown(text));
            self.push(path, message, "write it as RFC 3339, such as 2026-01-01T00:00:00Z".to_owned());
        }
    }

    fn check_number(&mut self, schema: &Value, number: i64, path: &str) {
        // Bounds are written as floating-point numbers by k8s-openapi; ours are small whole numbers.
        let bound = |name: &str| schema[name].as_f64().map(|bound| format!("{bound:.0}"));
        let (min, max) = (bound("minimum"), bound("maximum"));
        let below = min.as_ref().and_then(|min| min.parse::<i64>().ok()).is_some_and(|min| number < min);
        let above = max.as_ref().and_then(|max| max.parse::<i64>().ok()).is_some_and(|max| number > max);
        if below || above {
            let range = match (min, max) {
                (Some(min), Some(max)) => format!("write a number from {min} to {max}"),
                (Some(min), None) => format!("write {min} or more"),
                (_, max) => format!("write {} or less", max.unwrap_or_default()),
            };
            self.push(path, format!("{number} is out of bounds"), range);
        }
    }

    /// `minItems` and `maxItems`, `minLength` and `maxLength`, `maxProperties`.
    fn check_bounds(&mut self, schema: &Value, of: &str, found: usize, path: &str) {
        let bound = |side: &str| schema[format!("{side}{of}")].as_u64().and_then(|bound| usize::try_from(bound).ok());
        let unit = if of == "Length" { "characters" } else { "entries" };
        if let Some(max) = bound("max").filter(|max| found > *max) {
            self.oversize = true;
            self.push(path, format!("has {found} {unit}, at most {max} are allowed"), "shorten it".to_owned());
        }
        if let Some(min) = bound("min").filter(|min| found < *min) {
            let message = if found == 0 { "is empty".to_owned() } else { format!("has only {found} {unit}") };
            self.push(path, message, format!("write at least {min} {unit}"));
        }
    }

    fn wrong_type(&mut self, expected: &str, value: &Value, path: &str) {
        let found = match value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a group of fields",
        };
        let remedy = match (expected, value) {
            ("text", Value::Bool(_) | Value::Number(_)) => "put the value in quotes".to_owned(),
            ("a whole number", Value::String(_)) => "write the number without quotes or unit".to_owned(),
            ("a list", _) => "begin each entry with `- `".to_owned(),
            _ => format!("write {expected}"),
        };
        self.push(path, format!("is {found} where {expected} is meant"), remedy);
    }

    fn push(&mut self, path: &str, message: String, remedy: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem::new(path, message, remedy));
        }
    }
}

/// Capitals, an offset and whole seconds: what both an API server and jiff take.
fn is_instant(text: &str) -> bool {
    text.as_bytes().get(10) == Some(&b'T')
        && (text.ends_with('Z') || text.as_bytes().iter().rev().nth(2) == Some(&b':'))
        && text.parse::<Timestamp>().is_ok()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn noun(kind: &str) -> &'static str {
    match kind {
        "object" => "a group of fields",
        "array" => "a list",
        "integer" => "a whole number",
        "boolean" => "true or false",
        _ => "text",
    }
}
