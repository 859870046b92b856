//! The list of metrics, and that dashboard and alerts ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::helm::{FULL, Tools, read, yaml};

/// What a metric may be asked for: its labels, each with its values where they are few.
type Known = BTreeMap<String, Value>;

fn known() -> Known {
    let list = yaml(&read("charts/securelink/files/metrics.yaml"));
    let mut known = Known::new();
    for (name, metric) in list.as_object().unwrap().values().flat_map(|part| part.as_object().unwrap()) {
        let suffixes: &[&str] = if metric["type"] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for suffix in suffixes {
            known.insert(format!("{name}{suffix}"), metric["labels"].clone());
        }
    }
    known
}

fn dashboard() -> Value {
    serde_json::from_str(&read("charts/securelink/files/dashboard.json")).unwrap()
}

fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().unwrap().clone()
}

/// Every question of the dashboard, with where it stands.
fn questions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for variable in dashboard()["templating"]["list"].as_array().unwrap() {
        let definition = variable["definition"].as_str().and_then(|text| text.strip_prefix("label_values("));
        let asked = definition.and_then(|rest| rest.rsplit_once(", "));
        found.extend(asked.map(|(metric, _)| (variable["name"].to_string(), metric.to_owned())));
    }
    found
}

pub fn alerts() -> Vec<Value> {
    let groups = yaml(&read("charts/securelink/files/alerts.yaml"))["groups"].take();
    let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

/// The metrics in a question: each with what stands between its braces.
fn asked(question: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = question;
    while let Some(begin) = rest.find("securelink_") {
        rest = &rest[begin..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let braces = after.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(inside, _)| inside);
        found.push((name, braces));
        rest = after;
    }
    found
}

/// Asked of its metric alone: `label="value"`, `label!="value"`, `label=~"one|other"`.
fn judge(place: &str, name: &str, matchers: &str, known: &Known) {
    let labels = known.get(name).unwrap_or_else(|| panic!("{place}: {name} is not in the list of metrics"));
    for matcher in matchers.split(", ").filter(|matcher| !matcher.is_empty()) {
        let (label, value) = matcher.split_once('=').unwrap_or_else(|| panic!("{place}: {matcher}"));
        let label = label.trim_end_matches('!');
        let values = labels.get(label).unwrap_or_else(|| panic!("{place}: {name} has no label {label}"));
        let value = value.trim_start_matches('~').trim_matches('"');
        for value in value.split('|').filter(|value| !value.starts_with('$')) {
            let few = values.as_array().is_none_or(|few| few.iter().any(|one| one == value));
            assert!(few, "{place}: {label} of {name} is never {value}");
        }
    }
}

/// The labels by which a question groups; each must be one of a metric in it, or Prometheus' own.
fn grouped(question: &str) -> BTreeSet<&str> {
    let lists = question.split(" by (").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    lists.flat_map(|list| list.split(", ")).filter(|label| *label != "le").collect()
}

pub fn the_list_of_metrics_is_what_relays_document(_: &Tools) {
    let list = yaml(&read("charts/securelink/files/metrics.yaml"));
    let listed = list["relay"].as_object().unwrap().iter().map(|(name, metric)| {
        let labels = metric["labels"].as_object().unwrap().keys();
        let further: BTreeSet<String> =
            labels.filter(|label| !["namespace", "link"].contains(&label.as_str())).cloned().collect();
        (name.clone(), further)
    });
    let page = read("docs/standalone.md");
    let rows = page.lines().filter(|line| line.starts_with("| `securelink_"));
    let documented = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // In parentheses stand values.
        let mut labels = String::new();
        for part in cells[2].split('(') {
            labels.push_str(part.split_once(')').map_or(part, |(_, after)| after));
        }
        let labels = labels.split(',').map(|label| label.trim().replace('`', "")).filter(|label| !label.is_empty());
        (cells[1].replace('`', ""), labels.collect::<BTreeSet<_>>())
    });
    assert_eq!(listed.collect::<BTreeMap<_, _>>(), documented.collect());
}

pub fn dashboard_and_alerts_ask_only_for_what_is_exported(_: &Tools) {
    let known = known();
    let alerts = alerts();
    let alerts = alerts.iter().map(|alert| (alert["alert"].to_string(), alert["expr"].as_str().unwrap().to_owned()));
    let mut used = BTreeSet::new();
    for (place, question) in questions().into_iter().chain(alerts) {
        let found = asked(&question);
        assert!(!found.is_empty(), "{place} asks for nothing of ours");
        for (name, matchers) in &found {
            judge(&place, name, matchers, &known);
            used.insert((*name).to_owned());
        }
        for label in grouped(&question) {
            let has = |(name, _): &(&str, &str)| known[*name].get(label).is_some();
            assert!(found.iter().any(has), "{place}: nothing in it has the label {label}");
        }
    }
    let unused: Vec<&String> = known.keys().filter(|name| !used.contains(*name)).collect();
    let sums =
        ["securelink_operator_reconcile_duration_seconds_count", "securelink_operator_reconcile_duration_seconds_sum"];
    assert_eq!(unused, sums, "metrics that neither dashboard nor alert shows");
}

pub fn the_dashboard_is_laid_out_and_carried_as_it_is_written(tools: &Tools) {
    let panels = panels();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in &panels {
        let at = |edge: &str| panel["gridPos"][edge].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is wider than the page", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(cells.insert((x, y)), "{} lies over another panel", panel["title"]);
        }
        assert!(ids.insert(panel["id"].as_u64()), "{} has the id of another panel", panel["title"]);
        let described = panel["type"] == "row" || panel["description"].as_str().is_some_and(|text| text.ends_with('.'));
        assert!(described, "{} is not described", panel["title"]);
    }
    let carried = tools.object("ConfigMap", "securelink-dashboard", &FULL);
    let carried: Value = serde_json::from_str(carried["data"]["securelink.json"].as_str().unwrap()).unwrap();
    assert_eq!(carried, dashboard());
}

pub fn every_question_of_the_dashboard_is_one_that_prometheus_reads(tools: &Tools) {
    // As recording rules, with Grafana's words replaced by what they may stand for.
    let rules = questions().into_iter().enumerate().map(|(number, (_, question))| {
        let question = question.replace("$__rate_interval", "5m");
        serde_json::json!({"record": format!("question:{number}"), "expr": question})
    });
    let rules = serde_json::json!({"groups": [{"name": "questions", "rules": rules.collect::<Vec<_>>()}]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("questions.json");
    std::fs::write(&file, rules.to_string()).unwrap();
    tools.printed("promtool", &["check", "rules", file.to_str().unwrap()]);
}
