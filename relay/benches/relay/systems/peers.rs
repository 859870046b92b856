//! The relays of others: their configurations are the files of `relay/benches/peers`, filled in.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::install::{NGINX_STREAM, envoy};
use super::organization::Authority;
use super::{Kind, Side, System, free_port};
use crate::process::Process;

/// One side's files.
pub struct Configured {
    folder: TempDir,
    own: Authority,
}

/// A side's configuration by its file's name: `here` is the client's.
fn template(kind: Kind, side: &str) -> (&'static str, &'static str) {
    macro_rules! file {
        ($name:literal) => {
            ($name, include_str!(concat!("../../peers/", $name)))
        };
    }
    match (kind, side) {
        (Kind::HaProxy, "here") => file!("haproxy-here.cfg"),
        (Kind::HaProxy, _) => file!("haproxy-there.cfg"),
        (Kind::Nginx, "here") => file!("nginx-here.conf"),
        (Kind::Nginx, _) => file!("nginx-there.conf"),
        (Kind::Stunnel, "here") => file!("stunnel-here.conf"),
        (Kind::Stunnel, _) => file!("stunnel-there.conf"),
        (Kind::EnvoyTls, "here") => file!("envoy-tls-here.yaml"),
        (Kind::EnvoyTls, _) => file!("envoy-tls-there.yaml"),
        (Kind::EnvoyHttp2, "here") => file!("envoy-h2-here.yaml"),
        (Kind::EnvoyHttp2, _) => file!("envoy-h2-there.yaml"),
        (Kind::Ours | Kind::Again | Kind::InPlace | Kind::Copy | Kind::Direct, _) => unreachable!("not of others"),
    }
}

/// Both sides, started.
pub fn start(kind: Kind, service: SocketAddr) -> System {
    let (here, there) = (Authority::generate(), Authority::generate());
    let (here_root, there_root) = (here.pem(), there.pem());
    let (here, there) = (Configured::new(kind, here, &there_root), Configured::new(kind, there, &here_root));
    let ports = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let relays = vec![here.run(kind, ("here", ports[0]), ports[1]), there.run(kind, ("there", ports[1]), service)];
    System { kind, address: ports[0], listener: Some(ports[1]), relays, side: Side::Peer(vec![here, there]) }
}

impl Configured {
    fn new(kind: Kind, own: Authority, authority: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("securelink-bench-").tempdir().unwrap();
        fs::write(folder.path().join("authority.pem"), authority).unwrap();
        let configured = Self { folder, own };
        configured.issue(kind);
        configured
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another leaf: its PEM.
    fn issue(&self, kind: Kind) -> String {
        let (chain, key) = self.own.leaf();
        let pem = format!("{chain}{key}");
        fs::write(self.file("certificate.pem"), &pem).unwrap();
        if matches!(kind, Kind::EnvoyTls | Kind::EnvoyHttp2) {
            let certificate = json!({
                "certificate_chain": {"inline_string": chain},
                "private_key": {"inline_string": key},
            });
            let secret = json!({"resources": [{
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": "own",
                "tls_certificate": certificate,
            }]});
            // It watches for a file that is moved here.
            fs::write(self.file("next.json"), secret.to_string()).unwrap();
            fs::rename(self.file("next.json"), self.file("secret.json")).unwrap();
        }
        pem
    }

    fn run(&self, kind: Kind, (side, listen): (&str, SocketAddr), to: SocketAddr) -> Process {
        let (name, template) = template(kind, side);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let filled = [
            ("folder", text(self.folder.path().to_owned())),
            ("listen", listen.to_string()),
            ("listen_port", listen.port().to_string()),
            ("to", to.to_string()),
            ("to_port", to.port().to_string()),
            ("certificate", text(self.file("certificate.pem"))),
            ("key", text(self.file("certificate.pem"))),
            ("authority", text(self.file("authority.pem"))),
            ("nginx_stream_module", NGINX_STREAM.to_owned()),
        ]
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
        let path = text(self.file(name));
        fs::write(&path, filled).unwrap();
        let program = program(kind);
        let folder = text(self.folder.path().to_owned());
        let arguments: &[&str] = match kind {
            Kind::HaProxy => &["-db", "-q", "-f", &path],
            Kind::Nginx => &["-p", &folder, "-c", &path],
            Kind::Stunnel => &[&path],
            _ => &[
                "-c",
                &path,
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--service-node",
                "bench",
                "--service-cluster",
                "bench",
                "-l",
                "critical",
            ],
        };
        Process::hold(program.to_str().unwrap(), arguments)
    }
}

fn program(kind: Kind) -> PathBuf {
    match kind {
        Kind::HaProxy => Path::new("/usr/sbin/haproxy").into(),
        Kind::Nginx => Path::new("/usr/sbin/nginx").into(),
        Kind::Stunnel => Path::new("/usr/bin/stunnel4").into(),
        _ => envoy().unwrap_or_else(|| Path::new("envoy").into()),
    }
}

/// The first line of what it says of its version.
pub fn version(kind: Kind) -> String {
    let argument = match kind {
        Kind::HaProxy | Kind::Nginx => "-v",
        Kind::Stunnel => "-version",
        _ => "--version",
    };
    let Ok(said) = Command::new(program(kind)).arg(argument).output() else { return "not installed".to_owned() };
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    let line = said.lines().map(str::trim).find(|line| line.contains(|c: char| c.is_ascii_digit()));
    // Envoy's begins with where it lies.
    let line = line.unwrap_or("unknown");
    line.split_once("version: ")
        .filter(|(before, _)| before.contains('/'))
        .map_or(line, |(_, after)| after)
        .trim()
        .to_owned()
}

/// Gives a running relay another leaf, in the least disruptive way it has.
pub async fn renew(kind: Kind, configured: &Configured, relay: &mut Process) {
    let pem = configured.issue(kind);
    match kind {
        Kind::HaProxy => {
            let file = configured.file("certificate.pem");
            let file = file.to_str().unwrap();
            admin(configured, &format!("set ssl cert {file} <<\n{}\n\n", pem.trim_end())).await;
            admin(configured, &format!("commit ssl cert {file}\n")).await;
        }
        Kind::Nginx | Kind::Stunnel => {
            relay.ask("");
        }
        // Envoy watches.
        _ => {}
    }
}

/// One command to the runtime interface.
async fn admin(configured: &Configured, command: &str) {
    let mut socket = UnixStream::connect(configured.file("admin")).await.unwrap();
    socket.write_all(command.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.contains("created") || answer.contains("updated") || answer.contains("Success"),
        "haproxy: {answer}"
    );
}
