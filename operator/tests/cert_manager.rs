//! An intermediate that cert-manager signs: what is asked, what is taken, and what is refused with a reason.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DynamicObject;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::ISSUED_BY;
use securelink_crds::load::{Object, judge};
use securelink_crds::{IssuerRef, LinkIdentity};
use securelink_id::Fingerprint;
use securelink_operator::issue::cert_manager;
use securelink_operator::issue::cert_manager::answer::{Answer, Ours, differs};
use securelink_operator::issue::{Asked, Hands, Issuer};
use securelink_operator::keys::asked::{self, Kept, New};
use securelink_operator::keys::{self, Parts};
use securelink_operator::traces::Traces;
use securelink_pki::PrivateKey;
use securelink_pki::lifetimes::Validity;
use securelink_pki::testing::{Organization, now};
use securelink_relay_config::LinkRef;
use serde_json::{Value, json};

fn identity(expected: Option<Fingerprint>) -> LinkIdentity {
    let issuer = json!({ "certManager": { "issuerRef": { "name": "partner-ca" } } });
    let mut written = json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
        "metadata": {"name": "default", "namespace": "liaison", "uid": "u-1"},
        "spec": {"trustDomain": "interpol.example", "issuer": issuer},
    });
    if let Some(expected) = expected {
        written["spec"]["expectedFingerprint"] = expected.to_string().into();
    }
    let Object::LinkIdentity(identity) = judge(&written, None).unwrap() else { panic!() };
    *identity
}

fn at() -> LinkRef {
    LinkRef { namespace: "liaison".to_owned(), name: "default".to_owned() }
}

fn partner_ca() -> IssuerRef {
    identity(None).spec.issuer.cert_manager.unwrap().issuer_ref
}

/// One look.
struct Look<'a> {
    stored: Option<&'a Secret>,
    request: Option<DynamicObject>,
    recorded: Option<Fingerprint>,
    expected: Option<Fingerprint>,
    hands: Hands,
    now: Timestamp,
}

impl Default for Look<'_> {
    fn default() -> Self {
        let (hands, now) = (Hands::Making, now());
        Self { stored: None, request: None, recorded: None, expected: None, hands, now }
    }
}

impl Look<'_> {
    fn found(&self) -> Issuer {
        let (identity, traces) = (identity(self.expected), Traces::default().or(self.recorded, false));
        let asked = Asked { identity: &identity, traces, place: "what cert-manager signed" };
        let find =
            |name: &str| self.request.clone().filter(|it| it.metadata.name.as_deref() == Some(name)).map(Arc::new);
        let kept = Kept::read(self.stored, Some("u-1"), &partner_ca());
        cert_manager::issuer(asked, kept, Ok(&find), (self.hands, self.now))
    }
}

/// What was asked for a key, and its status.
fn request(key: &PrivateKey, status: Value) -> DynamicObject {
    let ask = Look { stored: Some(&waits_with(key)), ..Look::default() }.found().ask.unwrap();
    let owner = json!({ "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity", "name": "default", "uid": "u-1", "controller": true });
    let mut written = json!({
        "metadata": { "name": ask.name, "namespace": "liaison", "ownerReferences": [owner] },
        "spec": cert_manager::spec(&ask, &partner_ca()),
    });
    written["status"] = status;
    serde_json::from_value(written).unwrap()
}

/// What the operator has stored once it asked for this key.
fn waits_with(key: &PrivateKey) -> Secret {
    stored(None, New::Request(key, now()))
}

fn stored(old: Option<&Secret>, new: New<'_>) -> Secret {
    asked::secret(&at(), "u-1", old, new)
}

fn files(secret: &Secret) -> Vec<&str> {
    secret.data.as_ref().unwrap().keys().map(String::as_str).collect()
}

fn file(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": format!("{kind} {reason}") })
}

/// What cert-manager writes when it has signed.
fn answered(chain: &str, root: Option<&str>) -> Value {
    let conditions = [condition("Approved", "True", "ok"), condition("Ready", "True", "Issued")];
    json!({ "conditions": conditions, "certificate": file(chain), "ca": root.map(file) })
}

/// The same when an organization has signed its intermediate's key.
fn signed(of: &Organization) -> Value {
    let root = of.root.certificate_pem();
    let chain = of.intermediate.chain_pem().strip_suffix(root.as_str()).unwrap().to_owned();
    answered(&chain, Some(&root))
}

