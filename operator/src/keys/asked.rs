//! The keys of an identity for which cert-manager signs: in a Secret of their own, away from any root, so that what one way of
//! signing has stored no other finds. What was stored for another identity object of the name, or signed by another issuer than
//! the one that is asked now, counts for nothing.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::IssuerRef;
use securelink_crds::keys::{ASKED_AT, ATTEMPTS, IDENTITY_UID, ISSUED_BY};
use securelink_pki::{Intermediate, PrivateKey};
use securelink_relay_config::LinkRef;

/// The key that is to be signed; the intermediate's key and chain.
pub const FILES: [&str; 3] = ["request.key", "intermediate.key", "intermediate.pem"];

/// The name of that Secret.
pub fn name(identity: &LinkRef) -> String {
    super::named("cert-manager", identity)
}

/// What stands in it, for one identity object and one issuer. What is damaged is asked for again: nothing depends on it.
#[derive(Debug, Default)]
pub struct Kept {
    /// What that issuer signed for this identity.
    pub intermediate: Option<Intermediate>,
    /// The key that it is to sign.
    pub request: Option<PrivateKey>,
    /// When a key was made last.
    pub asked: Option<Timestamp>,
    /// How many were made since one was signed.
    pub attempts: u32,
}

impl Kept {
    /// Reads a Secret; none holds nothing.
    pub fn read(secret: Option<&Secret>, uid: Option<&str>, issuer: &IssuerRef) -> Self {
        let Some(secret) = secret.filter(|secret| is_for(secret, uid)) else { return Self::default() };
        let [request, key, chain] = FILES.map(|file| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(file));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        });
        let note = |name: &str| secret.metadata.annotations.as_ref()?.get(name);
        let signed = key.zip(chain).filter(|_| note(ISSUED_BY) == Some(&text(issuer)));
        Self {
            intermediate: signed.and_then(|(key, chain)| Intermediate::from_pem(&key, &chain).ok()),
            request: request.and_then(|key| PrivateKey::from_pem(&key).ok()),
            asked: note(ASKED_AT).and_then(|at| at.parse().ok()),
            attempts: attempts(secret),
        }
    }
}

/// What is new, to be written down.
#[derive(Clone, Copy, Debug)]
pub enum New<'a> {
    /// A key that is to be signed, and when it was made.
    Request(&'a PrivateKey, Timestamp),
    /// What that issuer signed.
    Signed(&'a Intermediate, &'a IssuerRef),
}

/// The Secret with what is new. Of `old` stays what is this identity's: it goes on until its successor is signed.
pub fn secret(identity: &LinkRef, uid: &str, old: Option<&Secret>, new: New<'_>) -> Secret {
    let mut secret = super::empty(name(identity), identity, uid);
    secret.metadata.resource_version = old.and_then(|old| old.metadata.resource_version.clone());
    let own = old.filter(|old| is_for(old, Some(uid)));
    let mut data = own.and_then(|old| old.data.clone()).unwrap_or_default();
    data.retain(|file, _| FILES.contains(&file.as_str()));
    let mut notes = own.and_then(|old| old.metadata.annotations.clone()).unwrap_or_default();
    notes.retain(|name, _| [ISSUED_BY, ASKED_AT].contains(&name.as_str()));
    let mut note = |name: &str, value: String| notes.insert(name.to_owned(), value);
    let mut put = |file: &str, text: &str| data.insert(file.to_owned(), ByteString(text.as_bytes().to_vec()));
    match new {
        New::Request(key, at) => {
            put(FILES[0], &key.to_pem());
            note(ASKED_AT, format!("{at:.0}"));
            note(ATTEMPTS, own.map_or(0, attempts).saturating_add(1).to_string());
        }
        New::Signed(intermediate, issuer) => {
            put(FILES[1], &intermediate.key().to_pem());
            put(FILES[2], &intermediate.chain_pem());
            // What was asked for is answered.
            data.remove(FILES[0]);
            note(ISSUED_BY, text(issuer));
        }
    }
    secret.metadata.annotations.get_or_insert_default().append(&mut notes);
    secret.data = Some(data);
    secret
}

fn attempts(secret: &Secret) -> u32 {
    let noted = secret.metadata.annotations.as_ref().and_then(|all| all.get(ATTEMPTS)?.parse().ok());
    noted.unwrap_or_default()
}

fn is_for(secret: &Secret, uid: Option<&str>) -> bool {
    let stored = secret.metadata.labels.as_ref().and_then(|labels| labels.get(IDENTITY_UID));
    uid.is_some() && stored.map(String::as_str) == uid
}

/// An issuer in one word, by which no two are alike.
pub fn text(issuer: &IssuerRef) -> String {
    // Three plain texts: they always serialize.
    serde_json::to_string(issuer).unwrap_or_default()
}
