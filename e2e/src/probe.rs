//! Pods of the lab's test image: they serve, and dial, get and resolve for a test. No shell in them, nothing to write.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::cluster::Namespace;
use crate::wait::{asking, until};

/// Where a serving probe echoes.
pub const ECHO_PORT: u16 = 7000;
/// Where a serving probe answers HTTP.
pub const HTTP_PORT: u16 = 8080;
/// How long a pod whose image is in the node may take to be Ready.
pub const READY_LIMIT: Duration = Duration::from_mins(1);
/// How long a policy or a Service may take to be in force.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(30);
/// How long one answer may take; the probe's own timeouts are far below.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The spec of a serving pod that the restricted profile admits.
pub fn spec(image: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "probe",
            "image": image,
            "imagePullPolicy": "Never",
            "args": ["serve"],
            "ports": [{ "name": "echo", "containerPort": ECHO_PORT }, { "name": "http", "containerPort": HTTP_PORT }],
            "readinessProbe": { "tcpSocket": { "port": "http" }, "periodSeconds": 1 },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}

/// A pod that is Ready.
#[derive(Clone)]
pub struct Probe {
    namespace: Namespace,
    /// The pod's name.
    pub name: String,
    /// The pod's address.
    pub address: String,
}

impl Probe {
    /// Starts a pod with the label `role`, and returns when it is Ready.
    pub async fn start(namespace: &Namespace, image: &str, role: &str) -> Result<Self> {
        let metadata = json!({ "name": role, "labels": { "role": role } });
        namespace.create::<Pod>(json!({ "metadata": metadata, "spec": spec(image) })).await?;
        Self::of(namespace, role).await
    }

    /// The pod of this name, as soon as it is Ready.
    pub async fn of(namespace: &Namespace, name: &str) -> Result<Self> {
        let pod =
            until(&namespace.api::<Pod>(), name, "become Ready", READY_LIMIT, |pod| pod.is_some_and(is_ready)).await?;
        let address = pod.and_then(|pod| pod.status?.pod_ip).context("a pod that is Ready has an address")?;
        Ok(Self { namespace: namespace.clone(), name: name.to_owned(), address })
    }

    /// Where the pod is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Dials, sends a word and wants it back. `port` echoes, or speaks nothing at all with `send` false.
    pub async fn dial(&self, target: &str, send: bool) -> Result<Answer> {
        let word: &[&str] = if send { &["--send", "ping"] } else { &[] };
        self.ask(&[&["dial", "--timeout", "2s"], word, &[target]].concat()).await
    }

    /// Sends bytes to an echo and takes them back: how long that took.
    pub async fn echo(&self, target: &str, bytes: u64) -> Result<Duration> {
        let answer = self.ask(&["dial", "--timeout", "15s", "--bytes", &bytes.to_string(), target]).await?;
        let took = answer.said.strip_prefix("connected ").and_then(|millis| millis.parse().ok());
        took.map(Duration::from_millis).with_context(|| format!("{target} did not echo {bytes} bytes: {answer:?}"))
    }

    /// Gets a URL.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.ask(&["get", url]).await
    }

    /// Resolves a name.
    pub async fn resolve(&self, name: &str) -> Result<Answer> {
        self.ask(&["resolve", name]).await
    }

    /// Returns as soon as the echo at `target` answers.
    pub async fn until_connected(&self, target: &str) -> Result<()> {
        let what = format!("{} reaches {target}", self.name);
        asking(&what, IN_FORCE_LIMIT, Answer::connected, async || self.dial(target, true).await).await.map(drop)
    }

    /// Returns as soon as `target` cannot be reached.
    pub async fn until_denied(&self, target: &str) -> Result<()> {
        let what = format!("{} does not reach {target}", self.name);
        asking(&what, IN_FORCE_LIMIT, |answer: &Answer| !answer.connected(), async || self.dial(target, true).await)
            .await
            .map(drop)
    }

    /// Runs the probe in this pod.
    async fn ask(&self, arguments: &[&str]) -> Result<Answer> {
        let place = format!("{}: {}/{}: {arguments:?}", self.namespace.cluster.name, self.namespace.name, self.name);
        let command: Vec<&str> = [&["/lab-probe"], arguments].concat();
        let asked = async {
            let mut process = self
                .namespace
                .api::<Pod>()
                .exec(&self.name, command, &AttachParams::default().stdin(false).stderr(true))
                .await?;
            let status = process.take_status();
            let (mut out, mut err) = (String::new(), String::new());
            let (stdout, stderr) = (process.stdout(), process.stderr());
            let read_out = async {
                if let Some(mut stream) = stdout { stream.read_to_string(&mut out).await.map(drop) } else { Ok(()) }
            };
            let read_err = async {
                if let Some(mut stream) = stderr { stream.read_to_string(&mut err).await.map(drop) } else { Ok(()) }
            };
            let (read_out, read_err) = futures_util::join!(read_out, read_err);
            read_out.and(read_err)?;
            let ended = match status {
                Some(status) => status.await,
                None => None,
            };
            let success = ended.context("no exit status came")?.status.as_deref() == Some("Success");
            anyhow::Ok(Answer { success, said: out.trim().to_owned(), complaint: err.trim().to_owned() })
        };
        tokio::time::timeout(ANSWER_LIMIT, asked).await.map_err(anyhow::Error::from).flatten().with_context(|| place)
    }
}

/// What the probe answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether what was asked for was done.
    pub success: bool,
    /// What it printed; the first word is the outcome.
    pub said: String,
    /// Why not, for the reader.
    pub complaint: String,
}

impl Answer {
    /// Whether a dial went through.
    pub fn connected(&self) -> bool {
        self.success && self.word() == "connected"
    }

    /// The outcome in one word.
    pub fn word(&self) -> &str {
        self.said.split_whitespace().next().unwrap_or_default()
    }
}

/// Whether the pod serves.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
