//! A partner without our software follows docs/partners.md: its commands are run as they stand there, against a real
//! `securelink run`, with the system's openssl and curl, and with a real Envoy.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;
mod skipped;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cli_support::{Ran, command, examples, securelink};
use serde_json::Value;
use skipped::skipped;
use tempfile::TempDir;

/// A busy machine gets its time; a process that never comes up is noticed.
const DEADLINE: Duration = Duration::from_mins(1);
const AGREEMENT: &str = "sha256:77ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667";
const PAGE: &str = include_str!("../../docs/partners.md");
const ENVOY_CONFIG: &str = include_str!("../../docs/partners/envoy.yaml");

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `found` finds it.
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        // Other processes announce nothing: look again after a moment.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The side with SecureLink, and the partner's folder.
struct Sides {
    folder: TempDir,
    relay: Running,
    port: u16,
    fingerprint: String,
    /// The export's target.
    service: TcpListener,
}

impl Sides {
    /// Up to a link that nobody has called yet; the partner has followed the page so far.
    fn new(classical: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["yaml", "partner"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let identity = "apiVersion: securelink.dev/v1alpha1\nkind: LinkIdentity\nmetadata: {name: default, namespace: \
                        liaison}\nspec: {trustDomain: interpol.example, issuer: {builtIn: {}}}\n";
        fs::write(folder.path().join("yaml/identity.yaml"), identity).unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let (relay, started) = run(folder.path());
        let fingerprint = started["identities"][0]["fingerprint"].as_str().unwrap().to_owned();
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let sides = Self { folder, relay, port, fingerprint, service };
        let root = sides.path("state/identities/liaison/default/root.pem");
        fs::copy(root, sides.path("partner/their-root.pem")).unwrap();
        let pin = sides.partner("The partner's keys").lines().next().expect("a fingerprint").to_owned();
        drop(held);
        sides.declare(&pin, classical);
        sides
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The example of the repository, with what differs here.
    fn declare(&self, pin: &str, classical: bool) {
        let example = fs::read_to_string(examples("connect/link.yaml")).unwrap();
        let target = self.service.local_addr().unwrap().port();
        let replaced = [
            ("sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e", pin.to_owned()),
            ("service: notices\n      port: 8443", format!("host: 127.0.0.1\n      port: {target}")),
            ("hostname: link.interpol.example", format!("hostname: localhost\n    port: {}", self.port)),
        ];
        let mut yaml = replaced.iter().fold(example, |yaml, (old, new)| {
            assert!(yaml.contains(old), "{old}");
            yaml.replace(old, new)
        });
        if classical {
            yaml += "  crypto:\n    allowClassicalKeyExchange: true\n";
        }
        fs::write(self.path("yaml/link.yaml"), yaml).unwrap();
        // Files are watched, but whoever asks has it sooner.
        let hup = Command::new("kill").args(["-HUP", &self.relay.0.id().to_string()]).status().unwrap();
        assert!(hup.success());
        self.until_condition("PeerConnected", "NeverConnected");
    }

    fn status(&self) -> Ran {
        securelink(&["status", "-o", "json", "--state-dir", self.path("state").to_str().unwrap()])
    }

    fn until_condition(&self, kind: &str, reason: &str) -> Value {
        until(&format!("{kind}={reason}"), || {
            let status = self.status();
            let links = serde_json::from_str::<Value>(&status.out).ok()?;
            let conditions = links["links"][0]["status"]["conditions"].as_array()?.clone();
            conditions.into_iter().find(|condition| condition["type"] == kind && condition["reason"] == reason)
        })
    }

    /// Runs the commands of the page's sections, with the names of this test for those of the example.
    fn partner(&self, section: &str) -> String {
        let ran = self.try_partner(section);
        assert!(ran.code == 0, "{}\n{}\n{}", ran.line, ran.out, ran.err);
        ran.out
    }

    fn try_partner(&self, section: &str) -> Ran {
        let all = blocks(PAGE, "The partner's keys");
        let (annex, keys) = all.split_first().unwrap();
        let annex = [
            ("link.interpol.example:443", format!("localhost:{}", self.port)),
            ("sha256:9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f", self.fingerprint.clone()),
        ]
        .iter()
        .fold(annex.clone(), |annex, (old, new)| {
            assert!(annex.contains(old), "{old}");
            annex.replace(old, new)
        });
        let wanted = if section == "The partner's keys" { keys.to_vec() } else { blocks(PAGE, section) };
        assert!(!wanted.is_empty(), "{section} has commands");
        let script = format!("set -eu\n{annex}\n{}", wanted.join("\n"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(self.path("partner"));
        // A proxy of whoever runs the tests is not meant.
        for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            bash.env_remove(name);
        }
        Ran::of(&mut bash, "")
    }

    /// Answers one request a connection, as a service would, until the test ends.
    fn serve_http(&self) {
        let service = self.service.try_clone().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut client, _)) = service.accept() {
                let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
                let host = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty());
                let host = host.filter_map(|line| Some(line.strip_prefix("Host: ")?.to_owned())).last();
                let body = format!("for {}\n", host.unwrap_or_default());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = client.write_all((head + &body).as_bytes());
            }
        });
    }
}

