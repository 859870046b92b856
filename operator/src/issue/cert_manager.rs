//! An intermediate that cert-manager signs. Its key is ours and stays in the operator's namespace; beside the identity stands a
//! `CertificateRequest`, which holds nothing secret. What comes back is judged as an intermediate that its owner gave.

pub mod answer;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::api::DynamicObject;
use securelink_crds::IssuerRef;
use securelink_crds::conditions::Reason;
use securelink_pki::{Intermediate, PrivateKey};
use securelink_relay_config::Digest;
use serde_json::{Value, json};

use self::answer::{Answer, Ours, created, differs};
use super::given::{is_of_use, is_ours};
use super::{Ask, Asked, Failure, Hands, Issuer};
use crate::keys::asked::{Kept, text};

/// Hexadecimal digits of the hash in the name of what is asked.
const DIGITS: usize = 16;

/// Between two questions of an identity: a third of what the answer to the first had left, held to these. Short enough for an issuer
/// that signs for an hour, and one that signs for a second is asked six times an hour.
const PAUSE: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(10), SignedDuration::from_hours(6));

/// From an answer of no use to the next question, doubled with each from the first to the last: what refused may have passed, and
/// who refuses for good is not to be asked every hour.
const AGAIN: (SignedDuration, SignedDuration) = (SignedDuration::from_hours(1), SignedDuration::from_hours(24));

/// Finds a `CertificateRequest` of the identity's namespace.
pub type Find<'a> = &'a dyn Fn(&str) -> Option<Arc<DynamicObject>>;

/// Why an issuer is not asked that whoever runs the operator has not listed: who may write a `LinkIdentity` may not for that
/// reason have certificates of it.
pub fn not_listed(namespace: &str, issuer: &IssuerRef) -> Failure {
    let IssuerRef { name, kind, group } = issuer;
    let why = format!(
        "the operator may not ask the {kind} {name} of {group} for identities in {namespace}; add {{group: {group}, kind: {kind}, name: {name}, namespace: {namespace}}} to certManager.issuers in the values of the chart securelink, or name a listed issuer in spec"
    );
    (Reason::IssuerFailed, why)
}

/// Judges what there is, and makes a key where one is to be signed. `requests` finds what was asked; or why nothing can be.
pub fn issuer(
    asked: Asked<'_>,
    mut kept: Kept,
    requests: Result<Find<'_>, Failure>,
    (hands, now): (Hands, Timestamp),
) -> Issuer {
    let mut issuer = Issuer { root: asked.traces.root, ..Issuer::default() };
    let ours = kept.intermediate.take().filter(|held| is_ours(asked, asked.place, held).is_ok());
    let wait = ours.as_ref().map(|held| next_at(held, kept.asked, now)).filter(|at| now < *at);
    let held = ours.filter(|held| now < held.end());
    let next = match wait {
        None => issuer.next(asked, &kept, requests, (hands, now)),
        Some(_) if held.is_some() => Ok(None),
        Some(at) => {
            issuer.wake(Some(at));
            Err(issuing(&format!(
                "what cert-manager signed has ended and it is asked again at {at}; see that its issuer signs for longer"
            )))
        }
    };
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
        let at = next_at(&intermediate, kept.asked, now);
        issuer.wake(Some(at).filter(|at| now < *at));
        issuer.wake(Some(intermediate.end()));
        // Its own end is ours to see to, those above it are not.
        issuer.ends = Some(intermediate.end_above());
        issuer.note = (intermediate.due() <= now && now < at).then(|| {
            format!("what cert-manager signs is due for renewal at once, so that it is asked again at {at} only: see to its issuer's dates")
        });
        issuer.intermediate = Some(intermediate);
    }
    issuer
}

/// When a successor is asked for: when it is due, and not before a pause since the last question. Of an issuer that dates far back, or
/// is about to end itself, all that it signs is due at once, and it would be asked without end.
pub fn next_at(held: &Intermediate, asked: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let due = held.due();
    // One that lies ahead was written before the clock was set.
    let Some(asked) = asked.filter(|at| *at <= now) else { return due };
    let third = SignedDuration::from_secs(held.end().duration_since(asked).as_secs() / 3);
    asked.checked_add(third.clamp(PAUSE.0, PAUSE.1)).map_or(due, |pause| due.max(pause))
}

/// When another question follows an answer of no use.
pub fn again_at(since: Timestamp, attempts: u32) -> Timestamp {
    let pause = AGAIN.0.saturating_mul(1 << attempts.saturating_sub(1).min(5)).min(AGAIN.1);
    since.checked_add(pause).unwrap_or(Timestamp::MAX)
}

