//! The judgment on one object: schema, defaults, CEL rules, types, in an API server's order.

use std::sync::{LazyLock, OnceLock};

use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, ErrorKind, ValidationError, Validator, apply_defaults, compile_schema};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::problem::{ObjectId, Problem, shown};
use super::structure::{Findings, drop_nulls};
use super::texts::Texts;
use super::{MAX_PROBLEMS, Object, spelling};
use crate::{LinkCut, LinkIdentity, LinkPolicy, SecureLink, definitions};

/// The four kinds, in the order of [`definitions`].
pub(super) const KINDS: [&str; 4] = ["SecureLink", "LinkIdentity", "LinkPolicy", "LinkCut"];

/// Fields of `ObjectMeta` that may stand in a file.
const METADATA: [&str; 16] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
    "clusterName",
];

struct Judge {
    schema: Value,
    /// What texts have to look like, and the rules beside that: enough where all of them hold.
    texts: Texts,
    others: CompiledSchema,
    /// All rules; made for the first object that breaks one.
    rules: OnceLock<CompiledSchema>,
}

static JUDGES: LazyLock<Vec<Judge>> = LazyLock::new(|| {
    let schema = |definition| {
        let value = serde_json::to_value(definition).unwrap_or_default();
        let mut schema = value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        // An API server adds these itself; metadata is judged below.
        schema["properties"]["apiVersion"] = json!({"type": "string", "maxLength": 64});
        schema["properties"]["kind"] = json!({"type": "string", "maxLength": 64});
        schema["properties"]["metadata"] = json!({"type": "object"});
        schema
    };
    definitions().iter().map(schema).map(Judge::new).collect()
});

/// Judges an object of one of the four kinds as an API server would: schema with unknown fields refused, defaults, CEL
/// rules, and against `old`, the object it replaces, the rules on what cannot be changed. `status` is not looked at.
pub fn judge(value: &Value, old: Option<&Value>) -> Result<Object, Vec<Problem>> {
    let kind = value["kind"].as_str().unwrap_or_default();
    let Some(judge) = KINDS.iter().position(|known| *known == kind).and_then(|at| JUDGES.get(at)) else {
        let message = format!("{} is not one of our kinds", shown(kind));
        return Err(vec![Problem::new("kind", message, spelling::remedy(kind, KINDS.into_iter()))]);
    };
    let value = judge.prepare(value);
    let mut findings = Findings::default();
    check_metadata(&mut findings, &value["metadata"]);
    findings.check(&judge.schema, &value, "");
    // A walk that was broken off may have missed what is oversize.
    if !findings.oversize && findings.problems.len() < MAX_PROBLEMS {
        let old = old.map(|old| judge.prepare(old));
        let sound = findings.problems.is_empty();
        findings.problems.extend(judge.broken_rules(&value, old.as_ref(), sound));
    }
    findings.problems.truncate(MAX_PROBLEMS);
    if findings.problems.is_empty() { decode(kind, value) } else { Err(findings.problems) }
}

impl Judge {
    fn new(schema: Value) -> Self {
        let mut rest = schema.clone();
        let texts = Texts::take_out(&mut rest);
        Self { schema, texts, others: compile_schema(&rest), rules: OnceLock::new() }
    }

    /// Without nulls and status, with defaults and a namespace.
    fn prepare(&self, value: &Value) -> Value {
        let mut value = value.clone();
        drop_nulls(&mut value);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("status");
        }
        let kind = value["kind"].as_str().unwrap_or_default();
        let namespace = ObjectId::of(kind, &value["metadata"]).and_then(|id| id.namespace);
        if let (Some(namespace), Some(metadata)) = (namespace, value["metadata"].as_object_mut()) {
            metadata.entry("namespace").or_insert(Value::String(namespace));
        }
        apply_defaults(&self.schema, &value)
    }

    /// The CEL rules that do not hold. In an object that is not `sound` only what is said of single values counts: a rule over
    /// several fields would stumble over those that are missing.
    fn broken_rules(&self, value: &Value, old: Option<&Value>, sound: bool) -> Vec<Problem> {
        if self.texts.hold(value) && Validator::new().validate_compiled(&self.others, value, old).is_ok() {
            return Vec::new();
        }
        let rules = self.rules.get_or_init(|| compile_schema(&self.schema));
        let Err(errors) = Validator::new().validate_compiled(rules, value, old) else { return Vec::new() };
        let errors = errors.into_vec().into_iter().map(|error| (at(value, &error.field_path), error));
        errors
            .filter(|(found, error)| {
                sound || (error.kind == ErrorKind::ValidationFailure && found.is_some_and(|found| !found.is_object()))
            })
            .map(|(found, error)| explain(found, &error))
            .collect()
    }
}