fn refused(reason: &str) -> Value {
    json!({ "conditions": [condition("Denied", "True", reason)] })
}

fn failure(issuer: &Issuer) -> (Reason, &str) {
    let (reason, why) = issuer.failure.as_ref().expect("it cannot issue");
    assert!(why.contains("; "), "it says what to do: {why}");
    (*reason, why)
}

#[test]
fn a_key_is_made_and_stored_before_anybody_is_asked_and_asked_for_by_a_name_of_its_own() {
    let first = Look::default().found();
    assert_eq!((failure(&first).0, &first.ask), (Reason::Issuing, &None));
    assert!(first.made.is_any() && !first.made.is_first());
    let looked = Look { hands: Hands::Looking, ..Look::default() }.found();
    assert!(!looked.made.is_any() && looked.ask.is_none());

    let secret = waits_with(first.made.request.as_ref().unwrap());
    let ask = || Look { stored: Some(&secret), ..Look::default() }.found().ask.unwrap();
    assert!(ask().request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    assert_eq!(ask().name, ask().name, "it is found again");
    let other = waits_with(Look::default().found().made.request.as_ref().unwrap());
    assert_ne!(Look { stored: Some(&other), ..Look::default() }.found().ask.unwrap().name, ask().name);
}

#[test]
fn what_is_signed_signs_and_is_not_asked_for_again_until_it_is_due() {
    let of = Organization::new("interpol.example");
    let waiting = waits_with(of.intermediate.key());
    let answer = Some(request(of.intermediate.key(), signed(&of)));
    let adopted = Look { stored: Some(&waiting), request: answer, ..Look::default() }.found();
    assert_eq!((adopted.root, &adopted.failure), (Some(of.root.fingerprint()), &None));
    assert!(adopted.made.intermediate && adopted.intermediate.as_ref().unwrap().chain().len() == 2);
    let has = stored(Some(&waiting), New::Signed(adopted.intermediate.as_ref().unwrap(), &partner_ca()));
    assert_eq!(files(&has), ["intermediate.key", "intermediate.pem"], "it is answered");

    let recorded = Some(of.root.fingerprint());
    let kept = Look { stored: Some(&has), recorded, ..Look::default() };
    let at_rest = kept.found();
    assert!(at_rest.intermediate.is_some() && !at_rest.made.is_any() && at_rest.failure.is_none());
    assert_eq!(at_rest.due, Some(of.intermediate.due()));
    // Its successor is asked for while it goes on; whatever becomes of that.
    let due = Look { now: of.intermediate.due(), ..kept };
    let renewing = due.found();
    assert!(renewing.intermediate.is_some() && renewing.made.request.is_some() && renewing.failure.is_none());
    let key = renewing.made.request.as_ref().unwrap();
    let asking = stored(Some(&has), New::Request(key, now()));
    let waiting = Look { stored: Some(&asking), request: Some(request(key, json!({}))), ..due };
    assert!(waiting.found().failure.is_none() && waiting.found().intermediate.is_some());
    let refused = Look { request: Some(request(key, refused("quota"))), ..waiting }.found();
    assert!(failure(&refused).1.contains("Denied quota") && refused.intermediate.is_some());
    let ended = Look { stored: Some(&has), recorded, now: of.intermediate.end(), ..Look::default() }.found();
    assert!(ended.intermediate.is_none());
}

/// Dates from a while ago until then.
fn dates(ago: SignedDuration, left: SignedDuration) -> Validity {
    Validity { not_before: now() - ago, not_after: now() + left }
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

#[test]
fn an_end_above_the_intermediate_is_told_of_and_its_successor_asked_for_before() {
    let (of, key) = (Organization::new("interpol.example"), PrivateKey::generate_p384().unwrap());
    let signs = |above: Option<i64>| {
        let above = above.map(|left| dates(days(1), days(left)));
        stored(None, New::Signed(&of.signs(&key, dates(days(1), days(90)), above), &partner_ca()))
    };
    let (recorded, alone, below) = (Some(of.root.fingerprint()), signs(None), signs(Some(10)));
    let look = |stored, now| Look { stored: Some(stored), recorded, now, ..Look::default() }.found();
    let root_ends = Some(of.root.validity().not_after);
    assert_eq!((look(&alone, now()).ends, look(&below, now()).ends), (root_ends, Some(now() + days(10))));
    let due = look(&below, now()).due.unwrap();
    assert!(due <= now() + days(9) && due < look(&alone, now()).due.unwrap());
    let renewing = look(&below, due);
    assert!(renewing.intermediate.is_some() && renewing.made.request.is_some());
    assert!(look(&alone, due).made.request.is_none());
}

#[test]
fn an_issuer_whose_certificates_are_due_at_once_is_asked_once_in_six_hours_and_that_is_said() {
    let (of, key, hour) =
        (Organization::new("interpol.example"), PrivateKey::generate_p384().unwrap(), SignedDuration::from_hours(1));
    let (recorded, asking) = (Some(of.root.fingerprint()), waits_with(&key));
    // It dates back; it ends soon itself.
    for (own, above) in
        [(dates(days(400), days(90)), None), (dates(days(30), days(90)), Some(dates(days(400), days(1))))]
    {
        let intermediate = of.signs(&key, own, above);
        let chain = intermediate.chain_pem();
        let answer = Some(request(&key, answered(&chain, Some(&of.root.certificate_pem()))));
        let adopted = Look { stored: Some(&asking), request: answer, ..Look::default() }.found();
        let has = stored(Some(&asking), New::Signed(adopted.intermediate.as_ref().unwrap(), &partner_ca()));
        let look = |later| Look { stored: Some(&has), recorded, now: now() + later, ..Look::default() }.found();
        for resting in [adopted, look(hour)] {
            assert!(resting.intermediate.is_some() && resting.failure.is_none() && resting.made.request.is_none());
            assert_eq!(resting.due, Some(now() + hour * 6));
            assert!(resting.note.unwrap().ends_with(": see to its issuer's dates"));
        }
        assert!(look(hour * 6).made.request.is_some());
    }
}

#[test]
fn the_pause_between_two_questions_is_a_third_of_what_is_left_within_bounds_and_never_before_it_is_due() {
    let (of, key) = (Organization::new("interpol.example"), PrivateKey::generate_p384().unwrap());
    let minutes = SignedDuration::from_mins;
    let at = now();
    let of_old = |left: SignedDuration| of.signs(&key, dates(days(400), left), None);
    let rows = [
        ("ninety days left", days(90), Some(at), at + minutes(360)),
        ("an hour left", minutes(60), Some(at), at + minutes(20)),
        ("a moment left", minutes(1), Some(at), at + minutes(10)),
        ("asked long ago", days(90), Some(at - minutes(360)), at),
        ("asked before that", days(90), Some(at - days(90)), of_old(days(90)).due().max(at - days(90) + minutes(360))),
    ];
    for (what, left, asked, wanted) in rows {
        assert_eq!(cert_manager::next_at(&of_old(left), asked, at), wanted, "{what}");
    }
    let old = of_old(days(90));
    for (what, asked) in [("never asked", None), ("the clock was set back", Some(at + days(1)))] {
        assert_eq!(cert_manager::next_at(&old, asked, at), old.due(), "{what}");
    }
    let usual = of.signs(&key, dates(minutes(5), days(90)), None);
    assert_eq!(cert_manager::next_at(&usual, Some(at), at), usual.due());
    // It has ended: whoever is asked then is not asked at once either.
    let secret = stored(Some(&stored(None, New::Request(&key, at))), New::Signed(&of_old(minutes(1)), &partner_ca()));
    let look = |later| Look { stored: Some(&secret), now: at + later, ..Look::default() }.found();
    let ended = look(minutes(2));
    assert_eq!((failure(&ended).0, ended.made.is_any(), ended.due), (Reason::Issuing, false, Some(at + minutes(10))));
    assert!(look(minutes(10)).made.request.is_some());
}

#[test]
fn f38_what_was_refused_is_asked_again_after_a_while_with_another_key() {
    let (of, key) = (Organization::new("interpol.example"), PrivateKey::generate_p384().unwrap());
    let hour = SignedDuration::from_hours(1);
    let with = |mut status: Value, failed: Timestamp| {
        status["failureTime"] = json!(failed.to_string());
        Some(request(&key, status))
    };
    let useless = answered("rubbish", None);
    let mut strange = with(useless.clone(), now()).unwrap();
    strange.metadata.owner_references = None;
    strange.metadata.creation_timestamp = serde_json::from_value(json!(now().to_string())).unwrap();
    let once = waits_with(&key);
    let twice = stored(Some(&once), New::Request(&key, now()));
    let rows = [
        ("refused", &once, with(refused("quota"), now()), hour),
        ("refused again", &twice, with(refused("quota"), now()), hour * 2),
        ("of no use", &once, with(useless, now()), hour),
        ("not ours", &once, Some(strange), hour),
        ("with a time that lies ahead", &once, with(refused("quota"), now() + days(9)), hour),
    ];
    for (what, secret, request, pause) in rows {
        let look = Look { stored: Some(secret), request, ..Look::default() };
        let resting = look.found();
        assert_eq!((resting.due, resting.made.is_any()), (Some(now() + pause), false), "{what}");
        let (reason, why) = failure(&resting);
        assert!(
            reason == Reason::IssuerFailed && why.contains(&format!("again at {:.0}", now() + pause)),
            "{what}: {why}"
        );
        let later = Look { now: now() + pause, ..look };
        assert!(later.found().made.request.is_some_and(|made| made.public_key() != key.public_key()), "{what}");
        assert_eq!(failure(&later.found()).0, Reason::IssuerFailed, "{what}");
        assert!(!Look { hands: Hands::Looking, ..later }.found().made.is_any(), "{what}");
    }
    let adopted = stored(Some(&twice), New::Signed(&of.intermediate, &partner_ca()));
    let attempts = |secret: &Secret| Kept::read(Some(secret), Some("u-1"), &partner_ca()).attempts;
    assert_eq!([&once, &twice, &adopted].map(attempts), [1, 2, 0]);
    let pauses =
        [0, 1, 2, 5, 6, u32::MAX].map(|attempts| cert_manager::again_at(now(), attempts).duration_since(now()));
    assert_eq!(pauses.map(|pause| pause.as_hours()), [1, 1, 2, 16, 24, 24]);
}

#[test]
fn what_waits_for_a_person_is_not_asked_again() {
    let of = Organization::new("interpol.example");
    let (secret, old) = (waits_with(of.intermediate.key()), Organization::new("interpol.example").root.fingerprint());
    for (status, reason) in [(json!({}), Reason::Issuing), (signed(&of), Reason::RootConflict)] {
        let answer = Some(request(of.intermediate.key(), status));
        let look = Look {
            stored: Some(&secret),
            request: answer,
            recorded: Some(old),
            now: now() + days(9),
            ..Look::default()
        };
        let found = look.found();
        assert_eq!((failure(&found).0, found.made.is_any(), found.ask.is_none()), (reason, false, true));
    }
}

#[test]
fn what_was_stored_for_another_identity_or_signed_by_another_issuer_counts_for_nothing() {
    let of = Organization::new("interpol.example");
    let has = stored(None, New::Signed(&of.intermediate, &partner_ca()));
    let other = |name: &str, kind: &str, group: &str| IssuerRef {
        name: name.to_owned(),
        kind: kind.to_owned(),
        group: group.to_owned(),
    };
    let rows = [
        ("the same", Some("u-1"), partner_ca(), true),
        ("another object of the name", Some("u-2"), partner_ca(), false),
        ("no uid", None, partner_ca(), false),
        ("another name", Some("u-1"), other("corp", "Issuer", "cert-manager.io"), false),
        ("another kind", Some("u-1"), other("partner-ca", "ClusterIssuer", "cert-manager.io"), false),
        ("another group", Some("u-1"), other("partner-ca", "Issuer", "other.example"), false),
    ];
    for (what, uid, issuer, counts) in rows {
        assert_eq!(Kept::read(Some(&has), uid, &issuer).intermediate.is_some(), counts, "{what}");
    }
    // A slip of the pen in issuerRef that is mended finds what was signed before it.
    let key = PrivateKey::generate_p384().unwrap();
    let asking = stored(Some(&has), New::Request(&key, now()));
    assert_eq!(files(&asking), ["intermediate.key", "intermediate.pem", "request.key"]);
    assert!(Kept::read(Some(&asking), Some("u-1"), &partner_ca()).intermediate.is_some());
    // Whoever has the name next begins anew: what is written for him holds nothing of the one before.
    let next = asked::secret(&at(), "u-2", Some(&asking), New::Request(&key, now()));
    assert_eq!(files(&next), ["request.key"]);
    assert!(!next.metadata.annotations.unwrap().contains_key(ISSUED_BY));
}

#[test]
fn a_root_and_what_it_signed_are_no_intermediate_of_cert_manager() {
    let of = Organization::new("interpol.example");
    let parts = Parts { root: Some(&of.root), intermediate: Some(&of.intermediate), ..Parts::default() };
    let built_in = keys::secret(&at(), "u-1", None, &parts);
    assert_ne!(keys::name(&at()), asked::name(&at()), "neither finds the other's Secret");
    assert!(Kept::read(Some(&built_in), Some("u-1"), &partner_ca()).intermediate.is_none());
    let written = stored(Some(&built_in), New::Request(of.intermediate.key(), now()));
    assert!(!files(&written).contains(&"root.key"));
}

#[test]
fn f49_a_request_under_our_name_that_is_not_what_we_ask_is_nobodys_answer() {
    let of = Organization::new("interpol.example");
    let (key, issuer) = (of.intermediate.key(), partner_ca());
    let whole = request(key, signed(&of));
    let with = |spoil: fn(&mut DynamicObject)| {
        let mut request = whole.clone();
        spoil(&mut request);
        request
    };
    let strange = Organization::new("interpol.example");
    let mut other_key = whole.clone();
    other_key.data["spec"]["request"] = request(strange.intermediate.key(), json!({})).data["spec"]["request"].clone();
    let rows = [
        (
            "asks the Issuer evil of cert-manager.io, and not",
            with(|it| it.data["spec"]["issuerRef"]["name"] = json!("evil")),
        ),
        ("asks the ClusterIssuer partner-ca", with(|it| it.data["spec"]["issuerRef"]["kind"] = json!("ClusterIssuer"))),
        (
            "asks the Issuer partner-ca of evil.example",
            with(|it| it.data["spec"]["issuerRef"]["group"] = json!("evil.example")),
        ),
        ("asks no issuer", with(|it| it.data["spec"] = json!({}))),
        ("does not belong to this", with(|it| it.metadata.owner_references = None)),
        (
            "does not belong to this",
            with(|it| it.metadata.owner_references.as_mut().unwrap()[0].uid = "u-2".to_owned()),
        ),
        ("asks for another key", with(|it| it.data["spec"]["request"] = json!("rubbish!"))),
        ("asks for another key", other_key),
    ];
    let (secret, ours) = (waits_with(key), Ours { uid: Some("u-1"), issuer: &issuer, key });
    assert_eq!(differs(&whole, &ours), None);
    assert!(differs(&whole, &Ours { uid: None, ..ours }).is_some());
    for (wanted, found) in rows {
        let issuer = Look { stored: Some(&secret), request: Some(found), ..Look::default() }.found();
        let (reason, why) = failure(&issuer);
        assert_eq!((reason, issuer.intermediate.is_none()), (Reason::IssuerFailed, true), "{wanted}");
        assert!(why.contains(wanted) && why.contains("is not ours: it ") && why.contains("delete "), "{wanted}: {why}");
    }
    let other = IssuerRef { name: "mended".to_owned(), ..issuer };
    let name = |issuer: &IssuerRef| {
        let mut identity = identity(None);
        identity.spec.issuer.cert_manager.as_mut().unwrap().issuer_ref = issuer.clone();
        let asked = Asked { identity: &identity, traces: Traces::default(), place: "" };
        let kept = Kept::read(Some(&secret), Some("u-1"), issuer);
        cert_manager::issuer(asked, kept, Ok(&|_| None), (Hands::Making, now())).ask.unwrap().name
    };
    assert_ne!(name(&other), name(&partner_ca()), "who mends issuerRef asks anew");
}

#[test]
fn f38_what_is_wrong_with_an_answer_is_said_and_no_key_with_it() {
    let (of, other) = (Organization::new("interpol.example"), Organization::new("interpol.example"));
    let stranger = Organization::new("eurojust.example");
    let leaf = of.leaf_to(&"europol.example".parse().unwrap());
    let (root, whole) = (of.root.certificate_pem(), of.intermediate.chain_pem());
    let chain = whole.strip_suffix(root.as_str()).unwrap();
    let key = of.intermediate.key();
    let rows = [
        ("not signed: it is not approved yet", json!({}), key),
        ("was refused: Denied quota", refused("quota"), key),
        ("does not belong to the first certificate", signed(&other), key),
        ("no PEM block", answered("rubbish", Some(&root)), key),
        ("does not end with the self-signed root", answered(chain, None), key),
        ("may not sign others", answered(&leaf.chain_pem(), Some(&root)), leaf.key()),
        ("peers would refuse", signed(&stranger), stranger.intermediate.key()),
    ];
    for (wanted, answer, key) in rows {
        let secret = waits_with(key);
        let answer = Some(request(key, answer));
        let issuer = Look { stored: Some(&secret), request: answer, ..Look::default() }.found();
        let (_, why) = failure(&issuer);
        assert!(
            why.contains(wanted) && why.starts_with("the CertificateRequest liaison/securelink-"),
            "{wanted}: {why}"
        );
        assert!(issuer.intermediate.is_none() && issuer.root.is_none(), "{wanted}");
        let key = key.to_pem();
        assert!(!key.lines().any(|line| line.len() > 20 && !line.starts_with("---") && why.contains(line)));
    }
}

#[test]
fn another_root_waits_for_a_persons_word() {
    let of = Organization::new("interpol.example");
    let (secret, old) = (waits_with(of.intermediate.key()), Organization::new("interpol.example").root.fingerprint());
    let answer = Some(request(of.intermediate.key(), signed(&of)));
    let look = Look { stored: Some(&secret), request: answer, recorded: Some(old), ..Look::default() };
    let conflict = look.found();
    let (reason, why) = failure(&conflict);
    assert_eq!((reason, conflict.root), (Reason::RootConflict, Some(old)));
    let new = of.root.fingerprint();
    assert!(why.contains(&format!("put `expectedFingerprint: {new}` into spec")), "{why}");
    let switched = Look { expected: Some(new), ..look }.found();
    assert_eq!((switched.root, switched.failure), (Some(new), None));
}

#[test]
fn an_answer_is_read_from_what_cert_manager_writes() {
    let read = |conditions: Value, more: Value| {
        let mut object = json!({ "metadata": {}, "status": more });
        object["status"]["conditions"] = conditions;
        Answer::read(&serde_json::from_value::<DynamicObject>(object).unwrap())
    };
    let waiting = |why: &str| Answer::Waiting(why.to_owned());
    let refused = |why: &str| Answer::Refused { why: why.to_owned(), since: None };
    let (approved, ready) = (condition("Approved", "True", "ok"), condition("Ready", "True", "Issued"));
    assert_eq!(read(json!(null), json!({})), waiting("it is not approved yet"));
    assert_eq!(read(json!([approved]), json!({})), waiting("nobody has answered yet"));
    let pending = condition("Ready", "False", "Pending");
    assert_eq!(read(json!([approved, pending]), json!({})), waiting("Ready Pending"));
    assert_eq!(read(json!([condition("Denied", "True", "no")]), json!({})), refused("Denied no"));
    assert_eq!(read(json!([approved, condition("Ready", "False", "Failed")]), json!({})), refused("Ready Failed"));
    assert_eq!(read(json!([condition("InvalidRequest", "True", "x")]), json!({})), refused("InvalidRequest x"));
    let both = json!({ "certificate": file("chain"), "ca": file("root") });
    let signed =
        |root: Option<&str>| Answer::Signed { chain: "chain".to_owned(), root: root.map(str::to_owned), since: None };
    assert_eq!(read(json!([approved, ready]), both.clone()), signed(Some("root")));
    assert_eq!(read(json!([approved, ready]), json!({ "certificate": file("chain") })), signed(None));
    assert_eq!(read(json!([approved, pending]), both), waiting("Ready Pending"), "it is ready or it is not");
    assert_eq!(read(json!([approved, ready]), json!({ "certificate": "not base64!" })), waiting("Ready Issued"));
    assert!(matches!(read(json!("odd"), json!({})), Answer::Waiting(_)));
    let mut denied = condition("Denied", "True", "no");
    denied["lastTransitionTime"] = json!("2026-06-01T00:00:01Z");
    let since = |more: Value| match read(json!([denied]), more) {
        Answer::Refused { since, .. } => since.unwrap() - now(),
        other => panic!("{other:?}"),
    };
    assert_eq!(since(json!({})).get_seconds(), 1);
    assert_eq!(since(json!({ "failureTime": "2026-06-01T00:00:02Z" })).get_seconds(), 2);
}
