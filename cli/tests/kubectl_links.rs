//! What `kubectl securelink` shows of a cluster's links, and what it asks relays through the operator.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod cli_support;

use api_server::{ApiServer, Asked, LIAISON, changed, forbidden, list, not_found, object, refusal};
use cli_support::{Ran, command, examples};
use serde_json::{Value, json};

const PIN: &str = "sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e";

fn link(namespace: &str, name: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "SecureLink",
        "metadata": { "name": name, "namespace": namespace, "generation": 2, "uid": name },
        "spec": {
            "identityRef": { "name": "default" },
            "peer": {
                "trustDomain": format!("{name}.example"), "fingerprints": [PIN],
                "endpoints": [{ "host": "link.europol.example", "port": 443 }],
            },
        },
        "status": status,
    })
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(5);
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since.to_string() })
}

fn ready() -> Value {
    json!({
        "observedGeneration": 2, "endpoint": "link.interpol.example:443",
        "conditions": [condition("Agreed", "True", "Matched", ""), condition("Ready", "True", "Ready", "")],
    })
}

fn down() -> Value {
    let (reason, message) = ("DnsFailed", "link.europol.example does not resolve; correct spec.peer.endpoints");
    json!({
        "observedGeneration": 2,
        "conditions": [condition("PeerConnected", "False", reason, message), condition("Ready", "False", reason, message)],
    })
}

#[test]
fn status_is_a_table_with_cause_and_remedy_below() {
    let server = ApiServer::start(|_: &Asked| {
        list(&[link("liaison", "europol", &ready()), link("liaison", "eurojust", &down())])
    });
    let ran = server.kubectl(&["status"]).expect(1);
    assert_eq!(
        ran.out,
        "LINK               PEER               READY   REASON      SINCE   AGREEMENT   CERTIFICATE
liaison/eurojust   eurojust.example   False   DnsFailed   5 min   -           -
liaison/europol    europol.example    True    Ready       5 min   none        -

liaison/eurojust
  ✗   PeerConnected: DnsFailed   link.europol.example does not resolve
                                 do: correct spec.peer.endpoints
"
    );
    assert_eq!(server.lines(), [format!("GET {LIAISON}/securelinks")]);
    let json = server.kubectl(&["status", "-o", "json"]).expect(1).json();
    assert_eq!(json["links"][0]["link"], json!({ "namespace": "liaison", "name": "eurojust" }));
    assert_eq!(json["links"][1]["status"]["endpoint"], "link.interpol.example:443");
}

#[test]
fn status_asks_for_what_was_named() {
    for (line, path, query) in [
        (&["status", "-A"][..], "/apis/securelink.dev/v1alpha1/securelinks", ""),
        (&["-n", "desk", "status"], "/apis/securelink.dev/v1alpha1/namespaces/desk/securelinks", ""),
        (
            &["status", "desk/europol"],
            "/apis/securelink.dev/v1alpha1/namespaces/desk/securelinks",
            "metadata.name%3Deuropol",
        ),
        (
            &["status", "europol", "-n", "desk"],
            "/apis/securelink.dev/v1alpha1/namespaces/desk/securelinks",
            "name%3Deuropol",
        ),
    ] {
        let server = ApiServer::start(|_: &Asked| list(&[link("desk", "europol", &ready())]));
        server.kubectl(line).expect(0);
        let asked = server.asked();
        assert_eq!((asked[0].line.as_str(), asked.len()), (format!("GET {path}").as_str(), 1), "{line:?}");
        assert!(asked[0].query.contains(query), "{line:?}: {}", asked[0].query);
    }
    let server = ApiServer::start(|_: &Asked| list(&[]));
    let ran = server.kubectl(&["status", "europol"]).expect(1);
    assert_eq!(ran.err, "error: there is no SecureLink europol in namespace liaison; check its name, and -n\n");
    server.kubectl(&["status", "-A", "-n", "desk"]).expect(2);
    server.kubectl(&["status", "desk/europol", "-n", "liaison"]).expect(2);
}

