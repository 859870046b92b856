//! Whether a leaf may take the place of the one in use. It is ordered apart from the configuration: the newest that fits wins,
//! from wherever it comes (contracts 4). Pure; the clock is an argument.

use std::cmp::Ordering;

use jiff::Timestamp;
use securelink_id::SpiffeId;
use securelink_pki::Refusal;
use securelink_relay::Credentials;
use securelink_relay_config::Snapshot;

/// Why a leaf is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeafError {
    /// Another link's.
    #[error("the leaf is {found}, this link needs {wanted}; another link's Secret is mounted or pushed")]
    OtherIdentity {
        /// Whose it is.
        found: Box<SpiffeId>,
        /// Whose it should be.
        wanted: Box<SpiffeId>,
    },
    /// The peer would refuse it whatever the time.
    #[error("the leaf would be refused by the peer: {0}")]
    Refused(#[from] Refusal),
    /// Of the future.
    #[error("the leaf is not valid before {0}; a clock is wrong, here or at its issuer")]
    NotYetValid(Timestamp),
    /// One that is newer is in use.
    #[error("the leaf begins at {offered}, the one in use at {held}; a controller that was paused may have sent it")]
    Older {
        /// When it begins.
        offered: Timestamp,
        /// When the one in use does.
        held: Timestamp,
    },
}

/// Whether `offered` is to be used from now on: true, or false where it is the one in use. One that has ended is taken where
/// there is no better: with it the controller can still be let in to bring a new one.
pub(crate) fn judge(
    offered: &Credentials,
    held: Option<&Credentials>,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<bool, LeafError> {
    let (leaf, dates) = (&offered.leaf, offered.leaf.validity());
    let wanted = SpiffeId::link(snapshot.own.clone(), snapshot.peer.trust_domain.clone());
    if *leaf.identity() != wanted {
        return Err(LeafError::OtherIdentity { found: Box::new(leaf.identity().clone()), wanted: Box::new(wanted) });
    }
    // Its own dates aside.
    leaf.check(now.clamp(dates.not_before, dates.not_after.max(dates.not_before)))?;
    let Some(held) = held else { return Ok(true) };
    if dates.not_before > now {
        return Err(LeafError::NotYetValid(dates.not_before));
    }
    match age(offered).cmp(&age(held)) {
        Ordering::Greater => Ok(true),
        Ordering::Equal => Ok(false),
        Ordering::Less => Err(LeafError::Older { offered: dates.not_before, held: held.leaf.validity().not_before }),
    }
}

/// Newer is greater. What follows the first field only keeps two leaves of one second from taking each other's place for ever.
fn age(credentials: &Credentials) -> (Timestamp, Timestamp, &[u8], usize) {
    let (leaf, dates) = (&credentials.leaf, credentials.leaf.validity());
    (dates.not_before, dates.not_after, leaf.serial(), credentials.transitions.hops())
}
