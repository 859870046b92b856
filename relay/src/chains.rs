//! The chains that peers present. Thousands of connections are made with one leaf: they share its chain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use rustls_pki_types::CertificateDer;

use crate::link::locked;

/// Certificates as presented.
type Chain = [CertificateDer<'static>];

/// Those in use, by the hash over all certificates ([`securelink_pki::VerifiedPeer::chain_hash`]).
#[derive(Default)]
pub(crate) struct Chains(Mutex<HashMap<[u8; 32], Weak<Chain>>>);

impl Chains {
    /// The chain `presented`, whose hash this is.
    pub(crate) fn share(&self, hash: [u8; 32], presented: &[CertificateDer<'_>]) -> Arc<Chain> {
        let mut known = locked(&self.0);
        if let Some(chain) = known.get(&hash).and_then(Weak::upgrade) {
            return chain;
        }
        known.retain(|_, chain| chain.strong_count() > 0);
        let chain: Arc<Chain> = presented.iter().map(|certificate| certificate.clone().into_owned()).collect();
        known.insert(hash, Arc::downgrade(&chain));
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_kept_once_and_not_longer_than_it_is_used() {
        let (chains, presented) = (Chains::default(), [vec![1; 500].into(), vec![2; 500].into()]);
        let first = chains.share([1; 32], &presented);
        assert!(Arc::ptr_eq(&first, &chains.share([1; 32], &presented)));
        let other = chains.share([2; 32], &presented[..1]);
        assert_eq!((first.len(), other.len()), (2, 1));
        drop((first, other));
        chains.share([3; 32], &presented);
        assert_eq!(locked(&chains.0).len(), 1, "those that nobody uses are forgotten");
    }
}
