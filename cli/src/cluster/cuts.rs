//! The emergency brake in a cluster: `LinkCut`s made, found, waited for and removed.

use std::time::Duration;

use securelink_crds::{LinkCut, LinkCutSpec, LinkRef};

use super::{Cluster, ClusterError, Scope};

/// What a cut is aimed at, in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// One link.
    Link(String),
    /// Every link to one organization.
    TrustDomain(String),
}

impl Aim {
    /// The name of our cut. A link's name has no dot, so the two never meet.
    fn name(&self) -> String {
        match self {
            Self::Link(link) => format!("cut-{link}"),
            Self::TrustDomain(domain) => format!("cut.{domain}"),
        }
    }

    /// Whether a cut is aimed at just this.
    pub fn is_of(&self, cut: &LinkCut) -> bool {
        match self {
            Self::Link(link) => cut.spec.link_ref.as_ref().is_some_and(|aimed| aimed.name == *link),
            Self::TrustDomain(domain) => cut.spec.trust_domain.as_ref() == Some(domain),
        }
    }
}

/// A cut that is in force.
#[derive(Debug)]
pub struct Pulled {
    /// The cut.
    pub cut: LinkCut,
    /// Whether it was made just now.
    pub fresh: bool,
}

impl Cluster {
    /// Cuts, unless our own cut of this aim is there. Nothing that has its name keeps it from cutting: then the name is
    /// another.
    pub async fn cut(&self, namespace: &str, aim: &Aim, reason: &str) -> Result<Pulled, ClusterError> {
        let name = aim.name();
        let (link_ref, trust_domain) = match aim {
            Aim::Link(link) => (Some(LinkRef { name: link.clone() }), None),
            Aim::TrustDomain(domain) => (None, Some(domain.clone())),
        };
        let mut cut = LinkCut::new(&name, LinkCutSpec { link_ref, trust_domain, reason: reason.to_owned() });
        if let Some(cut) = self.create(namespace, &cut, false).await? {
            return Ok(Pulled { cut, fresh: true });
        }
        let standing = self.get::<LinkCut>(namespace, &name).await?;
        let ours = |standing: &LinkCut| aim.is_of(standing) && standing.metadata.deletion_timestamp.is_none();
        if let Some(cut) = standing.filter(ours) {
            return Ok(Pulled { cut, fresh: false });
        }
        cut.metadata.name = None;
        cut.metadata.generate_name = Some(format!("{name}-"));
        let made = self.create(namespace, &cut, false).await?;
        let taken = || {
            ClusterError::InTheWay(format!("the name {name} is taken in {namespace}; apply a LinkCut of another name"))
        };
        Ok(Pulled { cut: made.ok_or_else(taken)?, fresh: true })
    }

    /// The cut as soon as every relay has obeyed, or as it was last seen when the time was over; none if it was taken back.
    pub async fn obeyed(&self, cut: &LinkCut, limit: Duration) -> Result<Option<LinkCut>, ClusterError> {
        let (meta, mut last) = (&cut.metadata, Some(cut.clone()));
        let scope = Scope::one(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        self.follow::<LinkCut, ()>(scope, limit, |seen| {
            if !seen.unreadable.is_empty() {
                return None;
            }
            last = seen.items.into_iter().find(|seen| seen.metadata.uid == meta.uid);
            let pending = last.as_ref().map_or(Some(0), |cut| cut.status.as_ref()?.pending);
            (pending == Some(0)).then_some(())
        })
        .await?;
        Ok(last)
    }

    /// Takes a cut back. Whether it was there.
    pub async fn release(&self, cut: &LinkCut) -> Result<bool, ClusterError> {
        self.delete(cut).await
    }
}
