//! What identities' keys were found to be, for the links that use them: reading and checking keys at each look at each link
//! would be a good part of all work (docs/scale.md).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use securelink_relay_config::LinkRef;

use super::Issuer;

/// For how long what was found counts at most: something may depend on the time that nobody thought of.
const LONGEST: SignedDuration = SignedDuration::from_mins(1);

/// The versions of what was looked at: the identity's, and that of the Secret with its keys.
pub type Versions = (Option<String>, Option<String>);

/// What was found lately, by identity.
#[derive(Debug, Default)]
pub struct Looked(Mutex<HashMap<LinkRef, Found>>);

#[derive(Debug)]
struct Found {
    versions: Versions,
    at: Timestamp,
    issuer: Arc<Issuer>,
}

impl Looked {
    /// What was found of just these versions, while nothing has become due since.
    pub fn get(&self, identity: &LinkRef, versions: &Versions, now: Timestamp) -> Option<Arc<Issuer>> {
        let all = self.lock();
        let found = all.get(identity).filter(|found| found.versions == *versions && found.still_holds(now))?;
        Some(Arc::clone(&found.issuer))
    }

    /// Remembers what was found now.
    pub fn keep(&self, identity: &LinkRef, versions: Versions, issuer: Issuer, now: Timestamp) -> Arc<Issuer> {
        let issuer = Arc::new(issuer);
        let mut all = self.lock();
        // Keys stay no longer in memory than they are of use.
        all.retain(|_, found| found.still_holds(now));
        all.insert(identity.clone(), Found { versions, at: now, issuer: Arc::clone(&issuer) });
        issuer
    }

    /// Forgets one that is gone.
    pub fn forget(&self, identity: &LinkRef) {
        self.lock().remove(identity);
    }

    /// Forgets all identities but these.
    pub fn retain(&self, is_there: impl Fn(&LinkRef) -> bool) {
        self.lock().retain(|identity, _| is_there(identity));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LinkRef, Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn still_holds(&self, now: Timestamp) -> bool {
        let due = [self.issuer.due, self.issuer.ends, self.issuer.switch_at].into_iter().flatten();
        now >= self.at
            && now.duration_since(self.at) < LONGEST
            && due.into_iter().all(|due| due <= self.at || now < due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_counts_until_a_version_changes_something_is_due_or_a_minute_is_over() {
        let (looked, at) = (Looked::default(), LinkRef { namespace: "n".to_owned(), name: "default".to_owned() });
        let versions = |secret: &str| (Some("1".to_owned()), Some(secret.to_owned()));
        let second = |seconds: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let found = |secret: &str, seconds: i64| looked.get(&at, &versions(secret), second(seconds)).is_some();
        assert!(!found("7", 0));
        looked.keep(&at, versions("7"), Issuer::default(), second(0));
        assert!(found("7", 0) && found("7", 59) && !found("7", 60));
        assert!(!found("8", 1), "other keys");
        assert!(!found("7", -1), "the clock was set");
        looked.keep(&at, versions("7"), Issuer { due: Some(second(30)), ..Issuer::default() }, second(0));
        assert!(found("7", 29) && !found("7", 30), "something is due");
        looked.retain(|identity| *identity != at);
        assert!(!found("7", 1));
    }

    #[test]
    fn keys_that_count_no_more_go_with_the_next_that_are_found() {
        let looked = Looked::default();
        let names = || looked.lock().keys().map(|identity| identity.name.clone()).collect::<Vec<_>>();
        let keep = |name: &str, seconds: i64| {
            let identity = LinkRef { namespace: "n".to_owned(), name: name.to_owned() };
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            looked.keep(&identity, (None, None), Issuer::default(), now);
        };
        keep("a", 0);
        keep("b", 59);
        assert_eq!(names().len(), 2);
        keep("c", 60);
        assert!(!names().contains(&"a".to_owned()), "{:?}", names());
    }
}
