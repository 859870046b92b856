//! The lab itself holds what every other end-to-end test builds on.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use securelink_crds::SecureLink;
use securelink_e2e::harness::{self, CLUSTERS, tell};
use securelink_e2e::machine::Holdings;
use securelink_e2e::probe::{self, ECHO_PORT, HTTP_PORT, Probe, READY_LIMIT};
use securelink_e2e::wait::{asking, until};
use securelink_e2e::{Cluster, Namespace, Outcome, Test, World};
use serde_json::{Value, json};

/// The only port of a cluster that another cluster may reach.
const RELAY_PORT: u16 = 30443;
/// A port that a cluster exposes to itself only, though it is a `NodePort` as the other.
const HIDDEN_PORT: u16 = 30444;
/// What a node serves besides: its API server and its kubelet.
const NODE_PORTS: [u16; 2] = [6443, 10250];

/// How long the demo may take in a pod.
const DEMO_LIMIT: Duration = Duration::from_mins(2);
/// How long a pod of kube-proxy may take to end.
const PROXY_LIMIT: Duration = Duration::from_mins(1);
/// What a link of 4 Mbit/s carries in two seconds.
const THROTTLED_BYTES: u64 = 1_000_000;

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
            a_service_account_may_do_what_a_role_says_and_no_more
            an_admission_policy_refuses_what_it_forbids
            our_definitions_are_established_and_their_rules_judge
            our_image_runs_restricted_and_holds_no_shell
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

        // Absolute: else the search list is asked first, at last a server outside of the cluster.
        let full = format!("web.{}.svc.cluster.local.", namespace.name);
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")?;
        let resolved = client.resolve(&full).await?;
        ensure!(resolved.said == format!("resolved {address}"), "{full} is {address}, DNS says {resolved:?}");
        let nobody = client.resolve(&format!("nobody.{}.svc.cluster.local.", namespace.name)).await?;
        ensure!(nobody.word() == "unresolved", "a name that nobody has resolves: {nobody:?}");
        client.until_connected(&format!("{}:{ECHO_PORT}", client.address)).await?;
        let answer = until_answered(&client, "http://web/").await?;
        ensure!(answer.starts_with("200 host=web-"), "the Service answers {answer}");
        services_outlive_their_proxy(&namespace, &client, &labels).await?;
    }
    Ok(Outcome::Held)
}

/// A proxy that starts anew, as it also does with all it wrote once an hour, looks at every Service and keeps it.
async fn services_outlive_their_proxy(namespace: &Namespace, client: &Probe, labels: &Value) -> Result<()> {
    let proxies = Api::<Pod>::namespaced(namespace.cluster.client.clone(), "kube-system");
    let ours = ListParams::default().labels("k8s-app=kube-proxy");
    for proxy in proxies.list_metadata(&ours).await? {
        let name = proxy.name_any();
        proxies.delete(&name, &DeleteParams::default()).await?;
        until(&proxies, &name, "be gone", PROXY_LIMIT, |it| it.is_none()).await?;
    }
    // A Service that is made after it is served once it has looked.
    let spec = json!({ "selector": labels, "ports": [{ "port": 80, "targetPort": "http" }] });
    let late: Service = namespace.create(json!({ "metadata": { "name": "late" }, "spec": spec })).await?;
    let address = late.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")?;
    until_answered(client, &format!("http://{address}/")).await?;
    let answer = client.get("http://web/").await?;
    ensure!(answer.success, "a Service is gone from the proxy: {answer:?}");
    Ok(())
}

