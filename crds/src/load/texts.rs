//! Rules that say what one text looks like, judged without CEL: its implementation here compiles their regular expressions
//! anew for each value, which was most of an operator's work (docs/scale.md). Only says whether all of them hold; what does
//! not hold is left to CEL, which has the words for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use regex::Regex;
use serde_json::Value;

/// The rules below one place of a schema.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// What a text here has to look like.
    rules: Vec<Rule>,
    fields: BTreeMap<String, Texts>,
    /// Of each item of a list, and of each value of a map.
    each: Option<Box<Texts>>,
}

#[derive(Debug)]
struct Rule {
    form: Regex,
    /// Of an address something else is asked: CEL has to judge it.
    names_only: bool,
}

/// In front of a form that is not asked of addresses.
const UNLESS_ADDRESS: &str = "isIP(self) ? !ip(self).isLinkLocalUnicast() : ";

impl Texts {
    /// Takes the rules that are understood out of a schema.
    pub(super) fn take_out(schema: &mut Value) -> Self {
        let mut texts = Self::default();
        if schema["type"] == "string"
            && let Some(rules) = schema["x-kubernetes-validations"].as_array_mut()
        {
            rules.retain(|rule| {
                let taken = rule["rule"].as_str().and_then(Rule::read);
                let left = taken.is_none();
                texts.rules.extend(taken);
                left
            });
        }
        for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
            let below = Self::take_out(field);
            if !below.is_empty() {
                texts.fields.insert(name.clone(), below);
            }
        }
        for each in ["items", "additionalProperties"] {
            let below = schema.get_mut(each).filter(|each| each.is_object()).map(Self::take_out);
            texts.each = below.filter(|below| !below.is_empty()).map(Box::new).or(texts.each.take());
        }
        texts
    }

    /// Whether all rules hold for sure.
    pub(super) fn hold(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.rules.iter().all(|rule| rule.holds(text)),
            Value::Array(items) => self.each.as_ref().is_none_or(|each| items.iter().all(|item| each.hold(item))),
            Value::Object(fields) => {
                self.each.as_ref().is_none_or(|each| fields.values().all(|value| each.hold(value)))
                    && self.fields.iter().all(|(name, below)| fields.get(name).is_none_or(|value| below.hold(value)))
            }
            // Of another type than its schema: judged before.
            _ => true,
        }
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.fields.is_empty() && self.each.is_none()
    }
}

impl Rule {
    /// A rule that is one regular expression, as the forms of text write it.
    fn read(rule: &str) -> Option<Self> {
        let (names_only, rule) = match rule.strip_prefix(UNLESS_ADDRESS) {
            Some(rest) => (true, rest),
            None => (false, rule),
        };
        let literal = rule.strip_prefix("self.matches('")?.strip_suffix("')")?;
        // Of CEL's escapes only that of the backslash is known here.
        let plain = literal.replace("\\\\", "");
        if plain.contains(['\'', '\\']) {
            return None;
        }
        Some(Self { form: Regex::new(&literal.replace("\\\\", "\\")).ok()?, names_only })
    }

    fn holds(&self, text: &str) -> bool {
        let other = self.names_only && text.parse::<IpAddr>().is_ok();
        !other && self.form.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(rule: &str) -> (Texts, Value) {
        let mut schema = json!({"type": "object", "properties": {"list": {"type": "array", "items": {
            "type": "string", "x-kubernetes-validations": [{"rule": rule}, {"rule": "self != 'x'"}],
        }}}});
        let texts = Texts::take_out(&mut schema);
        (texts, schema["properties"]["list"]["items"]["x-kubernetes-validations"].clone())
    }

    #[test]
    fn a_rule_that_is_one_regular_expression_is_taken_and_others_are_left() {
        let (found, left) = texts("self.matches('^[a-z]+\\\\.$')");
        assert_eq!(left, json!([{"rule": "self != 'x'"}]));
        assert!(found.hold(&json!({"list": ["a.", "bc."]})) && found.hold(&json!({"other": 1})));
        assert!(!found.hold(&json!({"list": ["a.", "bcd"]})), "the backslash is one of the expression");
        for other in ["self.matches('\\n')", "self.matches('a') || self.matches('b')", "!self.matches('a')"] {
            let (found, left) = texts(other);
            assert!(found.is_empty() && left[0]["rule"] == other, "{other}");
        }
    }

    #[test]
    fn of_an_address_nothing_is_said_for_sure() {
        let (found, _) = texts(&format!("{UNLESS_ADDRESS}self.matches('^[a-z0-9.]+$')"));
        assert!(found.hold(&json!({"list": ["link.europol.example"]})));
        assert!(!found.hold(&json!({"list": ["169.254.169.254"]})) && !found.hold(&json!({"list": ["192.0.2.1"]})));
    }
}
