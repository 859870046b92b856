//! Starting, the control socket and the local port of a runtime: real files and sockets, no peer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod runtime_support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use runtime_support::{Half, PATIENCE, Side, link};
use securelink::control::{Client, ControlError};
use securelink::runtime::{Runtime, RuntimeError};
use securelink::state::{StateDir, StateError};
use securelink_crds::conditions::ConditionType;
use securelink_relay_config::LinkRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const PIN: &str = "sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e";

/// An organization that listens for a peer that never comes.
fn alone() -> Side {
    let mut side = Side::new("a");
    side.watch = false;
    side.write("link.yaml", &Half { peer: "b", pin: PIN.to_owned(), endpoint: None, services: String::new() }.yaml());
    side
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Sends raw bytes and reads until the other side is done.
async fn raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str, host: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    raw(TcpStream::connect(address).await.unwrap(), &request).await
}

#[tokio::test]
async fn a_mistyped_state_folder_is_refused_before_anything_is_made() {
    let side = alone();
    let mut options = side.options();
    options.init = false;
    let error = Runtime::start(options).await.map(drop).unwrap_err();
    assert!(matches!(error, RuntimeError::State(StateError::NoState(_))), "{error}");
    assert!(!side.state().exists());
}

#[tokio::test]
async fn a_second_process_is_told_who_runs() {
    let mut side = alone();
    side.start().await;
    let error = Runtime::start(side.options()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // The socket of the first was left alone.
    assert_eq!(Client::connect(&side.state()).await.unwrap().status().await.unwrap().len(), 1);
    side.stop().await;
    side.start().await;
    side.stop().await;
}

#[tokio::test]
async fn files_that_declare_nothing_are_refused_with_the_first_thing_to_mend() {
    let side = Side::new("a");
    side.write("identity.yaml", "kind: [\n");
    let error = Runtime::start(side.options()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("identity.yaml"), "{error}");
    let mut options = side.options();
    options.files = vec![side.files().join("not-there.yaml")];
    let error = Runtime::start(options).await.map(drop).unwrap_err();
    assert!(matches!(error, RuntimeError::Path { .. }), "{error}");
    assert!(StateDir::open(&side.state(), false).unwrap().fingerprints().unwrap().is_empty());
}

#[tokio::test]
async fn an_identity_alone_is_enough_to_mint_the_line_for_the_annex_once() {
    let mut side = Side::new("a");
    side.start().await;
    let first = side.fingerprint();
    side.stop().await;
    side.start().await;
    assert_eq!(side.fingerprint(), first);
    side.stop().await;
}

#[tokio::test]
async fn a_first_start_beside_an_unreadable_document_accepts_nothing_yet() {
    let mut side = alone();
    side.write("other.yaml", "}{");
    side.start().await;
    let status = side.status();
    assert!(status.report.is_none());
    assert!(status.problems[0].contains("LinkPolicy"), "{:?}", status.problems);
    side.remove("other.yaml");
    side.runtime().reload().await;
    assert!(side.status().report.is_some());
    side.stop().await;
}

#[tokio::test]
async fn an_issuer_that_needs_a_cluster_is_refused_by_name_and_nothing_is_minted() {
    let mut side = alone();
    side.write("identity.yaml", &side.read("identity.yaml").replace("{builtIn: {}}", "{secret: {name: issuer}}"));
    side.start().await;
    let report = side.runtime().reload().await;
    assert!(report.refused.iter().any(|problem| problem.message.contains("builtIn")), "{report:?}");
    assert!(StateDir::open(&side.state(), false).unwrap().fingerprints().unwrap().is_empty());
    assert!(side.status().report.is_none());
    side.stop().await;
}

#[tokio::test]
async fn another_trust_domain_under_an_old_identity_is_refused() {
    let mut side = alone();
    side.start().await;
    let before = side.fingerprint();
    side.write("identity.yaml", &side.read("identity.yaml").replace("a.example", "z.example"));
    let report = side.runtime().reload().await;
    assert!(report.problems.iter().any(|problem| problem.to_string().contains("cannot be changed")), "{report:?}");
    assert_eq!(side.fingerprint(), before);
    assert!(side.status().report.is_some(), "the link runs on");
    side.stop().await;
}

#[tokio::test]
async fn an_expected_fingerprint_that_is_not_there_is_never_minted_over() {
    let mut side = alone();
    let identity = side.read("identity.yaml");
    side.write("identity.yaml", &format!("{identity}  expectedFingerprint: {PIN}\n"));
    side.start().await;
    let report = side.runtime().reload().await;
    assert!(report.refused.iter().any(|problem| problem.message.contains(PIN)), "{report:?}");
    assert!(!side.state().join("identities").exists(), "{:?}", names(&side.state()));
    side.stop().await;
}

#[tokio::test]
async fn the_control_socket_is_for_its_owner_and_gone_at_the_end() {
    let mut side = alone();
    side.start().await;
    let socket = side.state().join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    side.stop().await;
    assert!(!socket.exists());
    let error = Client::connect(&side.state()).await.map(drop).unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
    assert!(error.to_string().contains("securelink run"), "{error}");
}

#[tokio::test]
async fn a_socket_left_by_a_dead_process_does_not_stop_the_next() {
    let mut side = alone();
    side.start().await;
    side.stop().await;
    let socket = side.state().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    StdUnixStream::connect(&socket).expect_err("nobody listens there");
    let error = Client::connect(&side.state()).await.map(drop).unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
    side.start().await;
    Client::connect(&side.state()).await.unwrap();
    side.stop().await;
}

#[tokio::test]
async fn the_client_has_the_verbs_of_the_process() {
    let mut side = alone();
    side.start().await;
    let client = Client::connect(&side.state()).await.unwrap();
    let told = serde_json::to_value(client.status().await.unwrap()).unwrap();
    assert_eq!(told, serde_json::to_value(side.runtime().status()).unwrap());
    let done = client.cut(&link(), "incident\n114").await.unwrap();
    assert_eq!((done.ended, done.fresh), (0, true));
    let status = client.status().await.unwrap().remove(0);
    assert_eq!(status.report.as_ref().unwrap().cuts.len(), 1);
    assert_eq!(client.resume(&link()).await.unwrap().released.len(), 1);
    assert!(client.status().await.unwrap().remove(0).report.unwrap().cuts.is_empty());
    side.write("link.yaml", "}{");
    let report = client.reload().await.unwrap();
    assert!(report.problems[0].source.ends_with("link.yaml"), "{report:?}");
    let error = client.greet(&link(), "hello").await.unwrap_err();
    assert!(matches!(error, ControlError::Refused(_)), "{error}");
    let other = LinkRef { namespace: "default".to_owned(), name: "lnik".to_owned() };
    let error = client.cut(&other, "x").await.unwrap_err();
    assert!(error.to_string().contains("default/link"), "a slip is told what there is: {error}");
    side.stop().await;
}

#[tokio::test]
async fn a_cut_shows_in_the_status_at_once() {
    let mut side = alone();
    side.start().await;
    side.runtime().cut(&link(), "incident").await.unwrap();
    assert_eq!(side.reason(ConditionType::Agreed), "CutHere", "also without a peer that was told");
    side.stop().await;
}

#[tokio::test]
async fn the_control_socket_withstands_what_is_not_a_request() {
    let mut side = alone();
    side.start().await;
    let socket = side.state().join("control.sock");
    let post = |path: &str, body: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let big =
        format!("{{\"link\":{{\"namespace\":\"default\",\"name\":\"link\"}},\"reason\":\"{}\"}}", "x".repeat(70_000));
    let cases = [
        (post("/v1/cut", "{}", 2), "400"),
        (post("/v1/cut", "}{", 2), "400"),
        (post("/v1/cut", &big, big.len()), "413"),
        (post("/v1/nothing", "{}", 2), "404"),
        ("GET /v1/cut HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), "404"),
        (format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(40_000)), "431"),
        ("\x16\x03\x01 not http\r\n\r\n".to_owned(), "400"),
    ];
    for (request, code) in cases {
        let answer = raw(UnixStream::connect(&socket).await.unwrap(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{code}: {answer:.60}");
    }
    assert!(side.status().report.unwrap().cuts.is_empty());
    side.stop().await;
}

#[tokio::test]
async fn the_local_port_shows_and_changes_nothing() {
    let side = alone();
    let mut options = side.options();
    options.local = Some("127.0.0.1:0".parse().unwrap());
    let runtime = Runtime::start(options).await.unwrap();
    let local = runtime.local_addr().unwrap();
    let host = local.to_string();
    assert!(get(local, "/livez", &host).await.starts_with("HTTP/1.1 200"));
    let ready = get(local, "/readyz", "localhost:1").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "no imports, so it is ready to be dialed: {ready}");
    let metrics = get(local, "/metrics", &host).await;
    let version = env!("CARGO_PKG_VERSION");
    assert!(metrics.contains(&format!("securelink_build_info{{version=\"{version}\"}} 1")), "{metrics}");
    assert!(metrics.contains("securelink_snapshot_version{namespace=\"default\",link=\"link\"}"), "{metrics}");
    let status = get(local, "/status", &host).await;
    assert!(status.contains("\"conditions\"") && !status.contains("PRIVATE"), "{status}");
    assert!(get(local, "/", &host).await.starts_with("HTTP/1.1 404"));
    // Neither a page whose name points here, nor any other verb.
    assert!(get(local, "/status", "evil.example").await.starts_with("HTTP/1.1 403"));
    assert!(get(local, "/status", "127.0.0.1.evil.example:80").await.starts_with("HTTP/1.1 403"));
    let post = format!("POST /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(raw(TcpStream::connect(local).await.unwrap(), &post).await.starts_with("HTTP/1.1 405"));
    runtime.shutdown(Duration::ZERO).await;
    TcpStream::connect(local).await.expect_err("it is closed");
}

#[tokio::test]
async fn the_local_port_is_on_loopback_only() {
    let side = alone();
    let mut options = side.options();
    options.local = Some("0.0.0.0:0".parse().unwrap());
    let error = Runtime::start(options).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}

#[tokio::test]
async fn what_has_no_effect_here_is_said() {
    let side = alone();
    let services = "  imports:\n  - {name: echo, dataClass: strategic, port: 1, clients: [{podSelector: {}}]}\n";
    side.write(
        "link.yaml",
        &Half { peer: "b", pin: PIN.to_owned(), endpoint: None, services: services.to_owned() }.yaml(),
    );
    let mut options = side.options();
    options.listen.insert("lnik".to_owned(), "127.0.0.1:0".parse().unwrap());
    let runtime = Runtime::start(options).await.unwrap();
    let notes = runtime.reload().await.notes.join("\n");
    assert!(notes.contains("clients") && notes.contains("--listen lnik"), "{notes}");
    runtime.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_damaged_file_of_a_link_stops_it_from_starting_and_is_left_as_it_is() {
    let mut side = alone();
    side.start().await;
    side.stop().await;
    let folder = side.state().join("links/default/link");
    for name in ["relay.json", "accepted.json", "latch.json", "cuts/Command_1.json"] {
        let path = folder.join(name);
        let before = fs::read(&path).ok();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"half\":").unwrap();
        side.start().await;
        let report = side.runtime().reload().await;
        assert!(report.refused.iter().any(|problem| problem.message.contains("is damaged")), "{name}: {report:?}");
        let shown = side.runtime().status();
        assert!(shown.iter().all(|status| status.report.is_none()), "{name}: it does not run");
        assert_eq!(side.runtime().not_ready(), vec![link()], "{name}");
        side.stop().await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\":", "{name}");
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    side.start().await;
    assert!(side.status().report.is_some());
    side.stop().await;
}

#[tokio::test]
async fn a_damaged_leaf_is_issued_anew() {
    let mut side = alone();
    side.start().await;
    side.stop().await;
    fs::write(side.state().join("links/default/link/leaf.pem"), "rubbish").unwrap();
    side.start().await;
    assert!(side.status().report.is_some());
    side.stop().await;
}