/// Starts `securelink run` and waits for the object it prints.
fn run(folder: &Path) -> (Running, Value) {
    let (yaml, state) = (folder.join("yaml"), folder.join("state"));
    let line = ["run", "-f", yaml.to_str().unwrap(), "--state-dir", state.to_str().unwrap(), "--init"];
    let mut command = command(&[&line[..], &["--local", "off", "-o", "json"]].concat());
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut text = String::new();
    for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
        text += &line.unwrap();
        if let Ok(started) = serde_json::from_str(&text) {
            return (running, started);
        }
    }
    panic!("it ended at once: {text}");
}

/// The commands below a heading of the page.
fn blocks(page: &str, section: &str) -> Vec<String> {
    let from = page.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let section = &page[from + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    section.split("```sh\n").skip(1).map(|rest| rest[..rest.find("```").unwrap()].to_owned()).collect()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Debian's curl has no X25519MLKEM768: this link allows the classical key exchange.
#[test]
fn the_page_leads_a_partner_with_openssl_and_curl_to_the_service() {
    if !is_there("curl") || !is_there("openssl") {
        return skipped("curl or openssl is not there; `make tools` installs it");
    }
    let sides = Sides::new(true);
    sides.serve_http();
    assert_eq!(sides.partner("curl"), "for notices\nfor notices.records.example\n");
    sides.until_condition("Agreed", "PeerAsserted");
    sides.until_condition("Ready", "Ready");
    // What curl says of a refusal, as the page has it: a cut with its reason, and no byte.
    let state = sides.path("state");
    let cut = ["cut", "liaison/frontex", "--reason", "incident 114", "--state-dir", state.to_str().unwrap()];
    securelink(&cut).expect(0);
    let ran = sides.try_partner("curl");
    assert!(ran.code != 0 && ran.out.is_empty() && ran.err.contains("403"), "{}", ran.err);
    sides.until_condition("Agreed", "CutHere");
}

#[test]
fn a_partner_without_the_post_quantum_exchange_is_refused_until_both_sides_opt_out() {
    if !is_there("curl") || !is_there("openssl") {
        return skipped("curl or openssl is not there; `make tools` installs it");
    }
    let sides = Sides::new(false);
    let ran = sides.try_partner("curl");
    assert!(ran.code != 0 && ran.out.is_empty(), "{}", ran.err);
    sides.until_condition("PeerConnected", "ClassicalKeyExchange");
}

/// Where .ci/tools puts Envoy.
fn envoy() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let envoy = cache.join("securelink-tools/envoy-1.40.0/envoy/_bin/envoy");
    envoy.is_file().then_some(envoy)
}

/// An Envoy with the page's configuration, and where it listens.
fn start_envoy(envoy: &Path, sides: &Sides) -> (Running, SocketAddr) {
    let folder = sides.path("partner");
    let replaced = [
        ("port_value: 8443", "port_value: 0".to_owned()),
        (
            "{address: link.interpol.example, port_value: 443}",
            format!("{{address: 127.0.0.1, port_value: {}}}", sides.port),
        ),
        ("sni: link.interpol.example", "sni: localhost".to_owned()),
        ("exact: link.interpol.example", "exact: localhost".to_owned()),
    ];
    let config = replaced.iter().fold(ENVOY_CONFIG.to_owned(), |config, (old, new)| {
        assert!(config.contains(old), "{old}");
        config.replace(old, new)
    });
    assert!(config.contains(AGREEMENT));
    let admin = "admin:\n  address: {socket_address: {address: 127.0.0.1, port_value: 0}}\n";
    fs::write(folder.join("envoy.yaml"), config + admin).unwrap();
    let child = Command::new(envoy)
        .args(["-c", "envoy.yaml", "--admin-address-path", "admin", "--use-dynamic-base-id", "--concurrency", "1"])
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("envoy.log")).unwrap())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let address = until("Envoy listens", || {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "Envoy ended: {}", fs::read_to_string(folder.join("envoy.log")).unwrap());
        let admin: SocketAddr = fs::read_to_string(folder.join("admin")).ok()?.trim().parse().ok()?;
        let listeners = get(admin, "/listeners?format=json").ok()?;
        let listeners: Value = serde_json::from_str(&listeners).ok()?;
        let port = listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64()?;
        Some(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).ok()?)))
    });
    (running, address)
}

