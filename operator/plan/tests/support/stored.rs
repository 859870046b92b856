//! An object of ours as an API server stores it and gives it back (Kubernetes 1.33): with what it fills in, what it assigns, what
//! controllers report, and what people and tools write that is theirs.

use serde_json::{Value, json};

/// `desired` as it is stored after it was applied.
pub fn stored(desired: &Value) -> Value {
    let mut live = desired.clone();
    merge(
        &mut live["metadata"],
        &json!({
            "uid": "0f3c8a52-1d6e-4f0b-9a39-0d9f8c1f7e12",
            "resourceVersion": "48213",
            "creationTimestamp": "2026-11-24T11:00:00Z",
            "managedFields": [{"manager": "securelink-operator", "operation": "Apply", "fieldsV1": {"f:metadata": {}}}],
        }),
    );
    match desired["kind"].as_str().unwrap() {
        "Deployment" => deployment(&mut live),
        "Service" => service(&mut live),
        "PodDisruptionBudget" => merge(
            &mut live,
            &json!({
                "metadata": {"generation": 1},
                "status": {"currentHealthy": 2, "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 2,
                    "observedGeneration": 1, "conditions": [{"type": "DisruptionAllowed", "status": "True"}]},
            }),
        ),
        "NetworkPolicy" => merge(&mut live, &json!({"metadata": {"generation": 1}})),
        // As distributions do that give every account a pull secret.
        "ServiceAccount" => merge(
            &mut live,
            &json!({
                "secrets": [{"name": "europol-relay-dockercfg-x7k2p"}],
                "imagePullSecrets": [{"name": "europol-relay-dockercfg-x7k2p"}],
            }),
        ),
        _ => {}
    }
    live
}

fn deployment(live: &mut Value) {
    merge(
        live,
        &json!({
            "metadata": {"generation": 3, "annotations": {"deployment.kubernetes.io/revision": "1"}},
            "spec": {
                "progressDeadlineSeconds": 600,
                "template": {
                    "metadata": {
                        "creationTimestamp": null,
                        "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-24T11:30:00Z"},
                    },
                    "spec": {
                        "restartPolicy": "Always",
                        "dnsPolicy": "ClusterFirst",
                        "schedulerName": "default-scheduler",
                        "serviceAccount": live["spec"]["template"]["spec"]["serviceAccountName"].clone(),
                    },
                },
            },
            "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
                "availableReplicas": 2, "conditions": [{"type": "Available", "status": "True"}]},
        }),
    );
    let container = &mut live["spec"]["template"]["spec"]["containers"][0];
    merge(
        container,
        &json!({
            "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            // The same amounts, as they are stored.
            "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
        }),
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        merge(&mut container[probe], &json!({"successThreshold": 1, "httpGet": {"scheme": "HTTP"}}));
    }
}

fn service(live: &mut Value) {
    merge(
        live,
        &json!({"spec": {
            "clusterIP": "10.96.41.7",
            "clusterIPs": ["10.96.41.7"],
            "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
        }, "status": {"loadBalancer": {}}}),
    );
    if live["spec"]["type"] == "LoadBalancer" {
        merge(
            live,
            &json!({
                "metadata": {"finalizers": ["service.kubernetes.io/load-balancer-cleanup"]},
                "spec": {"allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Cluster"},
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}},
            }),
        );
        live["spec"]["ports"][0]["nodePort"] = json!(31_877);
    }
}

/// Adds `more` to `value`, field by field.
pub fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(fields), Value::Object(more)) => {
            for (name, field) in more {
                merge(fields.entry(name.clone()).or_insert(Value::Null), field);
            }
        }
        (value, more) => *value = more.clone(),
    }
}
