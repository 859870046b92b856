//! Who may do what, and that nobody can make more of it. The golden list is the table of docs/helm.md.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{FULL, NAMESPACE, Tools, documents, read};

fn words(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn roles(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role")
}

fn rules(role: &Value) -> &[Value] {
    role["rules"].as_array().unwrap()
}

/// A role as the table names it.
fn name(role: &Value) -> String {
    let name = role["metadata"]["name"].as_str().unwrap();
    if role["kind"] == "Role" { format!("Role {name}") } else { name.to_owned() }
}

pub fn the_rights_are_those_of_the_documented_table(tools: &Tools) {
    let objects = tools.objects(&FULL);
    let granted = roles(&objects).flat_map(|role| {
        rules(role).iter().map(|rule| {
            let named = rule["resourceNames"].as_array().map(|_| format!(" ({})", words(&rule["resourceNames"])));
            let resources = words(&rule["resources"]) + &named.unwrap_or_default();
            [name(role), words(&rule["apiGroups"]), resources, words(&rule["verbs"])].join(" | ")
        })
    });
    let granted: BTreeSet<String> = granted.collect();
    let text = read("docs/helm.md");
    let table = text.split_once("| Role | API group |").unwrap().1.split("\n\n").next().unwrap();
    let rows = table.lines().skip(2).map(|row| {
        let cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        assert!(cells.len() == 5 && cells[4].len() > 3, "a row has no reason: {row}");
        cells[..4].join(" | ")
    });
    let documented: BTreeSet<String> = rows.collect();
    assert_eq!(granted, documented);
}

pub fn every_right_has_its_reason_beside_it(tools: &Tools) {
    let text = tools.text("helm4", "securelink", &[]);
    let lines: Vec<&str> = text.lines().collect();
    let mut seen = 0;
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("- apiGroups:")) {
        let before = lines[number - 1].trim_start();
        assert!(before.starts_with("# "), "line {number} of the rendered chart: {line} has no reason above it");
        seen += 1;
    }
    assert_eq!(seen, roles(&tools.objects(&[])).map(|role| rules(role).len()).sum::<usize>());
}

pub fn nobody_is_granted_what_would_grant_more(tools: &Tools) {
    let objects = tools.objects(&FULL);
    for (role, rule) in roles(&objects).flat_map(|role| rules(role).iter().map(move |rule| (name(role), rule))) {
        for list in ["apiGroups", "resources", "verbs"] {
            assert!(!words(&rule[list]).contains('*'), "{role}: a wildcard in {rule}");
        }
        let verbs = words(&rule["verbs"]);
        assert!(
            ["escalate", "bind", "impersonate", "deletecollection"].iter().all(|verb| !verbs.contains(verb)),
            "{role}"
        );
        let resources = words(&rule["resources"]);
        for more in ["pods/", "nodes", "token", "rolebindings", "clusterroles", "webhook", "customresourcedefinitions"]
        {
            assert!(!resources.contains(more), "{role}: {resources}");
        }
        assert!(rule["nonResourceURLs"].is_null(), "{role}");
    }
}

pub fn the_operator_reads_no_secret_of_the_whole_cluster(tools: &Tools) {
    let objects = tools.objects(&FULL);
    let everywhere: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "ClusterRoleBinding").collect();
    assert_eq!(everywhere.len(), 1);
    assert_eq!(everywhere[0]["roleRef"]["name"], "securelink-operator");
    // Also what others make part of a role of theirs.
    let wide = |role: &&Value| {
        let labels = role["metadata"]["labels"].as_object().unwrap();
        let aggregated = labels.keys().any(|label| label.starts_with("rbac.authorization.k8s.io/aggregate-to"));
        role["kind"] == "ClusterRole" && (aggregated || role["metadata"]["name"] == "securelink-operator")
    };
    assert_eq!(roles(&objects).filter(wide).count(), 2);
    for rule in roles(&objects).filter(wide).flat_map(rules) {
        for own in ["secrets", "configmaps", "services", "pods", "deployments", "leases"] {
            assert!(!words(&rule["resources"]).contains(own), "{rule}");
        }
    }
}

pub fn rights_follow_the_namespaces_of_the_values(tools: &Tools) {
    let bound = |more: &[&str]| {
        let objects = tools.objects(more);
        let bindings = objects.iter().filter(|object| object["kind"] == "RoleBinding");
        let bindings = bindings.map(|binding| {
            let subject = serde_json::json!([
                {"kind": "ServiceAccount", "name": "securelink-operator", "namespace": NAMESPACE}
            ]);
            assert_eq!(binding["subjects"], subject);
            format!(
                "{} in {}",
                words(&Value::from(vec![binding["roleRef"]["name"].clone()])),
                binding["metadata"]["namespace"]
            )
        });
        bindings.collect::<BTreeSet<_>>()
    };
    let own = format!("securelink-operator in \"{NAMESPACE}\"");
    assert_eq!(bound(&[]), BTreeSet::from([own.clone()]));
    let more = ["--set", "linkNamespaces={liaison,desk}", "--set", "exportNamespaces={records}"];
    let wanted = ["securelink-link in \"liaison\"", "securelink-link in \"desk\"", "securelink-export in \"records\""];
    assert_eq!(bound(&more), wanted.map(str::to_owned).into_iter().chain([own]).collect());
}

pub fn cert_manager_can_be_asked_only_where_an_issuer_is_listed(tools: &Tools) {
    let asks = |more: &[&str]| {
        let objects = tools.objects(more);
        let rules: Vec<&Value> = roles(&objects).flat_map(rules).collect();
        rules.iter().filter(|rule| words(&rule["apiGroups"]).contains("cert-manager")).count()
    };
    assert_eq!((asks(&[]), asks(&FULL)), (0, 1));
}

pub fn who_edits_workloads_cuts_nobody(tools: &Tools) {
    let people = documents(&tools.text("helm4", "securelink", &["--show-only", "templates/rbac/people.yaml"]));
    for role in roles(&people) {
        let labels = role["metadata"]["labels"].as_object().unwrap();
        let into: Vec<&String> = labels.keys().filter(|label| label.contains("aggregate-to")).collect();
        let wanted: &[&str] =
            if name(role) == "securelink-view" { &["rbac.authorization.k8s.io/aggregate-to-view"] } else { &[] };
        assert_eq!(into, wanted, "{}", name(role));
    }
    assert_eq!(people.len(), 4);
}
