//! What `kubectl securelink` changes in a cluster: cuts, what takes them back, grants. And whoever may not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod cli_support;

use api_server::{
    Answer, ApiServer, Asked, LIAISON, changed, forbidden, list, no_such_path, not_found, object, refusal,
};
use serde_json::{Value, json};

const CUT: [&str; 4] = ["cut", "europol", "--reason", "incident 1"];
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/liaison/rolebindings";

fn cut(name: &str, aim: &Value, status: &Value) -> Value {
    let mut spec = aim.clone();
    spec["reason"] = "incident 1".into();
    json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkCut",
        "metadata": { "name": name, "namespace": "liaison", "uid": name, "resourceVersion": "5" },
        "spec": spec, "status": status,
    })
}

fn of_link(status: &Value) -> Value {
    cut("cut-europol", &json!({ "linkRef": { "name": "europol" } }), status)
}

fn link() -> Value {
    let fingerprint = format!("sha256:{}", "4b".repeat(32));
    json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "SecureLink",
        "metadata": { "name": "europol", "namespace": "liaison" },
        "spec": {
            "identityRef": { "name": "default" },
            "peer": {
                "trustDomain": "europol.example", "fingerprints": [fingerprint],
                "endpoints": [{ "host": "link.europol.example", "port": 443 }],
            },
        },
    })
}

fn obeyed() -> Value {
    json!({ "pending": 0, "relays": [{ "link": "europol", "relay": "europol-a", "obeyedAt": "2026-11-25T02:00:01Z" }] })
}

fn exists(kind: &str) -> Answer {
    refusal(409, "AlreadyExists", "already exists", &json!({ "kind": kind, "name": "x" }))
}

#[test]
fn a_cut_is_one_object_and_returns_when_every_relay_has_obeyed() {
    let mut obeys = false;
    let server = ApiServer::start(move |asked: &Asked| match asked.line.split(' ').next() {
        Some("POST") => object(&of_link(&Value::Null)),
        _ if asked.is_watch() => {
            obeys = true;
            changed(&of_link(&obeyed()))
        }
        _ if obeys => list(&[of_link(&obeyed())]),
        _ => list(&[of_link(&json!({ "pending": 1 }))]),
    });
    let ran = server.kubectl(&CUT).expect(0);
    assert_eq!(
        ran.out,
        "✓ liaison/europol is cut by LinkCut cut-europol
  LINK      RELAY       OBEYED AT
  europol   europol-a   2026-11-25T02:00:01Z
  take it back: kubectl securelink -n liaison resume europol
"
    );
    // Nothing is read before the order is given, and nothing but cuts: the role securelink-cut is enough.
    let asked = server.asked();
    assert_eq!(asked[0].line, format!("POST {LIAISON}/linkcuts"));
    assert_eq!(asked[0].body["metadata"]["name"], "cut-europol");
    assert_eq!(asked[0].body["spec"], json!({ "linkRef": { "name": "europol" }, "reason": "incident 1" }));
    assert!(asked[1..].iter().all(|asked| asked.line == format!("GET {LIAISON}/linkcuts")), "{asked:?}");
    assert!(asked[1..].iter().all(|asked| asked.query.contains("metadata.name%3Dcut-europol")), "{asked:?}");
}

#[test]
fn a_second_cut_says_that_it_was_cut_before_and_why() {
    let server = ApiServer::start(|asked: &Asked| match asked.line.as_str() {
        line if line.starts_with("POST") => exists("linkcuts"),
        line if line.ends_with("/linkcuts/cut-europol") => object(&of_link(&obeyed())),
        _ => list(&[of_link(&obeyed())]),
    });
    let ran = server.kubectl(&CUT).expect(0);
    assert!(
        ran.out.starts_with("✓ liaison/europol is cut already, by LinkCut cut-europol, which says \"incident 1\"\n"),
        "{}",
        ran.out
    );
    let json = server.kubectl(&[&CUT[..], &["-o", "json"]].concat()).expect(0).json();
    assert_eq!((&json["fresh"], &json["pending"], &json["linkCut"]), (&false.into(), &0.into(), &"cut-europol".into()));
}

