//! Which Services can be exported, where they lead, and that their owners decide.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use securelink_crds::conditions::Reason;
use securelink_plan::{Base, Declared, Target, Verdict, validate};
use securelink_relay_config::{Cut, CutBook, CutScope};

use support::cluster::{Around, objects, read, settle};
use support::{LINK, after, file, gather, snapshot_of};

const OWN: &str = "target: {service: notices, port: 8443}";
const FOREIGN: &str = "target: {service: notices, namespace: records, port: 8443}";

/// The link with `notices` at `target`, where the Service is as `service` says.
fn judge(target: &str, service: &str) -> Verdict {
    validate(&gathered(target, service))
}

fn gathered(target: &str, service: &str) -> securelink_plan::Gathered {
    let link = LINK.replace("target: {host: notices.records.example, port: 8443}", target);
    let services = [("notices".to_owned(), read::<Service>(service))].into();
    settle(gather(&file(&link)), Around { services, ..Around::default() })
}

fn own(spec: &str) -> Verdict {
    judge(OWN, &format!("{{metadata: {{name: notices, namespace: liaison}}, spec: {spec}}}"))
}

fn foreign(annotation: &str, version: u32) -> String {
    format!(
        "{{metadata: {{name: notices, namespace: records, uid: u1, resourceVersion: '{version}',
            annotations: {{securelink.dev/export-to: '{annotation}'}}}},
          spec: {{selector: {{app: notices}}, ports: [{{port: 8443}}]}}}}"
    )
}

fn target(verdict: &Verdict) -> Option<&Target> {
    let link = verdict.validated().unwrap();
    link.exports.iter().find(|export| export.name == "notices").map(|export| &export.target)
}

#[test]
fn f89_a_service_that_leads_anywhere_or_nowhere_is_refused_and_the_link_goes_on() {
    for (spec, words) in [
        ("{type: ExternalName, externalName: metadata.google.internal}", "of type ExternalName"),
        ("{type: ExternalName, externalName: a.example, selector: {a: b}, ports: [{port: 8443}]}", "ExternalName"),
        ("{ports: [{port: 8443}]}", "no selector"),
        ("{selector: {}, ports: [{port: 8443}]}", "no selector"),
        ("{selector: {app: n}, ports: [{port: 8444}]}", "no TCP port 8443"),
        ("{selector: {app: n}, ports: [{port: 8443, protocol: UDP}]}", "no TCP port 8443"),
        ("{selector: {app: n}, ports: [{port: 8443, targetPort: https}], clusterIP: None}", "headless"),
        ("{}", "no selector"),
    ] {
        let verdict = own(spec);
        assert!(verdict.is_accepted() && target(&verdict).is_none(), "{spec}");
        let problem = verdict.problems.first().unwrap();
        assert!(problem.reason == Reason::Invalid && problem.message.contains(words), "{spec}: {problem}");
        assert!(problem.remedy.len() > 20, "{spec}: {problem}");
        assert!(verdict.validated().unwrap().exports.iter().any(|export| export.name == "diffusions"));
    }
}

#[test]
fn f89_a_service_leads_to_its_pods_at_their_port() {
    let named = IntOrString::String("https".to_owned());
    for (spec, dialed, port) in [
        ("{selector: {app: n}, ports: [{port: 8443}]}", 8443, IntOrString::Int(8443)),
        ("{selector: {app: n}, ports: [{port: 8443, targetPort: 443}]}", 8443, IntOrString::Int(443)),
        ("{selector: {app: n}, ports: [{port: 8443, targetPort: https}]}", 8443, named.clone()),
        (
            "{selector: {app: n}, ports: [{port: 8443, targetPort: 53, protocol: UDP}, {port: 8443, targetPort: https}]}",
            8443,
            named,
        ),
        // Nothing is between a headless Service's name and its pods.
        ("{selector: {app: n}, ports: [{port: 8443, targetPort: 443}], clusterIP: None}", 443, IntOrString::Int(443)),
    ] {
        let verdict = own(spec);
        let Some(Target::Service(found)) = target(&verdict) else { panic!("{spec}: {:?}", verdict.problems) };
        assert_eq!(found.endpoint.to_string(), format!("notices.liaison.svc.cluster.local:{dialed}"), "{spec}");
        assert_eq!((&found.port, found.pods["app"].as_str()), (&port, "n"), "{spec}");
    }
}

