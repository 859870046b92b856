//! An intermediate that its owner gives in a Secret: what is taken, and what is refused with a reason.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::ISSUER_OF;
use securelink_crds::load::{Object, judge};
use securelink_id::Fingerprint;
use securelink_operator::issue::{Asked, Issuer, given};
use securelink_operator::traces::Traces;
use securelink_pki::testing::{Organization, now};

fn identity(expected: Option<Fingerprint>) -> LinkIdentity {
    let mut written = serde_json::json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
        "metadata": {"name": "default", "namespace": "liaison", "uid": "u-1"},
        "spec": {"trustDomain": "interpol.example", "issuer": {"secret": {"name": "link-issuer"}}},
    });
    if let Some(expected) = expected {
        written["spec"]["expectedFingerprint"] = expected.to_string().into();
    }
    let Object::LinkIdentity(identity) = judge(&written, None).unwrap() else { panic!() };
    *identity
}

/// The files of a Secret, to be spoiled.
#[derive(Clone)]
struct Files {
    key: String,
    chain: String,
    root: String,
}

impl Files {
    fn of(organization: &Organization) -> Self {
        let chain = organization.intermediate.chain_pem();
        let root = organization.root.certificate_pem();
        Self {
            key: organization.intermediate.key().to_pem().to_string(),
            chain: chain.strip_suffix(root.as_str()).unwrap().to_owned(),
            root,
        }
    }

