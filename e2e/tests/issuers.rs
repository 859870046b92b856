//! Who signs, on a real API server: a Secret that its owner gives, cert-manager (whose part a test plays), and roots that follow
//! each other.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use securelink_crds::conditions::{Condition, ConditionType, find};
use securelink_crds::{LinkIdentity, LinkIdentityStatus, RootState};
use securelink_e2e::plane::{LIMIT, Plane, Proxy, Site, Test, harness};
use securelink_e2e::wait::{asking, until};
use serde_json::{Value, json};

/// The Secret of the tests.
const NAME: &str = "link-issuer";

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |plane| Box::pin($name(plane)))),*] };
    }
    harness::run_on(
        2,
        env!("CARGO_TARGET_TMPDIR"),
        tests![
            f49_a_secret_signs_once_its_owner_names_the_identity
            f37_a_broken_secret_is_told_of_and_the_last_leaf_stays
            another_root_in_a_secret_waits_for_a_persons_word
            an_issuer_of_cert_manager_that_is_not_listed_is_not_asked
            cert_manager_is_asked_for_an_intermediate_and_what_it_signs_is_used
            a_built_in_root_is_followed_by_another_and_partners_who_pin_the_old_one_accept_what_it_signs
        ],
    )
}

async fn f49_a_secret_signs_once_its_owner_names_the_identity(plane: &Plane) -> Result<()> {
    let (site, _proxy, operator) = plane.leading().await?;
    let root = Root::new("interpol.example")?;
    declare(&site).await?;
    site.link("europol").await?;
    let lacks = |it: &Condition| it.reason == "IssuerFailed" && it.message.contains("securelink.dev/issuer-of=default");
    told(&site, "say that there is no such Secret", lacks).await?;
    site.links.create::<Secret>(root.secret(&root.intermediate()?, None)).await?;
    // An operator has looked since, and does not see it.
    site.look_again(&operator, &["europol"], LIMIT).await?;
    told(&site, "say that it lacks the label", lacks).await?;
    let label = Patch::Merge(json!({ "metadata": { "labels": { "securelink.dev/issuer-of": "default" } } }));
    site.api::<Secret>().patch(NAME, &PatchParams::default(), &label).await?;
    let leaf = leaf_under(&site, &root).await?;
    ensure!(leaf.chain.len() == 3, "leaf, intermediate and root, not {}", leaf.chain.len());
    identity(&site, "be ready", ready).await.map(drop)
}

async fn f37_a_broken_secret_is_told_of_and_the_last_leaf_stays(plane: &Plane) -> Result<()> {
    let (site, root) = signing(plane).await?;
    let before = leaf_under(&site, &root).await?;
    give(&site, json!({ "tls.crt": "rubbish" })).await?;
    let told_of = |it: &Condition| it.reason == "IssuerFailed" && it.message.contains(NAME);
    let condition = told(&site, "name the Secret", told_of).await?;
    ensure!(condition.message.contains("; "), "it says what to do: {}", condition.message);
    // What runs goes on with it: the link says that it cannot be renewed.
    let kept = |it: &Condition| it.status == "True" && it.message.contains("cannot be renewed: the Secret");
    site.until_told("europol", ConditionType::CertificateReady, "say that it cannot be renewed", kept).await?;
    ensure!(leaf(&site).await?.version == before.version, "the last leaf was touched");
    let renewed = root.intermediate()?;
    give(&site, json!({ "tls.key": renewed.key.serialize_pem(), "tls.crt": renewed.pem })).await?;
    identity(&site, "be ready", ready).await?;
    let after = leaf_under(&site, &root).await?;
    // Who replaces an intermediate may have lost it: what it signed goes at once.
    ensure!(after.version != before.version, "the leaf by the old intermediate is still there");
    Ok(())
}

