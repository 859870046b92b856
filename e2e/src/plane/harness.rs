//! Runs the tests of one file, on one control plane one after the other or on several, and closes with cargo's lines.
//!
//! A test that cannot run here is reported as ignored, never as passed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::future::{LocalBoxFuture, try_join_all};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy, SecureLink};
use serde_json::json;
use tokio::sync::Mutex;

use super::{Plane, Tools};
use crate::cluster::{Kind, Namespace};
use crate::harness::tell;
use crate::lab::Lab;

/// A test: its name is the promise.
pub struct Test {
    name: &'static str,
    body: for<'a> fn(&'a Plane) -> LocalBoxFuture<'a, Result<()>>,
}

impl Test {
    /// A test of this name.
    pub fn new(name: &'static str, body: for<'a> fn(&'a Plane) -> LocalBoxFuture<'a, Result<()>>) -> Self {
        Self { name, body }
    }
}

/// The most control planes of one process: each takes about 700 MB, and most tests wait most of their time.
pub const MOST_PLANES: usize = 3;

/// What tests are run with.
struct Stage {
    tools: Tools,
    logs: PathBuf,
    /// Those that no test uses now. A test has one for itself: an operator looks at all that is on it.
    planes: Mutex<Vec<Plane>>,
}

/// The `main` of a test file: one test after the other. `logs` is where a failed test leaves what it saw.
pub fn run(logs: &str, tests: Vec<Test>) -> ExitCode {
    run_on(1, logs, tests)
}

/// The same on as many control planes, or as `--test-threads` says; at most [`MOST_PLANES`].
pub fn run_on(planes: usize, logs: &str, tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(planes).min(planes).min(MOST_PLANES));
    let tools = if arguments.list { Err("listed only".to_owned()) } else { Tools::of(&Lab::default()) };
    if let (Err(reason), false) = (&tools, arguments.list) {
        tell(&format!("plane: every test is skipped: {reason}"));
        if std::env::var_os("CI").is_some() {
            return ExitCode::FAILURE;
        }
    }
    let stage = tools
        .map(|tools| Arc::new(Stage { tools, logs: PathBuf::from(logs).join("e2e-logs"), planes: Mutex::default() }));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            tell(&format!("plane: no runtime can be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let trials = tests.into_iter().map(|test| {
        let (stage, runtime, name) = (stage.clone(), runtime.clone(), test.name);
        Trial::ignorable_test(name, move || match stage {
            Ok(stage) => match runtime.block_on(stage.run(&test)) {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(Failed::from(format!("{error:#}"))),
            },
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    if let Ok(stage) = stage {
        // Its programs end before what waits for them.
        runtime.block_on(async { stage.planes.lock().await.clear() });
    }
    code
}

impl Stage {
    async fn run(&self, test: &Test) -> Result<()> {
        let waiting = self.planes.lock().await.pop();
        let plane = match waiting {
            Some(plane) => plane,
            None => Plane::start(&self.tools).await.context("a control plane")?,
        };
        let outcome = self.run_on(&plane, test).await;
        self.planes.lock().await.push(plane);
        outcome
    }

    async fn run_on(&self, plane: &Plane, test: &Test) -> Result<()> {
        let began = Instant::now();
        let mut outcome = (test.body)(plane).await;
        tell(&format!("{}: {} ms", test.name, began.elapsed().as_millis()));
        if let Err(error) = outcome {
            let folder = self.logs.join(test.name);
            let logs = match keep_logs(plane.folder(), &folder) {
                Ok(()) => format!("logs: {}", folder.display()),
                Err(error) => format!("no logs could be kept: {error:#}"),
            };
            outcome = Err(error.context(logs));
        }
        outcome.and(clear(plane).await.context("what a test left cannot be removed"))
    }
}

/// Keeps the logs of a control plane and its operators, and shows the end of each operator's.
pub fn keep_logs(from: &Path, to: &Path) -> Result<()> {
    /// Lines at the end of an operator's log that are shown.
    const SHOWN: usize = 40;
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|ending| ending == "log")) else {
            continue;
        };
        std::fs::copy(&path, to.join(name))?;
        if name.to_string_lossy().starts_with("e2e-operator") {
            tell(&format!("--- {}", name.to_string_lossy()));
            let text = std::fs::read_to_string(&path)?;
            let lines: Vec<&str> = text.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(SHOWN)).for_each(|line| tell(line));
        }
    }
    Ok(())
}

/// Removes what a test made and the next one's operator would look at.
async fn clear(plane: &Plane) -> Result<()> {
    let client = &plane.cluster.client;
    let (delete, all) = (DeleteParams::default(), ListParams::default());
    Api::<ValidatingWebhookConfiguration>::all(client.clone()).delete_collection(&delete, &all).await?;
    Api::<MutatingWebhookConfiguration>::all(client.clone()).delete_collection(&delete, &all).await?;
    Api::<LinkPolicy>::all(client.clone()).delete_collection(&delete, &all).await?;
    try_join_all(plane.made().iter().map(clear_namespace)).await.map(drop)
}

async fn clear_namespace(namespace: &Namespace) -> Result<()> {
    remove_all::<LinkCut>(namespace).await?;
    remove_all::<SecureLink>(namespace).await?;
    remove_all::<LinkIdentity>(namespace).await?;
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(namespace.cluster.client.clone());
    // The rest goes when it goes: nobody looks at it.
    match namespaces.delete(&namespace.name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).with_context(|| format!("cannot remove {}", namespace.name)),
    }
}

/// Removes objects whether an operator is there to let go of them or not.
async fn remove_all<K>(namespace: &Namespace) -> Result<()>
where
    K: Kind + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    let api = namespace.api::<K>();
    for object in api.list(&ListParams::default()).await?.items {
        let name = object.name_any();
        let none = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
        let freed = api.patch(&name, &PatchParams::default(), &none).await.map(drop);
        let removed = api.delete(&name, &DeleteParams::default()).await.map(drop);
        for outcome in [freed, removed] {
            match outcome {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => other.with_context(|| format!("cannot remove {} {name}", K::kind(&())))?,
            }
        }
    }
    Ok(())
}
