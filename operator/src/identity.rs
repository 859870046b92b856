//! The way of an identity: its keys are made and renewed, its status says what partners pin, and it cannot be deleted while
//! a link uses it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};
use securelink_crds::conditions::Reason;
use securelink_crds::keys::{FIELD_MANAGER, FINALIZER};
use securelink_crds::{GROUP, LinkIdentity, VERSION};
use securelink_plan::identity::{Roots, identity_status};
use securelink_relay_config::LinkRef;
use serde_json::json;

use crate::ask;
use crate::caches::{Access, DeclaredIdentity, Denial, Held};
use crate::gather::NotYet;
use crate::issue::cert_manager;
use crate::issue::{Asked, Hands, Issuer, built_in, given};
use crate::keys::{self, Kept, Parts, asked};
use crate::traces::{self, Traces};
use crate::world::World;

/// Until what outran the caches has been seen.
const SOON: Duration = Duration::from_secs(1);
/// The longest until the next look: a clock that was set is noticed.
const LATEST: Duration = Duration::from_mins(10);

/// Why an identity was not brought to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The API server.
    #[error("{verb} of {at}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On whose behalf.
        at: LinkRef,
        /// Why not.
        source: Box<kube::Error>,
    },
}

/// One look at an identity.
pub async fn reconcile(at: &LinkRef, world: &World) -> Result<Action, IdentityError> {
    let Some(declared) = world.sources.caches.declared.identity(at) else { return Ok(Action::await_change()) };
    if declared.object.metadata.deletion_timestamp.is_some() {
        return release(at, world, &declared).await;
    }
    // An invalid one keeps its keys; links say IdentityNotReady.
    let Some(identity) = &declared.identity else { return Ok(Action::await_change()) };
    if identity.spec.issuer.built_in.is_some() && !has_finalizer(&declared) {
        finalizers(at, world, &declared, true).await?;
    }
    let now = Timestamp::now();
    let stored = stored(at, world, identity.spec.issuer.cert_manager.is_some()).and_then(|stored| stored.read());
    // What is missing wakes it when it comes.
    let Ok(Some(mut issuer)) = judge((at, world), &declared, stored.as_deref(), Hands::Making, now) else {
        return Ok(Action::requeue(LATEST));
    };
    if issuer.made.is_any() {
        match keep(at, world, identity, stored.as_deref(), &issuer).await? {
            Written::Yes => {}
            Written::Outrun => return Ok(Action::requeue(SOON)),
            Written::Hidden(why) => {
                let is_asked = identity.spec.issuer.cert_manager.is_some();
                let reason = if is_asked { Reason::IssuerFailed } else { Reason::RootMissing };
                issuer = Issuer::failed(issuer.root, (reason, why));
            }
        }
    }
    let asked = match &issuer.ask {
        Some(question) if world.lease.holds() => ask::ask(world, at, identity, question).await,
        _ => Ok(None),
    };
    if let Some(why) = asked.as_ref().map_or_else(|refused| Some(&refused.why), Option::as_ref) {
        issuer.failure = Some(why.clone());
    }
    status(at, world, &declared, identity, &issuer, now).await?;
    // Told first: who reads the status has to learn of it.
    asked.map_err(|refused| {
        let (verb, source) = ("ask by CertificateRequest", Box::new(refused.source));
        IdentityError::Api { verb, at: at.clone(), source }
    })?;
    let left = issuer.due.and_then(|due| Duration::try_from(due.duration_since(now)).ok());
    Ok(Action::requeue(left.unwrap_or(LATEST).clamp(Duration::from_secs(1), LATEST)))
}

/// The issuer of an identity as it is, for a link: nothing is made. `None` where the identity is invalid.
pub fn issuer(
    at: &LinkRef,
    world: &World,
    declared: &DeclaredIdentity,
    now: Timestamp,
) -> Result<Option<Arc<Issuer>>, NotYet> {
    let kinds = declared.identity.as_ref().map(|identity| &identity.spec.issuer);
    let stored = stored(at, world, kinds.is_some_and(|kinds| kinds.cert_manager.is_some()));
    let is_built_in = kinds.is_some_and(|kinds| kinds.built_in.is_some());
    let version = stored.as_ref().and_then(|secret| secret.version().map(str::to_owned));
    let versions = (declared.object.resource_version(), version);
    if is_built_in && let Some(known) = world.looked.get(at, &versions, now) {
        return Ok(Some(known));
    }
    let stored = stored.and_then(|stored| stored.read());
    let Some(found) = judge((at, world), declared, stored.as_deref(), Hands::Looking, now)? else { return Ok(None) };
    // Of keys that others give, more than these versions decides: nobody would ask for them.
    if !is_built_in {
        return Ok(Some(Arc::new(found)));
    }
    let kept = world.looked.keep(at, versions, found, now);
    // It may have ended since it was read, and been forgotten before this.
    if !world.sources.caches.declared.has_identity(at) {
        world.looked.forget(at);
    }
    Ok(Some(kept))
}