async fn another_root_in_a_secret_waits_for_a_persons_word(plane: &Plane) -> Result<()> {
    let (site, root) = signing(plane).await?;
    let before = leaf_under(&site, &root).await?;
    let other = Root::new("interpol.example")?;
    let data = other.secret(&other.intermediate()?, None)["stringData"].clone();
    give(&site, data).await?;
    let conflict = told(&site, "say RootConflict", |it| it.reason == "RootConflict").await?;
    let kept = |it: &Condition| it.status == "True" && it.message.contains("expectedFingerprint");
    site.until_told("europol", ConditionType::CertificateReady, "say that it cannot be renewed", kept).await?;
    ensure!(leaf(&site).await?.version == before.version, "the last leaf was touched");
    let fingerprint = to_expect(&conflict)?;
    expect(&site, &fingerprint).await?;
    identity(&site, "have the other root", |it| it.fingerprint.as_ref() == Some(&fingerprint) && ready(it)).await?;
    leaf_under(&site, &other).await.map(drop)
}

async fn a_built_in_root_is_followed_by_another_and_partners_who_pin_the_old_one_accept_what_it_signs(
    plane: &Plane,
) -> Result<()> {
    let (site, _proxy, _operator) = plane.ready().await?;
    site.link("europol").await?;
    let first = leaf_where(&site, |_| true).await?;
    let (old, pinned) = (first.chain.last().context("a root")?.clone(), site.identity_is_ready().await?);
    let replace = json!({ "metadata": { "annotations": { "securelink.dev/replace-root": pinned } } });
    site.api::<LinkIdentity>().patch("default", &PatchParams::default(), &Patch::Merge(replace)).await?;
    let announced = |it: &LinkIdentityStatus| it.roots.iter().any(|root| root.state == RootState::Next);
    let status = identity(&site, "announce another root", announced).await?;
    ensure!(status.fingerprint.as_ref() == Some(&pinned), "the old one signs until a person says otherwise");
    ensure!(leaf(&site).await?.version == first.version, "the leaf was touched");
    let next = status.roots.iter().find(|root| root.state == RootState::Next).context("the next root")?;
    expect(&site, &next.fingerprint).await?;
    let followed = |it: &LinkIdentityStatus| it.fingerprint.as_ref() == Some(&next.fingerprint);
    let status = identity(&site, "use the other root", followed).await?;
    let retired = status.roots.iter().find(|root| root.fingerprint == pinned).map(|root| root.state);
    ensure!(retired == Some(RootState::Retired), "the old root is {retired:?}");
    let second = leaf_where(&site, |leaf| leaf.chain.last() != Some(&old)).await?;
    ensure!(
        second.transitions.first() == Some(&old) && second.transitions.len() == 2,
        "the old root, and the way from it"
    );
    accepts(&old, &first)?;
    accepts(&old, &second).context("who pins the old root")?;
    accepts(second.chain.last().context("a root")?, &second).context("who pins the new root")?;
    ensure!(accepts(second.chain.last().context("a root")?, &first).is_err(), "the new root signs nothing of the old");
    Ok(())
}

async fn an_issuer_of_cert_manager_that_is_not_listed_is_not_asked(plane: &Plane) -> Result<()> {
    let (site, _proxy, _operator) = plane.leading().await?;
    let spec = json!({ "trustDomain": "interpol.example", "issuer": by_cert_manager() });
    site.links.create::<LinkIdentity>(json!({ "metadata": { "name": "default" }, "spec": spec })).await?;
    let not_listed = |it: &Condition| it.reason == "IssuerFailed" && it.message.contains("certManager.issuers");
    told(&site, "say that the issuer is not listed", not_listed).await.map(drop)
}

