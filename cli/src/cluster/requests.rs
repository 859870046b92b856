//! What a relay is asked through the annotation of its link: `greet` and `doctor`.

use std::time::Duration;

use securelink_crds::keys::REQUEST;
use securelink_crds::{LastRequest, RequestState, SecureLink};
use serde_json::json;

use super::{Cluster, ClusterError, Scope};

impl Cluster {
    /// Asks for `verb` and waits for the answer. Without one in time, what the operator said last of this very request, if
    /// anything.
    pub async fn request(
        &self,
        namespace: &str,
        link: &str,
        verb: &str,
        limit: Duration,
    ) -> Result<Option<LastRequest>, ClusterError> {
        let asked = format!("{verb}/{:016x}", fastrand::u64(..));
        let fields = json!({ "metadata": { "annotations": { REQUEST: asked } } });
        self.merge::<SecureLink>(namespace, link, fields).await?;
        let mut last = None;
        let gone = || ClusterError::missing::<SecureLink>(namespace, link);
        let found = self
            .follow::<SecureLink, _>(Scope::one(namespace, link), limit, |seen| {
                let Some(found) = seen.items.into_iter().next() else {
                    return Some(Err(seen
                        .unreadable
                        .first()
                        .map_or_else(gone, |why| ClusterError::InTheWay(why.clone()))));
                };
                last = found.status.and_then(|status| status.last_request).filter(|last| last.request == asked);
                last.clone().filter(|last| last.state != RequestState::Running).map(Ok)
            })
            .await?;
        match found {
            Some(found) => found.map(Some),
            None => Ok(last),
        }
    }
}
