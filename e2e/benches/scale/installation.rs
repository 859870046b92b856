//! An installation over many namespaces: in each an identity, and a Service that links export.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use securelink_crds::{LinkIdentity, SecureLink};
use securelink_e2e::harness::tell;
use securelink_e2e::plane::{Operator, Plane, Profile, Proxy, Site};
use serde_json::{Value, json};

use crate::options::Options;

/// Requests of this bench at one time.
const AT_ONCE: usize = 16;

/// It, and the operator.
pub struct Installation<'a> {
    /// One for each namespace with links.
    pub sites: Vec<Site<'a>>,
    /// What the operator asks of the API server goes through here.
    pub proxy: Proxy,
    /// The operator, which leads.
    pub operator: Operator,
    /// Its program.
    pub program: PathBuf,
}

impl<'a> Installation<'a> {
    /// Makes one.
    pub async fn new(plane: &'a Plane, options: &Options) -> Result<Self> {
        let namespaces = options.namespaces;
        tell(&format!("scale: an installation with {namespaces} namespaces"));
        let mut sites = vec![Site::new(plane).await?];
        for _ in 1..namespaces {
            let more = sites[0].elsewhere(plane.namespace("links").await?);
            more.grant().await?;
            sites.push(more);
        }
        let proxy = Proxy::start(plane).await?;
        let program = match &options.operator {
            Some(program) => program.clone(),
            None => Operator::built(Profile::Release).await?,
        };
        let mut operator = sites[0].operator_of(&program, &proxy, "one")?;
        operator.leads().await?;
        for (number, site) in sites.iter().enumerate() {
            site.links.create::<Service>(service()).await?;
            site.links.create::<LinkIdentity>(identity(number)).await?;
        }
        for site in &sites {
            site.identity_is_ready().await?;
        }
        Ok(Self { sites, proxy, operator, program })
    }

    /// Declares so many links with so many relays each, as fast as the API server takes them; how long that took.
    pub async fn declare(&self, links: usize, relays: u16) -> Result<Duration> {
        let began = Instant::now();
        let making = (0..links).map(|number| {
            let site = &self.sites[number % self.sites.len()];
            async move { site.links.create::<SecureLink>(link(number, relays)).await.map(drop) }
        });
        stream::iter(making).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.context("declare the links")?;
        Ok(began.elapsed())
    }
}

/// Each namespace is of an organization of its own: between two organizations there is one link.
fn identity(number: usize) -> Value {
    let spec = json!({ "trustDomain": format!("org-{number}.example"), "issuer": { "builtIn": {} } });
    json!({ "metadata": { "name": "default" }, "spec": spec })
}

fn service() -> Value {
    let spec = json!({ "selector": { "app": "notices" }, "ports": [{ "port": 8443 }] });
    json!({ "metadata": { "name": "notices" }, "spec": spec })
}

/// The name of a link.
pub fn name(number: usize) -> String {
    format!("partner-{number}")
}

fn link(number: usize, relays: u16) -> Value {
    let name = name(number);
    json!({
        "metadata": { "name": name },
        "spec": {
            "identityRef": { "name": "default" },
            "peer": {
                "trustDomain": format!("{name}.example"),
                "fingerprints": [format!("sha256:{number:064x}")],
                "endpoints": [{ "host": format!("link.{name}.example"), "port": 443 }],
            },
            "agreement": {
                "reference": format!("MoU-{number}"),
                "digest": format!("sha256:{number:064x}"),
                "effectiveFrom": "2026-01-01T00:00:00Z",
                "expires": "2036-01-01T00:00:00Z",
            },
            "exports": [{
                "name": "notices",
                "target": { "service": "notices", "port": 8443 },
                "dataClass": "strategic",
                "limits": { "connections": 1000 },
            }],
            "imports": [{
                "name": "siena",
                "port": 8443,
                "dataClass": "operational",
                "clients": [{ "podSelector": { "matchLabels": { "app": "case-desk" } } }],
            }],
            "expose": { "type": "ClusterIP", "hostname": format!("{name}.org.example"), "port": 443 },
            "relay": { "replicas": relays },
        },
    })
}
