//! What Kubernetes' Pod Security Standard "restricted" (and so "baseline") finds wrong with a pod, control by control.
//! Read from the pod as it is sent, so that a field this code does not know cannot slip through by its type.

use serde_json::Value;

/// Volumes that restricted allows.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

pub fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut refuse = |wrong: bool, what: String| {
        if wrong {
            found.push(what);
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        refuse(pod[field] == true, field.to_owned());
    }
    refuse(pod["securityContext"]["sysctls"].is_array(), "sysctls".to_owned());
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
        refuse(!VOLUMES.contains(&kind.as_str()), format!("volume {kind}"));
    }
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    for container in lists.iter().flat_map(|list| pod[*list].as_array().into_iter().flatten()) {
        let own = &container["securityContext"];
        // What a container does not say, its pod says.
        let said = |field: &str| if own[field].is_null() { &pod["securityContext"][field] } else { &own[field] };
        let on_host = |port: &Value| port["hostPort"].as_u64().is_some_and(|port| port != 0);
        refuse(container["ports"].as_array().into_iter().flatten().any(on_host), "hostPort".to_owned());
        refuse(own["privileged"] == true, "privileged".to_owned());
        refuse(own["allowPrivilegeEscalation"] != false, "allowPrivilegeEscalation".to_owned());
        let list = |field: &str| own["capabilities"][field].as_array().cloned().unwrap_or_default();
        refuse(!list("drop").contains(&Value::from("ALL")), "capabilities are kept".to_owned());
        refuse(list("add").iter().any(|added| added != "NET_BIND_SERVICE"), "capabilities are added".to_owned());
        refuse(said("runAsNonRoot") != true, "runAsNonRoot".to_owned());
        refuse(*said("runAsUser") == 0, "runAsUser".to_owned());
        let seccomp = said("seccompProfile")["type"].as_str();
        refuse(!matches!(seccomp, Some("RuntimeDefault" | "Localhost")), "seccompProfile".to_owned());
        refuse(said("appArmorProfile")["type"] == "Unconfined", "appArmorProfile".to_owned());
        let selinux = said("seLinuxOptions");
        refuse(!selinux["user"].is_null() || !selinux["role"].is_null(), "seLinuxOptions".to_owned());
        refuse(said("windowsOptions")["hostProcess"] == true, "hostProcess".to_owned());
        refuse(!matches!(own["procMount"].as_str(), None | Some("Default")), "procMount".to_owned());
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            refuse(!container[probe]["httpGet"]["host"].is_null(), format!("{probe} leads to a host"));
        }
    }
    found
}
