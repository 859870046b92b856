//! The values: a mistake is refused where it is made, and nothing is unexplained.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{NAMESPACE, Tools, read, yaml};

fn schema() -> Value {
    serde_json::from_str(&read("charts/securelink/values.schema.json")).unwrap()
}

pub fn what_is_mistyped_is_refused_by_name(tools: &Tools) {
    let rows = [
        ("--set", "operator.replica=3", "'/operator': additional properties 'replica' not allowed"),
        ("--set", "logFormat=json", "'': additional properties 'logFormat' not allowed"),
        ("--set", "linkNamespace={liaison}", "'': additional properties 'linkNamespace' not allowed"),
        ("--set", "metrics.enabled=true", "'/metrics': additional properties 'enabled' not allowed"),
        ("--set", "linkNamespaces=liaison", "'/linkNamespaces': got string, want array"),
        ("--set", "linkNamespaces={Liaison}", "'/linkNamespaces/0': 'Liaison' does not match"),
        ("--set", "linkNamespaces={a,a}", "'/linkNamespaces': items at 0 and 1 are equal"),
        ("--set", "linkNamespaces={123}", "'/linkNamespaces/0': got number, want string"),
        ("--set-string", "operator.replicas=2", "'/operator/replicas': got string, want integer"),
        ("--set", "operator.replicas=-1", "'/operator/replicas': minimum: got -1, want 0"),
        ("--set", "operator.logFormat=xml", "'/operator/logFormat': value must be one of 'json', 'text'"),
        ("--set-string", "ipv6=true", "'/ipv6': got string, want boolean"),
        ("--set", "clusterCIDRs={10.244.0.0}", "'/clusterCIDRs/0': '10.244.0.0' does not match"),
        ("--set", "deniedCIDRs={fd00::/129}", "'/deniedCIDRs/0': 'fd00::/129' does not match"),
        ("--set", "image.repository=", "'/image/repository': '' does not match"),
        ("--set", "image.repository=securelink:1", "'/image/repository': 'securelink:1' does not match"),
        ("--set", "image.digest=latest", "'/image/digest': 'latest' does not match"),
        ("--set", "image.pullPolicy=Sometimes", "'/image/pullPolicy': value must be one of"),
        ("--set", "relay.resources.limits.memory=1Gb", "'/relay/resources/limits/memory': '1Gb' does not match"),
        ("--set", "relay.resources.memory=1Gi", "'/relay/resources': additional properties 'memory' not allowed"),
        ("--set-json", "dns=[]", "'/dns': minItems: got 0, want 1"),
        ("--set", "dns[0].port=70000", "'/dns/0/port': maximum: got 70,000, want 65,535"),
        ("--set-json", "monitoring=[{}]", "'/monitoring/0': missing property 'namespaceSelector'"),
        ("--set-json", "monitoring=[{\"podSelector\":{}}]", "'/monitoring/0': missing property 'ipBlock'"),
        (
            "--set-json",
            "monitoring=[{\"ipBlock\":{\"cidr\":\"all\"}}]",
            "'/monitoring/0/ipBlock/cidr': 'all' does not match",
        ),
        ("--set", "metrics.serviceMonitor.interval=30", "'/metrics/serviceMonitor/interval': got number, want string"),
        ("--set", "certManager.issuer=links", "'/certManager': additional properties 'issuer' not allowed"),
        ("--set", "certManager.issuers={links}", "'/certManager/issuers/0': got string, want object"),
        ("--set", "certManager.issuers[0].name=links", "'/certManager/issuers/0': missing property 'kind'"),
        (
            "--set-json",
            "certManager.issuers=[{\"kind\":\"ClusterIssuer\",\"name\":\"links\",\"namespaces\":[]}]",
            "'/certManager/issuers/0': additional properties 'namespaces' not allowed",
        ),
        (
            "--set-json",
            "certManager.issuers=[{\"kind\":\"ClusterIssuer\",\"name\":\"*\"}]",
            "'/certManager/issuers/0/name': '*' does not match",
        ),
    ];
    for (how, value, said) in rows {
        let refusal = tools.refusal(&[how, value]);
        assert!(refusal.contains(&format!("at {said}")), "{value}: {refusal}");
    }
    let crds = tools.run("helm4", &["template", "one", "charts/securelink-crds", "--set", "keep=false"]);
    assert!(String::from_utf8_lossy(&crds.stderr).contains("additional properties 'keep' not allowed"));
}

pub fn the_operators_own_namespace_is_no_place_for_links(tools: &Tools) {
    let refusal = tools.refusal(&["--set", &format!("linkNamespaces={{{NAMESPACE}}}")]);
    assert!(refusal.contains("make a namespace for links"), "{refusal}");
}

pub fn an_issuer_of_a_namespace_is_listed_with_it(tools: &Tools) {
    let refusal = tools.refusal(&["--set-json", "certManager.issuers=[{\"kind\":\"Issuer\",\"name\":\"links\"}]"]);
    assert!(refusal.contains("the Issuer links without its namespace; add namespace"), "{refusal}");
}

pub fn every_object_of_the_schema_is_closed(_: &Tools) {
    fn walk(node: &Value, path: &str) {
        if node["properties"].is_object() {
            assert_eq!(node["additionalProperties"], false, "{path} takes what it does not know");
        }
        for (name, child) in node.as_object().into_iter().flatten() {
            walk(child, &format!("{path}/{name}"));
        }
    }
    walk(&schema(), "");
}

/// The paths of the leaves: of what is Kubernetes' own, only its beginning.
fn leaves(values: &Value, schema: &Value, path: &str, found: &mut [BTreeSet<String>; 2]) {
    let known = schema["properties"].as_object().into_iter().flatten().map(|(name, child)| (name, Some(child)));
    let given = values.as_object().into_iter().flatten().map(|(name, _)| (name, None));
    for (name, child) in known.chain(given) {
        let path = format!("{path}.{name}");
        found[usize::from(child.is_none())].insert(path.clone());
        if let Some(child) = child.filter(|child| child["properties"].is_object()) {
            leaves(&values[name], child, &path, found);
        }
    }
}

pub fn schema_and_values_name_the_same_keys(_: &Tools) {
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    leaves(&yaml(&read("charts/securelink/values.yaml")), &schema(), "", &mut found);
    let [mut known, given] = found;
    // Helm's own.
    assert!(known.remove(".global"));
    assert_eq!(known, given);
}

pub fn every_value_is_explained(_: &Tools) {
    let text = read("charts/securelink/values.yaml");
    let lines: Vec<&str> = text.lines().collect();
    let schema = schema();
    // Below these the keys are Kubernetes'.
    let theirs = ["resources", "dns", "labels"];
    let mut skipped = None;
    for (number, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let key = line.trim_start().split_once(':').map_or("", |(key, _)| key);
        if skipped.is_some_and(|from| indent > from) || line.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        skipped = theirs.contains(&key).then_some(indent);
        assert!(
            number > 0 && lines[number - 1].trim_start().starts_with("# "),
            "no comment above line {}: {line}",
            number + 1
        );
    }
    assert!(
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .all(|key| key == "global" || text.contains(&format!("\n{key}:")))
    );
}
