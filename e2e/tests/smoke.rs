//! The lab itself holds what every other end-to-end test builds on.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use rustix::process::{Pid, Signal, kill_process};
use securelink_e2e::harness::{self, CLUSTERS, tell};
use securelink_e2e::machine::Holdings;
use securelink_e2e::probe::{self, ECHO_PORT, HTTP_PORT, Probe, READY_LIMIT};
use securelink_e2e::wait::until;
use securelink_e2e::{Cluster, Namespace, Outcome, Test, World};
use serde_json::{Value, json};

/// The only port of a cluster that another cluster may reach.
const RELAY_PORT: u16 = 30443;
/// A port that a cluster exposes to itself only, though it is a `NodePort` as the other.
const HIDDEN_PORT: u16 = 30444;
/// What a node serves besides: its API server and its kubelet.
const NODE_PORTS: [u16; 2] = [6443, 10250];

/// Why a test that ends the lab is left out.
const WAS_UP: &str = "the lab was up before this run, and is left up; run `lab down` first to try this too";

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |world| Box::pin($name(world)))),*] };
    }
    // In this order: the last two end the lab.
    harness::run(
        env!("CARGO_TARGET_TMPDIR"),
        tests![
            two_clusters_come_up_and_up_again_is_harmless
            a_restricted_deployment_is_ready_and_its_service_and_dns_answer
            a_pod_that_is_not_restricted_is_refused
            the_api_server_accepts_our_definitions
            a_network_policy_lets_pass_whom_it_names_and_nobody_else
            a_network_policy_judges_addresses_named_ports_and_egress
            only_the_exposed_port_of_the_other_cluster_is_reachable
            a_cut_between_clusters_is_seen_and_heals
            a_crashed_run_is_cleaned_by_the_next_up
            down_leaves_nothing_behind
        ],
    )
}

async fn two_clusters_come_up_and_up_again_is_harmless(world: &World) -> Result<Outcome> {
    world.image()?;
    let ready = world.lab.status()?.ready();
    ensure!(CLUSTERS.iter().all(|name| ready.iter().any(|up| up == name)), "ready are only {ready:?}");
    let first = uids(world).await?;
    world.lab.up(&CLUSTERS)?;
    ensure!(uids(world).await? == first, "a second up made clusters anew");
    ensure!(first[0] != first[1], "both names lead to one cluster");
    Ok(Outcome::Held)
}

/// What tells one cluster from another, and from one made anew: the uid of its namespace kube-system.
async fn uids(world: &World) -> Result<Vec<String>> {
    let mut uids = Vec::new();
    for name in CLUSTERS {
        let client = world.cluster(name).await?.client;
        let system = Api::<k8s_openapi::api::core::v1::Namespace>::all(client).get("kube-system").await?;
        uids.push(system.metadata.uid.context("every namespace has a uid")?);
    }
    Ok(uids)
}

async fn a_restricted_deployment_is_ready_and_its_service_and_dns_answer(world: &World) -> Result<Outcome> {
    for name in CLUSTERS {
        let cluster = world.cluster(name).await?;
        let namespace = world.namespace(&cluster, "web").await?;
        let image = world.image()?;
        let labels = json!({ "app": "web" });
        let template = json!({ "metadata": { "labels": labels }, "spec": probe::spec(&image) });
        let spec = json!({ "replicas": 2, "selector": { "matchLabels": labels }, "template": template });
        namespace.create::<Deployment>(json!({ "metadata": { "name": "web" }, "spec": spec })).await?;
        let spec = json!({ "selector": labels, "ports": [{ "port": 80, "targetPort": "http" }] });
        let service: Service = namespace.create(json!({ "metadata": { "name": "web" }, "spec": spec })).await?;
        let client = Probe::start(&namespace, &image, "client").await?;
        let ready = |it: Option<&Deployment>| it.and_then(|it| it.status.as_ref()?.ready_replicas) == Some(2);
        until(&namespace.api(), "web", "have two Ready pods", READY_LIMIT, ready).await?;

        let full = format!("web.{}.svc.cluster.local", namespace.name);
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")?;
        let resolved = client.resolve(&full).await?;
        ensure!(resolved.said == format!("resolved {address}"), "{full} is {address}, DNS says {resolved:?}");
        let nobody = client.resolve(&format!("nobody.{}.svc.cluster.local", namespace.name)).await?;
        ensure!(nobody.word() == "unresolved", "a name that nobody has resolves: {nobody:?}");
        client.until_connected(&format!("{}:{ECHO_PORT}", client.address)).await?;
        let answer = until_answered(&client, "http://web/").await?;
        ensure!(answer.starts_with("200 host=web-"), "the Service answers {answer}");
    }
    Ok(Outcome::Held)
}