#[test]
fn a_name_that_somebody_else_took_does_not_keep_a_cut_from_being_made() {
    let other = || cut("cut-europol", &json!({ "linkRef": { "name": "frontex" } }), &obeyed());
    let ours = || cut("cut-europol-x7", &json!({ "linkRef": { "name": "europol" } }), &obeyed());
    let server = ApiServer::start(move |asked: &Asked| match asked.line.as_str() {
        line if line.starts_with("POST") && asked.body["metadata"]["name"].is_string() => exists("linkcuts"),
        line if line.starts_with("POST") => object(&ours()),
        line if line.ends_with("/linkcuts/cut-europol") => object(&other()),
        _ => list(&[ours()]),
    });
    let ran = server.kubectl(&CUT).expect(0);
    assert!(ran.out.starts_with("✓ liaison/europol is cut by LinkCut cut-europol-x7\n"), "{}", ran.out);
    let made: Vec<_> = server.asked().into_iter().filter(|asked| asked.line.starts_with("POST")).collect();
    assert_eq!(made[1].body["metadata"]["generateName"], "cut-europol-");
}

#[test]
fn an_organization_is_cut_off_by_its_trust_domain() {
    let made = || cut("cut.europol.example", &json!({ "trustDomain": "europol.example" }), &obeyed());
    let server = ApiServer::start(
        move |asked: &Asked| {
            if asked.line.starts_with("POST") { object(&made()) } else { list(&[made()]) }
        },
    );
    let line = ["-n", "liaison", "cut", "--trust-domain", "europol.example", "--reason", "incident 1"];
    let ran = server.kubectl(&line).expect(0);
    assert!(ran.out.starts_with("✓ every link to europol.example in liaison is cut by LinkCut cut."), "{}", ran.out);
    let asked = server.asked();
    assert_eq!(asked[0].body["metadata"]["name"], "cut.europol.example");
    assert_eq!(asked[0].body["spec"], json!({ "trustDomain": "europol.example", "reason": "incident 1" }));
}

#[test]
fn a_cut_that_nobody_obeys_is_no_success() {
    let server = ApiServer::start(|asked: &Asked| match asked.line.split(' ').next() {
        Some("POST") => object(&of_link(&Value::Null)),
        _ if asked.is_watch() => None,
        _ => list(&[of_link(&Value::Null)]),
    });
    let ran = server.kubectl(&[&CUT[..], &["--timeout", "0"]].concat()).expect(1);
    assert!(ran.out.starts_with("! liaison/europol is cut by"), "{}", ran.out);
    assert!(
        ran.err.contains("the operator has not said that relays obey; see that it runs: `kubectl get"),
        "{}",
        ran.err
    );

    let partly = json!({ "pending": 1, "relays": obeyed()["relays"] });
    let server = ApiServer::start(move |asked: &Asked| match asked.line.split(' ').next() {
        Some("POST") => object(&of_link(&Value::Null)),
        _ if asked.is_watch() => None,
        _ => list(&[of_link(&partly)]),
    });
    let ran = server.kubectl(&[&CUT[..], &["--timeout", "0"]].concat()).expect(1);
    assert!(ran.err.contains("error: 1 relay did not obey within 0 s; "), "{}", ran.err);
}

#[test]
fn a_mistyped_link_is_said_after_the_cut_was_made() {
    let nothing = json!({ "pending": 0 });
    let server = ApiServer::start(move |asked: &Asked| match asked.line.as_str() {
        line if line.starts_with("POST") => object(&of_link(&nothing)),
        line if line.ends_with("/linkcuts") => list(&[of_link(&nothing)]),
        _ => not_found("securelinks", "europol"),
    });
    let ran = server.kubectl(&CUT).expect(1);
    assert!(ran.err.starts_with("error: there is no SecureLink liaison/europol now, "), "{}", ran.err);
}

#[test]
fn whoever_may_not_is_told_what_and_which_role_to_ask_for() {
    let server = ApiServer::start(|_: &Asked| forbidden("linkcuts.securelink.dev"));
    let ran = server.kubectl(&CUT).expect(1);
    assert_eq!(
        ran.err,
        "error: you may not create linkcuts in namespace liaison (linkcuts.securelink.dev is forbidden: User \"eve\" \
         cannot do that); ask an administrator to bind you to securelink-cut: `kubectl -n liaison create rolebinding \
         securelink-cut --clusterrole=securelink-cut --user=YOU`\n"
    );
}

