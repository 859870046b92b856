//! Nodes for a control plane: a scheduler, and kwok in the place of every kubelet. No container runs: pods say that they do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{ADMIN, Plane};
use crate::wait::until;

/// How long a node may take to be ready.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// What a pod says as soon as a node has it.
const RUNS: &str = r#"
phase: Running
startTime: {{ Now | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: true, started: true, restartCount: 0,
   state: {running: {startedAt: {{ Now | Quote }}}}}
{{ end }}
"#;
/// And where it is.
const ADDRESS: &str = r#"
{{ with PodIPsWith .spec.nodeName false ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) }}
podIP: {{ index . 0 | Quote }}
podIPs: [{ip: {{ index . 0 | Quote }}}]
{{ end }}
"#;

/// What a node says: it has room for all.
const READY: &str = r#"
conditions:
- {type: Ready, status: "True", reason: Ready, message: "", lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}}
allocatable: {cpu: "10000", memory: 10Ti, pods: "100000"}
capacity: {cpu: "10000", memory: 10Ti, pods: "100000"}
"#;

/// Where pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Nowhere: nobody can ask them anything.
    None,
    /// In this network, as `127.200.0.1/16`: each pod has an address of its own.
    Of(String),
}

impl Plane {
    /// Starts so many nodes that take every pod at once. Needs [`Tools::with_nodes`](super::Tools::with_nodes).
    pub async fn start_nodes(&self, count: usize, addresses: &Addresses) -> Result<()> {
        let kubeconfig = self.certificates.kubeconfig(self.address, ADMIN)?.display().to_string();
        let config = self.folder().join("kwok.yaml");
        std::fs::write(&config, stages(addresses)).with_context(|| format!("cannot write {}", config.display()))?;
        let network = match addresses {
            Addresses::None => "10.0.0.1/24",
            Addresses::Of(network) => network,
        };
        let kwok = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--config={}", config.display()),
            format!("--cidr={network}"),
            "--manage-all-nodes".to_owned(),
            // Nobody looks after nodes that are silent.
            "--node-lease-duration-seconds=0".to_owned(),
        ];
        let scheduler = [
            format!("--kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            // Its default of 50 requests a second would be what is measured.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        self.keep(&self.tools.tools.join("kwok"), &kwok)?;
        self.keep(&self.tools.programs.join("kube-scheduler"), &scheduler)?;
        let nodes = Api::<Node>::all(self.cluster.client.clone());
        // An API server takes a new node for one that is not ready, and nothing here would find out that it is.
        let untainted = Patch::Merge(json!({ "spec": { "taints": null } }));
        for number in 0..count {
            let name = format!("node-{number}");
            self.cluster.create::<Node>(json!({ "metadata": { "name": name } })).await?;
            nodes.patch(&name, &PatchParams::default(), &untainted).await.context("a node")?;
        }
        for number in 0..count {
            let ready = |node: Option<&Node>| {
                let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref()).into_iter().flatten();
                conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            };
            until(&nodes, &format!("node-{number}"), "be ready", READY_LIMIT, ready).await?;
        }
        Ok(())
    }

    /// Starts a program that ends with the control plane.
    fn keep(&self, program: &Path, arguments: &[String]) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = self.folder().join(format!("{name}.log"));
        let process = super::Process::start(&name, program, arguments, &log)?;
        if let Ok(mut processes) = self.processes.lock() {
            processes.push(process);
        }
        Ok(())
    }
}

/// kwok's configuration: nodes are ready, pods run at once and go at once.
fn stages(addresses: &Addresses) -> String {
    let runs = match addresses {
        Addresses::None => RUNS.to_owned(),
        Addresses::Of(_) => format!("{RUNS}{ADDRESS}"),
    };
    let deleted = |operator: &str| json!({ "key": ".metadata.deletionTimestamp", "operator": operator });
    let phase = |phase: &str| json!({ "key": ".status.phase", "operator": "In", "values": [phase] });
    let unready = json!({ "key": ".status.allocatable", "operator": "DoesNotExist" });
    let stages = [
        stage("Node", "ready", &json!([unready]), &json!({ "statusTemplate": READY })),
        stage("Pod", "runs", &json!([deleted("DoesNotExist"), phase("Pending")]), &json!({ "statusTemplate": runs })),
        stage("Pod", "goes", &json!([deleted("Exists")]), &json!({ "delete": true })),
    ];
    stages.map(|stage| stage.to_string()).join("\n---\n")
}

/// What becomes of an object of which these conditions hold.
fn stage(kind: &str, name: &str, conditions: &Value, next: &Value) -> Value {
    json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": { "name": format!("{}-{name}", kind.to_lowercase()) },
        "spec": {
            "resourceRef": { "apiGroup": "v1", "kind": kind },
            "selector": { "matchExpressions": conditions },
            "next": next,
        },
    })
}