fn judge(
    (at, world): (&LinkRef, &World),
    declared: &DeclaredIdentity,
    stored: Option<&Secret>,
    hands: Hands,
    now: Timestamp,
) -> Result<Option<Issuer>, NotYet> {
    let Some(identity) = declared.identity.as_ref() else { return Ok(None) };
    let starting = || NotYet::Starting(at.namespace.clone());
    let recorded = Traces::of_status(&declared.object.data["status"]);
    let kinds = &identity.spec.issuer;
    let issuer = if kinds.built_in.is_some() {
        // Before a first root is made, everything is looked at that may tell of another.
        let traces = match hands {
            Hands::Making if stored.is_none() => traces::of(world, at, declared).ok_or_else(starting)?,
            _ => recorded,
        };
        let asked = Asked { identity, traces, place: &place(at, world) };
        built_in::issuer(asked, Kept::read(stored), hands, now)
    } else if let Some(secret) = &kinds.secret {
        let issuers = world.sources.caches.issuers(&at.namespace);
        let asked = Asked { identity, traces: recorded, place: &format!("{}/{}", at.namespace, secret.name) };
        match issuers.access() {
            Access::Starting => return Err(starting()),
            Access::Denied(denial) => Issuer::failed(recorded.root, not_granted(&at.namespace, &denial)),
            Access::Ready => {
                let found = issuers.secrets.get(&at.namespace, &secret.name).and_then(|held| held.read());
                given::issuer(asked, found.as_deref(), now)
            }
        }
    } else if let Some(cert_manager) = &kinds.cert_manager {
        let asked = Asked { identity, traces: recorded, place: "what cert-manager signed" };
        let issuer_ref = &cert_manager.issuer_ref;
        if world.listed.iter().any(|listed| listed.is(&at.namespace, issuer_ref)) {
            let kept = asked::Kept::read(stored, identity.metadata.uid.as_deref(), issuer_ref);
            by_cert_manager((at, world), asked, kept, (hands, now))?
        } else {
            Issuer::failed(recorded.root, cert_manager::not_listed(&at.namespace, issuer_ref))
        }
    } else {
        return Ok(None);
    };
    Ok(Some(issuer))
}

/// The issuer of an identity whose own is listed.
fn by_cert_manager(
    (at, world): (&LinkRef, &World),
    asked: Asked<'_>,
    kept: asked::Kept,
    (hands, now): (Hands, Timestamp),
) -> Result<Issuer, NotYet> {
    let requests = world.sources.caches.certificate_requests(&at.namespace);
    let find = |name: &str| requests.get(&at.namespace, name);
    let found: Result<cert_manager::Find<'_>, _> = match requests.access() {
        Access::Starting => return Err(NotYet::Starting(at.namespace.clone())),
        // What was signed goes on, and nothing is asked.
        Access::Denied(denial) => Err(not_granted(&at.namespace, &denial)),
        Access::Ready => Ok(&find),
    };
    Ok(cert_manager::issuer(asked, kept, found, (hands, now)))
}

fn not_granted(namespace: &str, denial: &Denial) -> (Reason, String) {
    let (verb, resource) = (denial.verb, &denial.resource);
    let why = if denial.is_absent {
        format!("this cluster knows no {resource}; install cert-manager, or name another issuer in spec")
    } else {
        format!("the operator may not {verb} {resource} in {namespace}; run `kubectl securelink grant {namespace}`")
    };
    (Reason::IssuerFailed, why)
}

/// The Secret with an identity's keys, for the way in which it is signed.
fn stored(at: &LinkRef, world: &World, is_asked: bool) -> Option<Held<Secret>> {
    let name = if is_asked { asked::name(at) } else { keys::name(at) };
    world.sources.caches.keys.get(&world.namespace, &name)
}