#[test]
fn a_kind_that_is_not_installed_is_named_with_its_chart() {
    let server = ApiServer::start(|_: &Asked| no_such_path());
    for line in [&CUT[..], &["status"], &["resume", "europol"], &["fingerprint"], &["greet", "europol"]] {
        let ran = server.kubectl(line).expect(1);
        assert!(
            ran.err.contains("does not know ") && ran.err.contains("install the chart securelink-crds"),
            "{}",
            ran.err
        );
    }
}

fn two_cuts(asked: &Asked) -> Answer {
    match asked.line.as_str() {
        line if line.starts_with("DELETE") => object(&json!({ "kind": "Status", "status": "Success" })),
        line if line.ends_with("/linkcuts") => list(&[
            of_link(&obeyed()),
            cut("desk", &json!({ "trustDomain": "europol.example" }), &obeyed()),
            cut("other", &json!({ "linkRef": { "name": "frontex" } }), &obeyed()),
        ]),
        _ => object(&link()),
    }
}

#[test]
fn resume_deletes_every_cut_over_the_link_and_no_other() {
    let server = ApiServer::start(two_cuts);
    let ran = server.kubectl(&["resume", "europol", "--yes"]).expect(0);
    assert_eq!(ran.out, "✓ liaison/europol is resumed: deleted LinkCut cut-europol and desk\n");
    let deleted: Vec<_> = server.asked().into_iter().filter(|asked| asked.line.starts_with("DELETE")).collect();
    let lines: Vec<_> = deleted.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(lines, [format!("DELETE {LIAISON}/linkcuts/cut-europol"), format!("DELETE {LIAISON}/linkcuts/desk")]);
    // Not a later cut that has the name.
    assert_eq!(deleted[0].body["preconditions"]["uid"], "cut-europol");
}

#[test]
fn resume_asks_before_it_deletes() {
    for (said, code) in [("yes\n", 0), ("y\n", 0), ("no\n", 1), ("", 1)] {
        let server = ApiServer::start(two_cuts);
        let ran = server.kubectl_with(&["resume", "europol"], said).expect(code);
        assert!(
            ran.err.contains("LinkCut desk cuts: every link to europol.example in liaison, \"incident 1\""),
            "{}",
            ran.err
        );
        let deleted = server.lines().iter().any(|line| line.starts_with("DELETE"));
        assert_eq!(deleted, code == 0, "{said:?}");
    }
}

#[test]
fn resume_without_a_cut_changes_nothing_and_an_unknown_link_is_said() {
    let server =
        ApiServer::start(|asked: &Asked| if asked.line.ends_with("/linkcuts") { list(&[]) } else { object(&link()) });
    assert_eq!(server.kubectl(&["resume", "europol"]).expect(0).out, "✓ liaison/europol was not cut by a LinkCut\n");
    let server = ApiServer::start(|asked: &Asked| {
        if asked.line.ends_with("/linkcuts") { list(&[]) } else { not_found("securelinks", "europol") }
    });
    let ran = server.kubectl(&["resume", "europol"]).expect(1);
    assert_eq!(ran.err, "error: there is no SecureLink europol in namespace liaison; check its name, and -n\n");
}

#[test]
fn resume_by_the_desk_that_may_not_read_links_deletes_what_names_the_link_and_says_what_it_cannot_know() {
    let server = ApiServer::start(|asked: &Asked| {
        if asked.line.contains("/securelinks/") { forbidden("securelinks.securelink.dev") } else { two_cuts(asked) }
    });
    let ran = server.kubectl(&["resume", "europol", "--yes"]).expect(0);
    assert_eq!(ran.out, "✓ liaison/europol is resumed: deleted LinkCut cut-europol\n");
    assert!(ran.err.contains("whether LinkCut desk cuts it too is not known"), "{}", ran.err);
}

fn operator() -> Value {
    json!({
        "metadata": { "name": "securelink-operator", "namespace": "links-system" },
        "spec": { "selector": {}, "template": {} },
    })
}

fn granting(asked: &Asked) -> Answer {
    match asked.line.as_str() {
        "GET /apis/apps/v1/deployments" => list(&[operator()]),
        line if line.starts_with("POST") => object(&asked.body),
        _ => object(&json!({ "metadata": { "name": "securelink-link" } })),
    }
}

