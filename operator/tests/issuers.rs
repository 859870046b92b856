//! The keys of identities as they are found, and what is made of them: a second root never.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_crds::load::{Object, judge};
use securelink_operator::issue::{Asked, Hands, Issuer, built_in};
use securelink_operator::keys::{self, Kept, Parts};
use securelink_operator::traces::Traces;
use securelink_pki::testing::{Organization, now};
use securelink_relay_config::LinkRef;
use serde_json::json;

fn at() -> LinkRef {
    LinkRef { namespace: "liaison".to_owned(), name: "default".to_owned() }
}

fn identity() -> LinkIdentity {
    let written = json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
        "metadata": {"name": "default", "namespace": "liaison", "uid": "u-1"},
        "spec": {"trustDomain": "interpol.example", "issuer": {"builtIn": {}}},
    });
    let Object::LinkIdentity(identity) = judge(&written, None).unwrap() else { panic!() };
    *identity
}

fn look(secret: Option<&Secret>, traces: Traces, hands: Hands) -> Issuer {
    let asked = Asked { identity: &identity(), traces, place: "securelink-system/keys" };
    built_in::issuer(asked, Kept::read(secret), hands, now())
}

fn secret(of: &Organization) -> Secret {
    let parts = Parts { root: Some(&of.root), intermediate: Some(&of.intermediate), ..Parts::default() };
    keys::secret(&at(), "u-1", None, &parts)
}

/// The Secret without these files.
fn without(secret: &Secret, files: &[&str]) -> Secret {
    let mut secret = secret.clone();
    secret.data.as_mut().unwrap().retain(|file, _| !files.contains(&file.as_str()));
    secret
}

fn reason(issuer: &Issuer) -> Option<Reason> {
    issuer.failure.as_ref().map(|(reason, _)| *reason)
}

#[test]
fn a_root_is_made_once_by_whoever_may_where_nothing_tells_of_another() {
    let made = look(None, Traces::default(), Hands::Making);
    assert_eq!(reason(&made), None);
    assert_eq!(made.root, made.made.root.as_ref().map(securelink_pki::Root::fingerprint));
    assert!(made.made.intermediate && made.intermediate.is_some());
    let looked = look(None, Traces::default(), Hands::Looking);
    assert!(!looked.made.is_any() && looked.root.is_none());
}

#[test]
fn f76_no_root_is_made_where_anything_tells_of_an_earlier_one() {
    let of = Organization::new("interpol.example");
    let (whole, pin) = (secret(&of), of.root.fingerprint());
    let root = ["root.key", "root.pem"];
    let none = Traces::default();
    let rubbish = |file: &str| {
        let mut secret = without(&whole, &root);
        secret.data.as_mut().unwrap().insert(file.to_owned(), ByteString(b"rubbish".to_vec()));
        secret
    };
    let rows = [
        ("a status that cannot be read", None, none.or(None, true), None),
        ("a status", None, none.or(Some(pin), true), Some(pin)),
        ("an intermediate without its root", Some(without(&whole, &root)), none, Some(pin)),
        ("half a root", Some(without(&whole, &["root.key"])), none, Some(pin)),
        ("an intermediate that cannot be read", Some(rubbish("intermediate.pem")), none, None),
        ("a root that cannot be read", Some(rubbish("root.pem")), none, Some(pin)),
        ("an emptied Secret", Some(Secret { data: None, ..whole.clone() }), none, None),
    ];
    for (what, secret, traces, known) in rows {
        let found = look(secret.as_ref(), traces, Hands::Making);
        assert_eq!(reason(&found), Some(Reason::RootMissing), "{what}: {:?}", found.failure);
        assert!(!found.made.is_any(), "{what}");
        assert_eq!(found.root, known, "{what}");
        let (_, why) = found.failure.unwrap();
        assert!(why.contains("; restore root.key and root.pem of the Secret securelink-system/keys"), "{why}");
    }
}

#[test]
fn what_an_intermediate_without_its_root_can_still_sign_is_signed() {
    let of = Organization::new("interpol.example");
    let found = look(Some(&without(&secret(&of), &["root.key", "root.pem"])), Traces::default(), Hands::Looking);
    assert!(found.intermediate.is_some(), "links go on as long as the intermediate does");
}

#[test]
fn a_secret_that_lost_its_label_is_named_and_one_that_has_it_is_only_not_seen_yet() {
    let mut secret = secret(&Organization::new("interpol.example"));
    assert_eq!(keys::hidden(&secret, "here"), None);
    secret.metadata.labels = None;
    let why = keys::hidden(&secret, "here").unwrap();
    assert!(why.contains("app.kubernetes.io/managed-by=securelink-operator"), "{why}");
}
