//! `e2e/two-clusters/run`: six commands a side link two kind clusters. The README shows them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use securelink_crds::{LinkIdentity, SecureLink};
use securelink_e2e::harness::{self, CLUSTERS};
use securelink_e2e::installed::{clean, is_free, release};
use securelink_e2e::probe::{self, Probe};
use securelink_e2e::wait::asking;
use securelink_e2e::{Cluster, Namespace, Outcome, Test, World};
use serde_json::json;

/// How many commands a side needs at most.
const COMMANDS: usize = 6;
/// How long a Service may take to lead to what is behind it.
const IN_FORCE: std::time::Duration = std::time::Duration::from_secs(30);

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |world| Box::pin($name(world)))),*] };
    }
    harness::run(env!("CARGO_TARGET_TMPDIR"), tests![six_commands_a_side_link_two_clusters])
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

async fn six_commands_a_side_link_two_clusters(world: &World) -> Result<Outcome> {
    the_readme_shows_at_most_six_commands_a_side()?;
    let image = world.product()?;
    let [first, second] = CLUSTERS;
    let clusters = [world.cluster(first).await?, world.cluster(second).await?];
    for cluster in &clusters {
        if !is_free(cluster).await? {
            return Ok(Outcome::Skipped("a cluster has the kinds already; remove them to try this".to_owned()));
        }
    }
    let mut links = Vec::new();
    for cluster in &clusters {
        release(cluster).await?;
        clean(cluster).await?;
        world.namespace_named(cluster, "securelink-system").await?;
        links.push(world.namespace_named(cluster, "liaison").await?);
    }
    let linked = link_and_read(world, &image, &links).await;
    for cluster in &clusters {
        end(cluster, &links).await?;
    }
    linked.map(|()| Outcome::Held)
}

async fn link_and_read(world: &World, image: &str, links: &[Namespace]) -> Result<()> {
    let tools = world.lab.tools(&["kubectl", "helm3"])?;
    // Under the name by which a user calls it.
    let helm = tempfile::tempdir()?;
    std::os::unix::fs::symlink(tools.join("helm3"), helm.path().join("helm"))?;
    let path = format!("{}:{}:{}", helm.path().display(), tools.display(), std::env::var("PATH").unwrap_or_default());
    let configs: Result<Vec<_>> =
        CLUSTERS.iter().map(|name| Ok(world.lab.kubeconfig(name)?.display().to_string())).collect();
    let (repository, tag) = image.rsplit_once(':').context("the image has no tag")?;
    let mut script = Command::new(root().join("e2e/two-clusters/run"));
    script.env("PATH", path).env("KUBECONFIG", configs?.join(":"));
    script.env("NORTH", format!("securelink-{}", CLUSTERS[0])).env("SOUTH", format!("securelink-{}", CLUSTERS[1]));
    script.env("SET", format!("image.repository={repository},image.tag={tag}"));
    let output = script.output().context("the script")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));

    let labelled = async |at: &Namespace, name: &str| {
        let metadata = json!({ "name": name, "labels": { "app": name } });
        at.create::<Pod>(json!({ "metadata": metadata, "spec": probe::spec(&world.image()?) })).await?;
        Probe::of(at, name).await
    };
    labelled(&links[0], "reports").await?;
    let reader = labelled(&links[1], "reader").await?;
    let read = async || reader.get("http://north-reports/2026").await;
    let got = asking("the reader gets a report", IN_FORCE, |got| got.success, read).await?;
    ensure!(got.said.contains("host=reports") && got.said.contains("path=/2026"), "{got:?}");
    Ok(())
}

/// Links and identities go while the operator is there, the namespaces by the harness, the rest here.
async fn end(cluster: &Cluster, links: &[Namespace]) -> Result<()> {
    for namespace in links.iter().filter(|namespace| namespace.cluster.name == cluster.name) {
        let all = (kube::api::DeleteParams::default(), kube::api::ListParams::default());
        // Where the script failed early, there are no kinds.
        drop(namespace.api::<SecureLink>().delete_collection(&all.0, &all.1).await);
        drop(namespace.api::<LinkIdentity>().delete_collection(&all.0, &all.1).await);
    }
    release(cluster).await?;
    clean(cluster).await
}

/// What the README shows is what the script runs.
fn the_readme_shows_at_most_six_commands_a_side() -> Result<()> {
    let output = Command::new(root().join("e2e/two-clusters/run")).arg("--print").output()?;
    let commands = String::from_utf8(output.stdout)?;
    for side in ["kind-north ", "kind-south "] {
        let count = commands.lines().filter(|line| line.contains(side)).count();
        ensure!((1..=COMMANDS).contains(&count), "{count} commands for {side}");
    }
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    for command in commands.lines() {
        ensure!(readme.lines().any(|line| line == command), "the README does not show: {command}");
    }
    Ok(())
}
