//! P7: every fault gives its own condition and reason, and its message says what to do.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use securelink_crds::conditions::{Condition, ConditionType};
use securelink_crds::{ExportStatus, LinkIdentity, LinkPolicy, SecureLink};
use securelink_e2e::organization::{IDENTITIES, LINK, LINK_LIMIT, NODE_PORT, Organization};
use securelink_e2e::wait::until;
use securelink_e2e::{Pair, World};
use serde_json::{Value, json};

/// A port of a node at which nobody listens. The fence between the clusters drops it.
const NOBODY: u16 = 30999;

/// A mistake that a person makes on the one side alone.
struct Mistake {
    /// The link's name, and what was done wrong.
    name: &'static str,
    /// What is written over a link that would do.
    over: Value,
    /// Where the fault is seen.
    condition: ConditionType,
    reason: &'static str,
    /// Words of the remedy.
    remedy: &'static str,
}

/// A link of an identity of its own to `peer`.
fn to(peer: &str, pin: &str, host: &str, port: u16) -> Value {
    json!({ "peer": { "trustDomain": peer, "fingerprints": [pin], "endpoints": [{ "host": host, "port": port }] } })
}

fn import(name: &str, service: &str) -> Value {
    json!({ "name": name, "port": 7001, "dataClass": "strategic", "serviceName": service,
            "clients": [{ "podSelector": {} }] })
}

async fn mistakes(a: &Organization, b: &Organization) -> Result<Vec<Mistake>> {
    let (pin, wrong) = (b.fingerprint(IDENTITIES[0]).await?, format!("sha256:{}", "0f".repeat(32)));
    let (there, here) = (&b.installed.cluster.address, &a.installed.cluster.address);
    let peer = b.domain(IDENTITIES[0]);
    let unreached = to("elsewhere.example", &wrong, "nobody.invalid", 443);
    let and = |more: Value| {
        let mut over = unreached.clone();
        over.as_object_mut().into_iter().for_each(|over| over.extend(more.as_object().cloned().unwrap_or_default()));
        over
    };
    let mistake = |name, over, condition, reason, remedy| Mistake { name, over, condition, reason, remedy };
    Ok(vec![
        mistake(
            "fingerprint",
            to(&peer, &wrong, there, NODE_PORT),
            ConditionType::PeerConnected,
            "WrongRoot",
            "compare peer.fingerprints",
        ),
        mistake(
            "organization",
            to("elsewhere.example", &pin, there, NODE_PORT),
            ConditionType::PeerConnected,
            "WrongTrustDomain",
            "compare peer.trustDomain",
        ),
        mistake(
            "audience",
            to(&peer, &pin, there, NODE_PORT),
            ConditionType::PeerConnected,
            "WrongAudience",
            "the peer must point its link to us",
        ),
        mistake("host", unreached.clone(), ConditionType::PeerConnected, "DnsFailed", "compare peer.endpoints"),
        mistake(
            "port",
            to(&peer, &pin, here, NOBODY),
            ConditionType::PeerConnected,
            "Refused",
            "peer.endpoints names another port",
        ),
        mistake(
            "firewall",
            to(&peer, &pin, there, NOBODY),
            ConditionType::PeerConnected,
            "TimedOut",
            "maybe a firewall or a NetworkPolicy",
        ),
        mistake(
            "identity",
            and(json!({ "identityRef": { "name": "nobody" } })),
            ConditionType::Accepted,
            "IdentityNotReady",
            "create it, or correct the name",
        ),
        mistake(
            "duplicate",
            and(json!({ "identityRef": { "name": IDENTITIES[0] }, "peer": to(&peer, &pin, there, NODE_PORT)["peer"] })),
            ConditionType::Accepted,
            "DuplicatePeer",
            "delete one of the two",
        ),
        mistake(
            "same-name",
            and(json!({ "imports": [import("one", "same"), import("two", "same")] })),
            ConditionType::Accepted,
            "Invalid",
            "set another serviceName",
        ),
        mistake(
            "taken-name",
            and(json!({ "imports": [import("one", "taken")] })),
            ConditionType::Accepted,
            "NameTaken",
            "write another serviceName",
        ),
        mistake(
            "policy",
            to("partner.test", &wrong, "nobody.invalid", 443),
            ConditionType::Accepted,
            "Forbidden",
            "ask the platform's owner",
        ),
        mistake(
            "node",
            and(json!({ "relay": { "replicas": 1, "nodeSelector": { "there": "is-none" } } })),
            ConditionType::RelayAvailable,
            "Unschedulable",
            "make room, or change what spec.relay asks of a node",
        ),
    ])
}

pub(crate) async fn p07_each_fault_has_its_own_reason_and_remedy(world: &World, pair: &Pair) -> Result<()> {
    let (a, b) = (&pair.a.organization, &pair.b.organization);
    let mistakes = mistakes(a, b).await?;
    surroundings(a).await?;
    for mistake in &mistakes {
        declare(a, mistake.name, &mistake.over).await?;
    }
    let mut reasons = BTreeSet::new();
    for mistake in &mistakes {
        let said = a.until_link_says(mistake.name, mistake.condition, mistake.reason).await;
        remedied(&said.with_context(|| mistake.name)?, mistake.remedy).context(mistake.name)?;
        ensure!(reasons.insert(mistake.reason), "two faults say {}", mistake.reason);
        let ready = a.until_link_says(mistake.name, ConditionType::Ready, mistake.reason).await?;
        ensure!(ready.status == "False", "{} is Ready", mistake.name);
    }
    an_export_says_why_it_cannot_be_used(a).await?;
    a_namespace_that_is_not_granted(world, a).await?;
    what_the_peer_does_is_named_as_the_peers(pair).await
}