/// The Service's rules are written a moment after its pods are Ready.
async fn until_answered(client: &Probe, url: &str) -> Result<String> {
    let answered = |answer: &probe::Answer| answer.success;
    let limit = Duration::from_secs(30);
    asking(url, limit, answered, async || client.get(url).await).await.map(|answer| answer.said)
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

async fn a_service_account_may_do_what_a_role_says_and_no_more(world: &World) -> Result<Outcome> {
    for name in CLUSTERS {
        let namespace = world.namespace(&world.cluster(name).await?, "rights").await?;
        let subject = json!([{ "kind": "ServiceAccount", "name": "default", "namespace": namespace.name }]);
        let rule = json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"] });
        ensure!(!may(&namespace, "get", "configmaps").await?, "{name}: nobody gave this right");
        namespace.create::<Role>(json!({ "metadata": { "name": "reader" }, "rules": [rule] })).await?;
        let reader = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" });
        let binding = json!({ "metadata": { "name": "reader" }, "subjects": subject, "roleRef": reader });
        namespace.create::<RoleBinding>(binding).await?;
        let granted = async || may(&namespace, "get", "configmaps").await;
        asking("the role is in force", Duration::from_secs(30), |granted: &bool| *granted, granted).await?;
        for (verb, resource) in [("list", "configmaps"), ("get", "secrets")] {
            ensure!(!may(&namespace, verb, resource).await?, "{name}: the role does not say {verb} {resource}");
        }
    }
    Ok(Outcome::Held)
}

/// Whether the namespace's default service account may.
async fn may(namespace: &Namespace, verb: &str, resource: &str) -> Result<bool> {
    let user = format!("system:serviceaccount:{0}:default", namespace.name);
    let attributes = json!({ "namespace": namespace.name, "verb": verb, "resource": resource });
    let review = json!({ "metadata": {}, "spec": { "user": user, "resourceAttributes": attributes } });
    let review: SubjectAccessReview = serde_json::from_value(review)?;
    let reviews = Api::<SubjectAccessReview>::all(namespace.cluster.client.clone());
    let judged = reviews.create(&PostParams::default(), &review).await.context("the API server judges no access")?;
    Ok(judged.status.is_some_and(|status| status.allowed))
}

async fn an_admission_policy_refuses_what_it_forbids(world: &World) -> Result<Outcome> {
    for name in CLUSTERS {
        let cluster = world.cluster(name).await?;
        let namespace = world.namespace(&cluster, "admission").await?;
        // Of the whole cluster, so named after the namespace; it goes however the test ends.
        let of_test = AdmissionPolicy { cluster: &cluster, name: &namespace.name };
        of_test.create().await?;
        let judged = refused_by_policy(&namespace).await;
        of_test.remove().await?;
        judged?;
    }
    Ok(Outcome::Held)
}

async fn refused_by_policy(namespace: &Namespace) -> Result<()> {
    let map = |name: &str| json!({ "metadata": { "name": name }, "data": {} });
    let forbidden = async || match namespace.dry_run::<ConfigMap>(map("forbidden")).await {
        Ok(_) => Ok(String::new()),
        Err(error) => Ok(format!("{error:#}")),
    };
    let named = |refusal: &String| refusal.contains("this name is forbidden");
    asking("the admission policy is in force", Duration::from_mins(1), named, forbidden).await?;
    namespace.dry_run::<ConfigMap>(map("allowed")).await.map(drop)
}

struct AdmissionPolicy<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl AdmissionPolicy<'_> {
    async fn create(&self) -> Result<()> {
        let rule = json!({
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
        });
        let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": self.name } });
        let judge = json!({ "expression": "object.metadata.name != 'forbidden'", "message": "this name is forbidden" });
        let matching = json!({ "resourceRules": [rule], "namespaceSelector": here });
        let spec = json!({ "failurePolicy": "Fail", "matchConstraints": matching, "validations": [judge] });
        self.cluster
            .create::<ValidatingAdmissionPolicy>(json!({ "metadata": { "name": self.name }, "spec": spec }))
            .await?;
        let spec = json!({ "policyName": self.name, "validationActions": ["Deny"] });
        let binding = json!({ "metadata": { "name": self.name }, "spec": spec });
        self.cluster.create::<ValidatingAdmissionPolicyBinding>(binding).await.map(drop)
    }

    async fn remove(&self) -> Result<()> {
        self.cluster.remove::<ValidatingAdmissionPolicyBinding>(self.name).await?;
        self.cluster.remove::<ValidatingAdmissionPolicy>(self.name).await
    }
}

