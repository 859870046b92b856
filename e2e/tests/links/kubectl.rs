//! `kubectl securelink` against clusters in which links live: what people do, and what their roles let them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::PostParams;
use securelink_crds::SecureLink;
use securelink_crds::conditions::ConditionType;
use securelink_e2e::organization::{IDENTITIES, LINK};
use securelink_e2e::pair::import;
use securelink_e2e::people::Person;
use securelink_e2e::stream::Stream;
use securelink_e2e::{Namespace, Pair, World};
use serde_json::json;

pub(crate) async fn kubectl_securelink_says_what_is_and_asks_the_relays(world: &World, pair: &Pair) -> Result<()> {
    for (side, peer) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        let (here, there) = (&side.organization, &peer.organization);
        let person = Person::at(world, here.links())?;
        let said = person.securelink(&["status"]).await?.expect(0)?;
        said.holds(LINK)?.holds(&there.domain(IDENTITIES[0]))?.holds("Ready")?;
        let said = person.securelink(&["fingerprint", "default"]).await?.expect(0)?;
        said.holds(&here.fingerprint(IDENTITIES[0]).await?)?.holds(&here.domain(IDENTITIES[0]))?;
        let said = person.securelink(&["doctor", LINK]).await?.expect(0)?;
        ensure!(!said.out.contains('✗') && said.out.contains('✓'), "{}", said.out);
        person.securelink(&["greet", LINK]).await?.expect(0)?.holds(&there.domain(IDENTITIES[0]))?;
    }
    Ok(())
}

/// What a person writes is what the operator makes of it.
pub(crate) async fn kubectl_securelink_judges_files_as_the_cluster_does(world: &World, pair: &Pair) -> Result<()> {
    let at = pair.a.organization.links();
    let person = Person::at(world, at)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("link.yaml");
    let (name, spec) = pair.a.specs.first().context("a link")?;
    let identity = json!({ "trustDomain": pair.a.organization.domain(IDENTITIES[0]), "issuer": { "builtIn": {} } });
    let object = |kind: &str, name: &str, spec: &serde_json::Value| {
        json!({ "apiVersion": "securelink.dev/v1alpha1", "kind": kind, "metadata": { "name": name, "namespace": at.name }, "spec": spec })
            .to_string()
    };
    let write = |spec: &serde_json::Value| {
        std::fs::write(
            &file,
            format!("{}\n---\n{}\n", object("LinkIdentity", "default", &identity), object("SecureLink", name, spec)),
        )
    };
    let path = file.display().to_string();
    write(spec)?;
    person.securelink(&["check", "-f", &path]).await?.expect(0)?;
    person.kubectl(&["apply", "--dry-run=server", "-f", &path]).await?.expect(0)?;
    let mut wrong = spec.clone();
    wrong["peer"]["fingerprints"] = json!(["sha256:short"]);
    write(&wrong)?;
    person.securelink(&["check", "-f", &path]).await?.expect(1)?.holds("fingerprints")?;
    person.kubectl(&["apply", "--dry-run=server", "-f", &path]).await?.expect(1)?.holds("fingerprints")?;

    std::fs::write(&file, "Memorandum\n")?;
    person.securelink(&["digest", &path]).await?.expect(0)?.holds("sha256:")?;
    Ok(())
}

pub(crate) async fn kubectl_securelink_cuts_and_resumes(world: &World, pair: &Pair) -> Result<()> {
    let (a, client) = (&pair.a.organization, &pair.a.client);
    let person = Person::at(world, a.links())?;
    let stream = Stream::open(client, &import(LINK)).await?;
    let cut = ["cut", LINK, "--reason", "incident 2026-114"];
    let said = person.securelink(&cut).await?.expect(0)?.holds("is cut by LinkCut")?;
    for relay in a.relays(LINK).await? {
        ensure!(said.out.contains(relay.metadata.name.as_deref().unwrap_or("?")), "{}", said.out);
    }
    let end = stream.ended().await?;
    ensure!(end.how == "reset", "{end:?}");
    a.until_says(ConditionType::Ready, "CutHere").await?;
    person.securelink(&["status", LINK]).await?.expect(1)?.holds("CutHere")?.holds("incident 2026-114")?;
    person.securelink(&["resume", LINK, "--yes"]).await?.expect(0)?.holds("is resumed")?;
    a.until_says(ConditionType::Ready, "Ready").await?;
    client.until_connected(&import(LINK)).await
}

