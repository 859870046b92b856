//! Instants as the wire and the files carry them. Reads no clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch (contracts: the unit of every time on the wire and in `relay.json`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The instant `later` after this one; saturates instead of overflowing.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from this instant until `end`; zero when it has passed.
    pub fn until(self, end: Self) -> Duration {
        Duration::from_millis(end.0.saturating_sub(self.0))
    }
}

impl From<jiff::Timestamp> for Millis {
    /// Instants before 1970 become the epoch: no agreement of ours starts earlier.
    fn from(at: jiff::Timestamp) -> Self {
        Self(u64::try_from(at.as_millisecond()).unwrap_or(0))
    }
}

impl fmt::Display for Millis {
    /// RFC 3339 in UTC, or the bare number where the instant lies beyond what a calendar can show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(f, "{at}"),
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}