async fn our_definitions_are_established_and_their_rules_judge(world: &World) -> Result<Outcome> {
    let cluster = world.cluster(CLUSTERS[0]).await?;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let mut made = Vec::new();
    for definition in securelink_crds::definitions() {
        let name = definition.metadata.name.clone().context("a definition has a name")?;
        if definitions.get_opt(&name).await?.is_none() {
            made.push(name.clone());
        }
        let force = PatchParams::apply("securelink-e2e").force();
        definitions
            .patch(&name, &force, &Patch::Apply(&definition))
            .await
            .with_context(|| format!("{name} is refused"))?;
        let established = |it: Option<&CustomResourceDefinition>| it.is_some_and(is_established);
        until(&definitions, &name, "become Established", READY_LIMIT, established).await?;
    }
    let judged = judged_by_definition(&world.namespace(&cluster, "definitions").await?).await;
    for name in made {
        cluster.remove::<CustomResourceDefinition>(&name).await?;
    }
    judged.map(|()| Outcome::Held)
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// A link that product users may write, and one that a rule of the definition forbids: it cannot be reached and reaches
/// nobody.
async fn judged_by_definition(namespace: &Namespace) -> Result<()> {
    let link = |endpoints: Value| {
        let peer = json!({
            "trustDomain": "europol.example", "endpoints": endpoints,
            "fingerprints": [format!("sha256:{}", "0f".repeat(32))],
        });
        json!({ "metadata": { "name": "europol" }, "spec": { "identityRef": { "name": "default" }, "peer": peer } })
    };
    namespace.dry_run::<SecureLink>(link(json!([{ "host": "link.europol.example", "port": 443 }]))).await?;
    let Err(refusal) = namespace.dry_run::<SecureLink>(link(json!([]))).await else {
        bail!("a link without endpoints and without expose is admitted");
    };
    ensure!(format!("{refusal:#}").contains("expose"), "{refusal:#}");
    Ok(())
}

/// Root, privileges, a writable root and a network are what a partner's cluster would not give it.
async fn our_image_runs_restricted_and_holds_no_shell(world: &World) -> Result<Outcome> {
    let image = world.product()?;
    let namespace = world.namespace(&world.cluster(CLUSTERS[0]).await?, "image").await?;
    let mut spec = probe::spec(&image);
    spec["restartPolicy"] = json!("Never");
    spec["volumes"] = json!([{ "name": "tmp", "emptyDir": {} }]);
    let container = &mut spec["containers"][0];
    container["args"] = json!(["demo"]);
    container["volumeMounts"] = json!([{ "name": "tmp", "mountPath": "/tmp" }]);
    for needless in ["ports", "readinessProbe"] {
        container.as_object_mut().context("a container is an object")?.remove(needless);
    }
    let mut shell = spec.clone();
    shell["containers"][0]["command"] = json!(["/bin/sh"]);
    namespace.create::<Pod>(json!({ "metadata": { "name": "demo" }, "spec": spec })).await?;
    namespace.create::<Pod>(json!({ "metadata": { "name": "shell" }, "spec": shell })).await?;
    let ended = |phase: &'static str| {
        move |pod: Option<&Pod>| pod.and_then(|it| it.status.as_ref()?.phase.as_deref()) == Some(phase)
    };
    until(&namespace.api(), "demo", "succeed", DEMO_LIMIT, ended("Succeeded")).await?;
    let pod = until(&namespace.api(), "shell", "fail", READY_LIMIT, ended("Failed")).await?;
    let why = serde_json::to_string(&pod.and_then(|pod| pod.status))?;
    ensure!(why.contains("StartError") && why.contains("no such file"), "a shell ran in the image: {why}");
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
    world.lab.throttle(CLUSTERS[0], CLUSTERS[1], "4mbit")?;
    let slow = dialer.echo(&target, THROTTLED_BYTES).await?;
    world.lab.heal()?;
    let fast = dialer.echo(&target, THROTTLED_BYTES).await?;
    drop(healed);
    // The first bytes pass as the bucket's burst, and the last ones may rest in buffers.
    ensure!(slow >= Duration::from_millis(1600), "{THROTTLED_BYTES} bytes at 4 Mbit/s took {slow:?}");
    ensure!(fast < slow / 2, "healed, {THROTTLED_BYTES} bytes take {fast:?}, throttled {slow:?}");
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
    if !world.may_end()? {
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
    if !world.may_end()? {
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
