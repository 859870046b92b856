//! Asks cert-manager by a `CertificateRequest` beside the identity, which goes with it and holds nothing that is secret; and says
//! what keeps it from being made.

use std::collections::BTreeMap;

use kube::api::{DynamicObject, PostParams};
use kube::{Api, Resource as _, ResourceExt as _};
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::{FIELD_MANAGER, IDENTITY, MANAGED_BY, MANAGER};
use securelink_relay_config::LinkRef;
use serde_json::json;

use crate::caches::certificate_request;
use crate::issue::{Ask, Failure, cert_manager};
use crate::world::World;

/// Longest text of an API server inside of a message, in characters.
const QUOTED: usize = 512;

/// Why no request could be made: the API server's own words, and for a person.
#[derive(Debug)]
pub struct Refused {
    /// What it answered, if it did.
    pub source: kube::Error,
    /// What to do.
    pub why: Failure,
}

/// Makes a request. What it answers is seen as a change; told is only what stands in its place and would never be seen.
pub async fn ask(world: &World, at: &LinkRef, identity: &LinkIdentity, ask: &Ask) -> Result<Option<Failure>, Refused> {
    let Some(issuer) = identity.spec.issuer.cert_manager.as_ref() else { return Ok(None) };
    let place = format!("the CertificateRequest {}/{}", at.namespace, ask.name);
    let refused = |verb| {
        let place = place.clone();
        move |source| Refused { why: why(verb, &place, &at.namespace, &source), source }
    };
    let resource = certificate_request();
    let mut object = DynamicObject::new(&ask.name, &resource).within(&at.namespace);
    object.metadata.labels = Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())]));
    object.metadata.annotations = Some(BTreeMap::from([(IDENTITY.to_owned(), at.name.clone())]));
    object.metadata.owner_references = identity.controller_owner_ref(&()).map(|owner| vec![owner]);
    object.data = json!({ "spec": cert_manager::spec(ask, &issuer.issuer_ref) });
    let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), &at.namespace, &resource);
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &object).await {
        Ok(_) => world.metrics.wrote("CertificateRequest", "create"),
        // It was asked before and is not seen yet; or never will be.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api.get_opt(&ask.name).await.map_err(refused("get"))?;
            return Ok(found.and_then(|found| unseen(&found, &place)));
        }
        Err(error) => return Err(refused("create")(error)),
    }
    Ok(None)
}

/// Why a request that is there is never seen: ours are found by their label.
fn unseen(found: &DynamicObject, place: &str) -> Option<Failure> {
    let is_labelled = found.labels().get(MANAGED_BY).is_some_and(|label| label == MANAGER);
    (!is_labelled).then(|| {
        let why = format!(
            "{place} is there without the label {MANAGED_BY}={MANAGER}, by which ours are found, and what it says does not count; see who made it, and {}",
            cert_manager::ANEW
        );
        (Reason::IssuerFailed, why)
    })
}

fn why(verb: &str, place: &str, namespace: &str, error: &kube::Error) -> Failure {
    let (said, is_forbidden) = match error {
        kube::Error::Api(status) => {
            (status.message.replace(';', ",").chars().take(QUOTED).collect(), status.code == 403)
        }
        // Its words name ports, and differ each time.
        _ => ("the API server does not answer".to_owned(), false),
    };
    let right = if is_forbidden { format!("run `kubectl securelink grant {namespace}`, or ") } else { String::new() };
    let why = format!("the operator cannot {verb} {place}: {said}; {right}mend what refuses it, it is tried again");
    (Reason::IssuerFailed, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hyper::Method;
    use serde_json::Value;

    use super::*;
    use crate::testing::{Server, refusal};
    use crate::world::testing;

    async fn asked(answer: (u16, Value), there: Option<Value>) -> (Result<Option<Failure>, Refused>, Server) {
        let server = Server::new(move |asked| match (&asked.method, &there) {
            (&Method::POST, _) => answer.clone(),
            (&Method::GET, Some(found)) if asked.path.ends_with("/certificaterequests/securelink-1") => {
                (200, found.clone())
            }
            _ => refusal(404, "not found"),
        })
        .await;
        let at = LinkRef { namespace: "liaison".to_owned(), name: "default".to_owned() };
        let written = json!({
            "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
            "metadata": { "name": "default", "namespace": "liaison", "uid": "u-1" },
            "spec": { "trustDomain": "interpol.example", "issuer": { "certManager": { "issuerRef": { "name": "ca" } } } },
        });
        let (identity, question) = (
            serde_json::from_value(written).unwrap(),
            Ask { name: "securelink-1".to_owned(), request: "r".to_owned() },
        );
        (ask(&testing::with(server.client.clone()), &at, &identity, &question).await, server)
    }

    fn there(labels: &Value) -> Value {
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
            "metadata": { "name": "securelink-1", "labels": labels },
        })
    }

    #[tokio::test]
    async fn a_request_is_made_as_the_identitys_own() {
        let (made, server) = asked((201, there(&json!({}))), None).await;
        assert!(made.unwrap().is_none());
        let body = &server.asked(&Method::POST)[0].body;
        assert_eq!(
            (&body["metadata"]["ownerReferences"][0]["uid"], &body["spec"]["isCA"]),
            (&json!("u-1"), &json!(true))
        );
    }

    #[tokio::test]
    async fn what_refuses_a_request_is_said_with_the_verb_and_the_remedy() {
        for (answer, wanted) in [
            (
                refusal(403, "certificaterequests is forbidden"),
                "cannot create the CertificateRequest liaison/securelink-1: certificaterequests is forbidden; run `kubectl securelink grant liaison`, or ",
            ),
            (refusal(500, "webhook down; retry"), ": webhook down, retry; mend what refuses it"),
        ] {
            let (_, why) = asked(answer, None).await.0.unwrap_err().why;
            assert!(why.contains(wanted), "{why}");
        }
    }

    #[tokio::test]
    async fn what_stands_in_the_place_of_a_request_is_named_unless_it_is_only_not_seen_yet() {
        let exists = || refusal(409, "already exists");
        let ours = Some(there(&json!({ MANAGED_BY: MANAGER })));
        assert!(asked(exists(), ours).await.0.unwrap().is_none());
        assert!(asked(exists(), None).await.0.unwrap().is_none(), "it has gone");
        let (reason, why) = asked(exists(), Some(there(&json!({ "app": "other" })))).await.0.unwrap().unwrap();
        assert!(
            reason == Reason::IssuerFailed && why.contains("liaison/securelink-1 is there without the label"),
            "{why}"
        );
    }
}