/// The Service's rules are written a moment after its pods are Ready.
async fn until_answered(client: &Probe, url: &str) -> Result<String> {
    let answered = |answer: &probe::Answer| answer.success;
    let limit = Duration::from_secs(30);
    securelink_e2e::wait::asking(url, limit, answered, async || client.get(url).await).await.map(|answer| answer.said)
}

async fn a_pod_that_is_not_restricted_is_refused(world: &World) -> Result<Outcome> {
    for name in CLUSTERS {
        let namespace = world.namespace(&world.cluster(name).await?, "refused").await?;
        let mut spec = probe::spec(&world.image()?);
        spec["containers"][0]["securityContext"] = json!({ "privileged": true });
        let Err(refusal) = namespace.create::<Pod>(json!({ "metadata": { "name": "privileged" }, "spec": spec })).await
        else {
            bail!("{name}: a privileged pod may run in a restricted namespace");
        };
        ensure!(format!("{refusal:#}").contains("violates PodSecurity"), "{refusal:#}");
    }
    Ok(Outcome::Held)
}

/// By a dry run, which judges schema and rules and stores nothing.
async fn the_api_server_accepts_our_definitions(world: &World) -> Result<Outcome> {
    let api = Api::<CustomResourceDefinition>::all(world.cluster(CLUSTERS[0]).await?.client);
    for mut definition in securelink_crds::definitions() {
        let name = definition.metadata.name.clone().context("a definition has a name")?;
        // One that is there already is judged as an update.
        let there = api.get_opt(&name).await?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let judged = if let Some(there) = there {
            definition.metadata.resource_version = there.metadata.resource_version;
            api.replace(&name, &dry, &definition).await
        } else {
            api.create(&dry, &definition).await
        };
        judged.with_context(|| format!("{name} is refused"))?;
    }
    Ok(Outcome::Held)
}

async fn a_network_policy_lets_pass_whom_it_names_and_nobody_else(world: &World) -> Result<Outcome> {
    for name in CLUSTERS {
        let namespace = world.namespace(&world.cluster(name).await?, "policy").await?;
        let [server, may, also, other] = probes(world, &namespace, ["server", "may", "also", "other"]).await?;
        let target = format!("{}:{ECHO_PORT}", server.address);
        for client in [&may, &also, &other] {
            client.until_connected(&target).await?;
        }
        policy(&namespace, "deny", json!({ "podSelector": role("server"), "policyTypes": ["Ingress"] })).await?;
        for client in [&may, &also, &other] {
            client.until_denied(&target).await?;
        }
        policy(&namespace, "may", from(&json!([{ "podSelector": role("may") }]), &json!(ECHO_PORT))).await?;
        may.until_connected(&target).await?;
        ensure_denied(&[&also, &other], &target).await?;
        // A second policy adds to the first and takes nothing away.
        policy(&namespace, "also", from(&json!([{ "podSelector": role("also") }]), &json!(ECHO_PORT))).await?;
        also.until_connected(&target).await?;
        may.until_connected(&target).await?;
        ensure_denied(&[&other], &target).await?;
    }
    Ok(Outcome::Held)
}

