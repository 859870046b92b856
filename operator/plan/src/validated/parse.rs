//! From the text a person wrote to values. What fails to parse is a problem with its field, never a default.

use std::fmt::Display;

use ipnet::IpNet;
use securelink_crds::conditions::Reason;
use securelink_crds::{Contact, SecureLinkSpec, StreamLimits};
use securelink_id::{Fingerprint, TrustDomain};
use securelink_relay_config::{
    Agreement, AgreementTerm, Agreements, DataClass, Digest, Endpoint, Limits, LinkRef, LinkState, Millis, Peer,
    Protocol,
};

use super::{ValidatedExport, ValidatedExpose, ValidatedImport, ValidatedLink};
use crate::accepted::Accepted;
use crate::gathered::Mode;
use crate::hosting;
use crate::verdict::{About, Problem};

/// Port of an HTTP proxy whose URL names none (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

/// Parses `spec`, with the identity it was accepted with. The problems beside a link are those of single
/// exports, which are left out of it; without a link they say why there is none.
pub(crate) fn parse(
    link: &LinkRef,
    spec: &SecureLinkSpec,
    accepted: &Accepted,
    mode: &Mode,
) -> (Option<ValidatedLink>, Vec<Problem>) {
    let mut reader = Reader::default();
    let parsed = reader.link(link, spec, accepted, mode);
    let whole = reader.problems.iter().all(|problem| problem.about != About::Link);
    (parsed.filter(|_| whole), reader.problems)
}

/// The class as the relay's files name it.
pub(crate) fn data_class(class: securelink_crds::DataClass) -> DataClass {
    match class {
        securelink_crds::DataClass::Strategic => DataClass::Strategic,
        securelink_crds::DataClass::Operational => DataClass::Operational,
    }
}

