//! The way from every root we ever had to the current one, and the chain a relay presents because of it.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use securelink_id::Fingerprint;

use crate::certificate::{
    MAX_PRESENTED, MAX_PRESENTED_BYTES, Parsed, certificates_from_pem, certificates_to_pem, fingerprint_of, validity_of,
};
use crate::issue::{IssueError, Root};
use crate::verify::MAX_HOPS;

/// Signs the key of `new` with `old`: a peer that pins `old` will follow. Ends with the earlier of the two roots.
pub fn cross_sign(old: &Root, new: &Root, now: Timestamp) -> Result<CertificateDer<'static>, IssueError> {
    old.sign_next(new, now)
}

/// The oldest self-signed root that still matters, and the crosses 0->1 … n-1->n. Public; empty before the first
/// rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transitions(Vec<CertificateDer<'static>>);

impl Transitions {
    /// Before the first rotation.
    pub fn none() -> Self {
        Self::default()
    }

    /// From `transitions.pem`: the oldest root, then the crosses in order. An empty text is [`Transitions::none`].
    pub fn from_pem(text: &str) -> Result<Self, IssueError> {
        if text.trim().is_empty() {
            return Ok(Self::none());
        }
        let certificates = certificates_from_pem(text, MAX_HOPS + 1)?;
        let parsed = certificates.iter().map(|der| Parsed::new(der)).collect::<Result<Vec<_>, _>>()?;
        for (older, newer) in parsed.iter().zip(parsed.iter().skip(1)) {
            if newer.issuer() != older.subject() || !newer.is_signed_by(older.public_key()) {
                return Err(IssueError::Build("the transitions: a cross is not signed by the root before it"));
            }
        }
        Ok(Self(certificates))
    }

    /// As `transitions.pem`.
    pub fn to_pem(&self) -> String {
        certificates_to_pem(&self.0)
    }

    /// How many roots were left behind.
    pub fn hops(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// The root they lead to; none before the first rotation.
    pub fn leads_to(&self) -> Option<Fingerprint> {
        self.0.last().and_then(|last| fingerprint_of(last).ok())
    }

    /// The roots left behind, oldest first, each with the end of what it says for the next: until then its pins work.
    pub fn left_behind(&self) -> Vec<(Fingerprint, Timestamp)> {
        let hops = self.0.iter().zip(self.0.iter().skip(1));
        hops.filter_map(|(older, cross)| Some((fingerprint_of(older).ok()?, validity_of(cross).ok()?.not_after)))
            .collect()
    }

    /// Adds the hop from `old`, the current root, to `new`. Beyond [`MAX_HOPS`] the oldest is forgotten: pins on it
    /// would be refused anyway.
    pub fn append(&mut self, old: &Root, new: &Root, now: Timestamp) -> Result<(), IssueError> {
        if self.0.is_empty() {
            self.0.push(old.certificate().clone());
        } else if self.0.last().map(|last| fingerprint_of(last)).transpose()? != Some(old.fingerprint()) {
            return Err(IssueError::Build("the transition: the old root is not the one the last transition led to"));
        }
        self.0.push(cross_sign(old, new, now)?);
        if self.hops() > MAX_HOPS {
            self.0.remove(0);
        }
        Ok(())
    }

    /// What a relay presents: leaf, intermediates and root as in `chain`, then the hops. With `pin`, the hash of ours
    /// that the peer said it uses, hops before it are left out. So are the oldest where the caps of contracts 3 ask it:
    /// a chain over them would be refused by every peer, also by those that need no hop.
    pub fn presented(
        &self,
        chain: &[CertificateDer<'static>],
        pin: Option<&Fingerprint>,
    ) -> Vec<CertificateDer<'static>> {
        let is = |der: &CertificateDer<'_>, pin: &Fingerprint| fingerprint_of(der).is_ok_and(|found| found == *pin);
        let pinned_is_current = pin.zip(chain.last()).is_some_and(|(pin, root)| is(root, pin));
        let needed = match pin {
            Some(_) if pinned_is_current => &[],
            Some(pin) => &self.0[self.0.iter().position(|der| is(der, pin)).unwrap_or(0)..],
            None => &self.0[..],
        };
        let mut room = MAX_PRESENTED_BYTES.saturating_sub(chain.iter().map(|der| der.len()).sum());
        let slots = MAX_PRESENTED.saturating_sub(chain.len());
        let newest = needed.iter().rev().take(slots).take_while(|der| {
            let fits = der.len() <= room;
            room = room.saturating_sub(der.len());
            fits
        });
        let mut hops: Vec<_> = newest.cloned().collect();
        hops.reverse();
        [chain, &hops].concat()
    }
}