/// Where a root is, for messages.
fn place(at: &LinkRef, world: &World) -> String {
    format!("{}/{}", world.namespace, keys::name(at))
}

/// What became of new keys.
enum Written {
    /// They are kept; or nothing may be written any more.
    Yes,
    /// The cluster is ahead of what was seen of it.
    Outrun,
    /// Others are there that are not seen; why.
    Hidden(String),
}

/// Writes new keys down before anything is signed with them that leaves this process. Guarded: of two leaders one is
/// refused, and no root is ever replaced.
async fn keep(
    at: &LinkRef,
    world: &World,
    identity: &LinkIdentity,
    stored: Option<&Secret>,
    issuer: &Issuer,
) -> Result<Written, IdentityError> {
    let failed = |verb| move |source| IdentityError::Api { verb, at: at.clone(), source: Box::new(source) };
    if !world.lease.holds() {
        return Ok(Written::Yes);
    }
    let uid = identity.metadata.uid.as_deref().unwrap_or_default();
    if issuer.made.is_first() && !is_first(at, world, uid).await? {
        return Ok(Written::Outrun);
    }
    let Some(secret) = secret(at, identity, stored, issuer) else { return Ok(Written::Yes) };
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let api = Api::<Secret>::namespaced(world.client.clone(), &world.namespace);
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    if stored.is_some() {
        api.replace(name, &parameters, &secret).await.map_err(failed("replace keys"))?;
    } else {
        match api.create(&parameters, &secret).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = api.get_opt(name).await.map_err(failed("get keys"))?;
                let hidden = found.and_then(|found| keys::hidden(&found, &format!("{}/{name}", world.namespace)));
                return Ok(hidden.map_or(Written::Outrun, Written::Hidden));
            }
            Err(error) => return Err(failed("create keys")(error)),
        }
    }
    world.metrics.wrote("Secret", "keys");
    tell(at, issuer);
    Ok(Written::Yes)
}

/// The Secret with what was made.
fn secret(at: &LinkRef, identity: &LinkIdentity, stored: Option<&Secret>, issuer: &Issuer) -> Option<Secret> {
    let (uid, made) = (identity.metadata.uid.as_deref().unwrap_or_default(), &issuer.made);
    let signed = issuer.intermediate.as_ref().filter(|_| made.intermediate);
    if let Some(by) = &identity.spec.issuer.cert_manager {
        let request = made.request.as_ref().map(|key| asked::New::Request(key, Timestamp::now()));
        let new = request.or(signed.map(|signed| asked::New::Signed(signed, &by.issuer_ref)));
        return new.map(|new| asked::secret(at, uid, stored, new));
    }
    let parts = Parts {
        root: made.root.as_ref(),
        intermediate: signed,
        next: made.next.as_ref(),
        transitions: Some(&issuer.transitions).filter(|_| made.switched),
    };
    Some(keys::secret(at, uid, stored, &parts))
}

fn tell(at: &LinkRef, issuer: &Issuer) {
    if let Some(root) = &issuer.made.root {
        let fingerprint = root.fingerprint();
        if issuer.made.switched {
            tracing::info!(identity = %at, %fingerprint, "a root took over; the one before leads to it");
        } else {
            tracing::info!(identity = %at, %fingerprint, "minted a root; partners pin this fingerprint");
        }
    }
    if let Some(next) = &issuer.made.next {
        tracing::info!(identity = %at, fingerprint = %next.fingerprint(), "announced a root; partners may pin it too");
    }
}

/// Whether the identity is the one that was seen and has no root yet. Asked of the API server itself, once in its life: the
/// caches may lag behind a root that was made and lost meanwhile.
async fn is_first(at: &LinkRef, world: &World, uid: &str) -> Result<bool, IdentityError> {
    let failed = |source| IdentityError::Api { verb: "get", at: at.clone(), source: Box::new(source) };
    let now = api(at, world).get_opt(&at.name).await.map_err(failed)?;
    let same = |object: &DynamicObject| object.metadata.uid.as_deref() == Some(uid);
    Ok(now.is_some_and(|object| same(&object) && Traces::of_status(&object.data["status"]).are_none()))
}

