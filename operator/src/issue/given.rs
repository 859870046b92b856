//! An intermediate that its owner gave us in a Secret of the identity's namespace; the root's key stays with him. The Secret
//! is used only if it names the identity by a label: who may write a `LinkIdentity` may not for that reason sign with
//! whatever key lies beside it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::RootState;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::ISSUER_OF;
use securelink_id::{TrustDomain, TrustDomainError};
use securelink_pki::Intermediate;
use securelink_pki::certificate::validity_of;
use securelink_pki::issue::IssueError;
use securelink_plan::certificate::{RootDecision, RootFacts, RootKey, root};
use securelink_plan::identity;

use super::{Asked, Failure, Issuer, conflict};

/// The intermediate's key; its certificate with those above it; the root. As cert-manager and `kubectl create secret tls` name them.
pub const FILES: [&str; 3] = ["tls.key", "tls.crt", "ca.crt"];

/// Whom a Secret may sign for.
pub fn issuer_of(secret: &Secret) -> Option<&str> {
    secret.metadata.labels.as_ref()?.get(ISSUER_OF).map(String::as_str)
}

/// Judges what was given; `None` where no such Secret names the identity.
pub fn issuer(asked: Asked<'_>, secret: Option<&Secret>, now: Timestamp) -> Issuer {
    let (name, recorded) = (asked.identity.metadata.name.as_deref().unwrap_or_default(), asked.traces.root);
    let failed = |why: String| Issuer::failed(recorded, (Reason::IssuerFailed, why));
    let Some(secret) = secret.filter(|secret| issuer_of(secret) == Some(name)) else {
        return failed(format!(
            "there is no Secret {} with the label {ISSUER_OF}={name}, by which its owner lets this identity sign with it; make it with {}, and label it",
            asked.place,
            FILES.join(", ")
        ));
    };
    let intermediate = match read(secret) {
        Ok(intermediate) => intermediate,
        Err(why) => return failed(format!("the Secret {}: {why}", asked.place)),
    };
    if let Err(conflict) = is_ours(asked, &format!("the Secret {}", asked.place), &intermediate) {
        return Issuer::failed(recorded, conflict);
    }
    let mut issuer = Issuer { is_given: true, ..Issuer::default() };
    issuer.is_below(&intermediate);
    match is_of_use(asked, &intermediate, now) {
        Ok(()) => {
            issuer.wake(Some(intermediate.end()));
            issuer.ends = Some(intermediate.end());
            issuer.intermediate = Some(intermediate);
        }
        Err(why) => {
            issuer.wake(Some(intermediate.validity().not_before).filter(|at| *at > now));
            issuer.fail(Reason::IssuerFailed, format!("the Secret {}: {why}", asked.place));
        }
    }
    issuer
}

/// Whether an intermediate is below our root. One that changed under us is no reason to become somebody else: partners have
/// pinned the root before. That it is for this very identity has been seen: by its owner's label, by the uid it was stored for.
pub(super) fn is_ours(asked: Asked<'_>, place: &str, intermediate: &Intermediate) -> Result<(), Failure> {
    let key = RootKey::Present { fingerprint: intermediate.root(), made_for_this: true };
    let (recorded, traces, expected) = (asked.traces.root, asked.traces.any, asked.expected());
    match root(&RootFacts { key, recorded, expected, traces, older: &[], next: None }) {
        RootDecision::RootConflict { found, wanted } => Err(conflict(place, found, wanted)),
        _ => Ok(()),
    }
}

/// Whether peers would take what an intermediate signs; or why not, and what to do.
pub(super) fn is_of_use(asked: Asked<'_>, intermediate: &Intermediate, now: Timestamp) -> Result<(), String> {
    let domain: Result<TrustDomain, TrustDomainError> = asked.identity.spec.trust_domain.parse();
    let domain = domain.map_err(|error| error.to_string())?;
    intermediate.check(&domain, now).map_err(|error| useless(&error))
}

impl Issuer {
    /// Takes the root above an intermediate for the current one.
    pub(super) fn is_below(&mut self, intermediate: &Intermediate) {
        let fingerprint = intermediate.root();
        let end = intermediate.chain().last().and_then(|root| validity_of(root).ok()).map(|dates| dates.not_after);
        self.root = Some(fingerprint);
        self.roots.extend(end.map(|not_after| identity::Root { fingerprint, not_after, state: RootState::Current }));
    }
}

/// Why its leaves are of no use. A refusal is worded for the peer's side, and says nothing of what to do here.
fn useless(error: &IssueError) -> String {
    match error {
        IssueError::Refused(refusal) => format!(
            "peers would refuse what it signs, as they would say: {refusal}; give an intermediate of this trust domain, which may sign leaves and whose chain leads to ca.crt"
        ),
        other => other.to_string(),
    }
}

fn read(secret: &Secret) -> Result<Intermediate, String> {
    let text = |file: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(file));
        let bytes = bytes.ok_or_else(|| format!("{file} is missing; it needs {}", FILES.join(", ")))?;
        std::str::from_utf8(&bytes.0).map_err(|_| format!("{file} is not text; give PEM"))
    };
    let [key, chain, root] = FILES;
    Intermediate::from_given(text(key)?, text(chain)?, text(root)?).map_err(|error| error.to_string())
}