/// The object in an answer, which may come in chunks, of which a small one is one.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let object = answer.find('{').zip(answer.rfind('}')).and_then(|(from, to)| answer.get(from..=to));
    Ok(object.unwrap_or_default().to_owned())
}

#[test]
fn envoy_makes_a_tunnel_of_each_connection() {
    let Some(envoy) = envoy() else { return skipped("Envoy 1.40 is not there; `make tools` installs it") };
    if !is_there("openssl") {
        return skipped("openssl is not there; `make tools` installs it");
    }
    let sides = Sides::new(false);
    let (_running, address) = start_envoy(&envoy, &sides);
    let connect = || {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    };
    sides.service.set_nonblocking(true).unwrap();
    let accept = || {
        let (service, _) = until("the service is dialed", || sides.service.accept().ok());
        service.set_nonblocking(false).unwrap();
        service.set_read_timeout(Some(DEADLINE)).unwrap();
        service
    };
    // A megabyte each way, whole.
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut client = connect();
    let mut writing = client.try_clone().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || writing.write_all(&sent));
    let mut service = accept();
    let mut come = vec![0; bytes.len()];
    service.read_exact(&mut come).unwrap();
    assert!(come == bytes, "what was sent came");
    writer.join().unwrap().unwrap();
    let mut back = vec![0; bytes.len()];
    let mut writing = service.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&come));
    client.read_exact(&mut back).unwrap();
    assert!(back == bytes, "and came back");
    writer.join().unwrap().unwrap();
    sides.until_condition("PeerConnected", "Connected");
    sides.until_condition("Ready", "Ready");
    // What the page says of ends. Here each is an end; that some were aborts, Envoy does not pass on.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(service.read(&mut [0; 9]).unwrap(), 0, "a client's end is one for the service");
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "and ends the other direction");
    let (mut client, service) = (connect(), accept());
    service.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "a service's end is one for the client");
    // Closed with something unread: RST.
    let (mut client, mut service) = (connect(), accept());
    client.write_all(b"unread").unwrap();
    service.read_exact(&mut [0; 1]).unwrap();
    drop(service);
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0, "a service's abort looks like an end");
    let (mut client, mut service) = (connect(), accept());
    service.write_all(b"unread").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    drop(client);
    assert_eq!(service.read(&mut [0; 9]).unwrap(), 0, "a client's abort looks like an end");
}