#[test]
fn a_link_that_no_operator_looked_at_and_one_that_cannot_be_read_are_not_ready() {
    let server = ApiServer::start(|_: &Asked| {
        let mut stale = ready();
        stale["observedGeneration"] = 1.into();
        let strange = json!({ "metadata": { "name": "odd", "namespace": "liaison" }, "spec": { "peer": 7 } });
        list(&[link("liaison", "europol", &Value::Null), link("liaison", "eurojust", &stale), strange])
    });
    let ran = server.kubectl(&["status"]).expect(1);
    assert!(ran.out.contains("Operator   the operator has not looked at it yet\n"), "{}", ran.out);
    assert!(ran.out.contains("do: see that it runs: `kubectl get deployments -A -l"), "{}", ran.out);
    assert!(ran.out.contains("the operator has not looked at its last change yet"), "{}", ran.out);
    assert!(ran.err.contains("warning: SecureLink liaison/odd cannot be read: "), "{}", ran.err);
}

#[test]
fn a_watch_shows_a_change_and_ends_when_the_link_is_gone() {
    let mut looks = 0;
    let server = ApiServer::start(move |asked: &Asked| {
        if asked.is_watch() {
            return changed(&link("liaison", "europol", &ready()));
        }
        looks += 1;
        match looks {
            1 => list(&[link("liaison", "europol", &down())]),
            2 => list(&[link("liaison", "europol", &ready())]),
            _ => list(&[]),
        }
    });
    let ran = server.kubectl(&["status", "europol", "--watch", "-o", "json"]).expect(1);
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ready: Vec<_> =
        lines.iter().map(|line| line["links"][0]["status"]["conditions"][1]["status"].clone()).collect();
    assert_eq!(ready, ["False", "True"]);
    assert!(ran.err.contains("there is no SecureLink europol"), "{}", ran.err);
}

fn identity(status: &Value) -> Value {
    json!({
        "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
        "metadata": { "name": "default", "namespace": "liaison" },
        "spec": { "trustDomain": "interpol.example", "issuer": { "builtIn": {} } }, "status": status,
    })
}

#[test]
fn the_two_lines_for_the_annex_come_from_status() {
    let server = ApiServer::start(|asked: &Asked| {
        if asked.line.ends_with("/linkidentities") {
            list(&[identity(&json!({ "fingerprint": PIN }))])
        } else {
            list(&[link("liaison", "europol", &ready())])
        }
    });
    let ran = server.kubectl(&["fingerprint"]).expect(0);
    assert_eq!(
        ran.out,
        format!(
            "interpol.example\n  endpoint      link.interpol.example:443  for europol.example\n  fingerprint   {PIN}\n"
        )
    );
    let json = server.kubectl(&["fingerprint", "default", "-o", "json"]).expect(0).json();
    assert_eq!(json["identities"][0]["fingerprint"], PIN);
    assert!(server.asked().iter().any(|asked| asked.query.contains("metadata.name%3Ddefault")));
}

