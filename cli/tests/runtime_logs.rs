//! What a runtime logs, at its most talkative: no key, no line that another organization forged. Alone in its process,
//! since a log has one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod runtime_support;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtime_support::{Pair, ended, exchange, link};
use tracing_subscriber::fmt::MakeWriter;

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

fn keys(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { keys(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "key")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_holds_no_key_and_no_forged_line() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    subscriber.init();
    let pair = Pair::new().await;
    let mut stream = pair.connect().await;
    exchange(&mut stream, "hello").await;
    pair.b.runtime().greet(&link(), "hello\n{\"level\":\"INFO\"}").await.unwrap();
    let mut secrets = Vec::new();
    for side in [&pair.a, &pair.b] {
        for key in keys(&side.state()) {
            let text = fs::read_to_string(&key).unwrap();
            secrets.extend(text.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
            // A key that cannot be read any more is spoken of, not quoted.
            fs::write(&key, text.replace("PRIVATE", "PIRATE")).unwrap();
        }
        side.runtime().reload().await;
    }
    pair.a.runtime().cut(&link(), "incident \u{1b}[2J\u{202e} 114").await.unwrap();
    ended(stream).await;
    let written = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(secrets.len() >= 6 * 3, "{}", secrets.len());
    assert!(written.contains("default/link") && written.contains("IssuerFailed") || written.contains("RootMissing"));
    for secret in secrets {
        assert!(!written.contains(&secret));
    }
    assert!(!written.contains("PIRATE KEY") && !written.contains("PRIVATE KEY----"));
    for line in written.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("each line is an event");
        assert!(event["target"].is_string(), "{line}");
    }
    let forged: Vec<_> = written.lines().filter(|line| line.contains(['\u{202e}', '\u{1b}'])).collect();
    assert_eq!(forged, Vec::<&str>::new());
}
