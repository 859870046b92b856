//! Well-known annotations, labels and names, and how their values are read.

/// On a Service: the links that may export it, `<namespace>/<link>[,…]`. Removing it cuts.
pub const EXPORT_TO: &str = "securelink.dev/export-to";
/// On a SecureLink: `<verb>/<nonce>`, a request that a relay carries out; answered in `status.lastRequest`.
pub const REQUEST: &str = "securelink.dev/request";
/// On everything made for a link: the link's name.
pub const LINK: &str = "securelink.dev/link";
/// On everything made for a link: what it is for. Values are the operator's.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// On a Secret with a root: the namespace of the `LinkIdentity` it belongs to.
pub const IDENTITY_NAMESPACE: &str = "securelink.dev/identity-namespace";
/// On a Secret with a root: the name of the `LinkIdentity` it belongs to.
pub const IDENTITY: &str = "securelink.dev/identity";
/// On a Secret with a root: the uid of the `LinkIdentity` it was made for (contracts 8).
pub const IDENTITY_UID: &str = "securelink.dev/identity-uid";
/// On a Secret with an intermediate that cert-manager signed: its issuer, as `issuerRef` in JSON.
pub const ISSUED_BY: &str = "securelink.dev/issued-by";
/// On a Secret with an identity's keys: when a key was made last for cert-manager to sign.
pub const ASKED_AT: &str = "securelink.dev/asked-at";
/// On a Secret with an identity's keys: how many were made for cert-manager since it has signed one.
pub const ATTEMPTS: &str = "securelink.dev/attempts";
/// On a `LinkIdentity`: the fingerprint of the root that is to be replaced. Once another is in use, it asks for nothing.
pub const REPLACE_ROOT: &str = "securelink.dev/replace-root";
/// On somebody's Secret: the `LinkIdentity` of its namespace that it may sign for. Other Secrets are not read.
pub const ISSUER_OF: &str = "securelink.dev/issuer-of";
/// On the Service of an import: the import's name.
pub const IMPORT: &str = "securelink.dev/import";
/// Kubernetes' own label for what an object is part of.
pub const NAME: &str = "app.kubernetes.io/name";
/// The value of [`NAME`] on everything the operator makes.
pub const PRODUCT: &str = "securelink";
/// Kubernetes' own label for who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] on everything the operator makes.
pub const MANAGER: &str = "securelink-operator";
/// Field manager of all server-side applies. Changing it would orphan every field.
pub const FIELD_MANAGER: &str = "securelink-operator";
/// Finalizer of a `LinkIdentity` whose keys live in the operator's namespace.
pub const FINALIZER: &str = "securelink.dev/keys";
/// Kubernetes' own label with a namespace's name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Names that begin so belong to the protocol (contracts 1).
pub const RESERVED_PREFIX: char = '_';

/// Longest consent that is read; beyond it nothing is allowed. 4 KiB name some thirty links.
const MAX_CONSENT: usize = 4096;

/// Whether the value of an [`EXPORT_TO`] annotation allows `namespace/link`.
pub fn consents(annotation: &str, namespace: &str, link: &str) -> bool {
    annotation.len() <= MAX_CONSENT
        && annotation.split(',').any(|entry| entry.trim().split_once('/') == Some((namespace, link)))
}

/// What a [`REQUEST`] annotation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The first message.
    Greet,
    /// DNS, TCP, TLS, agreement, service: one line each with the remedy.
    Doctor,
}

/// Longest nonce of a request.
const MAX_NONCE: usize = 64;

/// Reads the value of a [`REQUEST`] annotation: the verb and the nonce, or nothing if it is none.
pub fn request(annotation: &str) -> Option<(Verb, &str)> {
    let (verb, nonce) = annotation.split_once('/')?;
    let verb = match verb {
        "greet" => Verb::Greet,
        "doctor" => Verb::Doctor,
        _ => return None,
    };
    let plain = nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (plain && (1..=MAX_NONCE).contains(&nonce.len())).then_some((verb, nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_names_namespace_and_link_exactly() {
        assert!(consents("liaison/europol", "liaison", "europol"));
        assert!(consents("a/b, liaison/europol", "liaison", "europol"));
        for other in ["", "europol", "liaison/europol2", "liaison/*", "*", "liaison/europol/x", "Liaison/europol"] {
            assert!(!consents(other, "liaison", "europol"), "{other}");
        }
        assert!(!consents(&format!("liaison/europol,{}", "x".repeat(MAX_CONSENT)), "liaison", "europol"));
    }

    #[test]
    fn a_request_is_a_known_verb_and_a_plain_nonce() {
        assert_eq!(request("greet/7f3a"), Some((Verb::Greet, "7f3a")));
        assert_eq!(request("doctor/a-1"), Some((Verb::Doctor, "a-1")));
        for other in ["greet", "greet/", "sudo/1", "greet/a b", "greet/a\nb", "GREET/1"] {
            assert_eq!(request(other), None, "{other}");
        }
        assert_eq!(request(&format!("greet/{}", "a".repeat(65))), None);
    }
}
