//! Reading a `CertificateRequest` (cert-manager.io/v1): whether it is ours, and what became of it.

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
    /// Nothing will come of it; why.
    Refused(String),
    /// It is signed.
    Signed {
        /// The certificate, with some of those above it.
        chain: String,
        /// The root, where cert-manager says which.
        root: Option<String>,
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
            return Self::Refused(said(refused));
        }
        let ready = condition("Ready");
        if let Some(failed) = ready.filter(|it| it["reason"] == "Failed" || it["reason"] == "Denied") {
            return Self::Refused(said(failed));
        }
        let file = |name: &str| {
            let bytes: ByteString = serde_json::from_value(status[name].clone()).ok()?;
            Some(String::from_utf8_lossy(&bytes.0).into_owned()).filter(|text| !text.is_empty())
        };
        match (holds("Ready"), file("certificate")) {
            (Some(_), Some(chain)) => Self::Signed { chain, root: file("ca") },
            _ if holds("Approved").is_none() => Self::Waiting("it is not approved yet".to_owned()),
            _ => Self::Waiting(ready.map_or_else(|| "nobody has answered yet".to_owned(), said)),
        }
    }
}