/// Declares a link of an identity of its own, so that none is the second to its peer.
async fn declare(a: &Organization, name: &str, over: &Value) -> Result<()> {
    a.identify(name, &format!("{name}.rows.example")).await?;
    let few = json!({ "replicas": 1, "resources": { "requests": { "cpu": "5m", "memory": "16Mi" } } });
    let mut spec = json!({ "identityRef": { "name": name }, "relay": few });
    spec.as_object_mut().into_iter().for_each(|spec| spec.extend(over.as_object().cloned().unwrap_or_default()));
    a.declare(name, &spec).await.map(drop)
}

/// What others have in the cluster: a Service of their own, and a policy.
async fn surroundings(a: &Organization) -> Result<()> {
    let port = json!({ "ports": [{ "port": 7001 }], "selector": { "role": "nobody" } });
    a.links().create::<Service>(json!({ "metadata": { "name": "taken" }, "spec": port })).await?;
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": a.links().name } });
    let allowed = json!({ "own": ["*.example"], "peer": ["*.example"] });
    let spec = json!({ "namespaceSelector": selector, "allowedTrustDomains": allowed });
    a.links().cluster.create::<LinkPolicy>(json!({ "metadata": { "name": "guard" }, "spec": spec })).await.map(drop)
}

/// A message says what is wrong, and after a semicolon what to do.
fn remedied(said: &Condition, remedy: &str) -> Result<()> {
    let (_, what_to_do) = said.message.split_once("; ").with_context(|| format!("no remedy: {}", said.message))?;
    ensure!(what_to_do.contains(remedy), "not the remedy that was expected: {}", said.message);
    Ok(())
}

/// One export that cannot be used takes nothing from the rest of the link.
async fn an_export_says_why_it_cannot_be_used(a: &Organization) -> Result<()> {
    let export = |name: &str, target: Value| json!({ "name": name, "dataClass": "strategic", "target": target });
    let exports = [
        export("echo", json!({ "service": "echo", "port": 7 })),
        export("missing", json!({ "service": "missing", "port": 7 })),
        export("far", json!({ "service": "kubernetes", "namespace": "default", "port": 443 })),
    ];
    a.patch(&json!({ "spec": { "exports": exports } })).await?;
    let of = |link: &SecureLink, name: &str| -> Option<ExportStatus> {
        link.status.as_ref()?.exports.iter().find(|export| export.name == name).cloned()
    };
    let told = |link: Option<&SecureLink>| {
        let usable = [("echo", true), ("missing", false), ("far", false)];
        link.is_some_and(|link| {
            usable.iter().all(|(name, usable)| of(link, name).is_some_and(|it| it.usable == *usable))
        })
    };
    let links = a.links().api::<SecureLink>();
    let what = "say that two of three exports cannot be used";
    let link = until(&links, LINK, what, LINK_LIMIT, told).await?.context("a link")?;
    for (name, reason, remedy) in [
        ("missing", "Invalid", "; create it, or name another one"),
        ("far", "NamespaceNotGranted", "grant default --exports"),
    ] {
        let export = of(&link, name).context("an export")?;
        let message = export.message.unwrap_or_default();
        ensure!(
            export.reason.as_deref() == Some(reason) && message.contains(remedy),
            "{name}: {:?} {message}",
            export.reason
        );
    }
    a.until_says(ConditionType::Ready, "Ready").await.map(drop)
}

async fn a_namespace_that_is_not_granted(world: &World, a: &Organization) -> Result<()> {
    let elsewhere = world.namespace(&a.installed.cluster, "elsewhere").await?;
    let spec = json!({ "trustDomain": "elsewhere.rows.example", "issuer": { "builtIn": {} } });
    elsewhere.create::<LinkIdentity>(json!({ "metadata": { "name": "default" }, "spec": spec })).await?;
    let mut spec = to("elsewhere.example", &format!("sha256:{}", "0f".repeat(32)), "nobody.invalid", 443);
    spec["identityRef"] = json!({ "name": "default" });
    elsewhere.create::<SecureLink>(json!({ "metadata": { "name": "far" }, "spec": spec })).await?;
    let accepted = |link: &SecureLink| {
        let conditions = &link.status.as_ref()?.conditions;
        securelink_crds::conditions::find(conditions, ConditionType::Accepted).cloned()
    };
    let told = |link: Option<&SecureLink>| link.and_then(accepted).is_some_and(|it| it.reason == "NamespaceNotGranted");
    let link = until(&elsewhere.api(), "far", "say NamespaceNotGranted", LINK_LIMIT, told).await?;
    let said = link.as_ref().and_then(accepted).context("the condition")?;
    remedied(&said, &format!("kubectl securelink grant {}", elsewhere.name))
}

/// Where the other side made the mistake, each side says whose it is.
async fn what_the_peer_does_is_named_as_the_peers(pair: &Pair) -> Result<()> {
    let (a, b) = (&pair.a.organization, &pair.b.organization);
    b.patch(&json!({ "spec": { "peer": { "fingerprints": [format!("sha256:{}", "0f".repeat(32))] } } })).await?;
    let said = a.until_says(ConditionType::PeerConnected, "RefusedByPeer").await?;
    remedied(&said, "it must pin our fingerprint")?;
    let said = b.until_says(ConditionType::PeerConnected, "WrongRoot").await?;
    remedied(&said, "compare peer.fingerprints")
}
