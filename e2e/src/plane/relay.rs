//! One relay of a link as a process of its own, built from this checkout: what a kubelet would start, and where pods never run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::operator::{Profile, program};
use super::process::{Process, guarded};
use super::{LOOK, Site};

/// Where the operator asks relays.
const CONTROL_PORT: u16 = 15444;

/// A running relay.
pub struct Relay {
    /// The pod that it is taken for.
    pub pod: String,
    process: Process,
    scratch: PathBuf,
}

impl Relay {
    /// Starts a relay with what is stored for it now, as the first pod of a link. It is the only one of its control plane.
    pub async fn start(site: &Site<'_>, link: &str) -> Result<Self> {
        let plane = site.plane();
        let program = tokio::task::spawn_blocking(|| program("securelink", Profile::Same))
            .await
            .context("cannot build the relay")??;
        let folder = |purpose: &str| plane.folder().join(format!("{}-{link}-{purpose}", site.links.name));
        let (config, leaf, scratch) = (folder("config"), folder("leaf"), folder("scratch"));
        let stored =
            site.api::<ConfigMap>().get(&format!("{link}-relay")).await.context("the relay's configuration")?;
        let files = stored.data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes()));
        write(&config, files)?;
        let stored = site.api::<Secret>().get(&format!("{link}-leaf")).await.context("the relay's leaf")?;
        write(&leaf, stored.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0)))?;
        write(&scratch, [])?;
        let address = &plane.cluster.address;
        let mut command = guarded(&program);
        command.arg("relay").arg("--config").arg(&config).arg("--leaf").arg(&leaf).arg("--scratch").arg(&scratch);
        command.args(["--control", &format!("{address}:{CONTROL_PORT}"), "--metrics", "off"]);
        let process = Process::spawn("a relay", &mut command, &folder("log"))?;
        let pod = site.runs(link, address).await?;
        Ok(Self { pod, process, scratch })
    }

    /// Returns when its record of cuts names one of this kind, or none any more; fails as soon as it has ended.
    pub async fn until_cut(&mut self, kind: &str, held: bool, limit: Duration) -> Result<()> {
        let record = self.scratch.join("cuts.json");
        let looked = async {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                ensure!(self.process.is_running()?, "the relay ended; {}", self.process.last_lines());
                // Absent before the first cut, and replaced as a whole.
                let text = std::fs::read_to_string(&record).unwrap_or_default();
                if text.contains(&format!("\"{kind}/")) == held {
                    return Ok(());
                }
            }
        };
        let looked = tokio::time::timeout(limit, looked).await;
        let wanted = if held { "cut" } else { "resumed" };
        looked.unwrap_or_else(|_| bail!("not {wanted} within {} s; {}", limit.as_secs(), self.process.last_lines()))
    }
}

impl Site<'_> {
    /// Has the first pod of a link run at an address, as its kubelet would say; its name.
    async fn runs(&self, link: &str, address: &str) -> Result<String> {
        let pods = self.api::<Pod>();
        let of = ListParams::default().labels(&format!("securelink.dev/link={link}"));
        let pod = pods.list(&of).await?.items.first().map(ResourceExt::name_any).context("a pod")?;
        let status = json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] });
        let patch = Patch::Merge(json!({ "status": status }));
        pods.patch_status(&pod, &PatchParams::default(), &patch).await.context("the status of a pod")?;
        Ok(pod)
    }
}

fn write(folder: &Path, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<()> {
    let failed = || format!("cannot write {}", folder.display());
    std::fs::create_dir(folder).with_context(failed)?;
    files.into_iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).with_context(failed))
}
