//! Where most tests begin: an installation whose operator leads, and links that are made as far as they can be where no
//! relay starts.

use anyhow::Result;
use securelink_crds::SecureLink;
use securelink_crds::conditions::ConditionType;
use serde_json::Value;

use super::{Operator, Plane, Proxy, Site};

/// An installation, what stands before its API server, and its operator.
pub type Installed<'a> = (Site<'a>, Proxy, Operator);

impl Plane {
    /// An installation whose operator leads, and nothing declared.
    pub async fn leading(&self) -> Result<Installed<'_>> {
        let site = Site::new(self).await?;
        let proxy = Proxy::start(self).await?;
        let mut operator = site.operator(&proxy, "one").await?;
        operator.leads().await?;
        Ok((site, proxy, operator))
    }

    /// One whose identity is ready.
    pub async fn ready(&self) -> Result<Installed<'_>> {
        let (site, proxy, operator) = self.leading().await?;
        site.identity().await?;
        site.identity_is_ready().await?;
        Ok((site, proxy, operator))
    }

    /// One with these links, whose relays have their pods.
    pub async fn with_links(&self, links: Vec<Value>) -> Result<Installed<'_>> {
        let (site, proxy, operator) = self.ready().await?;
        let mut names = Vec::new();
        for link in links {
            names.extend(site.links.create::<SecureLink>(link).await?.metadata.name);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in &names {
            site.until_says(name, ConditionType::RelayAvailable, "Pending").await?;
        }
        site.until_pods(&names).await?;
        Ok((site, proxy, operator))
    }
}
