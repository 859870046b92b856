//! What tells of an identity's root beside the Secret that holds it: its own status, the statuses of its links, and the leaves
//! that were issued by it. What cannot be read is a trace as well: a second root is made of no misreading.

use k8s_openapi::api::core::v1::Secret;
use kube::api::DynamicObject;
use securelink_id::Fingerprint;
use securelink_pki::Leaf;
use securelink_plan::names;
use securelink_plan::objects::{LEAF_CHAIN, LEAF_KEY};
use securelink_relay_config::LinkRef;
use serde_json::Value;

use crate::caches::{Access, DeclaredIdentity};
use crate::world::World;

/// What is known of an identity's root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Which root there was.
    pub root: Option<Fingerprint>,
    /// Whether there was one, be it known which or not.
    pub any: bool,
}

impl Traces {
    /// No root was ever made.
    pub fn are_none(&self) -> bool {
        self.root.is_none() && !self.any
    }

    /// With another trace; of two roots the one known first counts.
    #[must_use]
    pub fn or(self, root: Option<Fingerprint>, any: bool) -> Self {
        Self { root: self.root.or(root), any: self.any || any || root.is_some() }
    }

    /// Of a status as it is stored. One that names a root in a way that cannot be read does name one.
    pub fn of_status(status: &Value) -> Self {
        let none = |value: &Value| value.is_null() || value.as_str() == Some("");
        let (fingerprint, roots) = (&status["fingerprint"], &status["roots"]);
        let listed = !roots.is_null() && roots.as_array().is_none_or(|roots| !roots.is_empty());
        let odd = !status.is_null() && !status.is_object();
        let current = || {
            let roots = roots.as_array()?;
            read(&roots.iter().find(|root| root["state"] == "Current")?["fingerprint"])
        };
        Self::default().or(read(fingerprint).or_else(current), odd || listed || !none(fingerprint))
    }
}

/// The traces in the caches; `None` while they have not all been seen.
pub fn of(world: &World, at: &LinkRef, declared: &DeclaredIdentity) -> Option<Traces> {
    let own = Traces::of_status(&declared.object.data["status"]);
    if !own.are_none() {
        return Some(own);
    }
    let caches = &world.sources.caches;
    let links: Vec<_> = caches
        .declared
        .links_within(&at.namespace)
        .into_iter()
        .filter(|link| link.data["spec"]["identityRef"]["name"].as_str() == Some(&at.name))
        .collect();
    let told = links.iter().fold(own, |traces, link| {
        let found = of_link(link);
        traces.or(found.root, found.any)
    });
    if links.is_empty() || !told.are_none() {
        return Some(told);
    }
    let space = caches.space(&at.namespace);
    match space.access() {
        Access::Starting => None,
        // Where leaves cannot be read, what the links' statuses tell has to do.
        Access::Denied(_) => Some(told),
        Access::Ready => {
            let domain = declared.object.data["spec"]["trustDomain"].as_str().unwrap_or_default();
            let leaf = |link: &DynamicObject| {
                let name = names::leaf(link.metadata.name.as_deref()?);
                let secret = space.secrets.get(&at.namespace, &name)?;
                let uid = link.metadata.uid.as_deref().unwrap_or_default();
                secret.is_owned(uid).then(|| secret.read()).flatten().map(|secret| of_leaf(&secret, domain))
            };
            let found = links.iter().filter_map(|link| leaf(link));
            Some(found.fold(told, |traces, found| traces.or(found.root, found.any)))
        }
    }
}

/// A link whose status shows a certificate had a root to chain to.
fn of_link(link: &DynamicObject) -> Traces {
    let status = &link.data["status"];
    if status["certificate"].is_null() {
        return Traces::default();
    }
    Traces::default().or(read(&status["fingerprint"]), true)
}

/// A leaf that was issued for `domain`. One of another organization was issued for an identity that is gone.
fn of_leaf(secret: &Secret, domain: &str) -> Traces {
    let text = |file: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(file));
        bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
    };
    let leaf = text(LEAF_KEY).zip(text(LEAF_CHAIN)).and_then(|(key, chain)| Leaf::from_pem(key, chain).ok());
    match leaf {
        Some(leaf) if leaf.identity().owner().as_str() != domain => Traces::default(),
        Some(leaf) => Traces::default().or(Some(leaf.root()), true),
        None => Traces { root: None, any: true },
    }
}

fn read(value: &Value) -> Option<Fingerprint> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use securelink_crds::SecureLink;
    use securelink_pki::testing::Organization;
    use serde_json::json;

    use super::*;

    const PIN: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

    #[test]
    fn f76_a_status_that_cannot_be_read_is_a_trace_of_a_root_and_an_empty_one_is_none() {
        let pin = PIN.parse().ok();
        let roots = |state: &str| json!([{"fingerprint": PIN, "notAfter": "2036-01-01T00:00:00Z", "state": state}]);
        for (status, root, any) in [
            (json!(null), None, false),
            (json!({}), None, false),
            (json!({"conditions": [], "observedGeneration": 1}), None, false),
            (json!({"fingerprint": PIN}), pin, true),
            // A field that this version cannot decode takes nothing from what the others say.
            (json!({"fingerprint": PIN, "conditions": 7, "roots": "many"}), pin, true),
            (json!({"fingerprint": 7}), None, true),
            (json!({"fingerprint": "sha512:00"}), None, true),
            (json!({"roots": roots("Current")}), pin, true),
            (json!({"roots": roots("Retired")}), None, true),
            (json!({"roots": [7]}), None, true),
            (json!("gone"), None, true),
        ] {
            assert_eq!(Traces::of_status(&status), Traces { root, any }, "{status}");
        }
    }

    #[test]
    fn f76_a_link_that_has_a_certificate_and_a_leaf_tell_of_the_root_that_signed_it() {
        let link = |status: Value| {
            let resource = kube::api::ApiResource::erase::<SecureLink>(&());
            DynamicObject::new("europol", &resource).data(json!({"status": status}))
        };
        let certificate = json!({"serial": "01"});
        assert!(of_link(&link(json!({"fingerprint": PIN}))).are_none(), "what is expected proves nothing");
        let told = of_link(&link(json!({"fingerprint": PIN, "certificate": certificate})));
        assert_eq!(told, Traces { root: PIN.parse().ok(), any: true });

        let interpol = Organization::new("interpol.example");
        let leaf = interpol.leaf_to(&Organization::new("europol.example").domain);
        let secret = |chain: &str| Secret {
            data: Some(BTreeMap::from([
                (LEAF_KEY.to_owned(), ByteString(leaf.key().to_pem().as_bytes().to_vec())),
                (LEAF_CHAIN.to_owned(), ByteString(chain.as_bytes().to_vec())),
            ])),
            ..Secret::default()
        };
        let good = secret(&leaf.chain_pem());
        let root = Some(interpol.root.fingerprint());
        assert_eq!(of_leaf(&good, "interpol.example"), Traces { root, any: true });
        assert!(of_leaf(&good, "eurojust.example").are_none());
        assert_eq!(of_leaf(&secret("rubbish"), "interpol.example"), Traces { root: None, any: true });
    }
}