#[test]
fn a_grant_is_one_role_binding_to_the_operator_where_it_is() {
    let server = ApiServer::start(granting);
    let ran = server.kubectl(&["grant", "liaison"]).expect(0);
    assert_eq!(ran.out, "✓ liaison is granted: securelink-link to ServiceAccount links-system/securelink-operator\n");
    let asked = server.asked();
    assert!(
        asked[0].query.contains("app.kubernetes.io%2Fname%3Dsecurelink%2Capp.kubernetes.io%2Fcomponent%3Doperator")
    );
    let made = asked.iter().find(|asked| asked.line == format!("POST {BINDINGS}")).unwrap();
    // Not the name of the chart's own binding, which Helm would not take over.
    assert_eq!(made.body["metadata"]["name"], "securelink-link-granted");
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "securelink-link" });
    assert_eq!(made.body["roleRef"], role);
    let operator = json!([{ "kind": "ServiceAccount", "name": "securelink-operator", "namespace": "links-system" }]);
    assert_eq!(made.body["subjects"], operator);

    server.kubectl(&["grant", "liaison", "--exports", "--dry-run"]).expect(0);
    let last = server.asked().pop().unwrap();
    assert_eq!(
        (last.body["metadata"]["name"].as_str(), last.query.as_str()),
        (Some("securelink-export-granted"), "&dryRun=All")
    );
}

#[test]
fn a_grant_as_yaml_changes_nothing() {
    let server = ApiServer::start(granting);
    let ran = server.kubectl(&["grant", "liaison", "-o", "yaml"]).expect(0);
    assert!(
        ran.out.contains("kind: RoleBinding\n") && ran.out.contains("name: securelink-link-granted\n"),
        "{}",
        ran.out
    );
    assert_eq!(server.lines(), ["GET /apis/apps/v1/deployments"]);
}

#[test]
fn a_second_grant_says_so_and_a_binding_without_the_operator_gets_it() {
    let standing = |subjects: Value| {
        json!({
            "metadata": { "name": "securelink-link-granted", "namespace": "liaison", "resourceVersion": "3" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "securelink-link" },
            "subjects": subjects,
        })
    };
    let ours = json!([{ "kind": "ServiceAccount", "name": "securelink-operator", "namespace": "links-system" }]);
    for (subjects, told) in [(ours, "was granted before"), (json!([]), "is granted")] {
        let server = ApiServer::start(move |asked: &Asked| match asked.line.as_str() {
            line if line.starts_with("POST") => exists("rolebindings"),
            line if line.starts_with("GET") && line.contains(BINDINGS) => object(&standing(subjects.clone())),
            line if line.starts_with("PUT") => object(&asked.body),
            _ => granting(asked),
        });
        let ran = server.kubectl(&["grant", "liaison"]).expect(0);
        assert!(ran.out.starts_with(&format!("✓ liaison {told}: ")), "{}", ran.out);
        let written = server.asked().into_iter().find(|asked| asked.line.starts_with("PUT"));
        assert_eq!(written.is_some(), told == "is granted");
        assert!(written.is_none_or(|asked| asked.body["metadata"]["resourceVersion"] == "3"));
    }
}

#[test]
fn a_grant_is_refused_where_it_would_be_wrong() {
    let server = ApiServer::start(granting);
    let ran = server.kubectl(&["grant", "links-system"]).expect(1);
    assert!(
        ran.err.contains("links-system is the operator's own namespace, where the keys of roots lie"),
        "{}",
        ran.err
    );
    let ran = server.kubectl(&["-n", "liaison", "grant", "liaison"]).expect(2);
    assert!(ran.err.contains("without -n"), "{}", ran.err);
    assert!(!server.lines().iter().any(|line| line.starts_with("POST")));

    let none = ApiServer::start(|asked: &Asked| {
        if asked.line.ends_with("/deployments") { list(&[]) } else { not_found("clusterroles", "securelink-link") }
    });
    let ran = none.kubectl(&["grant", "liaison"]).expect(1);
    assert!(ran.err.contains("it is taken to be in securelink-system; else say --operator-namespace"), "{}", ran.err);
    assert!(
        ran.err.contains("there is no ClusterRole securelink-link in this cluster; install the chart"),
        "{}",
        ran.err
    );

    let nowhere = ApiServer::start(|asked: &Asked| {
        if asked.line.starts_with("POST") { not_found("namespaces", "liaison") } else { granting(asked) }
    });
    let ran = nowhere.kubectl(&["grant", "liaison"]).expect(1);
    assert_eq!(ran.err, "error: there is no namespace liaison; check its name, or create it\n");
}
