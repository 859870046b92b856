//! Statuses that were written, until the cache shows them: a cache lags, and what it does not show yet would be written twice.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::ObjectMeta;
use securelink_relay_config::LinkRef;

/// The status of each object that was written last.
#[derive(Debug)]
pub struct Newest<S>(Mutex<HashMap<LinkRef, Last<S>>>);

#[derive(Clone, Debug)]
struct Last<S> {
    uid: Option<String>,
    version: u64,
    status: S,
}

impl<S> Default for Newest<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Clone> Newest<S> {
    /// What was written, where the cache shows an older version of the same object. Else it is forgotten.
    pub fn unseen(&self, at: &LinkRef, shown: &ObjectMeta) -> Option<S> {
        self.shows(at, shown.uid.as_deref(), shown.resource_version.as_deref());
        self.lock().get(at).map(|last| last.status.clone())
    }

    /// The cache shows this version of an object: what is no newer is forgotten.
    pub fn shows(&self, at: &LinkRef, uid: Option<&str>, shown: Option<&str>) {
        let mut last = self.lock();
        if last.get(at).is_some_and(|last| last.uid.as_deref() != uid || last.version <= version(shown)) {
            last.remove(at);
        }
    }

    /// A status was written; `now` is the object's metadata in the answer.
    pub fn wrote(&self, at: &LinkRef, now: &ObjectMeta, status: S) {
        let last = Last { uid: now.uid.clone(), version: version(now.resource_version.as_deref()), status };
        self.lock().insert(at.clone(), last);
    }

    /// Forgets all objects but these.
    pub fn retain(&self, is_there: impl Fn(&LinkRef) -> bool) {
        self.lock().retain(|at, _| is_there(at));
    }

    /// An object that is gone.
    pub fn forget(&self, at: &LinkRef) {
        self.lock().remove(at);
    }

    /// Another replica leads: what it writes is the newest.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LinkRef, Last<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a number, which an API server's is for every custom resource (KEP-5504).
fn version(of: Option<&str>) -> u64 {
    of.and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_counts_until_the_cache_shows_it_or_another_object_of_the_name() {
        let (newest, at) = (Newest::default(), LinkRef { namespace: "n".to_owned(), name: "l".to_owned() });
        let of = |uid: &str, version: &str| ObjectMeta {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let wrote = || newest.wrote(&at, &of("a", "10"), "second");
        assert_eq!(newest.unseen(&at, &of("a", "7")), None);
        wrote();
        assert_eq!(newest.unseen(&at, &of("a", "9")), Some("second"));
        assert_eq!(newest.unseen(&at, &of("a", "10")), None, "the cache shows it");
        wrote();
        assert_eq!(newest.unseen(&at, &of("b", "9")), None, "it is another object");
        wrote();
        newest.clear();
        assert_eq!(newest.unseen(&at, &of("a", "9")), None, "another replica has led meanwhile");
    }

    #[test]
    fn what_the_cache_shows_is_kept_no_longer() {
        let (newest, at) = (Newest::default(), LinkRef { namespace: "n".to_owned(), name: "l".to_owned() });
        let now =
            ObjectMeta { uid: Some("a".to_owned()), resource_version: Some("10".to_owned()), ..ObjectMeta::default() };
        newest.wrote(&at, &now, "status");
        newest.shows(&at, Some("a"), Some("9"));
        assert_eq!(newest.lock().len(), 1);
        newest.shows(&at, Some("a"), Some("10"));
        assert_eq!(newest.lock().len(), 0);
    }
}