fn explain(found: Option<&Value>, error: &ValidationError) -> Problem {
    // Keys of maps are in the path: they are a person's text.
    let field = error.field_path.trim_start_matches('.').escape_debug().to_string();
    if error.kind != ErrorKind::ValidationFailure {
        return Problem::new(
            field,
            format!("could not be judged: {}", error.message.escape_debug()),
            "mend the other fields first",
        );
    }
    let problem = Problem::of(&error.message);
    // Messages that begin with a verb speak of the value they stand at.
    let verb = ["is ", "holds ", "cannot "].iter().any(|verb| problem.message.starts_with(verb));
    let message = match found {
        Some(Value::String(text)) if verb => format!("{} {}", shown(text), problem.message),
        Some(Value::Number(number)) if verb => format!("{number} {}", problem.message),
        _ => problem.message,
    };
    Problem { field, message, remedy: problem.remedy, ..Problem::default() }
}

/// The value at a path such as `spec.exports[0].name`.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).try_fold(value, |value, part| {
        match part.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => value.get(index),
            None => value.get(part),
        }
    })
}

/// Most bytes of all annotations together, as an API server allows (256 KiB).
const MAX_ANNOTATIONS: usize = 256 << 10;

fn check_metadata(findings: &mut Findings, metadata: &Value) {
    let Some(fields) = metadata.as_object() else { return };
    for name in fields.keys().filter(|name| !METADATA.contains(&name.as_str())).take(MAX_PROBLEMS) {
        let remedy = spelling::remedy(name, METADATA.into_iter());
        let field = format!("metadata.{}", name.escape_default());
        findings.problems.push(Problem::new(field, "is not a field of the API", remedy));
    }
    for (field, max, dots) in [("name", 253, true), ("namespace", 63, false)] {
        let Some(text) = fields.get(field).and_then(Value::as_str) else { continue };
        if !is_dns_name(text, max, dots) {
            let message = format!("{} is not a name Kubernetes takes", shown(text));
            let remedy = format!("use at most {max} characters a-z, 0-9 and `-`");
            findings.problems.push(Problem::new(format!("metadata.{field}"), message, remedy));
        }
    }
    let annotations = fields.get("annotations").and_then(Value::as_object);
    let size = annotations.into_iter().flatten().map(|(key, text)| key.len() + text.as_str().map_or(0, str::len));
    if size.sum::<usize>() > MAX_ANNOTATIONS {
        let message = "annotations have more than 262144 bytes together";
        findings.problems.push(Problem::new("metadata.annotations", message, "remove the largest"));
    }
}

fn is_dns_name(text: &str, max: usize, dots: bool) -> bool {
    let label = |label: &str| {
        label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= max && (dots || !text.contains('.')) && text.split('.').all(label)
}

fn decode(kind: &str, value: Value) -> Result<Object, Vec<Problem>> {
    match kind {
        "SecureLink" => typed::<SecureLink>(value).map(Object::SecureLink),
        "LinkIdentity" => typed::<LinkIdentity>(value).map(Object::LinkIdentity),
        "LinkPolicy" => typed::<LinkPolicy>(value).map(Object::LinkPolicy),
        _ => typed::<LinkCut>(value).map(Object::LinkCut),
    }
}

/// What the schema lets pass decodes, but for metadata, whose schema is the API server's own.
fn typed<K: DeserializeOwned + CustomResourceExt>(value: Value) -> Result<Box<K>, Vec<Problem>> {
    serde_path_to_error::deserialize(value).map(Box::new).map_err(|error| {
        let message = error.inner().to_string();
        vec![Problem::new(
            error.path().to_string(),
            message,
            format!("see `kubectl explain {}`", K::api_resource().plural),
        )]
    })
}