async fn a_network_policy_judges_addresses_named_ports_and_egress(world: &World) -> Result<Outcome> {
    for name in CLUSTERS {
        let namespace = world.namespace(&world.cluster(name).await?, "policy").await?;
        let [server, may, other] = probes(world, &namespace, ["server", "may", "other"]).await?;
        let (echo, web) = (format!("{}:{ECHO_PORT}", server.address), format!("{}:{HTTP_PORT}", server.address));
        // Everybody but the one address, at the port of that name.
        let block = json!([{ "ipBlock": { "cidr": "0.0.0.0/0", "except": [format!("{}/32", other.address)] } }]);
        policy(&namespace, "block", from(&block, &json!("echo"))).await?;
        other.until_denied(&echo).await?;
        may.until_connected(&echo).await?;
        let answer = may.dial(&web, false).await?;
        ensure!(!answer.connected(), "a port that no rule names is reached: {answer:?}");
        // And from now on the one that may come in may not go out.
        let silent = json!({ "podSelector": role("may"), "policyTypes": ["Egress"] });
        policy(&namespace, "silent", silent).await?;
        may.until_denied(&echo).await?;
    }
    Ok(Outcome::Held)
}

async fn only_the_exposed_port_of_the_other_cluster_is_reachable(world: &World) -> Result<Outcome> {
    let [a, b] = both(world).await?;
    for (here, there) in [(&a, &b), (&b, &a)] {
        let [dialer] = probes(world, &world.namespace(here, "dial").await?, ["dialer"]).await?;
        let exposed = world.namespace(there, "exposed").await?;
        let [inside] = probes(world, &exposed, ["server"]).await?;
        expose(&exposed, "relay", RELAY_PORT).await?;
        expose(&exposed, "hidden", HIDDEN_PORT).await?;
        // All of them are there, for who is inside: that they are closed is the doing of the fence.
        let at = |port: u16| format!("{}:{port}", there.address);
        inside.until_connected(&at(HIDDEN_PORT)).await?;
        for port in NODE_PORTS {
            let answer = inside.dial(&at(port), false).await?;
            ensure!(answer.connected(), "{}: nothing listens at {port}: {answer:?}", there.name);
        }
        dialer.until_connected(&at(RELAY_PORT)).await?;
        for port in [HIDDEN_PORT, NODE_PORTS[0], NODE_PORTS[1]] {
            let answer = dialer.dial(&at(port), false).await?;
            ensure!(!answer.connected(), "{} reaches port {port} of {}: {answer:?}", here.name, there.name);
        }
    }
    Ok(Outcome::Held)
}

async fn a_cut_between_clusters_is_seen_and_heals(world: &World) -> Result<Outcome> {
    let [a, b] = both(world).await?;
    let [dialer] = probes(world, &world.namespace(&a, "dial").await?, ["dialer"]).await?;
    let exposed = world.namespace(&b, "exposed").await?;
    probes(world, &exposed, ["server"]).await?;
    expose(&exposed, "relay", RELAY_PORT).await?;
    let target = format!("{}:{RELAY_PORT}", b.address);
    dialer.until_connected(&target).await?;

    let healed = Healed(world);
    world.lab.cut(CLUSTERS[0], CLUSTERS[1])?;
    ensure_silent(&dialer, &target).await?;
    world.lab.heal()?;
    dialer.until_connected(&target).await?;
    for (from, to) in [(CLUSTERS[0], CLUSTERS[1]), (CLUSTERS[1], CLUSTERS[0])] {
        world.lab.drop_from(from, to)?;
        ensure_silent(&dialer, &target).await?;
        world.lab.heal()?;
        dialer.until_connected(&target).await?;
    }
    world.lab.throttle(CLUSTERS[0], CLUSTERS[1], "1mbit")?;
    dialer.until_connected(&target).await?;
    drop(healed);
    dialer.until_connected(&target).await?;
    Ok(Outcome::Held)
}

/// Heals however the test ends: the next one needs the network.
struct Healed<'a>(&'a World);

impl Drop for Healed<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.lab.heal() {
            tell(&format!("{error:#}"));
        }
    }
}

/// A cut loses packets: whoever dials hears nothing, not even a refusal.
async fn ensure_silent(dialer: &Probe, target: &str) -> Result<()> {
    let answer = dialer.dial(target, true).await?;
    ensure!(answer.word() == "timeout", "{target} is cut off, and the answer is {answer:?}");
    Ok(())
}

