//! How many links have which condition, for the metrics. Of a status no more is kept for that than its conditions' words, and
//! of links with the same words one copy.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use securelink_crds::conditions::Condition;
use securelink_relay_config::LinkRef;

use crate::metrics::ByCondition;

/// The conditions of all links.
#[derive(Debug, Default)]
pub(crate) struct Counted(Mutex<Words>);

#[derive(Debug, Default)]
struct Words {
    of: HashMap<LinkRef, Arc<[ByCondition]>>,
    /// Each once.
    shared: HashSet<Arc<[ByCondition]>>,
}

impl Counted {
    /// These conditions of a link stand now.
    pub(crate) fn stand(&self, link: &LinkRef, conditions: &[Condition]) {
        let word = |condition: &Condition| ByCondition {
            condition: condition.type_.clone(),
            status: condition.status.clone(),
        };
        let words: Vec<_> = conditions.iter().map(word).collect();
        let mut all = self.lock();
        let shared = all.shared.get(words.as_slice()).cloned().unwrap_or_else(|| {
            let words: Arc<[_]> = words.into();
            all.shared.insert(Arc::clone(&words));
            words
        });
        let before = all.of.insert(link.clone(), shared);
        all.drop_unused(before);
    }

    /// Forgets a link that is gone.
    pub(crate) fn forget(&self, link: &LinkRef) {
        let mut all = self.lock();
        let before = all.of.remove(link);
        all.drop_unused(before);
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        *self.lock() = Words::default();
    }

    /// How many links have each condition.
    pub(crate) fn count(&self) -> HashMap<ByCondition, i64> {
        let mut counts = HashMap::new();
        for by in self.lock().of.values().flat_map(|words| words.iter()) {
            match counts.get_mut(by) {
                Some(count) => *count += 1,
                None => drop(counts.insert(by.clone(), 1)),
            }
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Words {
    fn drop_unused(&mut self, words: Option<Arc<[ByCondition]>>) {
        // The one at hand, and the shared one.
        if let Some(words) = words.filter(|words| Arc::strong_count(words) <= 2) {
            self.shared.remove(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use securelink_crds::conditions::Time;

    use super::*;

    fn ready(status: &str) -> [Condition; 1] {
        [Condition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: "Ready".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }]
    }

    #[test]
    fn links_are_counted_by_condition_and_their_words_are_kept_once() {
        let counted = Counted::default();
        let link = |name: &str| LinkRef { namespace: "n".to_owned(), name: name.to_owned() };
        let count = |status: &str| {
            let by = ByCondition { condition: "Ready".to_owned(), status: status.to_owned() };
            counted.count().get(&by).copied().unwrap_or_default()
        };
        for name in ["a", "b", "c"] {
            counted.stand(&link(name), &ready("True"));
            counted.stand(&link(name), &ready("True"));
        }
        assert_eq!((count("True"), counted.lock().shared.len()), (3, 1));
        counted.stand(&link("a"), &ready("False"));
        assert_eq!((count("True"), count("False"), counted.lock().shared.len()), (2, 1, 2));
        counted.forget(&link("a"));
        counted.stand(&link("b"), &[]);
        counted.forget(&link("c"));
        assert_eq!((counted.count().len(), counted.lock().shared.len()), (0, 1), "words that no link has are not kept");
        counted.clear();
        assert!(counted.lock().of.is_empty() && counted.lock().shared.is_empty());
    }
}