#[test]
fn lines_that_are_not_there_yet_are_named_with_what_to_wait_for() {
    let server = ApiServer::start(|asked: &Asked| {
        if asked.line.ends_with("/linkidentities") {
            let why = condition("CertificateReady", "False", "Issuing", "the root is being made; wait");
            return list(&[identity(&json!({ "conditions": [why] }))]);
        }
        let looked = json!({ "conditions": [condition("Ready", "False", "IdentityNotReady", "wait")] });
        let mut exposed = link("liaison", "europol", &looked);
        exposed["spec"]["expose"] = json!({ "type": "LoadBalancer" });
        list(&[exposed])
    });
    let ran = server.kubectl(&["fingerprint"]).expect(3);
    assert!(
        ran.err.contains("LinkIdentity liaison/default has no fingerprint yet (Issuing: the root is being made"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("`kubectl -n liaison wait --for=condition=Ready linkidentity/default`"), "{}", ran.err);
    assert!(
        ran.err.contains("error: SecureLink liaison/europol has no endpoint yet; set spec.expose.hostname"),
        "{}",
        ran.err
    );
    let none = ApiServer::start(|_: &Asked| list(&[]));
    assert!(none.kubectl(&["fingerprint"]).expect(3).err.contains("there is no LinkIdentity in namespace liaison"));
}

/// A server whose operator answers a request at the first change.
fn answering(state: &'static str, answer: &'static str) -> ApiServer {
    let mut request = Value::Null;
    let mut done = false;
    ApiServer::start(move |asked: &Asked| {
        if asked.line.starts_with("PATCH") {
            request = asked.body["metadata"]["annotations"]["securelink.dev/request"].clone();
        }
        let state = if done { state } else { "Running" };
        let last = json!({ "request": request, "state": state, "time": "2026-11-25T02:00:00Z", "answer": answer });
        let now = link("liaison", "europol", &json!({ "lastRequest": last }));
        match asked.line.split(' ').next() {
            Some("PATCH") => object(&now),
            _ if asked.is_watch() => {
                done = true;
                changed(&now)
            }
            _ => list(&[now]),
        }
    })
}

#[test]
fn greet_asks_by_annotation_and_prints_the_answer_to_this_very_request() {
    let server = answering("Succeeded", "europol.example received sha256:77 and signed for it");
    let ran = server.kubectl(&["greet", "europol"]).expect(0);
    assert_eq!(ran.out, "✓ liaison/europol: europol.example received sha256:77 and signed for it\n");
    let asked = server.asked();
    assert_eq!(asked[0].line, format!("PATCH {LIAISON}/securelinks/europol"));
    let request = asked[0].body["metadata"]["annotations"]["securelink.dev/request"].as_str().unwrap();
    assert!(
        matches!(securelink_crds::keys::request(request), Some((securelink_crds::keys::Verb::Greet, _))),
        "{request}"
    );
    server.kubectl(&["greet", "europol", "hello"]).expect(2);
}

#[test]
fn a_failed_greeting_is_exit_code_1() {
    let server = answering("Failed", "the link is not agreed; compare both agreements");
    let ran = server.kubectl(&["greet", "europol"]).expect(1);
    assert_eq!(ran.err, "error: liaison/europol: the link is not agreed; compare both agreements\n");
}

#[test]
fn doctor_prints_one_line_a_probe_with_its_remedy() {
    let server = answering(
        "Failed",
        "dns link.europol.example ok: 192.0.2.7\ntcp link.europol.example:443 failed: no answer; ask the peer\nround trip europol skipped: no connection",
    );
    let ran = server.kubectl(&["doctor", "europol"]).expect(1);
    assert_eq!(
        ran.out,
        "liaison/europol
  ✓   dns link.europol.example       192.0.2.7
  ✗   tcp link.europol.example:443   no answer
                                     do: ask the peer
  -   round trip europol             no connection
"
    );
    let json = server.kubectl(&["doctor", "europol", "-o", "json"]).expect(1).json();
    assert_eq!((&json["links"][0]["state"], &json["links"][0]["link"]), (&"Failed".into(), &"liaison/europol".into()));
}

#[test]
fn a_request_that_nobody_answers_says_so_and_an_older_answer_is_not_taken_for_it() {
    let old = json!({ "request": "greet/1", "state": "Succeeded", "time": "2026-11-25T02:00:00Z", "answer": "old" });
    let server = ApiServer::start(move |asked: &Asked| {
        let now = link("liaison", "europol", &json!({ "lastRequest": old }));
        match asked.line.split(' ').next() {
            Some("PATCH") => object(&now),
            _ if asked.is_watch() => None,
            _ => list(&[now]),
        }
    });
    let ran = server.kubectl(&["greet", "europol", "--timeout", "0"]).expect(1);
    assert!(
        ran.err.contains("there is no answer within 0 s; the operator has not taken the request up"),
        "{}",
        ran.err
    );
    let none = ApiServer::start(|_: &Asked| not_found("securelinks", "europol"));
    assert!(none.kubectl(&["greet", "europol"]).expect(1).err.contains("there is no SecureLink europol in namespace"));
}

#[test]
fn who_may_not_read_or_ask_is_told_which_role_it_takes() {
    let server = ApiServer::start(|_: &Asked| forbidden("securelinks.securelink.dev"));
    let ran = server.kubectl(&["status"]).expect(1);
    assert!(ran.err.contains("you may not list securelinks in namespace liaison"), "{}", ran.err);
    assert!(ran.err.contains("--clusterrole=securelink-view"), "{}", ran.err);
    let ran = server.kubectl(&["status", "-A"]).expect(1);
    assert!(ran.err.contains("create clusterrolebinding securelink-view"), "{}", ran.err);
    let ran = server.kubectl(&["greet", "europol"]).expect(1);
    assert!(ran.err.contains("you may not patch securelinks europol in namespace liaison"), "{}", ran.err);
    let unknown = ApiServer::start(|_: &Asked| refusal(401, "Unauthorized", "Unauthorized", &json!({})));
    assert!(unknown.kubectl(&["status"]).expect(1).err.contains("log in anew"));
}

#[test]
fn without_a_cluster_it_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-securelink");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_securelink"), &plugin).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&plugin);
        Ran::of(command.args(arguments).env_clear().env("HOME", folder.path()), "")
    };
    let ran = run(&["status"]).expect(3);
    assert!(
        ran.err.starts_with("error: there is no kubeconfig; name one by --kubeconfig or KUBECONFIG"),
        "{}",
        ran.err
    );
    let ran = run(&["status", "--kubeconfig", "no/such"]).expect(1);
    assert!(ran.err.contains("no/such") && ran.err.contains("check --kubeconfig"), "{}", ran.err);
    // What needs no cluster works without one.
    run(&["check", "-f", &examples("interpol")]).expect(0);
    run(&["completion", "bash"]).expect(0);
    run(&["check", "-f", &examples("interpol"), "-n", "x"]).expect(2);
    let ran = run(&["status", "--state-dir", "x"]).expect(2);
    assert!(ran.err.contains("a cluster has no state folder"), "{}", ran.err);
}