/// Each role of the chart lets a person do what its line in docs/kubectl.md says, and no more.
pub(crate) async fn kubectl_securelink_needs_the_documented_roles(world: &World, pair: &Pair) -> Result<()> {
    let at = pair.a.organization.links();
    let admin = Person::at(world, at)?;
    let viewer = bound(at, &admin, "securelink-view").await?;
    let editor = bound(at, &admin, "securelink-edit").await?;
    let desk = bound(at, &admin, "securelink-cut").await?;
    let lead = bound(at, &admin, "securelink-resume").await?;
    viewer.securelink(&["status"]).await?.expect(0)?.holds(LINK)?;
    viewer.securelink(&["greet", LINK]).await?.expect(1)?.holds("--clusterrole=securelink-edit")?;
    editor.securelink(&["greet", LINK]).await?.expect(0)?;
    editor.securelink(&["doctor", LINK]).await?.expect(0)?;
    let cut = ["cut", LINK, "--reason", "drill"];
    editor.securelink(&cut).await?.expect(1)?.holds("--clusterrole=securelink-cut")?;
    desk.securelink(&cut).await?.expect(0)?;
    desk.securelink(&["resume", LINK, "--yes"]).await?.expect(1)?.holds("--clusterrole=securelink-resume")?;
    lead.securelink(&["resume", LINK, "--yes"]).await?.expect(0)?;
    pair.a.organization.until_says(ConditionType::Ready, "Ready").await.map(drop)
}

/// Somebody who is bound to one role of the chart in the namespace.
async fn bound(at: &Namespace, admin: &Person, role: &str) -> Result<Person> {
    at.create::<ServiceAccount>(json!({ "metadata": { "name": role } })).await?;
    at.create::<RoleBinding>(json!({
        "metadata": { "name": format!("person-{role}") },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": role, "namespace": at.name }],
    }))
    .await?;
    let request: TokenRequest = serde_json::from_value(json!({ "metadata": {}, "spec": { "audiences": [] } }))?;
    let accounts = at.api::<ServiceAccount>();
    let answer = accounts.create_token_request(role, &PostParams::default(), &request).await?;
    admin.with_token(&answer.status.context("no token")?.token)
}

/// The chart's values and the command may grant the same namespace, in either order; each is taken back by itself.
pub(crate) async fn a_namespace_is_granted_by_the_chart_and_by_kubectl(world: &World, pair: &Pair) -> Result<()> {
    let a = &pair.a.organization;
    let admin = Person::at(world, a.links())?;
    let (links, own) = (a.links().name.clone(), a.installed.own.name.clone());
    admin.securelink(&["grant", &links]).await?.expect(0)?.holds("is granted")?;
    admin.securelink(&["grant", &links]).await?.expect(0)?.holds("was granted before")?;
    admin.securelink(&["grant", &own]).await?.expect(1)?.holds("the operator's own namespace")?;

    // A link where nothing is granted yet says so, and by what command it is.
    let field = world.namespace(&a.installed.cluster, "field").await?;
    let spec = json!({ "trustDomain": "field.rows.example", "issuer": { "builtIn": {} } });
    field.create::<securelink_crds::LinkIdentity>(json!({ "metadata": { "name": "default" }, "spec": spec })).await?;
    let peer = json!({ "trustDomain": "nobody.example", "fingerprints": [format!("sha256:{}", "0f".repeat(32))],
                       "endpoints": [{ "host": "nobody.invalid", "port": 443 }] });
    let spec = json!({ "identityRef": { "name": "default" }, "peer": peer, "relay": { "replicas": 1 } });
    field.create::<SecureLink>(json!({ "metadata": { "name": "far" }, "spec": spec })).await?;
    let waited = |reason: &str| {
        let condition = format!("--for=jsonpath={{.status.conditions[?(@.type==\"Accepted\")].reason}}={reason}");
        [
            "-n".to_owned(),
            field.name.clone(),
            "wait".to_owned(),
            condition,
            "securelink/far".to_owned(),
            "--timeout=60s".to_owned(),
        ]
    };
    let until = async |reason: &str| {
        let words = waited(reason);
        admin.kubectl(&words.each_ref().map(String::as_str)).await?.expect(0)
    };
    until("NamespaceNotGranted").await?;
    admin.securelink(&["grant", &field.name]).await?.expect(0)?.holds("is granted")?;
    until("Accepted").await?;
    let both = format!("linkNamespaces={{{links},{}}}", field.name);
    let upgrade = |value: &str| {
        a.installed.helm(&["upgrade", "securelink", "charts/securelink", "--reuse-values", "--set", value])
    };
    upgrade(&both)?;
    upgrade(&format!("linkNamespaces={{{links}}}"))?;
    let bindings = field.api::<RoleBinding>();
    ensure!(bindings.get_opt("securelink-link").await?.is_none(), "the chart's own binding stays");
    ensure!(bindings.get_opt("securelink-link-granted").await?.is_some(), "the chart took what it did not give");
    // The operator lets go of the identity while it may still work there.
    field.api::<SecureLink>().delete("far", &kube::api::DeleteParams::default()).await?;
    field.api::<securelink_crds::LinkIdentity>().delete("default", &kube::api::DeleteParams::default()).await?;
    let bindings = a.links().api::<RoleBinding>();
    bindings.delete("securelink-link-granted", &kube::api::DeleteParams::default()).await?;
    Ok(())
}
