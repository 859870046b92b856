//! What a peer writes stays data: no line of its own in the log (fault F51), no label of a metric (fault F52).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use securelink_pki::testing::Organization;
use securelink_relay::wire::{Bye, Code, Message, Open, Reject, Role, StreamId};
use securelink_relay_config::{Contact, DataClass, DeclaredService, Digest, Head, Snapshot};
use support::acceptor::{Acceptor, control};
use support::intruder::{Caller, Heard, Intruder, data, encoded, head_of};
use support::{Side, export, import, snapshot, turned_away};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

/// What no honest text holds: another line, colors, a clear screen, and letters that run from right to left.
const FORGED: &str = "\n2026-06-01T00:00:00Z ERROR FORGED\r\n\u{1b}[31m\u{1b}[2J\u{202e}FORGED\u{2028}";

/// The log as an operator reads it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn hostile_open() -> Message {
    Message::Open(Open {
        stream: StreamId([9; 16]),
        service: "unknown".to_owned(),
        client: FORGED.to_owned(),
        traceparent: None,
        deadline_ms: None,
    })
}

/// A snapshot whose declaration is full of it.
fn hostile_declaration(snapshot: &Snapshot) -> Vec<u8> {
    let mut declaration = snapshot.declaration(Some(FORGED.to_owned()));
    let service = |name: String| DeclaredService { name, data_class: DataClass::Operational };
    declaration.exports.push(service(FORGED.to_owned()));
    declaration.imports.push(service(format!("x{FORGED}")));
    declaration.contacts = vec![Contact { name: FORGED.to_owned(), email: FORGED.to_owned() }];
    declaration.to_bytes()
}

/// Everything a peer that calls can write.
async fn call(caller: &Caller, declared: Vec<u8>) {
    let mut control = caller.connect(Role::Control).await;
    control.say(&Message::Declare(declared)).await;
    control.say(&Message::Declare(format!("{{\"{FORGED}\"").into_bytes())).await;
    let mut forward = caller.connect(Role::Forward).await;
    forward.say(&hostile_open()).await;
    forward.hear_until(|heard| matches!(heard, Heard::Message(Message::Reject(_)))).await;
    let mut greeting = caller.connect(Role::Forward).await;
    greeting.opened("_greet").await;
    greeting.send(&[data(FORGED.as_bytes()), encoded(&Message::Fin)].concat()).await;
    greeting.hear_until(|heard| *heard == Heard::Message(Message::Fin)).await;
    for mut intruder in [control, forward, greeting] {
        intruder.say(&Message::Bye(Bye { code: Code::Denied, text: FORGED.to_owned() })).await;
        while intruder.hear().await != Heard::End {}
    }
}

/// Everything a peer that is called can write: it refuses each stream, and each other control connection.
async fn answer(role: Role, mut caller: Intruder, snapshot: Snapshot) {
    match role {
        Role::Control => control(caller, snapshot).await,
        Role::Forward | Role::Reverse => loop {
            match caller.hear_for_ever().await {
                Heard::Message(Message::Open(_)) => {
                    let text = FORGED.to_owned();
                    caller.say(&Message::Reject(Reject { code: Code::Denied, retry_after_ms: None, text })).await;
                    caller.say(&Message::Bye(Bye { code: Code::Denied, text: FORGED.to_owned() })).await;
                }
                Heard::End => return,
                _ => {}
            }
        },
    }
}

/// A link whose peer writes what it can, wherever it can.
struct Talk {
    side: Side,
    _hostile: Acceptor,
}

impl Talk {
    async fn with(registry: &mut Registry) -> Self {
        let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
        let at_b = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut for_a = snapshot(&org_a, &org_b);
        for_a.imports.push(import("at-b", 0));
        for_a.exports.push(export("at-a", at_b.local_addr().unwrap()));
        let declared = for_a.clone();
        let hostile =
            Acceptor::start((&org_a, &org_b), &for_a, move |role, caller| answer(role, caller, declared.clone())).await;
        let mut for_b = snapshot(&org_b, &org_a);
        for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
        for_b.imports.push(import("at-a", 0));
        for_b.peer.endpoints = vec![hostile.endpoint.clone()];
        let side = Side::start_counted(&org_b, &org_a.domain, for_b, registry).await;
        side.until("what it declares is heard", |report| report.imports[0].unusable.is_none()).await;
        turned_away(side.import_address("at-a")).await;
        let declared = hostile_declaration(&for_a);
        let head = Head { sequence: for_a.version + 1, hash: Digest::of(&declared), ..head_of(&for_a) };
        call(&Caller::by(&org_a, &org_b, side.listens_on(), head), declared).await;
        // A proxy on the way writes too.
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut side = side;
        let by = support::endpoint(proxy.local_addr().unwrap());
        side.adopt(|snapshot| snapshot.peer.proxy = Some(by)).await;
        let (mut asked, _) = proxy.accept().await.unwrap();
        asked.write_all(format!("HTTP/1.1 403 {}\r\n\r\n", FORGED.replace(['\r', '\n'], "")).as_bytes()).await.unwrap();
        side.until_refused("ProxyFailed").await;
        Self { side, _hostile: hostile }
    }
}

/// One thread, so that the log is this test's only.
#[tokio::test]
async fn f51_nothing_that_a_peer_writes_makes_a_line_of_the_log_or_moves_a_terminal() {
    let log = Log::default();
    let filter = tracing_subscriber::EnvFilter::new("securelink_relay=trace");
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let talk = Box::pin(Talk::with(&mut Registry::default())).await;
    let text = log.text();
    let told = text.lines().filter(|line| line.contains("FORGED")).count();
    assert!(told >= 4, "what it wrote is told, {told} times:\n{text}");
    for line in text.lines() {
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        let own = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level) && line.contains(" securelink_relay::");
        assert!(own, "a line of somebody else's: {line:?}");
        assert_eq!(moving(line), None, "{line:?}");
    }
    // Nor does a word of the report, where it is told as well.
    let report = talk.side.relay.report();
    assert!(report.peer.contacts.iter().any(|contact| contact.name.contains("FORGED")), "{report:#?}");
    assert!(report.agreed.peer_reason.as_deref().is_some_and(|reason| reason.contains("FORGED")), "{report:#?}");
    assert_plain(&serde_json::to_value(report).unwrap());
}

fn assert_plain(value: &serde_json::Value) {
    match value {
        serde_json::Value::String(text) => assert_eq!(moving(text), None, "{text:?}"),
        serde_json::Value::Array(all) => all.iter().for_each(assert_plain),
        serde_json::Value::Object(all) => all.values().for_each(assert_plain),
        _ => {}
    }
}

/// What moves a terminal or turns letters around.
fn moving(text: &str) -> Option<char> {
    text.chars().find(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}'))
}

#[tokio::test]
async fn f52_no_label_of_a_metric_is_what_a_peer_wrote() {
    let mut registry = Registry::default();
    let _talk = Box::pin(Talk::with(&mut registry)).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let labels = text.lines().filter_map(|line| line.split_once('{')?.1.rsplit_once('}').map(|(labels, _)| labels));
    let values: BTreeSet<&str> = labels.flat_map(|labels| labels.split('"').skip(1).step_by(2)).collect();
    assert!(values.contains("at-a") && values.contains("outgoing"), "{values:?}");
    for value in &values {
        let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        assert!(plain && !["unknown", "intruder"].contains(value), "{value:?} in\n{text}");
    }
    assert!(!text.contains("FORGED"));
}
