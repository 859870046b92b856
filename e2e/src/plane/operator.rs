//! The operator as a process of its own, built from this checkout, whose API server is a proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certificates::write_kubeconfig;
use super::process::{Process, guarded};
use super::{LOOK, Proxy, Site, checkout};

/// How long a replica may take to see everything and to lead: the lease of one that was killed lasts 15 s.
pub const LEADS_LIMIT: Duration = Duration::from_mins(2);
/// How long one that was told to end may take.
const END_LIMIT: Duration = Duration::from_mins(1);

/// How a program of this checkout is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// As the test itself.
    Same,
    /// As it ships.
    Release,
}

/// A running replica.
pub struct Operator {
    process: Process,
    log: PathBuf,
    shown: String,
}

impl Operator {
    /// Starts a replica of that name, which is the pod's.
    pub(super) fn start(site: &Site<'_>, program: &Path, proxy: &Proxy, name: &str) -> Result<Self> {
        let plane = site.plane();
        let port = plane.port();
        let file = |ending: &str| plane.folder().join(format!("{}-{port}.{ending}", site.own.name));
        let (kubeconfig, config, log) = (file("kubeconfig"), file("yaml"), file("log"));
        write_kubeconfig(&kubeconfig, &json!({ "server": proxy.url() }), &site.token)?;
        std::fs::write(&config, &site.config).with_context(|| format!("cannot write {}", config.display()))?;
        let shown = format!("{}:{port}", plane.cluster.address);
        let mut command = guarded(program);
        command.arg("--config").arg(&config).args(["--listen", &shown]);
        command.envs(site.environment.iter().cloned());
        command.env("KUBECONFIG", &kubeconfig).env("POD_NAMESPACE", &site.own.name).env("POD_NAME", name);
        command.env_remove("KUBERNETES_SERVICE_HOST");
        let process = Process::spawn(name, &mut command, &log)?;
        Ok(Self { process, log, shown })
    }

    /// The program, built from this checkout.
    pub async fn built(profile: Profile) -> Result<PathBuf> {
        // What cargo does to the machine meanwhile must not stop the runtime.
        let built = tokio::task::spawn_blocking(move || program("securelink-operator", profile)).await;
        built.context("cannot build the operator")?
    }

    /// Returns when it leads.
    pub async fn leads(&mut self) -> Result<()> {
        self.says("this replica leads", LEADS_LIMIT).await
    }

    /// Returns when its log holds this text; fails as soon as it has ended.
    pub async fn says(&mut self, text: &str, limit: Duration) -> Result<()> {
        let looked = async {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                // Looked at first: what it says at last counts.
                let running = self.process.is_running()?;
                if self.log()?.contains(text) {
                    return Ok(());
                }
                ensure!(running, "the operator ended without saying {text:?}; {}", self.process.last_lines());
            }
        };
        let looked = tokio::time::timeout(limit, looked).await;
        looked.unwrap_or_else(|_| {
            bail!("the operator did not say {text:?} within {} s; {}", limit.as_secs(), self.process.last_lines())
        })
    }

    /// All that it has said.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// The sum of the samples of a metric whose labels hold this text, as `result="ok"`; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text = self.get("/metrics").await?;
        let samples = text.lines().filter_map(|line| {
            let (of, value) = line.rsplit_once(' ')?;
            let (named, labelled) = of.split_once('{').unwrap_or((of, ""));
            (named == name && labelled.contains(labels)).then(|| value.parse::<f64>().ok()).flatten()
        });
        Ok(samples.sum())
    }

    /// Returns when a metric has at least that value.
    pub async fn counts(&self, name: &str, labels: &str, least: f64, limit: Duration) -> Result<()> {
        let looked = async {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                if self.metric(name, labels).await? >= least {
                    return Ok(());
                }
            }
        };
        let looked = tokio::time::timeout(limit, looked).await;
        looked.unwrap_or_else(|_| bail!("{name}{{{labels}}} is not {least} after {} s", limit.as_secs()))
    }

    /// How often it has looked at a link, an identity or a cut, whatever came of it.
    pub async fn looks(&self) -> Result<f64> {
        self.metric("securelink_operator_reconciles_total", "").await
    }

    /// What its port answers.
    pub async fn get(&self, path: &str) -> Result<String> {
        let asked = async {
            let mut stream = TcpStream::connect(&self.shown).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.shown);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = asked.await.with_context(|| format!("the operator's port does not answer {path}"))?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).context("an answer without a body")
    }

    /// The memory that it has now, in bytes.
    pub fn resident(&self) -> Result<u64> {
        self.process.resident()
    }

    /// The most memory that it has had, in bytes.
    pub fn peak(&self) -> Result<u64> {
        self.process.peak()
    }

    /// The processor time that it has used.
    pub fn processor(&self) -> Result<Duration> {
        self.process.processor()
    }

    /// Pauses it, or lets it go on.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.process.signal(if paused { Signal::STOP } else { Signal::CONT })
    }

    /// Has it end as Kubernetes does, and returns when it has.
    pub async fn stop(self) -> Result<ExitStatus> {
        self.end(Signal::TERM).await
    }

    /// Kills it, and returns when it is gone.
    pub async fn kill(self) -> Result<()> {
        self.end(Signal::KILL).await.map(drop)
    }

    async fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.signal(signal)?;
        let ended = tokio::time::timeout(END_LIMIT, self.process.ended()).await;
        ended.unwrap_or_else(|_| bail!("the operator does not end; {}", self.process.last_lines()))
    }
}

/// A program of this checkout, named as its package; built once a run.
pub(super) fn program(package: &'static str, profile: Profile) -> Result<PathBuf> {
    type Built = BTreeMap<(&'static str, Profile), Result<PathBuf, String>>;
    static BUILT: Mutex<Built> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let one = built.entry((package, profile));
    one.or_insert_with(|| build(package, profile).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn build(package: &str, profile: Profile) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--package", package]).current_dir(checkout());
    let release = profile == Profile::Release || !cfg!(debug_assertions);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo cannot build {package}: {status}");
    // This test's own program is in TARGET/PROFILE/deps.
    let own = std::env::current_exe().context("where this program is")?;
    let target = own.ancestors().nth(3).context("a folder above this program's")?;
    Ok(target.join(if release { "release" } else { "debug" }).join(package))
}