/// Collects problems, so that a person sees all of them at once.
#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn link(
        &mut self,
        link: &LinkRef,
        spec: &SecureLinkSpec,
        accepted: &Accepted,
        mode: &Mode,
    ) -> Option<ValidatedLink> {
        let own = accepted.identity.trust_domain.clone();
        let peer = self.peer(spec, &own);
        let max_staleness = self.ok("spec.maxStaleness", spec.max_staleness.parse());
        let agreements = self.agreements(spec);
        let egress = self.networks("spec.peer.egressCIDRs", &spec.peer.egress_cidrs);
        let sources = spec.expose.as_ref().map_or([].as_slice(), |expose| &expose.allowed_sources);
        let allowed_sources = self.networks("spec.expose.allowedSources", sources);
        Some(ValidatedLink {
            link: link.clone(),
            own,
            peer: peer?,
            state: match spec.state {
                securelink_crds::LinkState::Active => LinkState::Active,
                securelink_crds::LinkState::Suspended => LinkState::Suspended,
            },
            agreements: agreements?,
            exports: self.exports(link, spec, mode),
            imports: imports(spec, mode),
            listen: hosting::listen(spec, mode),
            bind: hosting::bind(mode),
            expose: expose(spec, allowed_sources?),
            egress: egress?,
            pods: spec.relay.clone(),
            endpoint: spec
                .expose
                .as_ref()
                .and_then(|expose| Some(Endpoint { host: expose.hostname.clone()?, port: expose.port })),
            allow_classical_key_exchange: spec.crypto.allow_classical_key_exchange,
            max_staleness: max_staleness?,
            limits: Limits::default(),
            replicas: hosting::replicas(spec, mode),
            records: hosting::records(mode),
            dial: hosting::dial_rules(mode),
            control_cas: match mode {
                Mode::Standalone(_) => Vec::new(),
                Mode::Cluster(cluster) => cluster.installation.control_cas.clone(),
            },
            contacts: accepted.identity.contacts.iter().map(contact).collect(),
        })
    }

    fn peer(&mut self, spec: &SecureLinkSpec, own: &TrustDomain) -> Option<Peer> {
        let peer = &spec.peer;
        let trust_domain: Option<TrustDomain> = self.ok("spec.peer.trustDomain", peer.trust_domain.parse());
        if trust_domain.as_ref() == Some(own) {
            self.problem("spec.peer.trustDomain", "is our own trust domain", "write the other organization's");
        }
        let mut fingerprints: Vec<Fingerprint> = Vec::new();
        for (index, text) in peer.fingerprints.iter().enumerate() {
            fingerprints.extend(self.ok(&format!("spec.peer.fingerprints[{index}]"), text.parse::<Fingerprint>()));
        }
        fingerprints.sort_unstable();
        fingerprints.dedup();
        let proxy = peer.proxy.as_ref().map(|url| {
            let endpoint = proxy(url);
            if endpoint.is_none() {
                self.problem("spec.peer.proxy", "is not the URL of a proxy", "write http://HOST:PORT");
            }
            endpoint
        });
        Some(Peer {
            trust_domain: trust_domain?,
            fingerprints,
            endpoints: peer.endpoints.iter().map(|to| Endpoint { host: to.host.clone(), port: to.port }).collect(),
            proxy: proxy.flatten(),
            protocol: match peer.protocol {
                securelink_crds::Protocol::SecureLink => Protocol::SecureLink,
                securelink_crds::Protocol::Connect => Protocol::Connect,
            },
        })
    }

    fn agreements(&mut self, spec: &SecureLinkSpec) -> Option<Agreements> {
        let Some(agreement) = &spec.agreement else { return Some(Agreements::default()) };
        let mut term = |path: &str, reference: &str, digest: &str, from, until| {
            let digest: Digest = self.ok(&format!("{path}.digest"), digest.parse())?;
            let term = AgreementTerm { digest, from: Millis::from(from), until: Some(Millis::from(until)) };
            Some(Agreement { reference: reference.to_owned(), term })
        };
        let next = agreement.next.as_ref().map(|next| {
            term("spec.agreement.next", &next.reference, &next.digest, next.effective_from.0, next.expires.0)
        });
        let (from, until) = (agreement.effective_from.0, agreement.expires.0);
        let current = term("spec.agreement", &agreement.reference, &agreement.digest, from, until);
        Some(Agreements { current: Some(current?), next: next.flatten() })
    }

    /// All of them or none: a list with a gap would mean something else, an empty one means anywhere.
    fn networks(&mut self, field: &str, texts: &[String]) -> Option<Vec<IpNet>> {
        let mut networks = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            networks.extend(self.ok(&format!("{field}[{index}]"), text.parse::<IpNet>()));
        }
        (networks.len() == texts.len()).then(|| networks.iter().map(IpNet::trunc).collect())
    }

    fn exports(&mut self, link: &LinkRef, spec: &SecureLinkSpec, mode: &Mode) -> Vec<ValidatedExport> {
        let mut exports = Vec::new();
        for (index, export) in spec.exports.iter().enumerate() {
            let field = format!("spec.exports[{index}]");
            let limits = self.limits(export.limits.as_ref(), &format!("{field}.limits"));
            match hosting::target(link, export, &field, mode) {
                Ok(target) => exports.push(ValidatedExport {
                    name: export.name.clone(),
                    target,
                    data_class: data_class(export.data_class),
                    limits,
                }),
                Err(problem) => self.problems.push(problem),
            }
        }
        exports.sort_by(|a, b| a.name.cmp(&b.name));
        exports
    }

    fn limits(&mut self, limits: Option<&StreamLimits>, field: &str) -> Limits {
        let Some(limits) = limits else { return Limits::default() };
        let rate = limits.bytes_per_second.as_ref();
        Limits {
            connections: limits.connections,
            new_connections_per_second: limits.new_connections_per_second,
            bytes_per_second: rate.and_then(|rate| self.ok(&format!("{field}.bytesPerSecond"), rate.parse())),
        }
    }

    fn ok<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed
            .map_err(|error| {
                let text = error.to_string();
                let (message, remedy) = text.split_once("; ").unwrap_or((&text, "correct the field"));
                self.problem(field, message, remedy);
            })
            .ok()
    }

    fn problem(&mut self, field: &str, message: &str, remedy: &str) {
        self.problems.push(Problem {
            reason: Reason::Invalid,
            about: About::Link,
            field: field.to_owned(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

fn expose(spec: &SecureLinkSpec, allowed_sources: Vec<IpNet>) -> Option<ValidatedExpose> {
    spec.expose.clone().map(|declared| ValidatedExpose { declared, allowed_sources })
}

fn imports(spec: &SecureLinkSpec, mode: &Mode) -> Vec<ValidatedImport> {
    let import = |import: &securelink_crds::Import| ValidatedImport {
        name: import.name.clone(),
        listen: hosting::listen_import(import, mode),
        data_class: data_class(import.data_class),
        declared: import.clone(),
    };
    let mut imports: Vec<_> = spec.imports.iter().map(import).collect();
    imports.sort_by(|a, b| a.name.cmp(&b.name));
    imports
}

fn contact(contact: &Contact) -> securelink_relay_config::Contact {
    securelink_relay_config::Contact { name: contact.name.clone(), email: contact.email.clone() }
}

/// `http://HOST[:PORT][/]`, the host maybe an address in brackets.
fn proxy(url: &str) -> Option<Endpoint> {
    let authority = url.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None if port.is_empty() => HTTP_PORT,
        None => return None,
    };
    (!host.is_empty() && !host.contains(['@', '/'])).then(|| Endpoint { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        let text = |url| proxy(url).map(|endpoint| endpoint.to_string());
        for (url, endpoint) in [
            ("http://proxy.corp.example:3128", Some("proxy.corp.example:3128")),
            ("http://proxy/", Some("proxy:80")),
            ("http://[2001:db8::1]:8080/", Some("[2001:db8::1]:8080")),
            ("http://proxy:0", None),
            ("http://proxy:65536", None),
            ("http://user@proxy:80", None),
            ("https://proxy:80", None),
            ("http://", None),
            ("http://[2001:db8::1]8080", None),
        ] {
            assert_eq!(text(url).as_deref(), endpoint, "{url}");
        }
    }
}
