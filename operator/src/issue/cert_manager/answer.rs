//! Reading a `CertificateRequest` (cert-manager.io/v1): whether it is ours, and what became of it.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use kube::api::DynamicObject;
use securelink_crds::IssuerRef;
use securelink_pki::{Intermediate, PrivateKey};
use serde_json::Value;

use crate::gather::is_owned;

/// What a request of ours has to say.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// The uid of the identity that owns it.
    pub uid: Option<&'a str>,
    /// Who is to sign.
    pub issuer: &'a IssuerRef,
    /// What is to be signed.
    pub key: &'a PrivateKey,
}

/// In what a request under our name is not the one that we make, where it is another: then what came of it is nobody's answer
/// to us.
pub fn differs(object: &DynamicObject, ours: &Ours<'_>) -> Option<String> {
    let spec = &object.data["spec"];
    let named: Option<IssuerRef> = serde_json::from_value(spec["issuerRef"].clone()).ok();
    if named.as_ref() != Some(ours.issuer) {
        let IssuerRef { name, kind, group } = ours.issuer;
        let named = named.map(|it| format!("the {} {} of {}", it.kind, it.name, it.group));
        let named = named.unwrap_or_else(|| "no issuer".to_owned()).replace(';', ",");
        return Some(format!("it asks {named}, and not the {kind} {name} of {group}"));
    }
    if !ours.uid.is_some_and(|uid| is_owned(object, uid)) {
        return Some("it does not belong to this LinkIdentity".to_owned());
    }
    let request: Option<ByteString> = serde_json::from_value(spec["request"].clone()).ok();
    let text = request.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default();
    (!Intermediate::is_request_of(&text, ours.key)).then(|| "it asks for another key".to_owned())
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is neither signed nor refused; for what it waits.
    Waiting(String),
    /// Nothing will come of it.
    Refused {
        /// Why.
        why: String,
        /// Since when.
        since: Option<Timestamp>,
    },
    /// It is signed.
    Signed {
        /// The certificate, with some of those above it.
        chain: String,
        /// The root, where cert-manager says which.
        root: Option<String>,
        /// Since when.
        since: Option<Timestamp>,
    },
}

impl Answer {
    /// Reads a request.
    pub fn read(object: &DynamicObject) -> Self {
        let status = &object.data["status"];
        let condition = |kind: &str| {
            let mut all = status["conditions"].as_array().into_iter().flatten();
            all.find(|condition| condition["type"] == kind)
        };
        let said = |condition: &Value| condition["message"].as_str().unwrap_or("it does not say why").to_owned();
        let holds = |kind: &str| condition(kind).filter(|condition| condition["status"] == "True");
        if let Some(refused) = holds("Denied").or_else(|| holds("InvalidRequest")) {
            return Self::Refused { why: said(refused), since: since(object, refused) };
        }
        let ready = condition("Ready");
        if let Some(failed) = ready.filter(|it| it["reason"] == "Failed" || it["reason"] == "Denied") {
            return Self::Refused { why: said(failed), since: since(object, failed) };
        }
        let file = |name: &str| {
            let bytes: ByteString = serde_json::from_value(status[name].clone()).ok()?;
            Some(String::from_utf8_lossy(&bytes.0).into_owned()).filter(|text| !text.is_empty())
        };
        match (holds("Ready"), file("certificate")) {
            (Some(ready), Some(chain)) => Self::Signed { chain, root: file("ca"), since: since(object, ready) },
            _ if holds("Approved").is_none() => Self::Waiting("it is not approved yet".to_owned()),
            _ => Self::Waiting(ready.map_or_else(|| "nobody has answered yet".to_owned(), said)),
        }
    }
}

/// When it came to what a condition says, as far as the request tells.
fn since(object: &DynamicObject, condition: &Value) -> Option<Timestamp> {
    let read = |time: &Value| time.as_str().and_then(|text| text.parse().ok());
    let failed = read(&object.data["status"]["failureTime"]);
    failed.or_else(|| read(&condition["lastTransitionTime"])).or_else(|| created(object))
}

/// When it was made.
pub fn created(object: &DynamicObject) -> Option<Timestamp> {
    object.metadata.creation_timestamp.as_ref().map(|at| at.0)
}
