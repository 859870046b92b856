//! YAML as people and attackers write it, up to the relay's file: nothing panics, problems are bounded and can be shown,
//! what was judged valid is valid as it is stored, and the same text gives the same snapshot.

use std::collections::BTreeSet;

use jiff::Timestamp;
use securelink_crds::load::{self, Object, Source};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy, SecureLink, SecureLinkStatus};
use securelink_plan::{
    Accepted, Certificate, Declared, Gathered, MAX_ACCEPTED_BYTES, Mode, Observed, Standalone, cut_orders,
    policy_applies, snapshot, status, validate,
};
use securelink_relay_config::{LinkRef, MAX_SNAPSHOT_BYTES, Millis, Snapshot};

/// Most problems of one document, and one for a file that cannot be read.
const MAX_PROBLEMS: usize = 65;
/// Longest problem in words: it goes to a terminal and to a status.
const MAX_WORDS: usize = 4096;

/// Reads the text and plans every link in it.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let loaded = load::load(&[Source { name: "fuzz.yaml", text: &text }]);
    let documents = text.lines().filter(|line| line.starts_with("---")).count() + 1;
    assert!(loaded.problems.len() <= documents * MAX_PROBLEMS, "{} problems", loaded.problems.len());
    for words in loaded.problems.iter().map(ToString::to_string).chain(loaded.notes.iter().cloned()) {
        let plain = !words.chars().any(|c| c.is_control() && c != '\n');
        assert!(words.len() <= MAX_WORDS && plain, "cannot be shown: {words:?}");
    }
    let (mut links, mut identities, mut policies, mut cuts) = (vec![], vec![], vec![], vec![]);
    for object in loaded.objects {
        let stored = match &object {
            Object::SecureLink(link) => serde_json::to_value(link),
            Object::LinkIdentity(identity) => serde_json::to_value(identity),
            Object::LinkPolicy(policy) => serde_json::to_value(policy),
            Object::LinkCut(cut) => serde_json::to_value(cut),
        };
        let stored = stored.expect("an object is written");
        let again = load::judge(&stored, Some(&stored)).unwrap_or_else(|problems| panic!("{}", problems[0]));
        assert_eq!(again, object, "valid as it was written, another as it is stored");
        match object {
            Object::SecureLink(link) => links.push((link_ref(&link), Declared::Valid(link))),
            Object::LinkIdentity(identity) => identities.push(*identity),
            Object::LinkPolicy(policy) => policies.push(*policy),
            Object::LinkCut(cut) => cuts.push(cut),
        }
    }
    for salvaged in loaded.invalid.into_iter().filter(|salvaged| salvaged.id.kind == "SecureLink") {
        let link =
            LinkRef { namespace: salvaged.id.namespace.clone().unwrap_or_default(), name: salvaged.id.name.clone() };
        links.push((link, Declared::Invalid { value: salvaged.value, problems: loaded.problems.clone() }));
    }
    for (link, declared) in links {
        plan(&link, declared, &identities, &policies, &cuts);
    }
}

fn link_ref(link: &SecureLink) -> LinkRef {
    let metadata = &link.metadata;
    LinkRef {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn plan(
    link: &LinkRef,
    declared: Declared,
    identities: &[LinkIdentity],
    policies: &[LinkPolicy],
    cuts: &[Box<LinkCut>],
) {
    let now: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
    let gathered = Gathered {
        link: link.clone(),
        declared,
        last_accepted: None,
        identity: identities.first().cloned(),
        identity_invalid: false,
        policies: policies.iter().filter(|policy| policy_applies(policy, &link.namespace, None)).cloned().collect(),
        cuts: cut_orders(cuts.iter().map(AsRef::as_ref), link, &BTreeSet::new()),
        preferred: None,
        denied: None,
        mode: Mode::Standalone(Standalone::default()),
    };
    let verdict = validate(&gathered);
    let made = |previous: Option<&Snapshot>| {
        verdict.validated().map(|valid| snapshot(valid, verdict.orders(), previous, Millis::from(now)))
    };
    let first = made(None);
    assert_eq!(made(first.as_ref()), first, "nothing changed and the snapshot did");
    if let Some(snapshot) = &first {
        let bytes = snapshot.to_bytes();
        assert!(bytes.len() <= MAX_SNAPSHOT_BYTES, "{} bytes of relay.json", bytes.len());
        assert_eq!(&Snapshot::from_bytes(&bytes).expect("a relay reads it"), snapshot);
    }
    if let Some(accepted) = &verdict.accepted {
        let bytes = accepted.to_bytes();
        assert!(bytes.len() <= MAX_ACCEPTED_BYTES, "{} bytes of accepted.json", bytes.len());
        let again = Accepted::from_bytes(&bytes, link).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&again, accepted);
    }
    let certificate = Certificate { root: None, leaf: None, failure: None };
    let observed =
        Observed { certificate: &certificate, snapshot: first.as_ref(), report: None, hindrance: None, widened: &[] };
    let told = status(&verdict, observed, &SecureLinkStatus::default(), now);
    let again = status(&verdict, observed, &told, now);
    assert_eq!(again, told, "a quiet link's status changes by itself");
}
