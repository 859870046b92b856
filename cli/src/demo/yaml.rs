//! The two organizations' YAML: the examples of `crds`, with what this machine needs put in their place.

use jiff::{Span, Timestamp};
use securelink_crds::conditions::Time;
use securelink_crds::load::{Object, Source, load};
use securelink_crds::{BuiltInIssuer, Endpoint, ExportTarget, IssuerSpec, LinkIdentity, SecureLink};
use serde::Serialize;

/// An organization's examples.
#[derive(Clone, Copy)]
pub(super) struct Example {
    /// How it calls itself.
    pub(super) name: &'static str,
    /// Its folder.
    pub(super) folder: &'static str,
    identity: &'static str,
    link: &'static str,
}

/// The first.
pub(super) const INTERPOL: Example = Example {
    name: "INTERPOL",
    folder: "interpol",
    identity: include_str!("../../../crds/examples/interpol/identity.yaml"),
    link: include_str!("../../../crds/examples/interpol/link.yaml"),
};
/// The second.
pub(super) const EUROPOL: Example = Example {
    name: "Europol",
    folder: "europol",
    identity: include_str!("../../../crds/examples/europol/identity.yaml"),
    link: include_str!("../../../crds/examples/europol/link.yaml"),
};
/// The one that has no agreement with anybody, and does everything as Europol does it.
pub(super) const STRANGER: Example = Example { name: "the stranger", folder: "stranger", ..EUROPOL };
/// Another partner of Europol's, as in the example of a partner without our software.
pub(super) const OTHER_PARTNER: &str = "frontex.example";

/// What this machine gives a link.
pub(super) struct Site {
    /// Where the other side listens.
    pub(super) peer_port: u16,
    /// What the other side handed over.
    pub(super) peer_fingerprint: String,
    /// Where this side listens; 0 is nowhere.
    pub(super) port: u16,
    /// Where its exported service is.
    pub(super) service: u16,
    /// Where its import is to listen.
    pub(super) import: u16,
    /// Of the memorandum's text.
    pub(super) digest: String,
}

impl Example {
    /// Its identity. A Secret needs a cluster, so each has an issuer of its own.
    pub(super) fn identity(&self) -> anyhow::Result<LinkIdentity> {
        let Object::LinkIdentity(mut identity) = only(self.identity)? else {
            anyhow::bail!("the example of {} is not a LinkIdentity", self.name);
        };
        identity.spec.issuer = IssuerSpec { built_in: Some(BuiltInIssuer {}), ..IssuerSpec::default() };
        identity.spec.expected_fingerprint = None;
        Ok(*identity)
    }

    /// Its link as the example has it.
    pub(super) fn example_link(&self) -> anyhow::Result<SecureLink> {
        let Object::SecureLink(link) = only(self.link)? else {
            anyhow::bail!("the example of {} is not a SecureLink", self.name);
        };
        Ok(*link)
    }

    /// Its link on this machine.
    pub(super) fn link(&self, site: &Site) -> anyhow::Result<SecureLink> {
        let mut link = self.example_link()?;
        let spec = &mut link.spec;
        spec.peer.fingerprints = vec![site.peer_fingerprint.clone()];
        spec.peer.endpoints = vec![Endpoint { host: LOCAL.to_owned(), port: site.peer_port }];
        spec.peer.proxy = None;
        if let Some(agreement) = &mut spec.agreement {
            agreement.digest.clone_from(&site.digest);
            agreement.effective_from = Time(days_from_now(-1)?);
            agreement.expires = Time(days_from_now(730)?);
        }
        for export in &mut spec.exports {
            let (service, namespace, host) = (None, None, Some(LOCAL.to_owned()));
            export.target = ExportTarget { service, namespace, host, port: site.service };
        }
        for import in &mut spec.imports {
            import.port = site.import;
        }
        if let Some(expose) = &mut spec.expose {
            expose.hostname = Some(LOCAL.to_owned());
            expose.port = site.port;
        }
        Ok(link)
    }
}

/// Loopback, as an address: no resolver has a say.
pub(super) const LOCAL: &str = "127.0.0.1";

fn only(text: &str) -> anyhow::Result<Object> {
    let loaded = load(&[Source { name: "example", text }]);
    match (loaded.objects.into_iter().next(), loaded.problems.first()) {
        (Some(object), None) => Ok(object),
        (_, problem) => anyhow::bail!("an example of this program does not load: {problem:?}; report it"),
    }
}

/// Whole seconds, as people write them.
fn days_from_now(days: i64) -> anyhow::Result<Timestamp> {
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    Ok(now.checked_add(Span::new().hours(days * 24))?)
}

/// An object as a file.
pub(super) fn text(object: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(object)?)
}