    fn secret(&self) -> Secret {
        let texts = [&self.key, &self.chain, &self.root];
        let files = given::FILES.into_iter().zip(texts).filter(|(_, text)| !text.is_empty());
        let files = files.map(|(file, text)| (file.to_owned(), ByteString(text.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(files.collect()), ..Secret::default() };
        secret.metadata.labels = Some(BTreeMap::from([(ISSUER_OF.to_owned(), "default".to_owned())]));
        secret
    }
}

struct Look {
    expected: Option<Fingerprint>,
    recorded: Option<Fingerprint>,
    now: Timestamp,
}

impl Look {
    fn first() -> Self {
        Self { expected: None, recorded: None, now: now() }
    }

    fn at(&self, secret: Option<&Secret>) -> Issuer {
        let traces = Traces::default().or(self.recorded, false);
        let asked = Asked { identity: &identity(self.expected), traces, place: "liaison/link-issuer" };
        given::issuer(asked, secret, self.now)
    }
}

fn failure(issuer: &Issuer) -> (Reason, &str) {
    let (reason, why) = issuer.failure.as_ref().expect("it cannot issue");
    assert!(issuer.intermediate.is_none(), "nothing is signed with it: {why}");
    assert!(why.contains("; "), "it says what to do: {why}");
    (*reason, why)
}

#[test]
fn an_intermediate_with_its_root_beside_it_or_at_the_end_of_its_chain_signs() {
    let of = Organization::new("interpol.example");
    let files = Files::of(&of);
    let whole = Files { chain: format!("{}\r\n{}", files.chain.replace('\n', "\r\n"), files.root), ..files.clone() };
    for files in [files, whole] {
        let issuer = Look::first().at(Some(&files.secret()));
        assert_eq!((issuer.root, &issuer.failure), (Some(of.root.fingerprint()), &None));
        assert_eq!(issuer.roots[0].not_after, of.root.validity().not_after);
        assert_eq!((issuer.ends, issuer.due), (Some(of.intermediate.end()), Some(of.intermediate.end())));
        assert!(issuer.is_given && !issuer.made.is_any());
        assert_eq!(issuer.intermediate.unwrap().chain().len(), 2);
    }
}

#[test]
fn f49_a_secret_whose_owner_did_not_name_this_identity_is_not_used() {
    let mut secret = Files::of(&Organization::new("interpol.example")).secret();
    let refused = |secret: Option<&Secret>| {
        let issuer = Look::first().at(secret);
        let (reason, why) = failure(&issuer);
        assert_eq!((reason, issuer.root), (Reason::IssuerFailed, None));
        assert!(why.contains("liaison/link-issuer") && why.contains("securelink.dev/issuer-of=default"), "{why}");
    };
    refused(None);
    secret.metadata.labels.as_mut().unwrap().insert(ISSUER_OF.to_owned(), "other".to_owned());
    refused(Some(&secret));
    secret.metadata.labels = None;
    refused(Some(&secret));
}

#[test]
fn f37_what_is_wrong_with_a_secret_is_said_and_no_key_with_it() {
    let (of, other) = (Organization::new("interpol.example"), Organization::new("interpol.example"));
    let files = Files::of(&of);
    let leaf = of.leaf_to(&"europol.example".parse().unwrap());
    let stranger = Files::of(&Organization::new("eurojust.example"));
    let long: String = std::iter::repeat_n(files.chain.as_str(), 10).collect();
    let rows = [
        ("tls.key is missing", Files { key: String::new(), ..files.clone() }),
        ("ca.crt is missing", Files { root: String::new(), ..files.clone() }),
        ("no usable private key", Files { key: files.key[..files.key.len() / 2].to_owned(), ..files.clone() }),
        (
            "P-384",
            Files {
                key: "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n".to_owned(),
                ..files.clone()
            },
        ),
        ("no PEM block", Files { chain: "rubbish".to_owned(), ..files.clone() }),
        ("does not belong to the first certificate", Files { key: Files::of(&other).key, ..files.clone() }),
        (
            "may not sign others",
            Files { key: leaf.key().to_pem().to_string(), chain: leaf.chain_pem(), ..files.clone() },
        ),
        ("does not end with the self-signed root", Files { root: files.chain.clone(), ..files.clone() }),
        ("more than 1 certificates", Files { root: format!("{0}{0}", files.root), ..files.clone() }),
        ("more than 10 certificates", Files { chain: long, ..files.clone() }),
        ("peers would refuse", Files { root: Files::of(&other).root, ..files.clone() }),
        ("peers would refuse", stranger),
    ];
    for (wanted, files) in rows {
        let issuer = Look::first().at(Some(&files.secret()));
        let (reason, why) = failure(&issuer);
        assert_eq!(reason, Reason::IssuerFailed, "{wanted}");
        assert!(why.contains(wanted) && why.starts_with("the Secret liaison/link-issuer"), "{wanted}: {why}");
        assert!(!files.key.lines().any(|line| line.len() > 20 && !line.starts_with("---") && why.contains(line)));
    }
}

#[test]
fn f36_an_issuer_that_has_ended_or_not_begun_is_refused_and_one_about_to_end_is_told_of() {
    let of = Organization::new("interpol.example");
    let secret = Files::of(&of).secret();
    let at = |now| Look { now, ..Look::first() }.at(Some(&secret));
    let soon = at(of.intermediate.end() - SignedDuration::from_hours(1));
    assert_eq!((soon.failure, soon.ends), (None, Some(of.intermediate.end())));
    let ended = at(of.intermediate.end());
    assert!(failure(&ended).1.contains("certificate 1 of the issuer's chain expired at"));
    assert_eq!(ended.root, Some(of.root.fingerprint()), "what was issued goes on");
    let early = at(now() - SignedDuration::from_hours(1));
    assert!(failure(&early).1.contains("is not valid before"));
    assert_eq!(early.due, Some(of.intermediate.validity().not_before));
}

#[test]
fn a_changed_secret_renews_the_issuer_but_makes_nobody_else_of_us() {
    let (of, other) = (Organization::new("interpol.example"), Organization::new("interpol.example"));
    let (old, new) = (of.root.fingerprint(), other.root.fingerprint());
    let renewed = Organization { intermediate: of.root.issue_intermediate(now()).unwrap(), ..of };
    let look = Look { recorded: Some(old), ..Look::first() };
    assert_eq!(look.at(Some(&Files::of(&renewed).secret())).failure, None);

    let secret = Files::of(&other).secret();
    let conflict = look.at(Some(&secret));
    let (reason, why) = failure(&conflict);
    assert_eq!((reason, conflict.root), (Reason::RootConflict, Some(old)));
    assert!(why.contains(&format!("put `expectedFingerprint: {new}` into spec")), "{why}");
    // Partners have pinned both; a person says so.
    let switched = Look { expected: Some(new), ..look }.at(Some(&secret));
    assert_eq!((switched.root, switched.failure), (Some(new), None));
}