async fn status(
    at: &LinkRef,
    world: &World,
    declared: &DeclaredIdentity,
    identity: &LinkIdentity,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<(), IdentityError> {
    let unseen = world.identities.unseen(at, &declared.object.metadata);
    let previous = unseen.or_else(|| identity.status.clone()).unwrap_or_default();
    let (ends, switch_at) = (issuer.ends, issuer.switch_at);
    let (known, note, failure) = (issuer.roots.clone(), issuer.note.clone(), issuer.failure.clone());
    let roots = Roots { known, ends, switch_at, note, failure };
    let status = identity_status(identity, &roots, &previous, now);
    if status == previous || !world.lease.holds() {
        return Ok(());
    }
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "LinkIdentity",
        "metadata": {"name": at.name, "namespace": at.namespace, "uid": declared.object.metadata.uid},
        "status": status,
    });
    let failed = |source| IdentityError::Api { verb: "apply status", at: at.clone(), source: Box::new(source) };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let now = api(at, world).patch_status(&at.name, &parameters, &Patch::Apply(&body)).await.map_err(failed)?;
    world.metrics.wrote("LinkIdentity", "status");
    world.identities.wrote(at, &now.metadata, status);
    Ok(())
}

/// Lets an identity go once no link uses it. Its keys stay: whoever makes it anew adopts them by `expectedFingerprint`.
async fn release(at: &LinkRef, world: &World, declared: &DeclaredIdentity) -> Result<Action, IdentityError> {
    if !has_finalizer(declared) {
        return Ok(Action::await_change());
    }
    let links = world.sources.caches.declared.links_within(&at.namespace);
    if links.iter().any(|link| link.data["spec"]["identityRef"]["name"].as_str() == Some(&at.name)) {
        // The last link that goes wakes it.
        return Ok(Action::requeue(LATEST));
    }
    finalizers(at, world, declared, false).await?;
    Ok(Action::await_change())
}

fn has_finalizer(declared: &DeclaredIdentity) -> bool {
    declared.object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Sets or removes ours, from this very version: others' stay as they are.
async fn finalizers(at: &LinkRef, world: &World, declared: &DeclaredIdentity, ours: bool) -> Result<(), IdentityError> {
    if !world.lease.holds() {
        return Ok(());
    }
    let metadata = &declared.object.metadata;
    let others = metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).cloned();
    let all: Vec<String> = others.chain(ours.then(|| FINALIZER.to_owned())).collect();
    let body = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": all}});
    let failed = |source| IdentityError::Api { verb: "patch finalizers", at: at.clone(), source: Box::new(source) };
    api(at, world).patch(&at.name, &PatchParams::default(), &Patch::Merge(&body)).await.map_err(failed)?;
    world.metrics.wrote("LinkIdentity", "patch");
    Ok(())
}

