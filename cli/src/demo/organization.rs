//! One organization of the demo: its folder, its YAML, its runtime, its service, and how it is spoken to.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use securelink_crds::SecureLink;
use securelink_crds::conditions::{Condition, ConditionType, find, is_true};
use securelink_relay_config::{LinkRef, LinkReport, RecordLayer};
use tokio::net::TcpSocket;

use super::service::Service;
use super::yaml::{Example, Site, text};
use super::{SOON, until};
use crate::control::Client;
use crate::output::clean;
use crate::runtime::{LinkStatus, Options, Runtime};
use crate::state::StateDir;

/// Streams of the demo end at once or are reset.
const DRAIN: Duration = Duration::from_millis(500);

/// One organization.
pub(super) struct Organization {
    /// How it calls itself.
    pub(super) name: &'static str,
    /// Its trust domain.
    pub(super) trust_domain: String,
    /// What the other side pins.
    pub(super) fingerprint: String,
    /// Its link.
    pub(super) link: LinkRef,
    /// Where the peer reaches it.
    pub(super) port: u16,
    /// Where its people reach the other side's service.
    pub(super) import: u16,
    /// What it exports.
    pub(super) service: Service,
    example: Example,
    dir: PathBuf,
    runtime: Runtime,
    /// Its ports, until its link listens on them.
    held: Cell<Vec<TcpSocket>>,
}

impl Organization {
    /// Founds one: writes its identity and starts its runtime, which makes its root.
    pub(super) async fn found(folder: &Path, example: Example) -> anyhow::Result<Self> {
        let dir = folder.join(example.folder);
        fs::create_dir(&dir)?;
        fs::write(dir.join("identity.yaml"), text(&example.identity()?)?)?;
        let declared = example.example_link()?.metadata;
        let link =
            LinkRef { namespace: declared.namespace.unwrap_or_default(), name: declared.name.unwrap_or_default() };
        let ([port, import], held) = free_ports()?;
        let runtime = Runtime::start(Options {
            files: vec![dir.clone()],
            state_dir: dir.join("state"),
            init: true,
            listen: [(link.to_string(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))].into(),
            allow_loopback_peers: true,
            records: RecordLayer::default(),
            local: None,
            watch: false,
        })
        .await?;
        let service = Service::start(dir.join("service.bin")).await?;
        let roots = StateDir::open(&dir.join("state"), false)?.fingerprints()?;
        let root = roots.first().context("no root was made")?;
        let (trust_domain, fingerprint) = (root.trust_domain.to_string(), root.fingerprint.to_string());
        let name = example.name;
        Ok(Self {
            name,
            trust_domain,
            fingerprint,
            link,
            port,
            import,
            service,
            example,
            dir,
            runtime,
            held: Cell::new(held),
        })
    }

    /// Its folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its state folder, for reading.
    pub(super) fn state(&self) -> anyhow::Result<StateDir> {
        Ok(StateDir::open(&self.dir.join("state"), false)?)
    }

    /// The lines it hands over: trust domain, endpoint, fingerprint.
    pub(super) fn lines(&self) -> [String; 4] {
        let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string();
        [self.name.to_owned(), self.trust_domain.clone(), endpoint, self.fingerprint.clone()]
    }

    /// What its link needs to know of this machine and of the other side.
    pub(super) fn site(&self, peer: &Self, digest: &str) -> Site {
        Site {
            peer_port: peer.port,
            peer_fingerprint: peer.fingerprint.clone(),
            port: self.port,
            service: self.service.port(),
            import: self.import,
            digest: digest.to_owned(),
        }
    }

    /// Its link for this machine, not written yet.
    pub(super) fn draft(&self, peer: &Self, digest: &str) -> anyhow::Result<SecureLink> {
        self.example.link(&self.site(peer, digest))
    }

    /// Writes its link and has the files read again.
    pub(super) async fn declare(&self, link: &SecureLink) -> anyhow::Result<()> {
        fs::write(self.dir.join("link.yaml"), text(link)?)?;
        drop(self.held.take());
        let report = self.runtime.reload().await;
        let problems = report.problems.iter().map(ToString::to_string);
        let refused = report.refused.iter().map(|refused| refused.message.clone());
        match problems.chain(refused).next() {
            None => Ok(()),
            Some(problem) => anyhow::bail!("{}'s YAML was not taken: {problem}", self.name),
        }
    }

    /// Its link as it is declared.
    pub(super) fn declared(&self) -> anyhow::Result<SecureLink> {
        Ok(serde_saphyr::from_str(&fs::read_to_string(self.dir.join("link.yaml"))?)?)
    }

    /// Its control socket.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.dir.join("state")).await?)
    }

    /// Its link's status.
    pub(super) fn status(&self) -> Option<LinkStatus> {
        self.runtime.status().into_iter().find(|status| status.link == self.link)
    }

    /// What its relay reports.
    pub(super) fn report(&self) -> Option<LinkReport> {
        self.status()?.report
    }

    /// One condition of its link.
    pub(super) fn condition(&self, kind: ConditionType) -> Option<Condition> {
        find(&self.status()?.status.conditions, kind).cloned()
    }

    /// Waits until its link is Ready.
    pub(super) async fn ready(&self, deadline: Duration) -> anyhow::Result<()> {
        let what = format!("Ready at {}", self.name);
        until(deadline, &what, async || {
            let status = self.status().ok_or("the link is not there")?;
            if is_true(&status.status.conditions, ConditionType::Ready) { Ok(()) } else { Err(why(&status)) }
        })
        .await
    }

    /// Waits until its side says that the agreement gate is shut for `reason`, and returns what it says.
    pub(super) async fn disagrees(&self, reason: &str) -> anyhow::Result<String> {
        let what = format!("{reason} at {}", self.name);
        until(SOON, &what, async || {
            let agreed = self.condition(ConditionType::Agreed).ok_or("there is no status")?;
            if agreed.status == "False" && agreed.reason == reason {
                return Ok(clean(&agreed.message));
            }
            Err(format!("Agreed is {} with {}: {}", agreed.status, agreed.reason, clean(&agreed.message)))
        })
        .await
    }

    /// Stops it.
    pub(super) async fn close(&self) {
        self.runtime.shutdown(DRAIN).await;
    }
}

/// The first cause.
fn why(status: &LinkStatus) -> String {
    let wrong = status.status.conditions.iter().find(|condition| condition.status != "True");
    let condition =
        |wrong: &Condition| format!("{} is {}, {}: {}", wrong.type_, wrong.status, wrong.reason, clean(&wrong.message));
    wrong.map_or_else(|| "nothing is known yet".to_owned(), condition)
}

/// Ports the system gives, bound but not listened on, so that nobody else gets them and nobody is answered.
fn free_ports<const N: usize>() -> anyhow::Result<([u16; N], Vec<TcpSocket>)> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        *port = socket.local_addr()?.port();
        held.push(socket);
    }
    Ok((ports, held))
}
