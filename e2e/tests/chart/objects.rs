//! What is made for the operator: known to Kubernetes, restricted, and what the operator and its policy expect.
//!
//! Kubernetes' own types judge, and not kubeconform: without a network it has no schemas.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::helm::{FOR, FULL, Tools, documents, read, yaml};

#[path = "../../../operator/plan/tests/support/restricted.rs"]
mod restricted;

const NAME: &str = "securelink-operator";

/// Nothing is lost on the way through Kubernetes' own type: every field is known, and of the right type.
fn through<T: DeserializeOwned + Serialize>(object: &Value) {
    let kept: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    assert_eq!(&serde_json::to_value(kept).unwrap(), object);
}

pub fn every_object_is_one_that_kubernetes_knows_field_by_field(tools: &Tools) {
    // Names that YAML would take for numbers.
    let numbers = ["template", "1", "charts/securelink", "--namespace", "456"];
    let numbers = documents(&tools.printed("helm4", &[&numbers, &FOR[..], &FULL].concat()));
    for (objects, all) in [(tools.objects(&[]), false), (tools.objects(&FULL), true), (numbers, true)] {
        for object in objects {
            let of = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
            match of {
                ("v1", "ConfigMap") => through::<ConfigMap>(&object),
                ("v1", "Service") => through::<Service>(&object),
                ("v1", "ServiceAccount") => through::<ServiceAccount>(&object),
                ("apps/v1", "Deployment") => through::<Deployment>(&object),
                ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(&object),
                ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(&object),
                ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(&object),
                ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<ClusterRoleBinding>(&object),
                ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(&object),
                ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(&object),
                // The Prometheus operator's: it has no types here.
                ("monitoring.coreos.com/v1", "ServiceMonitor" | "PodMonitor" | "PrometheusRule") => {
                    assert!(all, "{of:?} without being asked for");
                }
                _ => panic!("{of:?} is not a kind that is looked at here"),
            }
        }
    }
}

pub fn the_operators_pod_is_restricted(tools: &Tools) {
    for more in [&[][..], &FULL] {
        let deployment = tools.object("Deployment", NAME, more);
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(restricted::violations(pod), Vec::<String>::new());
        assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(
            volumes.iter().all(|volume| !volume["configMap"].is_null()),
            "a volume that can be written: {volumes:?}"
        );
        assert!(pod["containers"][0]["resources"]["limits"]["memory"].is_string());
    }
}

pub fn the_operator_is_started_as_it_expects(tools: &Tools) {
    let deployment = tools.object("Deployment", NAME, &FULL);
    let template = &deployment["spec"]["template"];
    let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
    assert_eq!(container["command"], json!(["/securelink-operator"]));
    assert_eq!(container["args"], json!(["--config", "/etc/securelink-operator/config.yaml"]));
    let field = |name, path| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let wanted = [
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        json!({"name": "MALLOC_ARENA_MAX", "value": "1"}),
        json!({"name": "MALLOC_TRIM_THRESHOLD_", "value": "131072"}),
    ];
    assert_eq!(container["env"], json!(wanted));
    assert_eq!(container["ports"], json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]));
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]["httpGet"]);
    let ask = |path| json!({"path": path, "port": "http"});
    assert_eq!(probes, [&ask("/livez"), &ask("/livez"), &ask("/readyz")]);
    let digest = "sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e";
    assert_eq!(container["image"], format!("images.example:5000/link/securelink:1.2@{digest}"));
    assert_eq!(pod["serviceAccountName"], NAME);
    assert_eq!(pod["automountServiceAccountToken"], true);
    // What the values add takes nothing of this away.
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(&template["metadata"]["labels"][label], value);
    }
    assert_eq!(template["metadata"]["labels"]["team"], "7");
}

pub fn the_operators_configuration_is_made_of_the_values(tools: &Tools) {
    let config = |more: &[&str]| yaml(tools.object("ConfigMap", NAME, more)["data"]["config.yaml"].as_str().unwrap());
    let kube_dns = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    });
    let own = json!({"app.kubernetes.io/name": "securelink", "app.kubernetes.io/component": "operator"});
    let wanted = json!({
        "image": format!("securelink:{}", env!("CARGO_PKG_VERSION")),
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "records": "Rustls",
        "operatorLabels": own,
        "monitoring": [],
        "certManager": {"issuers": []},
        "dns": [{"peers": [kube_dns], "port": 53}],
        "deniedCIDRs": [],
        "clusterCIDRs": [],
        "clusterDomain": "cluster.local",
        "ipv6": false,
        "logFormat": "json",
    });
    assert_eq!(config(&[]), wanted);

    let full = config(&FULL);
    let values = yaml(&read(FULL[1]));
    for key in ["certManager", "clusterCIDRs", "clusterDomain", "deniedCIDRs", "dns", "ipv6", "monitoring"] {
        assert_eq!(full[key], values[key], "{key}");
    }
    assert_eq!(full["resources"]["limits"], values["relay"]["resources"]["limits"]);
    assert_eq!(full["records"], "InPlace");
    assert_eq!((&full["logFormat"], &full["imagePullPolicy"]), (&json!("text"), &json!("Always")));
    assert_eq!(full["operatorLabels"], own);
    let deployment = tools.object("Deployment", NAME, &FULL);
    assert_eq!(
        full["image"], deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        "relays run the same image"
    );
}

pub fn a_change_of_the_configuration_and_nothing_else_restarts_the_operator(tools: &Tools) {
    let template = |more: &[&str]| tools.object("Deployment", NAME, more)["spec"]["template"].take();
    let now = template(&[]);
    assert_ne!(template(&["--set", "deniedCIDRs={192.0.2.0/24}"]), now);
    for other in [
        "linkNamespaces={liaison}",
        "metrics.dashboard.enabled=true",
        "operator.replicas=3",
        "networkPolicy.enabled=false",
    ] {
        assert_eq!(template(&["--set", other]), now, "{other}");
    }
    // A user's annotation of that name does not hide a change.
    let mine = &template(&FULL)["metadata"]["annotations"]["checksum/config"];
    assert_eq!(mine.as_str().unwrap().len(), 64);
}

pub fn no_rule_of_the_operators_policy_is_open_by_being_empty(tools: &Tools) {
    for (more, incoming) in [(&[][..], 0), (&FULL, 1)] {
        let policy = tools.object("NetworkPolicy", NAME, more);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        let rules = |way: &str, peers: &str| {
            let rules = policy["spec"][way].as_array().map_or(&[][..], Vec::as_slice);
            for rule in rules {
                for list in [peers, "ports"] {
                    assert!(!rule[list].as_array().unwrap().is_empty(), "{way}: {rule}");
                }
            }
            rules.len()
        };
        assert_eq!(rules("ingress", "from"), incoming);
        assert_eq!(rules("egress", "to"), if more.is_empty() { 3 } else { 4 });
    }
    let policies =
        |more: &[&str]| tools.objects(more).iter().filter(|object| object["kind"] == "NetworkPolicy").count();
    assert_eq!(policies(&["--set", "networkPolicy.enabled=false"]), 0);
}

pub fn a_single_replica_keeps_no_node_from_being_drained(tools: &Tools) {
    let budgets = |more: &[&str]| {
        let text = tools.text("helm4", "securelink", more);
        documents(&text).iter().filter(|object| object["kind"] == "PodDisruptionBudget").count()
    };
    assert_eq!(budgets(&["--set", "operator.replicas=1"]), 0);
    assert_eq!(budgets(&[]), 1);
}
