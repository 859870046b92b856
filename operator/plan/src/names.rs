//! What the objects of a link are called and labelled, and whose they are. Nothing else writes a name or a label.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use securelink_crds::keys::{COMPONENT, LINK, MANAGED_BY, MANAGER, NAME, PRODUCT};
use securelink_crds::{GROUP, Import, SecureLinkSpec, VERSION};
use securelink_relay_config::{Digest, LinkRef};

/// Longest name of a Service, and longest value of a label (RFC 1123, RFC 1035).
const LONGEST: usize = 63;
/// Hexadecimal digits of the hash in a name that was too long: 40 bits, against chance, not against an attacker, who could
/// only make two of a link's own names meet.
const HASHED: usize = 10;

/// What an object is for: the values of [`COMPONENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The relays: their pods, configuration, policy.
    Relay,
    /// Their certificate.
    Leaf,
    /// Where the peer reaches them.
    Peer,
    /// Where clients here reach a service of the peer.
    Import,
}

impl Component {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Leaf => "leaf",
            Self::Peer => "peer",
            Self::Import => "import",
        }
    }
}

/// The kinds of the objects made for a link, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// The relays' account.
    ServiceAccount,
    /// Their leaf.
    Secret,
    /// Their configuration.
    ConfigMap,
    /// Who may reach them, and whom they may reach.
    NetworkPolicy,
    /// Where the peer reaches them, and where clients here reach the peer's services.
    Service,
    /// How many relays may be taken away at a time.
    PodDisruptionBudget,
    /// The relays.
    Deployment,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ServiceAccount,
        Self::Secret,
        Self::ConfigMap,
        Self::NetworkPolicy,
        Self::Service,
        Self::PodDisruptionBudget,
        Self::Deployment,
    ];

    /// The kind as manifests name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Deployment => "Deployment",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that a link needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// For an object of this kind.
    pub kind: ObjectKind,
    /// The name.
    pub name: String,
    /// The field that decides it.
    pub field: String,
}

/// The names of all objects that are made for a link of this spec.
pub fn needed(link: &str, spec: &SecureLinkSpec) -> Vec<Needed> {
    let relays = ObjectKind::ALL.into_iter().filter_map(|kind| match kind {
        ObjectKind::Secret => Some((kind, leaf(link), "metadata.name".to_owned())),
        ObjectKind::Service => None,
        _ => Some((kind, relay(link), "metadata.name".to_owned())),
    });
    let peer = spec.expose.iter().map(|_| (ObjectKind::Service, peer_service(link), "spec.expose".to_owned()));
    let imports = spec.imports.iter().enumerate().map(|(index, import)| {
        (ObjectKind::Service, import_service(link, import), format!("spec.imports[{index}].serviceName"))
    });
    relays.chain(peer).chain(imports).map(|(kind, name, field)| Needed { kind, name, field }).collect()
}

/// The name of what belongs to a link's relays: `ServiceAccount`, `ConfigMap`, `NetworkPolicy`, `PodDisruptionBudget`,
/// `Deployment`.
pub fn relay(link: &str) -> String {
    fit(format!("{link}-relay"))
}

/// The name of the Secret with a link's leaf.
pub fn leaf(link: &str) -> String {
    fit(format!("{link}-leaf"))
}

/// The name of the Service that a link's peer reaches.
pub fn peer_service(link: &str) -> String {
    fit(format!("{link}-peer"))
}

/// The name of an import's Service: as declared, or `LINK-IMPORT`.
pub fn import_service(link: &str, import: &Import) -> String {
    import.service_name.clone().unwrap_or_else(|| fit(format!("{link}-{}", import.name)))
}

/// The labels of an object made for a link.
pub fn labels(link: &str, component: Component) -> BTreeMap<String, String> {
    let mut labels = selector(link);
    labels.insert(COMPONENT.to_owned(), component.as_str().to_owned());
    labels.insert(NAME.to_owned(), PRODUCT.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// The labels that select a link's relays. A Deployment's can never be changed, so there are no more than it takes.
pub fn selector(link: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LINK.to_owned(), fit(link.to_owned())),
        (COMPONENT.to_owned(), Component::Relay.as_str().to_owned()),
    ])
}

pub(crate) fn relays(link: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(link)), ..LabelSelector::default() }
}

/// The metadata of an object that lives and dies with the link of that uid.
pub(crate) fn metadata(link: &LinkRef, uid: &str, name: String, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(link.namespace.clone()),
        labels: Some(labels(&link.name, component)),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "SecureLink".to_owned(),
            name: link.name.clone(),
            uid: uid.to_owned(),
            controller: Some(true),
            // Absent: to block the owner's deletion takes a right over its finalizers, and nothing waits for our objects.
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// `name`, or its beginning and a hash of all of it where it is too long. Names come from schemas that keep them short: this
/// holds where an object was stored under another one.
fn fit(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let hash = Digest::of(name.as_bytes()).to_string();
    let kept: String = name.chars().take(LONGEST - HASHED - 1).collect();
    format!("{}-{}", kept.trim_end_matches('-'), &hash[hash.len() - HASHED..])
}
