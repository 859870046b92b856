//! The certificates, keys and tokens of a control plane, made anew for each.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::Config;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::json;

use super::{ADMIN, API_PORT, bearer};

/// The API server's certificate.
pub(super) const SERVING: &str = "serving.pem";
/// Its key.
pub(super) const SERVING_KEY: &str = "serving.key";
/// The key that signs tokens of accounts.
pub(super) const ACCOUNT_KEY: &str = "accounts.key";
/// By which they are checked.
pub(super) const ACCOUNT_PUBLIC: &str = "accounts.pub";
/// The tokens that are known without an account.
pub(super) const TOKENS: &str = "tokens.csv";

/// What clients need of them.
pub(super) struct Certificates {
    folder: PathBuf,
    authority: Vec<u8>,
}

impl Certificates {
    /// Makes them in a folder, for an API server at that address.
    pub(super) fn make(folder: &Path, address: Ipv4Addr) -> Result<Self> {
        let root_key = KeyPair::generate().context("a key")?;
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = root.self_signed(&root_key).context("a root")?.der().to_vec();
        let key = KeyPair::generate().context("a key")?;
        let mut serving = CertificateParams::default();
        serving.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(address))];
        let serving = serving.signed_by(&key, &Issuer::new(root, &root_key)).context("a serving certificate")?;
        let accounts = KeyPair::generate().context("a key")?;
        for (name, text) in [
            (SERVING, serving.pem()),
            (SERVING_KEY, key.serialize_pem()),
            (ACCOUNT_KEY, accounts.serialize_pem()),
            (ACCOUNT_PUBLIC, accounts.public_key_pem()),
            (TOKENS, format!("{ADMIN},{ADMIN},{ADMIN},system:masters\n")),
        ] {
            std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(Self { folder: folder.to_owned(), authority })
    }

    /// How to reach the API server at an address, with a token or as nobody.
    pub(super) fn config(&self, address: Ipv4Addr, token: Option<&str>) -> Result<Config> {
        let mut config = Config::new(format!("https://{address}:{API_PORT}").parse().context("an address")?);
        config.root_cert = Some(vec![self.authority.clone()]);
        config.default_retry = false;
        // Watches are silent for long, and what a proxy carries has its own deadlines.
        config.read_timeout = None;
        if let Some(token) = token {
            config.auth_info = bearer(token);
        }
        Ok(config)
    }

    /// The same as a file for programs that are no tests. They do not judge the server's certificate: it is on loopback.
    pub(super) fn kubeconfig(&self, address: Ipv4Addr, token: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{token}.kubeconfig"));
        let cluster = json!({ "server": format!("https://{address}:{API_PORT}"), "insecure-skip-tls-verify": true });
        write_kubeconfig(&path, &cluster, token)?;
        Ok(path)
    }
}

/// Writes a kubeconfig of one cluster and one token.
pub(super) fn write_kubeconfig(path: &Path, cluster: &serde_json::Value, token: &str) -> Result<()> {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "plane", "cluster": cluster }],
        "users": [{ "name": "user", "user": { "token": token } }],
        "contexts": [{ "name": "plane", "context": { "cluster": "plane", "user": "user" } }],
        "current-context": "plane",
    });
    std::fs::write(path, text.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