impl Issuer {
    /// The intermediate that was asked for, once it is signed.
    fn next(
        &mut self,
        asked: Asked<'_>,
        kept: &Kept,
        requests: Result<Find<'_>, Failure>,
        (hands, now): (Hands, Timestamp),
    ) -> Result<Option<Intermediate>, Failure> {
        let find = requests?;
        let Some(by) = &asked.identity.spec.issuer.cert_manager else { return Ok(None) };
        // One that cannot be read is replaced: nothing was signed with it.
        let Some(key) = &kept.request else {
            self.begin(hands)?;
            return Err(issuing("cert-manager is about to be asked; nothing to do, wait"));
        };
        let (name, metadata) = (name(key, &by.issuer_ref), &asked.identity.metadata);
        let Some(request) = find(&name) else {
            if hands == Hands::Making {
                self.ask = Some(ask(asked, name, key)?);
            }
            return Err(issuing("cert-manager is being asked; nothing to do, wait"));
        };
        let place = format!("the CertificateRequest {}/{name}", metadata.namespace.as_deref().unwrap_or_default());
        let ours = Ours { uid: metadata.uid.as_deref(), issuer: &by.issuer_ref, key };
        let (chain, root, since) = match differs(&request, &ours).map_or_else(|| Ok(Answer::read(&request)), Err) {
            Err(why) => {
                let why = format!("{place} is not ours: {why}; see who may create CertificateRequests there");
                return Err(self.again(&why, created(&request), kept, (hands, now)));
            }
            Ok(Answer::Waiting(why)) => return Err((Reason::Issuing, waits(&place, &why, &by.issuer_ref))),
            Ok(Answer::Refused { why, since }) => {
                let why = format!("{place} was refused: {why}; mend its issuer");
                return Err(self.again(&why, since, kept, (hands, now)));
            }
            Ok(Answer::Signed { chain, root, since }) => (chain, root, since),
        };
        match taken(asked, (&chain, root.as_deref()), key, now) {
            Ok(signed) => {
                // Another root waits for a person's word, and is not asked for twice.
                let mend = |why| format!("{why}, or mend its issuer and delete the request");
                is_ours(asked, &place, &signed).map_err(|(reason, why)| (reason, mend(why)))?;
                Ok(Some(signed))
            }
            Err(why) => Err(self.again(&format!("{place}: {why}; mend its issuer"), since, kept, (hands, now))),
        }
    }

    /// Makes a key that is to be signed.
    fn begin(&mut self, hands: Hands) -> Result<(), Failure> {
        if hands == Hands::Making {
            let made = PrivateKey::generate_p384().map_err(|error| failed(error.to_string()))?;
            self.made.request = Some(made);
        }
        Ok(())
    }

    /// Nothing comes of what was asked: after a while another key is made, under whose name nothing stands yet.
    fn again(&mut self, why: &str, since: Option<Timestamp>, kept: &Kept, (hands, now): (Hands, Timestamp)) -> Failure {
        let since = since.filter(|at| *at <= now).or(kept.asked).unwrap_or(now);
        let at = again_at(since, kept.attempts);
        if at <= now
            && let Err(failure) = self.begin(hands)
        {
            return failure;
        }
        self.wake(Some(at).filter(|at| now < *at));
        failed(format!("{why}: cert-manager is asked again at {at:.0}, or as soon as you delete the request"))
    }
}

/// What was signed, if it is of use to this key and to peers.
fn taken(
    asked: Asked<'_>,
    (chain, root): (&str, Option<&str>),
    key: &PrivateKey,
    now: Timestamp,
) -> Result<Intermediate, String> {
    let pem = key.to_pem();
    let signed = match root {
        Some(root) => Intermediate::from_given(&pem, chain, root),
        None => Intermediate::from_pem(&pem, chain),
    };
    let signed = signed.map_err(|error| error.to_string())?;
    is_of_use(asked, &signed, now)?;
    Ok(signed)
}

/// What to do about a request that nothing comes of.
pub const ANEW: &str = "delete it to have cert-manager asked again";

fn failed(why: String) -> Failure {
    (Reason::IssuerFailed, why)
}

fn issuing(why: &str) -> Failure {
    (Reason::Issuing, why.to_owned())
}

fn waits(place: &str, why: &str, issuer: &IssuerRef) -> String {
    let IssuerRef { name, kind, .. } = issuer;
    format!(
        "{place} is not signed: {why}; have it approved, see that the {kind} {name} is there and ready, or name another in spec"
    )
}

fn ask(asked: Asked<'_>, name: String, key: &PrivateKey) -> Result<Ask, Failure> {
    let domain = asked.identity.spec.trust_domain.parse();
    let domain = domain.map_err(|error: securelink_id::TrustDomainError| failed(error.to_string()))?;
    let request = Intermediate::request(&domain, key).map_err(|error| failed(error.to_string()))?;
    Ok(Ask { name, request })
}

/// What is asked is named after the key and who is to sign it: it is found again and asked once, and whoever mends issuerRef asks
/// anew.
fn name(key: &PrivateKey, issuer: &IssuerRef) -> String {
    let what = [key.public_key(), text(issuer).into_bytes()].concat();
    let digest = Digest::of(&what).to_string();
    let hex = digest.trim_start_matches("sha256:");
    format!("securelink-{}", &hex[..DIGITS.min(hex.len())])
}

/// What is asked, in cert-manager's words: an authority, for as long as an intermediate of ours would live. That it may sign leaves
/// only stands in the request itself, and cert-manager does not pass it on to its issuers: nothing here relies on it.
pub fn spec(asked: &Ask, issuer: &IssuerRef) -> Value {
    json!({
        "request": ByteString(asked.request.as_bytes().to_vec()),
        "isCA": true,
        "usages": ["cert sign"],
        "duration": "2160h0m0s",
        "issuerRef": { "name": issuer.name, "kind": issuer.kind, "group": issuer.group },
    })
}
