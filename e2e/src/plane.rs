//! A control plane without nodes: etcd, an API server and the controllers of Kubernetes, for tests of the operator that no
//! cluster of the lab allows: many of them, and faults of the API server itself ([`Proxy`]).
//!
//! The programs are the lab's own (`lab programs`). Everything is in one folder and on one loopback address, and ends with
//! the value; pods are made, and stay pending.

mod certificates;
pub mod harness;
mod nodes;
mod objects;
mod operator;
mod process;
mod proxy;
mod relay;
mod request;
mod rules;
mod setup;
mod site;
mod streams;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::cluster::{Cluster, Namespace};
use crate::lab::Lab;
use crate::wait::until;

use certificates::Certificates;
use process::Process;

pub use harness::Test;
pub use nodes::Addresses;
pub use objects::Versions;
pub use operator::{LEADS_LIMIT, Operator, Profile};
pub use proxy::Proxy;
pub use relay::Relay;
pub use request::{Call, Verb};
pub use rules::{Fault, On, Refusal, Rule};
pub use setup::Installed;
pub use site::{LIMIT, Site, link};

/// How long the API server may take to be ready: three seconds on an idle machine.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// How long a kind may take to be served.
const SERVED_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at what cannot be watched.
const LOOK: Duration = Duration::from_millis(50);
/// The token of somebody with every right.
const ADMIN: &str = "admin";
/// Who owns what tests write by server-side apply.
const FIELD_MANAGER: &str = "securelink-e2e";
/// The controllers that a link's objects need: they make and remove what belongs to others, and count quotas.
const CONTROLLERS: &str = "namespace-controller,serviceaccount-controller,garbage-collector-controller,\
    deployment-controller,replicaset-controller,disruption-controller,resourcequota-controller,clusterrole-aggregation-controller";

/// The programs that tests here need.
#[derive(Clone, Debug)]
pub struct Tools {
    programs: PathBuf,
    tools: PathBuf,
}

impl Tools {
    /// Those of a lab, made where they are missing; else why there are none, in one line.
    pub fn of(lab: &Lab) -> Result<Self, String> {
        Self::make(lab, &["helm3"])
    }

    /// Those, and what plays nodes.
    pub fn with_nodes(lab: &Lab) -> Result<Self, String> {
        Self::make(lab, &["helm3", "kwok"])
    }

    fn make(lab: &Lab, tools: &[&str]) -> Result<Self, String> {
        let made = || anyhow::Ok(Self { programs: lab.programs()?, tools: lab.tools(tools)? });
        // The last line of what the lab says is why, and what to do.
        made().map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())
    }
}

/// A control plane.
pub struct Plane {
    /// It as a client with every right sees it, past every proxy.
    pub cluster: Cluster,
    /// Where its programs listen.
    address: Ipv4Addr,
    certificates: Certificates,
    folder: TempDir,
    tools: Tools,
    ports: AtomicU16,
    made: Mutex<Vec<Namespace>>,
    processes: Mutex<Vec<Process>>,
}

impl Plane {
    /// Starts one with the kinds of `crds/manifests`.
    pub async fn start(tools: &Tools) -> Result<Self> {
        let folder = TempDir::with_prefix("securelink-plane-").context("no folder for a control plane")?;
        let address = own_address();
        let certificates = Certificates::make(folder.path(), address)?;
        let starting = Starting { programs: &tools.programs, folder: folder.path(), address };
        let mut processes = vec![starting.etcd()?, starting.api_server()?];
        let client = Client::try_from(certificates.config(address, Some(ADMIN))?).context("no client")?;
        ready(&client, &mut processes).await?;
        let cluster = Cluster { name: "plane".to_owned(), address: address.to_string(), client };
        install_kinds(&cluster.client).await?;
        // After the kinds: what they own is collected only of kinds that are known at its start, or half a minute later.
        processes.push(starting.controllers(&certificates.kubeconfig(address, ADMIN)?)?);
        Ok(Self {
            cluster,
            address,
            certificates,
            folder,
            tools: tools.clone(),
            ports: AtomicU16::new(FIRST_PORT),
            made: Mutex::default(),
            processes: Mutex::new(processes),
        })
    }

    /// Makes a namespace, which goes at the end of the test.
    pub async fn namespace(&self, purpose: &str) -> Result<Namespace> {
        let namespace = self.cluster.namespace(purpose).await?;
        if let Ok(mut made) = self.made.lock() {
            made.push(namespace.clone());
        }
        Ok(namespace)
    }

    /// The processor time that its programs have used.
    pub fn processor(&self) -> Result<Duration> {
        let processes = self.processes.lock().map_err(|_| anyhow::anyhow!("a fault before"))?;
        processes.iter().map(Process::processor).sum()
    }

    /// Where logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Helm.
    fn helm(&self) -> PathBuf {
        self.tools.tools.join("helm3")
    }

