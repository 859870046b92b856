//! Budgets of a process, shared by its links: half of each is split evenly, so that no link uses up another's; the other half
//! is for whoever comes first. Counts only: what is counted is the owner's business.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::link::locked;

/// So many of one kind.
pub(crate) struct Budget {
    most: usize,
    accounts: Mutex<Accounts>,
}

/// What each link has taken.
#[derive(Default)]
struct Accounts {
    next: u64,
    taken: BTreeMap<u64, usize>,
}

/// A link's account with a budget, until the last of what it took is given back.
pub(crate) struct Account {
    budget: Arc<Budget>,
    id: u64,
}

/// One, until this is dropped.
pub(crate) struct Taken(Arc<Account>);

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, accounts: Mutex::default() })
    }

    /// An account for one more link.
    pub(crate) fn open(self: &Arc<Self>) -> Arc<Account> {
        let mut accounts = locked(&self.accounts);
        accounts.next += 1;
        let id = accounts.next;
        accounts.taken.insert(id, 0);
        Arc::new(Account { budget: Arc::clone(self), id })
    }
}

impl Account {
    /// One more: of the link's own share, else of what no share is kept for. A link has always room for one, so more links
    /// than there are halves of the budget may exceed it by one each.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut accounts = locked(&self.budget.accounts);
        let share = (self.budget.most / 2 / accounts.taken.len().max(1)).max(1);
        let spoken_for: usize = accounts.taken.values().map(|taken| (*taken).max(share)).sum();
        let taken = accounts.taken.get_mut(&self.id)?;
        if *taken >= share && spoken_for >= self.budget.most {
            return None;
        }
        *taken += 1;
        Some(Taken(Arc::clone(self)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(taken) = locked(&self.0.budget.accounts).taken.get_mut(&self.0.id) {
            *taken -= 1;
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        locked(&self.budget.accounts).taken.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(account: &Arc<Account>) -> Vec<Taken> {
        std::iter::from_fn(|| account.take()).collect()
    }

    #[test]
    fn one_link_alone_takes_all_and_no_link_takes_anothers_share() {
        let budget = Budget::new(16);
        let one = budget.open();
        let taken = all(&one);
        assert_eq!(taken.len(), 16);
        drop(taken);
        let other = budget.open();
        let taken = all(&one);
        assert_eq!((taken.len(), all(&other).len()), (12, 4), "a quarter each, and half for who is first");
        drop(taken);
        assert_eq!(all(&other).len(), 12);
    }

    #[test]
    fn a_link_that_comes_when_all_is_taken_has_its_share_and_one_that_goes_leaves_its_own() {
        let budget = Budget::new(4);
        let one = budget.open();
        let taken = all(&one);
        let late: Vec<_> = (0..8).map(|_| budget.open()).collect();
        assert!(late.iter().all(|link| all(link).len() == 1), "one is never none");
        drop((taken, late));
        assert_eq!(all(&one).len(), 4);
    }
}
