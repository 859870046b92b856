//! By what the relays of a link are spoken to: from their configuration, else from what is kept, else from what is declared.

use std::collections::BTreeSet;

use securelink_crds::{RootState, SecureLinkStatus};
use securelink_id::Fingerprint;
use securelink_pki::PeerTrust;
use securelink_plan::Declared;
use securelink_relay_config::{LinkRef, Snapshot};
use serde_json::{Value, json};

use crate::caches::{Caches, DeclaredIdentity, DeclaredLink};
use crate::relays::{Basis, Running};

/// The basis of a link that is declared; nothing where nobody knows between whom it is, or by which root.
pub(super) fn of(
    caches: &Caches,
    declared: &DeclaredLink,
    running: Option<&Snapshot>,
    kept: Option<&Basis>,
) -> Option<Basis> {
    let (object, spec) = (&declared.object, spec(declared));
    let named = spec["identityRef"]["name"].as_str().zip(object.metadata.namespace.clone());
    let identity =
        named.and_then(|(name, namespace)| caches.declared.identity(&LinkRef { namespace, name: name.to_owned() }));
    let status: SecureLinkStatus = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
    let uid = object.metadata.uid.clone().unwrap_or_default();
    combine(
        uid,
        &Sources { spec, identity: identity.map(|it| Identity::of(&it)).unwrap_or_default(), status },
        running,
        kept,
    )
}

fn spec(declared: &DeclaredLink) -> Value {
    match &declared.declared {
        Declared::Valid(link) => serde_json::to_value(&link.spec).unwrap_or_default(),
        Declared::Invalid { value, .. } => value["spec"].clone(),
        Declared::Deleted => Value::Null,
    }
}

/// What is declared of a link, and what its status says.
struct Sources {
    spec: Value,
    identity: Identity,
    status: SecureLinkStatus,
}

/// What of an identity counts here, also of one that is invalid.
#[derive(Default)]
struct Identity {
    trust_domain: Option<String>,
    fingerprint: Option<String>,
    /// Roots that were followed by another: a relay that was out of reach meanwhile has a leaf of an old one.
    retired: Vec<String>,
}

impl Identity {
    fn of(identity: &DeclaredIdentity) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let data = &identity.object.data;
        let (spec, status) = (&data["spec"], &data["status"]);
        let roots = status["roots"].as_array().into_iter().flatten();
        let retired = roots.filter(|root| root["state"] == json!(RootState::Retired));
        Self {
            trust_domain: text(&spec["trustDomain"]),
            fingerprint: text(&status["fingerprint"]),
            retired: retired.filter_map(|root| text(&root["fingerprint"])).collect(),
        }
    }
}

/// What relays run comes first: they prove themselves by it. What is kept of a link of another uid is another link's.
fn combine(uid: String, sources: &Sources, running: Option<&Snapshot>, kept: Option<&Basis>) -> Option<Basis> {
    let kept = kept.filter(|kept| kept.uid == uid);
    // What was kept before says the same as its configuration did.
    let between = match (running, kept) {
        (Some(running), _) => (running.own.clone(), running.peer.trust_domain.clone()),
        (None, Some(kept)) => (kept.trust.peer.clone(), kept.trust.own.clone()),
        (None, None) => {
            let own = sources.identity.trust_domain.as_ref()?.parse().ok()?;
            (own, sources.spec["peer"]["trustDomain"].as_str()?.parse().ok()?)
        }
    };
    let told = [&sources.identity.fingerprint, &sources.status.fingerprint];
    let told = told.into_iter().flatten().chain(&sources.identity.retired);
    let mut seen = BTreeSet::new();
    let mut pins: Vec<Fingerprint> =
        told.filter(|pin| seen.insert(*pin)).filter_map(|text| text.parse().ok()).collect();
    if let (true, Some(kept)) = (pins.is_empty(), kept) {
        pins.clone_from(&kept.trust.pins);
    }
    let before = kept.and_then(|kept| kept.running.as_ref());
    let running = running.map(|running| Running::keep(running, before)).or_else(|| before.cloned());
    let trust = PeerTrust { own: between.1, peer: between.0, pins };
    (!trust.pins.is_empty()).then_some(Basis { uid, trust, running })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOT: &str = "sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e";

    fn sources(own: Option<&str>, fingerprint: Option<&str>) -> Sources {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Sources {
            spec: json!({"peer": {"trustDomain": "europol.example"}}),
            identity: Identity { trust_domain: text(own), fingerprint: text(fingerprint), retired: Vec::new() },
            status: SecureLinkStatus::default(),
        }
    }

    #[test]
    fn without_a_configuration_the_relays_are_known_by_what_is_declared() {
        let basis = combine("1".to_owned(), &sources(Some("interpol.example"), Some(ROOT)), None, None).unwrap();
        assert_eq!((basis.trust.own.as_str(), basis.trust.peer.as_str()), ("europol.example", "interpol.example"));
        assert_eq!((basis.trust.pins, basis.running), (vec![ROOT.parse().unwrap()], None));
        assert_eq!(combine("1".to_owned(), &sources(None, Some(ROOT)), None, None), None);
        assert_eq!(combine("1".to_owned(), &sources(Some("interpol.example"), None), None, None), None);
    }

    #[test]
    fn a_relay_with_a_leaf_of_a_root_that_was_followed_by_another_is_still_one_of_ours() {
        let old = ROOT.replace("4be0", "5be0");
        let mut sources = sources(Some("interpol.example"), Some(ROOT));
        sources.identity.retired = vec![old.clone(), ROOT.to_owned()];
        sources.status.fingerprint = Some(old.clone());
        let basis = combine("1".to_owned(), &sources, None, None).unwrap();
        assert_eq!(basis.trust.pins, [ROOT.parse().unwrap(), old.parse().unwrap()]);
    }

    #[test]
    fn what_was_known_of_the_same_link_is_kept_and_another_links_is_not() {
        let kept = combine("1".to_owned(), &sources(Some("interpol.example"), Some(ROOT)), None, None).unwrap();
        assert_eq!(combine("1".to_owned(), &sources(None, None), None, Some(&kept)), Some(kept.clone()));
        assert_eq!(combine("2".to_owned(), &sources(None, None), None, Some(&kept)), None);
    }
}
