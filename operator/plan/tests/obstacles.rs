//! What stands in the operator's way in a cluster (rights that are missing, names that others have, relays that do not come
//! up) is said with its remedy, and loses nothing that worked.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use securelink_crds::SecureLinkStatus;
use securelink_crds::conditions::{ConditionType, Reason, find};
use securelink_plan::{About, Base, Certificate, Denied, Gathered, Observed, Verdict, status, validate};

use support::cluster::{Around, all, objects, read, settle};
use support::{LINK, after, file, gather, now, snapshot_of};

const FOREIGN: &str = "target: {service: notices, namespace: records, port: 8443}";

fn gathered(around: Around) -> Gathered {
    settle(gather(&file(LINK)), around)
}

fn denied() -> Denied {
    Denied { verb: "list".to_owned(), resource: "deployments".to_owned() }
}

fn told(verdict: &Verdict, hindrance: Option<&(Reason, String)>) -> SecureLinkStatus {
    let observed =
        Observed { certificate: &Certificate::default(), snapshot: None, report: None, hindrance, widened: &[] };
    status(verdict, observed, &SecureLinkStatus::default(), now())
}

/// Reason and message of a condition.
fn said(status: &SecureLinkStatus, kind: ConditionType) -> (String, String) {
    let condition = find(&status.conditions, kind).unwrap();
    (condition.reason.clone(), condition.message.clone())
}

#[test]
fn f84_a_link_in_a_namespace_not_granted_says_what_is_denied_and_the_command_that_grants_it() {
    let before = validate(&gathered(Around::default()));
    let mut link = after(&before, gathered(Around::default()));
    link.denied = Some(denied());
    let verdict = validate(&link);
    assert!(verdict.base == Base::None && verdict.accepted.is_none() && !verdict.is_accepted());
    let status = told(&verdict, None);
    let (reason, message) = said(&status, ConditionType::Accepted);
    assert_eq!(reason, "NamespaceNotGranted");
    assert_eq!(
        message,
        "metadata.namespace: the operator may not list deployments in liaison; ask an administrator of the cluster to \
         run `kubectl securelink grant liaison`. Until then nothing is made or changed here"
    );
    assert_eq!(said(&status, ConditionType::Stalled).0, "NamespaceNotGranted");
    assert!(!said(&status, ConditionType::RelayAvailable).1.contains("no relay runs"));
}

#[test]
fn f84_a_cut_counts_where_nothing_is_granted_too() {
    let mut link = gathered(Around::default());
    link.denied = Some(denied());
    link.cuts = vec![securelink_plan::CutOrder { id: "LinkCut/1".to_owned(), revision: 1, reason: "r".to_owned() }];
    assert!(validate(&link).whole_cut().is_some());
}

#[test]
fn f18_each_name_of_ours_that_somebody_else_has_is_refused_with_its_field_and_loses_nothing() {
    let free = gathered(Around::default());
    let before = validate(&free);
    let made = all(&objects(&before, &snapshot_of(&before, None).unwrap(), &free.mode));
    assert_eq!(made.len(), 9);
    for object in made {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let holder = "SecureLink liaison/other".to_owned();
        let foreign = BTreeMap::from([(format!("{kind}/{name}"), holder)]);
        let verdict = validate(&after(&before, gathered(Around { foreign, ..Around::default() })));
        assert!(matches!(verdict.base, Base::LastAccepted(_)), "{kind} {name}");
        assert_eq!(verdict.validated(), before.validated(), "{kind} {name}");
        let [problem] = verdict.problems.as_slice() else { panic!("{kind} {name}: {:?}", verdict.problems) };
        assert_eq!((problem.reason, &problem.about), (Reason::NameTaken, &About::Link));
        let field = match name {
            "europol-peer" => "spec.expose",
            "europol-siena" => "spec.imports[0].serviceName",
            "europol-statistics" => "spec.imports[1].serviceName",
            _ => "metadata.name",
        };
        assert_eq!(problem.field, field, "{problem}");
        assert!(problem.message.contains(&format!("{name} of the {kind}")), "{problem}");
        assert!(problem.message.contains("taken by SecureLink liaison/other"), "{problem}");
        assert_eq!(said(&told(&verdict, None), ConditionType::Accepted).0, "NameTaken");
    }
}

#[test]
fn a_name_that_the_link_does_not_need_may_be_anybodys() {
    let names = ["Secret/europol-relay", "Service/europol-leaf", "Service/europol", "ConfigMap/europol-peer"];
    let foreign = names.map(|name| (name.to_owned(), "a Service made by somebody else".to_owned())).into();
    assert!(validate(&gathered(Around { foreign, ..Around::default() })).problems.is_empty());
}

#[test]
fn f17_an_export_whose_namespace_may_not_be_read_says_so_and_is_not_cut() {
    let link = LINK.replace("target: {host: notices.records.example, port: 8443}", FOREIGN);
    let consenting = "{metadata: {name: notices, namespace: records, uid: u1, resourceVersion: '7'},
        spec: {selector: {app: notices}, ports: [{port: 8443}]}}";
    // Also where something is left of what was read before: consent counts as it stands now.
    for services in [BTreeMap::new(), BTreeMap::from([("notices".to_owned(), read(consenting))])] {
        let unreadable = BTreeMap::from([("records".to_owned(), "list services".to_owned())]);
        let around = Around { services, unreadable, ..Around::default() };
        let verdict = validate(&settle(gather(&file(&link)), around));
        assert!(verdict.is_accepted() && verdict.cuts.is_empty(), "{:?}", verdict.cuts);
        let [problem] = verdict.problems.as_slice() else { panic!("{:?}", verdict.problems) };
        assert_eq!(problem.about, About::Export("notices".to_owned()));
        assert!(!problem.message.contains("is not there;"), "{problem}");
        let export = told(&verdict, None).exports.into_iter().find(|export| export.name == "notices").unwrap();
        assert_eq!(export.reason.as_deref(), Some("NamespaceNotGranted"));
        let message = export.message.unwrap();
        assert!(message.contains("the operator may not list services in records"), "{message}");
        assert!(message.contains("`kubectl securelink grant records --exports`"), "{message}");
    }
}

#[test]
fn f31_why_no_relay_answers_is_said_in_place_of_wait() {
    let verdict = validate(&gathered(Around::default()));
    assert_eq!(said(&told(&verdict, None), ConditionType::RelayAvailable).0, "Pending");
    let why = (Reason::ImagePull, "no such image\n\u{202e}; correct it".to_owned());
    let (reason, message) = said(&told(&verdict, Some(&why)), ConditionType::RelayAvailable);
    assert_eq!(reason, "ImagePull");
    assert_eq!(message, "no such image\\u{a}\\u{202e}; correct it");
}

#[test]
fn f82_policies_of_others_that_widen_ours_are_named_while_they_are_there() {
    let verdict = validate(&gathered(Around::default()));
    let widened: Vec<String> = (0..7).rev().map(|n| format!("team-{n}")).collect();
    let certificate = Certificate::default();
    let observed =
        Observed { certificate: &certificate, snapshot: None, report: None, hindrance: None, widened: &widened };
    let warned = status(&verdict, observed, &SecureLinkStatus::default(), now());
    let (_, message) = said(&warned, ConditionType::PolicyWidened);
    assert!(message.contains("team-0, team-1, team-2, team-3, team-4 and 2 more;"), "{message}");
    let cleared = status(&verdict, Observed { widened: &[], ..observed }, &warned, now());
    assert!(find(&cleared.conditions, ConditionType::PolicyWidened).is_none());
}
