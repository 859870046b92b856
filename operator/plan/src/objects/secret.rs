//! The relays' leaf. The only object that holds a key.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::Inputs;
use crate::names::{self, Component};

/// Kubernetes' type for a certificate with its key.
pub const LEAF_TYPE: &str = "kubernetes.io/tls";
/// The certificates in a Secret of [`LEAF_TYPE`].
pub const LEAF_CHAIN: &str = "tls.crt";
/// The key in a Secret of [`LEAF_TYPE`].
pub const LEAF_KEY: &str = "tls.key";
/// Beside them: the way from older roots.
pub const LEAF_TRANSITIONS: &str = "transitions.pem";

pub(super) fn build(inputs: &Inputs<'_>) -> Option<Secret> {
    let leaf = inputs.leaf?;
    let file = |(name, text): (&str, &String)| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    // The same keys before and after a rotation: an empty file says there is nothing to walk.
    let files = [(LEAF_CHAIN, &leaf.chain), (LEAF_KEY, &leaf.key), (LEAF_TRANSITIONS, &leaf.transitions)];
    Some(Secret {
        metadata: inputs.metadata(names::leaf(inputs.name()), Component::Leaf),
        type_: Some(LEAF_TYPE.to_owned()),
        data: Some(files.map(file).into_iter().collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    })
}
