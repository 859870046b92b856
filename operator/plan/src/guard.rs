//! Guard rails: what the policies that apply forbid is cut, entry by entry or as a whole. Several intersect.

use std::collections::BTreeSet;

use securelink_crds::conditions::Reason;
use securelink_crds::{LinkPolicy, PolicyLimits};
use securelink_id::{TrustDomain, TrustDomainPattern};
use securelink_relay_config::{Cut, CutScope, DataClass, Limits};

use crate::validated::{Target, ValidatedLink, data_class};
use crate::verdict::{About, Problem};

/// What policies did to a link.
#[derive(Default)]
pub(crate) struct Ruling {
    pub(crate) problems: Vec<Problem>,
    pub(crate) cuts: BTreeSet<Cut>,
}

/// A policy's place among the cuts: `LinkPolicy/<uid>`, or its name without a cluster, and its generation.
pub(crate) fn identify(policy: &LinkPolicy) -> (String, Option<u64>) {
    let metadata = &policy.metadata;
    let id = metadata.uid.as_ref().or(metadata.name.as_ref()).map_or("", String::as_str);
    (format!("LinkPolicy/{id}"), metadata.generation.and_then(|generation| u64::try_from(generation).ok()))
}

/// Applies every policy to `link`: takes out entries that are forbidden, lowers limits, orders the cuts.
pub(crate) fn apply(link: &mut ValidatedLink, policies: &[LinkPolicy]) -> Ruling {
    let mut ruling = Ruling::default();
    for policy in policies {
        let (id, revision) = identify(policy);
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let mut judge = Judge { policy, name, id, revision: revision.unwrap_or(1), ruling: &mut ruling };
        judge.whole_link(link);
        judge.entries(link);
        link.limits = narrower(link.limits, policy.spec.limits.as_ref());
    }
    ruling
}

struct Judge<'a> {
    policy: &'a LinkPolicy,
    name: &'a str,
    id: String,
    revision: u64,
    ruling: &'a mut Ruling,
}

impl Judge<'_> {
    fn whole_link(&mut self, link: &mut ValidatedLink) {
        let spec = &self.policy.spec;
        let allowed = spec.allowed_trust_domains.clone().unwrap_or_default();
        if !admits(allowed.own.as_deref(), &link.own) {
            let message = format!("our trust domain {} is not among those it allows", link.own);
            self.forbid(About::Link, "spec.identityRef", &message, "use another LinkIdentity");
        }
        if !admits(allowed.peer.as_deref(), &link.peer.trust_domain) {
            let message = format!("links to {} are not among those it allows", link.peer.trust_domain);
            self.forbid(About::Link, "spec.peer.trustDomain", &message, "delete the link");
        }
        if spec.require_agreement && link.agreements.current.is_none() {
            self.forbid(About::Link, "spec.agreement", "an agreement is required", "add spec.agreement");
        }
        if link.allow_classical_key_exchange && !spec.allow_classical_key_exchange {
            // Cut is what is forbidden: the link goes on with post-quantum key exchange only.
            link.allow_classical_key_exchange = false;
            let field = "spec.crypto.allowClassicalKeyExchange";
            self.problem(About::Link, field, "a classical key exchange is not allowed; it is off", "remove the field");
        }
    }

    fn entries(&mut self, link: &mut ValidatedLink) {
        let max = self.policy.spec.max_data_class.map_or(DataClass::Operational, data_class);
        let too_sensitive = |class: DataClass| format!("data class {class} is above the allowed {max}");
        link.exports.retain(|export| {
            let about = About::Export(export.name.clone());
            let field = |name: &str| format!("spec.exports[{}].{name}", export.name);
            let host = matches!(export.target, Target::Host(_)) && !self.policy.spec.allow_host_targets;
            if host {
                self.forbid(about.clone(), &field("target"), "a host as target is not allowed", "name a Service");
            }
            let class = export.data_class > max;
            if class {
                let message = too_sensitive(export.data_class);
                self.forbid(about, &field("dataClass"), &message, "remove the export, or carry less sensitive data");
            }
            !host && !class
        });
        link.imports.retain(|import| {
            let allowed = import.data_class <= max;
            if !allowed {
                let field = format!("spec.imports[{}].dataClass", import.name);
                let message = too_sensitive(import.data_class);
                self.forbid(About::Import(import.name.clone()), &field, &message, "accept a lower class");
            }
            allowed
        });
    }

    /// A problem, and the cut of what it is about.
    fn forbid(&mut self, about: About, field: &str, message: &str, remedy: &str) {
        let (id, scope) = match &about {
            About::Link => (self.id.clone(), CutScope::Link),
            About::Export(name) => (format!("{}#exports/{name}", self.id), CutScope::Export(name.clone())),
            About::Import(name) => (format!("{}#imports/{name}", self.id), CutScope::Import(name.clone())),
        };
        // One object orders one cut of one scope: the first reason stands for all.
        if !self.ruling.cuts.iter().any(|cut| cut.id == id) {
            let reason = format!("LinkPolicy {}: {message}", self.name);
            self.ruling.cuts.insert(Cut { id, revision: self.revision, scope, reason });
        }
        self.problem(about, field, message, remedy);
    }

    fn problem(&mut self, about: About, field: &str, message: &str, remedy: &str) {
        self.ruling.problems.push(Problem {
            reason: Reason::Forbidden,
            about,
            field: field.to_owned(),
            message: format!("LinkPolicy {} forbids it: {message}", self.name),
            remedy: format!("{remedy}, or ask the platform's owner to change the policy"),
        });
    }
}

/// An absent list allows all; a pattern that does not parse allows nothing.
fn admits(patterns: Option<&[String]>, domain: &TrustDomain) -> bool {
    let meant = |pattern: &String| pattern.parse::<TrustDomainPattern>().is_ok_and(|pattern| pattern.matches(domain));
    patterns.is_none_or(|patterns| patterns.iter().any(meant))
}

fn narrower(limits: Limits, policy: Option<&PolicyLimits>) -> Limits {
    let Some(policy) = policy else { return limits };
    // A rate that does not parse cannot be enforced as meant: the slowest one errs on the side of the guard rail.
    let rate = policy.bytes_per_second.as_ref().map(|rate| rate.parse().unwrap_or(securelink_crds::quantity::MIN));
    Limits {
        connections: [limits.connections, policy.connections].into_iter().flatten().min(),
        new_connections_per_second: [limits.new_connections_per_second, policy.new_connections_per_second]
            .into_iter()
            .flatten()
            .min(),
        bytes_per_second: [limits.bytes_per_second, rate].into_iter().flatten().min(),
    }
}