#[test]
fn an_api_server_that_is_not_there_is_exit_code_3_with_its_address() {
    let server = ApiServer::start(|_: &Asked| None);
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    // Nobody listens on port 1.
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1".into();
    std::fs::write(server.kubeconfig(), config.to_string()).unwrap();
    let ran = server.kubectl(&["status"]).expect(3);
    assert!(ran.err.contains("the API server http://127.0.0.1:1 cannot be reached: Connection refused"), "{}", ran.err);
    let ran = server.kubectl(&["status", "--context", "nowhere"]).expect(1);
    assert!(ran.err.contains("nowhere") && ran.err.contains("kubectl config get-contexts"), "{}", ran.err);
}

#[test]
fn an_api_server_is_reached_through_the_proxy_of_its_kubeconfig() {
    let proxy = ApiServer::start(|_: &Asked| forbidden("proxy"));
    let text = std::fs::read_to_string(proxy.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let cluster = &mut config["clusters"][0]["cluster"];
    cluster["proxy-url"] = cluster["server"].clone();
    cluster["server"] = "https://api.example:6443".into();
    std::fs::write(proxy.kubeconfig(), config.to_string()).unwrap();
    let ran = proxy.kubectl(&["status"]).expect(3);
    assert!(ran.err.contains("the API server https://api.example:6443 cannot be reached"), "{}", ran.err);
    assert!(proxy.lines().iter().all(|line| line.starts_with("CONNECT")) && !proxy.lines().is_empty());
}

#[test]
fn the_same_binary_speaks_to_a_cluster_when_one_is_named_and_else_to_the_process_here() {
    let server = ApiServer::start(|_: &Asked| list(&[link("liaison", "europol", &ready())]));
    let kubeconfig = server.kubeconfig().display().to_string();
    Ran::of(&mut command(&["--kubeconfig", &kubeconfig, "status"]), "").expect(0);
    Ran::of(command(&["status", "-n", "liaison"]).env("KUBECONFIG", &kubeconfig), "").expect(0);
    assert_eq!(server.asked().len(), 2);
    let folder = tempfile::tempdir().unwrap();
    let here = |line: &[&str]| {
        let mut command = command(line);
        command.env("KUBECONFIG", &kubeconfig).env("SECURELINK_STATE_DIR", folder.path());
        Ran::of(&mut command, "")
    };
    here(&["status"]).expect(3);
    for line in [
        &["status", "-A"][..],
        &["fingerprint", "default"],
        &["cut", "--trust-domain", "x.example", "--reason", "x"],
        &["doctor", "--timeout", "5"],
    ] {
        let ran = here(line).expect(2);
        assert!(ran.err.contains("is for a cluster; call it as `kubectl securelink`"), "{line:?}: {}", ran.err);
    }
    assert_eq!(server.asked().len(), 2);
}