#[test]
fn a_host_inside_of_the_cluster_is_no_way_around_its_owners_consent() {
    for inside in ["10.244.3.4", "10.96.0.1", "notices.records.svc", "notices.records.svc.cluster.local"] {
        let verdict = judge(&format!("target: {{host: {inside}, port: 8443}}"), "{}");
        assert!(verdict.is_accepted() && target(&verdict).is_none(), "{inside}");
        assert!(verdict.problems[0].remedy.contains("name the Service"), "{}", verdict.problems[0]);
    }
    for outside in ["10.20.3.4", "svc", "notsvc.example", "svc.example", "xcluster.local"] {
        assert!(target(&judge(&format!("target: {{host: {outside}, port: 8443}}"), "{}")).is_some(), "{outside}");
    }
}

#[test]
fn f88_a_foreign_service_is_exported_only_while_its_owner_names_this_link() {
    assert!(judge(FOREIGN, &foreign("liaison/europol", 7)).problems.is_empty());
    for annotation in ["", "liaison/europol2", "records/europol", "*"] {
        let verdict = judge(FOREIGN, &foreign(annotation, 8));
        assert!(verdict.is_accepted() && target(&verdict).is_none(), "{annotation}");
        let problem = &verdict.problems[0];
        assert_eq!(problem.reason, Reason::Forbidden);
        assert!(problem.remedy.contains("securelink.dev/export-to: liaison/europol"), "{problem}");
        let cut = Cut {
            id: "Service/u1#exports/notices".to_owned(),
            revision: 8,
            scope: CutScope::Export("notices".to_owned()),
            reason: "the owner of the Service behind notices does not consent".to_owned(),
        };
        assert!(verdict.cuts.contains(&cut), "{:?}", verdict.cuts);
    }
}

#[test]
fn f88_a_withdrawn_consent_closes_the_way_to_its_pods_even_beside_a_mistake() {
    let before = judge(FOREIGN, &foreign("liaison/europol", 7));
    let way = |verdict: &Verdict| {
        let gathered = gathered(FOREIGN, "{}");
        let snapshot = snapshot_of(verdict, None).unwrap();
        let policy = objects(verdict, &snapshot, &gathered.mode).network_policy;
        serde_json::to_string(&policy).unwrap().contains(r#""kubernetes.io/metadata.name":"records""#)
    };
    assert!(way(&before));
    let mut edit = after(&before, gathered(FOREIGN, &foreign("", 8)));
    let Declared::Valid(link) = &edit.declared else { panic!() };
    let mut value = serde_json::to_value(link).unwrap();
    value["spec"]["maxStaleness"] = "soon".into();
    let problems = securelink_crds::load::judge(&value, None).unwrap_err();
    edit.declared = Declared::Invalid { value, problems };
    let verdict = validate(&edit);
    assert!(matches!(verdict.base, Base::LastAccepted(_)) && target(&verdict).is_none());
    assert!(!verdict.cuts.is_empty() && !way(&verdict));
}

/// A cut is pushed before any snapshot says so: what was looked at while it consented must not make it old.
#[test]
fn f88_consent_given_withdrawn_given_and_withdrawn_is_obeyed_each_time() {
    let mut previous = None;
    let mut book = CutBook::default();
    for (version, annotation) in [(7, "liaison/europol"), (8, ""), (9, "liaison/europol"), (10, "")] {
        let verdict = judge(FOREIGN, &foreign(annotation, version));
        for cut in &verdict.cuts {
            assert!(book.admit(cut.clone(), previous.as_ref().unwrap()), "{cut:?}");
        }
        let next = snapshot_of(&verdict, previous.as_ref()).unwrap();
        book.reconcile(&next);
        assert_eq!(book.effective(&next).is_empty(), !annotation.is_empty(), "{version}");
        previous = Some(next);
    }
}