async fn cert_manager_is_asked_for_an_intermediate_and_what_it_signs_is_used(plane: &Plane) -> Result<()> {
    let site = listing(&Site::new(plane).await?).await?;
    let proxy = Proxy::start(plane).await?;
    let mut operator = site.operator(&proxy, "one").await?;
    operator.leads().await?;
    site.link("europol").await?;
    let built_in = site.identity_is_ready().await?;
    let before = leaf_where(&site, |_| true).await?;
    let kept = async || site.own.api::<Secret>().get(&format!("identity.{}.default", site.links.name)).await;
    let root_of_ours = kept().await?;
    sign_by(&site, json!({ "builtIn": null, "certManager": by_cert_manager()["certManager"] })).await?;
    let absent = |it: &Condition| it.message.contains("install cert-manager");
    told(&site, "say that there is no cert-manager", absent).await?;
    site.apply(&certificate_requests()).await?;
    let asked = request(&site).await?;
    ensure!(asked.data["spec"]["isCA"] == true && asked.data["spec"]["usages"] == json!(["cert sign"]), "{asked:?}");
    let wanted = json!({ "name": "partner-ca", "kind": "Issuer", "group": "cert-manager.io" });
    ensure!(asked.data["spec"]["issuerRef"] == wanted, "{asked:?}");
    told(&site, "wait for approval", |it| it.reason == "Issuing" && it.message.contains("not approved")).await?;

    let denied = json!([{ "type": "Denied", "status": "True", "reason": "policy", "message": "not by this issuer" }]);
    answer(&site, &asked, json!({ "conditions": denied })).await?;
    let why = |it: &Condition| it.reason == "IssuerFailed" && it.message.contains("not by this issuer; ");
    told(&site, "say that it was refused", why).await?;
    let requests = site.dynamic(CERT_MANAGER, "CertificateRequest")?;
    requests.delete(&asked.name_any(), &DeleteParams::default()).await?;
    let again =
        asking("another request", LIMIT, |it: &DynamicObject| it.uid() != asked.uid(), async || request(&site).await)
            .await?;

    let root = Root::new("interpol.example")?;
    let pem = root.sign(&again)?;
    let file = |pem: &str| json!(ByteString(pem.as_bytes().to_vec()));
    let conditions = json!([
        { "type": "Approved", "status": "True", "reason": "policy", "message": "" },
        { "type": "Ready", "status": "True", "reason": "Issued", "message": "" },
    ]);
    answer(&site, &again, json!({ "conditions": conditions, "certificate": file(&pem), "ca": file(&root.pem) }))
        .await?;
    // It was another root until now.
    let conflict = told(&site, "say RootConflict", |it| it.reason == "RootConflict").await?;
    ensure!(leaf(&site).await?.version == before.version, "the last leaf was touched");
    let (signer, root) =
        (CertificateDer::from_pem_slice(pem.as_bytes())?, CertificateDer::from_pem_slice(root.pem.as_bytes())?);
    expect(&site, &to_expect(&conflict)?).await?;
    identity(&site, "be ready", ready).await?;
    let leaf = leaf_where(&site, |leaf| leaf.chain.get(1) == Some(&signer) && leaf.chain.last() == Some(&root)).await?;
    accepts(&root, &leaf)?;
    // What may sign lies in the operator's namespace alone.
    let here = site.api::<Secret>().list(&ListParams::default()).await?.items;
    ensure!(here.iter().all(|secret| secret.name_any() == "europol-leaf"), "{here:?}");
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    // The built-in root is nobody else's, and still there for who wants it back.
    ensure!(kept().await?.metadata == root_of_ours.metadata, "the Secret of the built-in root was touched");
    sign_by(&site, json!({ "builtIn": {}, "certManager": null })).await?;
    let back = |it: &Condition| it.reason == "RootConflict" && it.message.contains(&built_in);
    told(&site, "say that its own root is another one", back).await.map(drop)
}

/// The group of cert-manager.
const CERT_MANAGER: &str = "cert-manager.io/v1";

/// Signed by an Issuer of the identity's namespace.
fn by_cert_manager() -> Value {
    json!({ "certManager": { "issuerRef": { "name": "partner-ca" } } })
}

/// The same installation, after an upgrade to values that list that issuer.
async fn listing<'a>(site: &Site<'a>) -> Result<Site<'a>> {
    let issuer = json!([{ "kind": "Issuer", "name": "partner-ca", "namespace": site.links.name }]);
    let value = format!("certManager.issuers={issuer}");
    let more = ["--set-json", value.as_str()];
    for role in site.rendered(&more)?.iter().filter(|object| object["kind"] == "ClusterRole") {
        site.apply(role).await?;
    }
    site.with_values(&more)
}

/// The kind by which cert-manager is asked, without what only cert-manager itself looks at.
fn certificate_requests() -> Value {
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": schema }, "subresources": { "status": {} },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "certificaterequests.cert-manager.io",
            "annotations": { "api-approved.kubernetes.io": "unapproved, a test's" },
        },
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced", "versions": [version],
            "names": { "kind": "CertificateRequest", "plural": "certificaterequests", "singular": "certificaterequest" },
        },
    })
}

