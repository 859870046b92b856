//! What the relays run, and beside it what was accepted last (contracts 4). Holds no key.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::Inputs;

/// What the relays run.
pub const RELAY_JSON: &str = "relay.json";
/// What was accepted last; the operator reads it back, relays do not see it.
pub const ACCEPTED_JSON: &str = "accepted.json";

pub(super) fn build(inputs: &Inputs<'_>) -> ConfigMap {
    // JSON is UTF-8, so nothing is lost.
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    ConfigMap {
        metadata: inputs.relay_metadata(),
        data: Some(BTreeMap::from([
            (RELAY_JSON.to_owned(), text(inputs.snapshot.to_bytes())),
            (ACCEPTED_JSON.to_owned(), text(inputs.accepted.to_bytes())),
        ])),
        ..ConfigMap::default()
    }
}
