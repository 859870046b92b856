//! A Service of another namespace is exported only while its owner says so there; what is not consented to is cut.

use k8s_openapi::api::core::v1::Service;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::{self, EXPORT_TO};
use securelink_relay_config::{Cut, CutScope, LinkRef};

use crate::gathered::Mode;
use crate::guard::Ruling;
use crate::validated::{Target, ValidatedLink};
use crate::verdict::{About, Problem};

/// Takes out the exports whose Service does not name this link, and orders their cuts.
pub(crate) fn apply(link: &mut ValidatedLink, mode: &Mode) -> Ruling {
    let mut ruling = Ruling::default();
    let Mode::Cluster(cluster) = mode else { return ruling };
    let here = link.link.clone();
    link.exports.retain(|export| {
        let foreign = matches!(&export.target, Target::Service(target) if target.namespace != here.namespace);
        let service = cluster.services.get(&export.name);
        if !foreign || service.is_some_and(|service| consents(service, &here)) {
            return true;
        }
        if let Some((id, revision)) = service.and_then(|service| identify(&export.name, service)) {
            let reason = format!("the owner of the Service behind {} does not consent", export.name);
            ruling.cuts.insert(Cut { id, revision, scope: CutScope::Export(export.name.clone()), reason });
        }
        ruling.problems.push(Problem {
            reason: Reason::Forbidden,
            about: About::Export(export.name.clone()),
            field: format!("spec.exports[{}].target", export.name),
            message: "the Service's owner does not consent to this export".to_owned(),
            remedy: format!("ask for the annotation {EXPORT_TO}: {here} on that Service"),
        });
        false
    });
    ruling
}

/// Revisions of the foreign Services that were looked at. One that consents is there too, so that relays obey the next
/// withdrawal and not the last one again.
pub(crate) fn seen(link: &LinkRef, mode: &Mode) -> Vec<(String, u64)> {
    let Mode::Cluster(cluster) = mode else { return Vec::new() };
    let foreign = |service: &Service| service.metadata.namespace.as_deref() != Some(link.namespace.as_str());
    let services = cluster.services.iter().filter(|(_, service)| foreign(service));
    services.filter_map(|(export, service)| identify(export, service)).collect()
}

fn consents(service: &Service, link: &LinkRef) -> bool {
    let annotation = service.metadata.annotations.as_ref().and_then(|annotations| annotations.get(EXPORT_TO));
    annotation.is_some_and(|annotation| keys::consents(annotation, &link.namespace, &link.name))
}

/// A Service's place among the cuts of an export (contracts 4: the revision of a consent is its `resourceVersion`).
fn identify(export: &str, service: &Service) -> Option<(String, u64)> {
    let metadata = &service.metadata;
    let revision = metadata.resource_version.as_ref()?.parse().ok()?;
    Some((format!("Service/{}#exports/{export}", metadata.uid.as_ref()?), revision))
}
