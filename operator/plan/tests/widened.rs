//! Which policies of others widen what a link's own allows (fault F82).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use securelink_plan::names::{Component, labels};
use securelink_plan::{selects_only, validate, widened_by};

use support::cluster::{Around, UID, objects, read, settle};
use support::{LINK, file, gather, link_ref, snapshot_of};

fn policy(spec: &str) -> NetworkPolicy {
    read(&format!("{{metadata: {{name: team, namespace: liaison}}, spec: {spec}}}"))
}

fn names(policies: &[NetworkPolicy]) -> Vec<String> {
    let mut pod = labels("europol", Component::Relay);
    pod.insert("team".to_owned(), "liaison".to_owned());
    widened_by(&link_ref(), UID, &policies.iter().collect::<Vec<_>>(), &[&pod])
}

#[test]
fn f82_a_policy_that_selects_our_relays_and_allows_anything_is_named() {
    for spec in [
        "{podSelector: {}, ingress: [{}]}",
        "{podSelector: {}, policyTypes: [Egress], egress: [{}]}",
        "{ingress: [{}]}",
        "{podSelector: {matchLabels: {securelink.dev/link: europol}}, ingress: [{}]}",
        "{podSelector: {matchLabels: {app.kubernetes.io/name: securelink}}, ingress: [{}]}",
        "{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}, ingress: [{}]}",
        // By a label that somebody added to our pods.
        "{podSelector: {matchLabels: {team: liaison}}, ingress: [{}]}",
    ] {
        assert_eq!(names(&[policy(spec)]), ["team"], "{spec}");
    }
}

#[test]
fn f82_a_policy_that_allows_nothing_or_selects_others_is_not() {
    for spec in [
        "{podSelector: {}}",
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [], egress: [{}]}",
        "{podSelector: {matchLabels: {securelink.dev/link: other}}, ingress: [{}]}",
        "{podSelector: {matchExpressions: [{key: securelink.dev/link, operator: DoesNotExist}]}, ingress: [{}]}",
    ] {
        assert_eq!(names(&[policy(spec)]), Vec::<String>::new(), "{spec}");
    }
    let mut elsewhere = policy("{podSelector: {}, ingress: [{}]}");
    elsewhere.metadata.namespace = Some("records".to_owned());
    assert_eq!(names(&[elsewhere]), Vec::<String>::new());
}

#[test]
fn f82_a_policy_that_selects_only_another_links_relays_widens_nothing_here() {
    for (spec, only) in [
        ("{podSelector: {}, ingress: [{}]}", None),
        ("{ingress: [{}]}", None),
        ("{podSelector: {matchLabels: {team: liaison}}, ingress: [{}]}", None),
        ("{podSelector: {matchExpressions: [{key: securelink.dev/link, operator: Exists}]}, ingress: [{}]}", None),
        ("{podSelector: {matchLabels: {securelink.dev/link: europol}}, ingress: [{}]}", Some("europol")),
        ("{podSelector: {matchLabels: {securelink.dev/link: other}}, ingress: [{}]}", Some("other")),
    ] {
        let policy = policy(spec);
        assert_eq!(selects_only(&policy), only, "{spec}");
        assert_eq!(names(&[policy]).is_empty(), only.is_some_and(|only| only != "europol"), "{spec}");
    }
}

#[test]
fn f82_our_own_policy_is_none_of_others_and_names_are_sorted() {
    let gathered = settle(gather(&file(LINK)), Around::default());
    let verdict = validate(&gathered);
    let own = objects(&verdict, &snapshot_of(&verdict, None).unwrap(), &gathered.mode).network_policy;
    let named = |name: &str| {
        let mut policy = policy("{podSelector: {}, ingress: [{}]}");
        policy.metadata.name = Some(name.to_owned());
        policy
    };
    assert_eq!(names(&[named("b"), own.clone(), named("a")]), ["a", "b"]);
    // A label does not make it ours.
    let mut copied = own;
    copied.metadata.owner_references = None;
    copied.metadata.name = Some("copied".to_owned());
    assert_eq!(names(&[copied]), ["copied"]);
}