async fn a_crashed_run_is_cleaned_by_the_next_up(world: &World) -> Result<Outcome> {
    if world.was_up()? {
        return Ok(Outcome::Skipped(WAS_UP.to_owned()));
    }
    let Some(engine) = world.lab.status()?.own_engine() else {
        return Ok(Outcome::Skipped("the engine is this machine's own, which no test may kill".to_owned()));
    };
    let held = Holdings::of(engine, world.before()?)?;
    tell(&format!("crash: the engine, pid {engine}, goes with {}", held.summary()));
    kill_process(Pid::from_raw(engine).context("a process number")?, Signal::KILL).context("cannot kill the engine")?;
    ensure!(!world.lab.leftovers()?.is_empty(), "a crash left nothing, so this test shows nothing");
    world.lab.up(&CLUSTERS)?;
    let successor = world.lab.status()?.own_engine().context("an engine runs again")?;
    ensure!(successor != engine, "the engine that was killed answers");
    let alive = held.alive(Some(successor));
    ensure!(alive.is_empty(), "of the crashed run there still are:\n{}", alive.join("\n"));
    world.lab.probe()?;
    for name in CLUSTERS {
        let namespace = world.namespace(&world.cluster(name).await?, "anew").await?;
        probes(world, &namespace, ["server"]).await?;
    }
    Ok(Outcome::Held)
}

async fn down_leaves_nothing_behind(world: &World) -> Result<Outcome> {
    if world.was_up()? {
        return Ok(Outcome::Skipped(WAS_UP.to_owned()));
    }
    let held = match world.lab.status()?.own_engine() {
        Some(engine) => Some(Holdings::of(engine, world.before()?)?),
        None => None,
    };
    if let Some(held) = &held {
        tell(&format!("down: {}", held.summary()));
    }
    world.lab.down()?;
    let record = world.lab.leftovers()?;
    ensure!(record.is_empty(), "by the lab's own record there still are:\n{}", record.join("\n"));
    if let Some(held) = held {
        let left = held.left()?;
        ensure!(left.is_empty(), "of the lab there still are:\n{}", left.join("\n"));
    }
    for name in CLUSTERS {
        ensure!(world.lab.kubeconfig(name).is_err(), "{name} is down and still has a kubeconfig");
    }
    Ok(Outcome::Held)
}

async fn both(world: &World) -> Result<[Cluster; 2]> {
    Ok([world.cluster(CLUSTERS[0]).await?, world.cluster(CLUSTERS[1]).await?])
}

/// Ready probes of these names, each with its name as the label `role`.
async fn probes<const N: usize>(world: &World, namespace: &Namespace, names: [&str; N]) -> Result<[Probe; N]> {
    let image = world.image()?;
    let started = try_join_all(names.iter().map(|name| Probe::start(namespace, &image, name))).await?;
    started.try_into().map_err(|_| anyhow::anyhow!("a probe for each name"))
}

/// Lets a cluster serve its echo at a port of its node.
async fn expose(namespace: &Namespace, name: &str, port: u16) -> Result<()> {
    let ports = json!([{ "port": ECHO_PORT, "targetPort": "echo", "nodePort": port }]);
    let spec = json!({ "type": "NodePort", "selector": { "role": "server" }, "ports": ports });
    namespace.create::<Service>(json!({ "metadata": { "name": name }, "spec": spec })).await.map(drop)
}

async fn policy(namespace: &Namespace, name: &str, spec: Value) -> Result<()> {
    namespace.create::<NetworkPolicy>(json!({ "metadata": { "name": name }, "spec": spec })).await.map(drop)
}

/// A policy's spec that lets these peers into the server at one port.
fn from(peers: &Value, port: &Value) -> Value {
    let rule = json!({ "from": peers, "ports": [{ "port": port }] });
    json!({ "podSelector": role("server"), "policyTypes": ["Ingress"], "ingress": [rule] })
}

fn role(name: &str) -> Value {
    json!({ "matchLabels": { "role": name } })
}

async fn ensure_denied(clients: &[&Probe], target: &str) -> Result<()> {
    for client in clients {
        let answer = client.dial(target, true).await?;
        ensure!(!answer.connected(), "{} reaches {target}, and no policy names it: {answer:?}", client.name);
    }
    Ok(())
}
