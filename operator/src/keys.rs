//! The keys of identities: one Secret each in the operator's own namespace, never beside the relays, without an owner
//! reference. What a Secret says is read here, and nowhere else.

pub mod asked;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use securelink_crds::keys::{
    COMPONENT, IDENTITY, IDENTITY_NAMESPACE, IDENTITY_UID, MANAGED_BY, MANAGER, NAME, PRODUCT,
};
use securelink_pki::{Intermediate, Root, Transitions};
use securelink_relay_config::{Digest, LinkRef};

/// The root's key and certificate, the intermediate's key and chain, the root that was announced, and the way from older roots.
pub const FILES: [&str; 7] =
    ["root.key", "root.pem", "intermediate.key", "intermediate.pem", "next.key", "next.pem", "transitions.pem"];
/// Longest name of a Secret (RFC 1123 subdomain).
const LONGEST: usize = 253;

/// The name of the Secret with an identity's root.
pub fn name(identity: &LinkRef) -> String {
    named("identity", identity)
}

/// A name of its own for each identity: a namespace has no dot, so that no two share one.
fn named(what: &str, identity: &LinkRef) -> String {
    let plain = format!("{what}.{}.{}", identity.namespace, identity.name);
    if plain.len() <= LONGEST { plain } else { format!("{what}.{}", Digest::of(plain.as_bytes())).replace(':', "-") }
}

/// Whose keys a Secret holds.
pub fn identity_of(secret: &Secret) -> Option<LinkRef> {
    let annotations = secret.metadata.annotations.as_ref()?;
    Some(LinkRef { namespace: annotations.get(IDENTITY_NAMESPACE)?.clone(), name: annotations.get(IDENTITY)?.clone() })
}

/// What stands in a Secret, part by part: one that is damaged spoils no other.
#[derive(Debug)]
pub struct Kept {
    /// The root; what is wrong with it is said.
    pub root: Result<Option<Root>, String>,
    /// The intermediate.
    pub intermediate: Result<Option<Intermediate>, String>,
    /// The root that was announced to follow.
    pub next: Result<Option<Root>, String>,
    /// The way from older roots.
    pub transitions: Result<Transitions, String>,
    /// The identity object it was made for.
    pub uid: Option<String>,
    /// Whether there is a Secret at all, whatever it holds.
    pub is_there: bool,
}

impl Kept {
    /// Reads a Secret; none holds nothing.
    pub fn read(secret: Option<&Secret>) -> Self {
        let text = |file: &str| {
            let bytes = secret.and_then(|secret| secret.data.as_ref()?.get(file));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        };
        let [root_key, root, intermediate_key, intermediate, next_key, next, transitions] = FILES.map(text);
        let both = |key: Option<String>, certificate: Option<String>, what: &str| match (key, certificate) {
            (Some(key), Some(certificate)) => Ok(Some((key, certificate))),
            (None, None) => Ok(None),
            _ => Err(format!("of {what} only one of key and certificate is there")),
        };
        let read = |both: Option<(String, String)>| {
            let read = both.map(|(key, certificate)| Root::from_pem(&key, &certificate));
            read.transpose().map_err(|error| error.to_string())
        };
        Self {
            root: both(root_key, root, "the root").and_then(read),
            next: both(next_key, next, "the next root").and_then(read),
            intermediate: both(intermediate_key, intermediate, "the intermediate").and_then(|both| {
                both.map(|(key, chain)| Intermediate::from_pem(&key, &chain))
                    .transpose()
                    .map_err(|error| error.to_string())
            }),
            transitions: Transitions::from_pem(transitions.as_deref().unwrap_or_default())
                .map_err(|error| error.to_string()),
            uid: secret.and_then(|secret| secret.metadata.labels.as_ref()?.get(IDENTITY_UID).cloned()),
            is_there: secret.is_some(),
        }
    }
}

/// Why a Secret that is there is not seen, and what to do: it is found by its label.
pub fn hidden(secret: &Secret, at: &str) -> Option<String> {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    (label.map(String::as_str) != Some(MANAGER)).then(|| {
        format!("the Secret {at} is there, but without the label by which it is found; run `kubectl label` on it with {MANAGED_BY}={MANAGER}")
    })
}

/// The Secret of an identity, with the parts that are given; `old` keeps the others.
pub fn secret(identity: &LinkRef, uid: &str, old: Option<&Secret>, parts: &Parts<'_>) -> Secret {
    let mut data = old.and_then(|old| old.data.clone()).unwrap_or_default();
    let mut put = |file: &str, text: &str| data.insert(file.to_owned(), ByteString(text.as_bytes().to_vec()));
    if let Some(root) = parts.root {
        put(FILES[0], &root.key().to_pem());
        put(FILES[1], &root.certificate_pem());
    }
    if let Some(intermediate) = parts.intermediate {
        put(FILES[2], &intermediate.key().to_pem());
        put(FILES[3], &intermediate.chain_pem());
    }
    if let Some(next) = parts.next {
        put(FILES[4], &next.key().to_pem());
        put(FILES[5], &next.certificate_pem());
    }
    if let Some(transitions) = parts.transitions {
        // The next root has taken over; the old one's key is of no use any more but to a thief.
        put(FILES[6], &transitions.to_pem());
        data.retain(|file, _| file != FILES[4] && file != FILES[5]);
    }
    let mut secret = empty(name(identity), identity, uid);
    secret.metadata.resource_version = old.and_then(|old| old.metadata.resource_version.clone());
    secret.data = Some(data);
    secret
}

/// A Secret of an identity, without keys.
fn empty(name: String, identity: &LinkRef, uid: &str) -> Secret {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(BTreeMap::from([
                label(IDENTITY_UID, uid),
                label(COMPONENT, "identity"),
                label(NAME, PRODUCT),
                label(MANAGED_BY, MANAGER),
            ])),
            annotations: Some(BTreeMap::from([
                label(IDENTITY_NAMESPACE, &identity.namespace),
                label(IDENTITY, &identity.name),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// What is written into a Secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// A new root.
    pub root: Option<&'a Root>,
    /// A new intermediate.
    pub intermediate: Option<&'a Intermediate>,
    /// A root to announce.
    pub next: Option<&'a Root>,
    /// The way to a new root that was announced before.
    pub transitions: Option<&'a Transitions>,
}
