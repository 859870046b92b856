//! A cluster as the kubeconfig names it. The only module that speaks to an API server; it prints nothing and asks nobody.

mod cuts;
mod error;
mod grants;
mod objects;
mod proxy;
mod requests;

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

pub use cuts::{Aim, Pulled};
pub use error::{Asked, ClusterError};
pub use grants::{Bound, Grant};
pub use objects::{Kind, Listed, Scope};

use crate::args::ClusterArgs;

/// A cluster, and the namespace that is meant where none is given.
pub struct Cluster {
    client: Client,
    namespace: String,
    server: String,
}

impl Cluster {
    /// Reads the kubeconfig; an API server is not asked yet. Fails where there is none, where it does not say enough, and
    /// where the program that it names for a login fails.
    pub async fn connect(args: &ClusterArgs) -> Result<Self, ClusterError> {
        let config = config(args).await?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| ClusterError::unusable(&error))?;
        Ok(Self { client, namespace, server: server.trim_end_matches('/').to_owned() })
    }

    /// The namespace that is meant where none is given.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

async fn config(args: &ClusterArgs) -> Result<Config, ClusterError> {
    let found = args.kubeconfig.as_deref().map_or_else(Kubeconfig::read, |path: &Path| Kubeconfig::read_from(path));
    let kubeconfig = match found {
        Ok(kubeconfig) => kubeconfig,
        // In a pod there is a service account instead.
        Err(error) if args.kubeconfig.is_none() && is_missing(&error) => {
            return Config::incluster().map_err(|_| ClusterError::NoKubeconfig);
        }
        Err(error) => return Err(ClusterError::Kubeconfig(error)),
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let context = args.context.as_deref();
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.map_err(ClusterError::Kubeconfig)?;
    let proxy = proxy::wanted(&kubeconfig, context, &config.cluster_url, |name| std::env::var(name).ok());
    config.proxy_url = match proxy.map(|proxy| proxy.parse()).transpose() {
        Ok(proxy) => proxy,
        Err(error) => return Err(ClusterError::Kubeconfig(KubeconfigError::ParseProxyUrl(error))),
    };
    Ok(config)
}

fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
