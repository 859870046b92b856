//! The alerts: read by Prometheus, and each seen to fire and to keep quiet (`alerts.yaml` beside this file).

use std::collections::BTreeSet;

use crate::helm::{FULL, Tools, read, yaml};
use crate::metrics::alerts;

const TESTS: &str = "e2e/tests/chart/alerts.yaml";

pub fn the_alerts_hold_what_they_promise(tools: &Tools) {
    tools.printed("promtool", &["check", "rules", "charts/securelink/files/alerts.yaml"]);
    tools.printed("promtool", &["test", "rules", TESTS]);
}

pub fn every_alert_is_seen_firing(_: &Tools) {
    let tests = yaml(&read(TESTS));
    let seen = tests["tests"].as_array().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_array().unwrap());
    let name = |test: &serde_json::Value| test["alertname"].as_str().unwrap().to_owned();
    let fires = |test: &&serde_json::Value| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
    let all: BTreeSet<String> = alerts().iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen.clone().filter(fires).map(name).collect::<BTreeSet<_>>(), all, "fire");
    assert_eq!(seen.filter(|test| !fires(test)).map(name).collect::<BTreeSet<_>>(), all, "keep quiet");
    for alert in alerts() {
        let said = |field: &str| alert["annotations"][field].as_str().is_some_and(|text| text.len() > 20);
        assert!(said("summary") && said("description"), "{} does not say what to do", alert["alert"]);
        assert!(["critical", "warning"].iter().any(|word| alert["labels"]["severity"] == *word));
    }
}

pub fn the_alerts_in_the_chart_are_those_that_are_tested(tools: &Tools) {
    let carried = tools.object("PrometheusRule", "securelink", &FULL);
    assert_eq!(carried["spec"], yaml(&read("charts/securelink/files/alerts.yaml")));
    assert_eq!(carried["metadata"]["labels"]["release"], "prometheus");
}
