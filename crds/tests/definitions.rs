//! The definitions as an API server gets them: committed, bounded, described.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use securelink_crds::definitions;
use serde_json::Value;

const REGENERATE: &str = "UPDATE_MANIFESTS=1 cargo test -p securelink-crds --test definitions";

fn schema(definition: &impl serde::Serialize) -> Value {
    serde_json::to_value(definition).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

#[test]
fn the_committed_manifests_are_the_ones_the_types_generate() {
    for definition in definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("manifests")
            .join(format!("{}.yaml", definition.spec.names.plural));
        let yaml = format!("# Generated from the types. To change it: {REGENERATE}\n{}", yaml(&definition));
        if std::env::var_os("UPDATE_MANIFESTS").is_some() {
            std::fs::write(&path, &yaml).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == yaml, "{name} has drifted from {}; run: {REGENERATE}", path.display());
    }
}

fn yaml(definition: &impl serde::Serialize) -> String {
    serde_saphyr::to_string(&serde_json::to_value(definition).unwrap()).unwrap()
}

/// Calls `visit` with the path of every schema below `node`.
fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(node, path);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(child, &format!("{path}.{name}"), visit);
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{path}[]"), visit);
    }
    if node["additionalProperties"].is_object() {
        walk(&node["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

#[test]
fn every_text_list_map_and_number_is_bounded() {
    for definition in definitions() {
        let kind = definition.spec.names.kind.clone();
        walk(&schema(&definition), &kind, &mut |node, path| {
            let bounded = match node["type"].as_str() {
                Some("string") => node["maxLength"].is_number() || node["enum"].is_array(),
                Some("array") => node["maxItems"].is_number(),
                Some("object") if node["additionalProperties"].is_object() => node["maxProperties"].is_number(),
                Some("integer") => {
                    node["maximum"].is_number() || path.ends_with("eneration") || path.ends_with("tolerationSeconds")
                }
                _ => true,
            };
            assert!(bounded, "{path} has no upper bound");
        });
    }
}

#[test]
fn every_field_is_described() {
    for definition in definitions() {
        let kind = definition.spec.names.kind.clone();
        walk(&schema(&definition), &kind, &mut |node, path| {
            let described = node["description"].as_str().is_some_and(|text| text.len() > 10 && text.ends_with('.'));
            let inner = path.ends_with("[]") || path.ends_with("{}") || path == format!("{kind}.metadata");
            assert!(described || inner, "{path} has no description, or one that is no sentence");
        });
    }
}

#[test]
fn every_rule_says_what_is_wrong_and_what_to_do() {
    for definition in definitions() {
        let kind = definition.spec.names.kind.clone();
        walk(&schema(&definition), &kind, &mut |node, path| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(message.contains("; ") && !message.contains('\n'), "{path}: {message:?} has no remedy");
            }
        });
    }
}

#[test]
fn nothing_is_nullable_and_every_format_is_one_an_api_server_knows() {
    for definition in definitions() {
        walk(&schema(&definition), "", &mut |node, path| {
            assert!(node.get("nullable").is_none(), "{path}");
            let format = node["format"].as_str().unwrap_or("int32");
            assert!(["int32", "int64", "date-time"].contains(&format), "{path}: {format}");
            assert!(node.get("oneOf").is_none() && node.get("anyOf").is_none(), "{path} is not structural");
        });
    }
}

#[test]
fn every_rule_compiles_and_fits_the_cost_an_api_server_grants() {
    for definition in definitions() {
        walk(&schema(&definition), &definition.spec.names.kind, &mut |node, path| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let rule = rule["rule"].as_str().unwrap();
                kube::core::cel::cel::Program::compile(rule).unwrap_or_else(|error| panic!("{path}: {rule}: {error}"));
            }
        });
    }
}

#[test]
fn no_rule_reads_a_field_by_a_word_that_cel_reserves() {
    // Kubernetes writes such a field `__namespace__`; by the bare word a rule here would read nothing.
    let reserved =
        ["as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let"];
    let reserved =
        reserved.into_iter().chain(["loop", "namespace", "null", "package", "return", "true", "var", "void"]);
    let reserved: Vec<String> = reserved.chain(["while"]).map(|word| format!(".{word}")).collect();
    for definition in definitions() {
        walk(&schema(&definition), &definition.spec.names.kind, &mut |node, path| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let rule = rule["rule"].as_str().unwrap();
                let mut words = rule.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
                assert!(!words.any(|word| reserved.iter().any(|bad| word.ends_with(bad))), "{path}: {rule}");
            }
        });
    }
}