/// What the operator asks cert-manager.
async fn request(site: &Site<'_>) -> Result<DynamicObject> {
    let requests = site.dynamic(CERT_MANAGER, "CertificateRequest")?;
    let asked = async || match requests.list(&ListParams::default()).await {
        // It is not served yet.
        Err(kube::Error::Api(status)) if [404, 429].contains(&status.code) => Ok(None),
        other => Ok(other?.items.pop()),
    };
    asking("a CertificateRequest", LIMIT, Option::is_some, asked).await?.context("a request")
}

/// Answers as cert-manager does.
async fn answer(site: &Site<'_>, asked: &DynamicObject, status: Value) -> Result<()> {
    let requests = site.dynamic(CERT_MANAGER, "CertificateRequest")?;
    let patch = Patch::Merge(json!({ "status": status }));
    requests.patch_status(&asked.name_any(), &PatchParams::default(), &patch).await.map(drop).context("answer it")
}

/// An installation with a link, whose identity signs with a Secret.
async fn signing(plane: &Plane) -> Result<(Signing<'_>, Root)> {
    let (site, proxy, operator) = plane.leading().await?;
    let root = Root::new("interpol.example")?;
    site.links.create::<Secret>(root.secret(&root.intermediate()?, Some("default"))).await?;
    declare(&site).await?;
    site.link("europol").await?;
    Ok((Signing { site, _running: (proxy, operator) }, root))
}

/// A site whose operator runs.
struct Signing<'a> {
    site: Site<'a>,
    _running: (securelink_e2e::plane::Proxy, securelink_e2e::plane::Operator),
}

impl<'a> std::ops::Deref for Signing<'a> {
    type Target = Site<'a>;

    fn deref(&self) -> &Site<'a> {
        &self.site
    }
}

/// A root of somebody's own, with its key.
struct Root {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate under it that may sign, with its key.
struct Intermediate {
    key: KeyPair,
    pem: String,
}

impl Root {
    fn new(name: &str) -> Result<Self> {
        let (mut params, key) = (authority(&format!("{name} root"), None), KeyPair::generate()?);
        params.distinguished_name.push(DnType::OrganizationName, name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { params, key, pem })
    }

    fn intermediate(&self) -> Result<Intermediate> {
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&self.params, &self.key);
        let pem = authority("links", Some(0)).signed_by(&key, &issuer)?.pem();
        Ok(Intermediate { key, pem })
    }

    /// The certificate that was asked for.
    fn sign(&self, asked: &DynamicObject) -> Result<String> {
        let request: ByteString = serde_json::from_value(asked.data["spec"]["request"].clone())?;
        let mut request = CertificateSigningRequestParams::from_pem(std::str::from_utf8(&request.0)?)?;
        let dates = authority("", None);
        (request.params.not_before, request.params.not_after) = (dates.not_before, dates.not_after);
        Ok(request.signed_by(&Issuer::from_params(&self.params, &self.key))?.pem())
    }

    fn secret(&self, intermediate: &Intermediate, signs_for: Option<&str>) -> Value {
        let labels = signs_for.map(|identity| json!({ "securelink.dev/issuer-of": identity }));
        let (key, chain) = (intermediate.key.serialize_pem(), &intermediate.pem);
        json!({
            "metadata": { "name": NAME, "labels": labels },
            "stringData": { "tls.key": key, "tls.crt": chain, "ca.crt": self.pem },
        })
    }
}

fn authority(name: &str, below: Option<u8>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(below.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2049, 1, 1));
    params
}

async fn declare(site: &Site<'_>) -> Result<()> {
    let spec = json!({ "trustDomain": "interpol.example", "issuer": { "secret": { "name": NAME } } });
    site.links.create::<LinkIdentity>(json!({ "metadata": { "name": "default" }, "spec": spec })).await.map(drop)
}

/// Changes files of the Secret.
async fn give(site: &Site<'_>, files: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "stringData": files }));
    site.api::<Secret>().patch(NAME, &PatchParams::default(), &patch).await.map(drop).context("change the Secret")
}

/// Has another one sign.
async fn sign_by(site: &Site<'_>, issuer: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "issuer": issuer } }));
    let api = site.api::<LinkIdentity>();
    api.patch("default", &PatchParams::default(), &patch).await.map(drop).context("another issuer")
}