fn api(at: &LinkRef, world: &World) -> Api<DynamicObject> {
    Api::namespaced_with(world.client.clone(), &at.namespace, &ApiResource::erase::<LinkIdentity>(&()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hyper::Method;
    use securelink_pki::testing::Organization;
    use serde_json::Value;

    use super::*;
    use crate::testing::{Asked, Server, list, refusal};
    use crate::world::testing;

    fn at() -> LinkRef {
        LinkRef { namespace: "liaison".to_owned(), name: "default".to_owned() }
    }

    fn declared(issuer: &Value) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "LinkIdentity",
            "metadata": { "name": "default", "namespace": "liaison", "uid": "u-1", "resourceVersion": "7" },
            "spec": { "trustDomain": "interpol.example", "issuer": issuer },
        })
    }

    fn read(written: Value) -> DeclaredIdentity {
        let identity = serde_json::from_value(written.clone()).unwrap();
        DeclaredIdentity { object: Arc::new(serde_json::from_value(written).unwrap()), identity: Some(identity) }
    }

    /// A Secret as it is listed.
    fn stands(mut secret: Secret) -> Secret {
        secret.metadata.namespace = Some("securelink".to_owned());
        secret
    }

    /// A world that has seen all that the API server lists.
    async fn seen(server: &Server) -> World {
        let world = testing::with(server.client.clone());
        let mut changes = world.hub.listen();
        world.sources.caches.ready().await;
        let requests = world.sources.caches.certificate_requests("liaison");
        while requests.access() == Access::Starting {
            changes.next().await.unwrap();
        }
        world
    }

    #[tokio::test]
    async fn f49_an_issuer_that_is_not_listed_signs_nothing_and_its_requests_are_not_even_watched() {
        let server = Server::new(|_| (200, list(&json!([])))).await;
        let world = testing::with(server.client.clone());
        let written = declared(&json!({ "certManager": { "issuerRef": { "name": "corp", "kind": "ClusterIssuer" } } }));
        let found = issuer(&at(), &world, &read(written), Timestamp::now()).unwrap().unwrap();
        let (reason, why) = found.failure.clone().unwrap();
        assert_eq!((reason, found.intermediate.is_none(), found.ask.is_none()), (Reason::IssuerFailed, true, true));
        assert!(why.contains("ClusterIssuer corp") && why.contains("; add {group: cert-manager.io, "), "{why}");
        world.sources.caches.ready().await;
        let asked = server.asked(&Method::GET);
        assert!(asked.iter().all(|asked| !asked.path.contains("certificaterequests")), "{asked:?}");
    }

    #[tokio::test]
    async fn an_identity_that_turns_to_cert_manager_signs_with_nothing_that_is_built_in() {
        let of = Organization::new("interpol.example");
        let parts = Parts { root: Some(&of.root), intermediate: Some(&of.intermediate), ..Parts::default() };
        let secrets = json!([stands(keys::secret(&at(), "u-1", None, &parts))]);
        let none = json!([]);
        let answers = move |asked: &Asked| {
            let is_wanted = asked.path.ends_with("/namespaces/securelink/secrets");
            (200, list(if is_wanted { &secrets } else { &none }))
        };
        let world = seen(&Server::new(answers).await).await;
        let signs = |by: Value| {
            let found = issuer(&at(), &world, &read(declared(&by)), securelink_pki::testing::now()).unwrap().unwrap();
            (found.intermediate.is_some(), found.failure.as_ref().map(|(reason, _)| *reason))
        };
        assert_eq!(signs(json!({ "builtIn": {} })), (true, None));
        let by_cert_manager = json!({ "certManager": { "issuerRef": { "name": "partner-ca" } } });
        assert_eq!(signs(by_cert_manager), (false, Some(Reason::Issuing)));
    }

    #[tokio::test]
    async fn a_request_that_is_refused_is_told_of_in_the_status_before_it_is_an_error() {
        let written = declared(&json!({ "certManager": { "issuerRef": { "name": "partner-ca" } } }));
        let key = securelink_pki::PrivateKey::generate_p384().unwrap();
        let secret = stands(asked::secret(&at(), "u-1", None, asked::New::Request(&key, Timestamp::now())));
        let answers = {
            let written = written.clone();
            move |asked: &Asked| match (&asked.method, asked.path.rsplit('/').next()) {
                (&Method::GET, Some("linkidentities")) => (200, list(&json!([written]))),
                (&Method::GET, Some("secrets")) => (200, list(&json!([secret]))),
                (&Method::GET, _) => (200, list(&json!([]))),
                (&Method::POST, _) => refusal(403, "certificaterequests is forbidden"),
                _ => (200, written.clone()),
            }
        };
        let server = Server::new(answers).await;
        let world = seen(&server).await;
        world.lease.take();
        assert!(reconcile(&at(), &world).await.is_err(), "it is tried again");
        let told = server.asked(&Method::PATCH).pop().unwrap();
        let ready = &told.body["status"]["conditions"][0];
        assert_eq!((&ready["type"], &ready["reason"]), (&json!("CertificateReady"), &json!("IssuerFailed")));
        assert!(
            ready["message"].as_str().unwrap().contains("cannot create the CertificateRequest liaison/securelink-")
        );
    }

    #[tokio::test]
    async fn only_keys_that_are_asked_for_again_are_kept_and_only_while_their_identity_is_there() {
        let cert_manager = json!({ "certManager": { "issuerRef": { "name": "partner-ca" } } });
        let rows = [
            (json!({ "builtIn": {} }), true, true),
            (json!({ "builtIn": {} }), false, false),
            (cert_manager, true, false),
        ];
        for (issued_by, is_there, kept) in rows {
            let written = declared(&issued_by);
            let items = if is_there { json!([written]) } else { json!([]) };
            let none = json!([]);
            let answers = move |asked: &Asked| {
                let is_wanted = asked.path.ends_with("/linkidentities");
                (200, list(if is_wanted { &items } else { &none }))
            };
            let server = Server::new(answers).await;
            let (world, now) = (seen(&server).await, Timestamp::now());
            assert!(issuer(&at(), &world, &read(written), now).unwrap().is_some());
            let found = world.looked.get(&at(), &(Some("7".to_owned()), None), now).is_some();
            assert_eq!(found, kept, "{issued_by}, which is there: {is_there}");
        }
    }
}