    /// Stops the API server, as a failed node does; connections break. Returns when it is gone.
    pub async fn stop_api_server(&self) -> Result<()> {
        let stopped: Vec<Process> = match self.processes.lock() {
            Ok(mut processes) => processes.extract_if(.., |process| process.name() == API_SERVER).collect(),
            Err(_) => Vec::new(),
        };
        for mut process in stopped {
            process.signal(Signal::KILL)?;
            process.ended().await?;
        }
        Ok(())
    }

    /// Starts the API server again; returns when it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let starting = Starting { programs: &self.tools.programs, folder: self.folder.path(), address: self.address };
        let mut started = vec![starting.api_server()?];
        ready(&self.cluster.client, &mut started).await?;
        if let Ok(mut processes) = self.processes.lock() {
            processes.append(&mut started);
        }
        Ok(())
    }

    /// How to reach the API server as nobody in particular: requests say who sends them.
    fn bare(&self) -> Result<Config> {
        self.certificates.config(self.address, None)
    }

    /// A port of its address that nothing else has.
    fn port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    fn made(&self) -> Vec<Namespace> {
        self.made.lock().map(|mut made| std::mem::take(&mut *made)).unwrap_or_default()
    }
}

const API_SERVER: &str = "kube-apiserver";
const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;
const API_PORT: u16 = 6443;
/// Of ports that tests are given.
const FIRST_PORT: u16 = 8080;

/// A loopback address for one control plane, by the process that starts it and a count: nobody else has its ports.
fn own_address() -> Ipv4Addr {
    static STARTED: AtomicU8 = AtomicU8::new(0);
    // A pid has at most 22 bits.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let nth = STARTED.fetch_add(1, Ordering::Relaxed) % 3;
    Ipv4Addr::new(127, 1 + (high & 63) + 64 * nth, middle, low)
}

/// What the programs are started with.
struct Starting<'a> {
    programs: &'a Path,
    folder: &'a Path,
    address: Ipv4Addr,
}

impl Starting<'_> {
    fn etcd(&self) -> Result<Process> {
        let [clients, peers] = [ETCD_PORT, ETCD_PEER_PORT].map(|port| format!("http://{}:{port}", self.address));
        self.program(
            "etcd",
            &[
                "--name=plane".to_owned(),
                format!("--data-dir={}", self.folder.join("etcd").display()),
                // Nothing here outlives the machine.
                "--unsafe-no-fsync".to_owned(),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=plane={peers}"),
            ],
        )
    }

    fn api_server(&self) -> Result<Process> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        self.program(
            API_SERVER,
            &[
                format!("--etcd-servers=http://{}:{ETCD_PORT}", self.address),
                format!("--bind-address={}", self.address),
                format!("--advertise-address={}", self.address),
                // A loopback address is none for the Service `kubernetes`, which nobody uses here.
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--secure-port={API_PORT}"),
                format!("--tls-cert-file={}", file(certificates::SERVING)),
                format!("--tls-private-key-file={}", file(certificates::SERVING_KEY)),
                format!("--service-account-key-file={}", file(certificates::ACCOUNT_PUBLIC)),
                format!("--service-account-signing-key-file={}", file(certificates::ACCOUNT_KEY)),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--token-auth-file={}", file(certificates::TOKENS)),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            ],
        )
    }

    fn controllers(&self, kubeconfig: &Path) -> Result<Process> {
        self.program(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--controllers={CONTROLLERS}"),
                "--leader-elect=false".to_owned(),
                // Its default of 20 requests a second would be what is measured.
                "--kube-api-qps=500".to_owned(),
                "--kube-api-burst=1000".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        )
    }

    fn program(&self, name: &str, arguments: &[String]) -> Result<Process> {
        Process::start(name, &self.programs.join(name), arguments, &self.folder.join(format!("{name}.log")))
    }
}

/// Returns when the API server says that it is ready; fails as soon as a program has ended.
async fn ready(client: &Client, processes: &mut [Process]) -> Result<()> {
    let asked = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            for process in &mut *processes {
                ensure!(process.is_running()?, "{} ended; {}", process.name(), process.last_lines());
            }
            if said_ready(client).await.unwrap_or_default() {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(READY_LIMIT, asked).await {
        Ok(ended) => ended,
        Err(_) => anyhow::bail!("the API server is not ready after {} s; {}", READY_LIMIT.as_secs(), {
            processes.last().map(Process::last_lines).unwrap_or_default()
        }),
    }
}

async fn said_ready(client: &Client) -> Result<bool> {
    let request = hyper::Request::get("/readyz").body(Vec::new())?;
    Ok(client.request_text(request).await? == "ok")
}

async fn install_kinds(client: &Client) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    for definition in securelink_crds::definitions() {
        let name = definition.name_any();
        api.patch(&name, &parameters, &Patch::Apply(&definition)).await.with_context(|| format!("install {name}"))?;
        let served = |it: Option<&CustomResourceDefinition>| {
            let conditions = it.and_then(|it| it.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|it| it.type_ == "Established" && it.status == "True")
        };
        until(&api, &name, "be served", SERVED_LIMIT, served).await?;
    }
    Ok(())
}

/// The folder of a checkout in which this crate lies.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Authentication by a token.
fn bearer(token: &str) -> AuthInfo {
    AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() }
}