/// The fingerprint in the line to commit.
fn to_expect(conflict: &Condition) -> Result<String> {
    let line = conflict.message.split("expectedFingerprint: ").nth(1).context("the line to commit")?;
    Ok(line.chars().take_while(|it| it.is_ascii_alphanumeric() || *it == ':').collect())
}

async fn expect(site: &Site<'_>, fingerprint: &str) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "expectedFingerprint": fingerprint } }));
    let api = site.api::<LinkIdentity>();
    api.patch("default", &PatchParams::default(), &patch).await.map(drop).context("expect another root")
}

/// Returns as soon as this holds of the identity's status, with it.
async fn identity(
    site: &Site<'_>,
    what: &str,
    holds: impl Fn(&LinkIdentityStatus) -> bool,
) -> Result<LinkIdentityStatus> {
    let status = |it: Option<&LinkIdentity>| it?.status.clone();
    let api = site.api::<LinkIdentity>();
    let found = until(&api, "default", what, LIMIT, |it| status(it).as_ref().is_some_and(&holds)).await?;
    status(found.as_ref()).context("a status")
}

/// The same of the condition that says whether it can sign.
async fn told(site: &Site<'_>, what: &str, holds: impl Fn(&Condition) -> bool) -> Result<Condition> {
    let said = |it: &LinkIdentityStatus| find(&it.conditions, ConditionType::CertificateReady).cloned();
    let status = identity(site, what, |it| said(it).as_ref().is_some_and(&holds)).await?;
    said(&status).context("the condition")
}

fn ready(status: &LinkIdentityStatus) -> bool {
    find(&status.conditions, ConditionType::CertificateReady).is_some_and(|it| it.status == "True")
}

/// What the relays of `europol` present.
struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    transitions: Vec<CertificateDer<'static>>,
    version: Option<String>,
}

impl Leaf {
    fn read(secret: &Secret) -> Result<Self> {
        let file = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|it| it.0.clone());
        let read = |name: &str| {
            let pem = file(name).unwrap_or_default();
            CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().with_context(|| name.to_owned())
        };
        let (chain, transitions) = (read("tls.crt")?, read("transitions.pem")?);
        Ok(Self { chain, transitions, version: secret.resource_version() })
    }
}

async fn leaf(site: &Site<'_>) -> Result<Leaf> {
    Leaf::read(&site.api::<Secret>().get("europol-leaf").await?)
}

/// Returns as soon as there is a leaf of which this holds.
async fn leaf_where(site: &Site<'_>, holds: impl Fn(&Leaf) -> bool) -> Result<Leaf> {
    let good = |it: Option<&Secret>| it.and_then(|it| Leaf::read(it).ok()).is_some_and(|leaf| holds(&leaf));
    let found = until(&site.api::<Secret>(), "europol-leaf", "hold that leaf", LIMIT, good).await?;
    Leaf::read(&found.context("a leaf")?)
}

/// Returns as soon as there is a leaf under this root, by the intermediate that stands in the Secret.
async fn leaf_under(site: &Site<'_>, root: &Root) -> Result<Leaf> {
    let given = site.api::<Secret>().get(NAME).await?.data.unwrap_or_default();
    let signer = CertificateDer::from_pem_slice(&given.get("tls.crt").context("tls.crt")?.0)?;
    let root = CertificateDer::from_pem_slice(root.pem.as_bytes())?;
    let by = |leaf: &Leaf| leaf.chain.get(1) == Some(&signer) && leaf.chain.last() == Some(&root);
    let leaf = leaf_where(site, by).await?;
    accepts(&root, &leaf)?;
    Ok(leaf)
}

/// Whether a verifier that knows nothing of links finds a way from a root to a leaf.
fn accepts(root: &CertificateDer<'_>, leaf: &Leaf) -> Result<()> {
    let anchors = [webpki::anchor_from_trusted_cert(root).context("a root")?];
    let [end, above @ ..] = leaf.chain.as_slice() else { anyhow::bail!("no leaf") };
    let between: Vec<CertificateDer<'_>> = above.iter().chain(&leaf.transitions).cloned().collect();
    let end = webpki::EndEntityCert::try_from(end).context("a leaf")?;
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, webpki::KeyUsage::client_auth());
    let verified = end.verify_for_usage(algorithms, &anchors, &between, UnixTime::now(), usage, None, None);
    verified.map(drop).context("no way from that root")
}
