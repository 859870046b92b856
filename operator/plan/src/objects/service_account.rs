//! The relays' account: they need none of Kubernetes' rights, so it has no token (P11).

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Inputs;

pub(super) fn build(inputs: &Inputs<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: inputs.relay_metadata(),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
