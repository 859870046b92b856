//! Status from the verdict and what the relays report. Values that move by themselves stay out.

use jiff::{SignedDuration, Timestamp};
use securelink_crds::SecureLinkStatus;
use securelink_crds::conditions::Reason;
use securelink_id::Fingerprint;
use securelink_relay_config::{LinkReport, Snapshot};

use crate::verdict::Verdict;

/// How long a round trip over the data path keeps a link Ready (product: "Status that tells the truth").
pub const PROBE_FRESH: SignedDuration = SignedDuration::from_secs(30);

/// What is known about our certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Our current root: what the peer pins.
    pub root: Option<Fingerprint>,
    /// The leaf our relays present.
    pub leaf: Option<LeafInUse>,
    /// Why there is no new one, and for a person what to do: `IssuerFailed`, `RootMissing` or `RootConflict`.
    pub failure: Option<(Reason, String)>,
}

/// The leaf our relays present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafInUse {
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// When it will be renewed.
    pub renew_at: Timestamp,
}

/// What was observed, beside the verdict.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Our certificate.
    pub certificate: &'a Certificate,
    /// The snapshot the relays should run; absent before the first.
    pub snapshot: Option<&'a Snapshot>,
    /// What a relay reports; absent while none answers.
    pub report: Option<&'a LinkReport>,
}

/// The status at `now`. Times of transition are kept from `previous`.
pub fn status(
    verdict: &Verdict,
    observed: Observed<'_>,
    previous: &SecureLinkStatus,
    now: Timestamp,
) -> SecureLinkStatus {
    todo!("being written")
}

/// When status or certificate can change without an event: the time to look again.
pub fn next_deadline(verdict: &Verdict, observed: Observed<'_>, now: Timestamp) -> Option<Timestamp> {
    todo!("being written")
}
