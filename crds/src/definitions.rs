//! The four `CustomResourceDefinition`s as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{LinkCut, LinkIdentity, LinkPolicy, SecureLink};

/// The four definitions, in the order SecureLink, LinkIdentity, LinkPolicy, LinkCut.
///
/// They differ from the derived ones in two ways. Nothing is `nullable`, so that a null is dropped and a CEL `has()` means a
/// value. Formats that an API server does not know (`uint16` and the like) are left out: bounds say the same.
pub fn definitions() -> [CustomResourceDefinition; 4] {
    [SecureLink::crd(), LinkIdentity::crd(), LinkPolicy::crd(), LinkCut::crd()].map(|mut definition| {
        for version in &mut definition.spec.versions {
            let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
                continue;
            };
            // Both directions hold: the value is the schema's own serialization.
            let Ok(mut value) = serde_json::to_value(&*schema) else { continue };
            tidy(&mut value);
            if let Ok(tidied) = serde_json::from_value(value) {
                *schema = tidied;
            }
        }
        definition
    })
}

fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
