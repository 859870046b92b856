//! An intermediate that cert-manager signs. Its key is ours and stays in the operator's namespace; beside the identity stands a
//! `CertificateRequest`, which holds nothing secret. What comes back is judged as an intermediate that its owner gave.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use kube::api::DynamicObject;
use securelink_crds::IssuerRef;
use securelink_crds::conditions::Reason;
use securelink_pki::{Intermediate, PrivateKey};
use securelink_relay_config::Digest;
use serde_json::{Value, json};

use super::given::{is_of_use, is_ours};
use super::{Ask, Asked, Failure, Hands, Issuer};
use crate::keys::asked::Kept;

/// Hexadecimal digits of a key's hash in the name of what is asked for it.
const DIGITS: usize = 16;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not there.
    Absent,
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
    /// Reads a `CertificateRequest` (cert-manager.io/v1).
    pub fn read(object: Option<&DynamicObject>) -> Self {
        let Some(object) = object else { return Self::Absent };
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

/// Why an issuer is not asked that whoever runs the operator has not listed: who may write a `LinkIdentity` may not for that
/// reason have certificates of it.
pub fn not_listed(namespace: &str, issuer: &IssuerRef) -> Failure {
    let IssuerRef { name, kind, group } = issuer;
    let why = format!(
        "the operator may not ask the {kind} {name} of {group} for identities in {namespace}; add {{group: {group}, kind: {kind}, name: {name}, namespace: {namespace}}} to certManager.issuers in the values of the chart securelink, or name a listed issuer in spec"
    );
    (Reason::IssuerFailed, why)
}

/// Judges what there is, and makes a key where one is to be signed. `answer` says what became of the request of that name.
pub fn issuer(
    asked: Asked<'_>,
    kept: Kept,
    answer: impl FnOnce(&str) -> Answer,
    (hands, now): (Hands, Timestamp),
) -> Issuer {
    let mut issuer = Issuer { root: asked.traces.root, ..Issuer::default() };
    let usable = |held: &Intermediate| now < held.end() && is_ours(asked, asked.place, held).is_ok();
    let held = kept.intermediate.filter(usable);
    let is_due = held.as_ref().is_none_or(|held| held.due() <= now);
    let next = if is_due { issuer.next(asked, kept.request, answer, (hands, now)) } else { Ok(None) };
    let next = next.unwrap_or_else(|(reason, why)| {
        // While another one signs, what is under way is nobody's concern.
        if held.is_none() || reason != Reason::Issuing {
            issuer.fail(reason, why);
        }
        None
    });
    issuer.made.intermediate = next.is_some();
    if let Some(intermediate) = next.or(held) {
        issuer.is_below(&intermediate);
        issuer.wake(Some(intermediate.due()).filter(|due| *due > now));
        issuer.wake(Some(intermediate.end()));
        issuer.intermediate = Some(intermediate);
    }
    issuer
}

impl Issuer {
    /// The intermediate that was asked for, once it is signed.
    fn next(
        &mut self,
        asked: Asked<'_>,
        key: Option<PrivateKey>,
        answer: impl FnOnce(&str) -> Answer,
        (hands, now): (Hands, Timestamp),
    ) -> Result<Option<Intermediate>, Failure> {
        let failed = |why: String| (Reason::IssuerFailed, why);
        let issuing = |why: &str| (Reason::Issuing, why.to_owned());
        // One that cannot be read is replaced: nothing was signed with it.
        let Some(key) = key else {
            if hands == Hands::Making {
                let made = PrivateKey::generate_p384().map_err(|error| failed(error.to_string()))?;
                self.made.request = Some(made);
            }
            return Err(issuing("cert-manager is about to be asked; nothing to do, wait"));
        };
        let name = name(&key);
        let (namespace, remedy) = (
            asked.identity.metadata.namespace.as_deref().unwrap_or_default(),
            "delete it to have cert-manager asked again",
        );
        let place = format!("the CertificateRequest {namespace}/{name}");
        let (chain, root) = match answer(&name) {
            Answer::Absent => {
                let domain = asked.identity.spec.trust_domain.parse();
                let domain = domain.map_err(|error: securelink_id::TrustDomainError| failed(error.to_string()))?;
                let request = Intermediate::request(&domain, &key).map_err(|error| failed(error.to_string()))?;
                self.ask = Some(Ask { name, request });
                return Err(issuing("cert-manager is being asked; nothing to do, wait"));
            }
            Answer::Waiting(why) => {
                let why = format!("{place} is not signed: {why}; have it approved, and look at its issuer");
                return Err((Reason::Issuing, why));
            }
            Answer::Refused(why) => {
                return Err(failed(format!("{place} was refused: {why}; mend its issuer, then {remedy}")));
            }
            Answer::Signed { chain, root } => (chain, root),
        };
        let pem = key.to_pem();
        let signed = match root {
            Some(root) => Intermediate::from_given(&pem, &chain, &root),
            None => Intermediate::from_pem(&pem, &chain),
        };
        let signed = signed.map_err(|error| failed(format!("{place}: {error}; mend its issuer, then {remedy}")))?;
        is_ours(asked, &place, &signed)?;
        is_of_use(asked, &signed, now).map_err(|why| failed(format!("{place}: {why}; then {remedy}")))?;
        Ok(Some(signed))
    }
}

/// What is asked for a key is named after it: it is found again, and asked for once.
fn name(key: &PrivateKey) -> String {
    let digest = Digest::of(&key.public_key()).to_string();
    let hex = digest.trim_start_matches("sha256:");
    format!("securelink-{}", &hex[..DIGITS.min(hex.len())])
}

/// What is asked, in cert-manager's words: an intermediate that may sign leaves only, for as long as one of ours would live.
pub fn spec(asked: &Ask, issuer: &IssuerRef) -> Value {
    json!({
        "request": ByteString(asked.request.as_bytes().to_vec()),
        "isCA": true,
        "usages": ["cert sign"],
        "duration": "2160h0m0s",
        "issuerRef": { "name": issuer.name, "kind": issuer.kind, "group": issuer.group },
    })
}
