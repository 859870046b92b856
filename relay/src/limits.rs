//! Rates: a bucket that refills with time, for new streams and for bytes. The rate is the caller's, since a new snapshot
//! may change it while the bucket lives on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Streams at once each way on a link that sets no limit of its own: for so many a cut is promised within a second
/// (promise P4), and each costs this process two descriptors.
pub(crate) const MAX_STREAMS: u32 = 10_000;
/// What a bucket holds when full, in time: a second's worth of streams.
const STREAM_BURST: Duration = Duration::from_secs(1);
/// The same for bytes: short enough that a second's bytes stay near the limit, long enough for whole batches.
const BYTE_BURST: Duration = Duration::from_millis(100);

/// One token bucket. Starts full.
#[derive(Default)]
pub(crate) struct Bucket(Mutex<Option<Level>>);

#[derive(Clone, Copy)]
struct Level {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Runs `take` on the tokens there are now, at most `full`.
    fn with<T>(&self, rate: f64, full: f64, now: Instant, take: impl FnOnce(&mut f64) -> T) -> T {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let level = guard.get_or_insert(Level { tokens: full, at: now });
        let passed = now.saturating_duration_since(level.at).as_secs_f64();
        level.tokens = (level.tokens + passed * rate).min(full);
        level.at = now;
        take(&mut level.tokens)
    }

    /// Whether one more stream may open, at `per_second`.
    pub(crate) fn admit(&self, per_second: u32, now: Instant) -> bool {
        let rate = f64::from(per_second);
        self.with(rate, (rate * STREAM_BURST.as_secs_f64()).max(1.0), now, |tokens| {
            let admitted = *tokens >= 1.0;
            if admitted {
                *tokens -= 1.0;
            }
            admitted
        })
    }

    /// How long to wait before bytes may pass at `per_second`; zero is now. Bytes are paid afterwards by
    /// [`Bucket::pay`], so a batch is never torn and a debt is waited off.
    pub(crate) fn wait(&self, per_second: u64, now: Instant) -> Duration {
        let (rate, full) = byte_rate(per_second);
        self.with(rate, full, now, |tokens| {
            if *tokens > 0.0 { Duration::ZERO } else { Duration::from_secs_f64((-*tokens + 1.0) / rate) }
        })
    }

    /// Takes the tokens of `bytes` that passed.
    #[allow(clippy::cast_precision_loss)] // a batch is far below 2^52 bytes
    pub(crate) fn pay(&self, per_second: u64, bytes: usize, now: Instant) {
        let (rate, full) = byte_rate(per_second);
        self.with(rate, full, now, |tokens| *tokens -= bytes as f64);
    }
}

#[allow(clippy::cast_precision_loss)] // rates end at 2^40
fn byte_rate(per_second: u64) -> (f64, f64) {
    let rate = per_second.max(1) as f64;
    (rate, (rate * BYTE_BURST.as_secs_f64()).max(1.0))
}

/// A byte limit of a link or of an export, one bucket a direction.
#[derive(Clone)]
pub(crate) struct Pace {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) per_second: u64,
}

/// The buckets of a link: one set for all of it, one for each export. Names come from our own exports only.
#[derive(Default)]
pub(crate) struct Buckets(Mutex<HashMap<Measured, Arc<Bucket>>>);

/// What is measured, and of which export; none is the whole link.
type Measured = (Use, Option<Arc<str>>);

/// What a bucket measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// New streams.
    Opens,
    /// Bytes to the peer.
    Sent,
    /// Bytes from the peer.
    Received,
}

impl Buckets {
    /// The bucket of the whole link (`None`) or of one export.
    pub(crate) fn get(&self, what: Use, export: Option<&Arc<str>>) -> Arc<Bucket> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(buckets.entry((what, export.cloned())).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_admits_its_rate_and_the_next_second_as_many() {
        let (bucket, start) = (Bucket::default(), Instant::now());
        let admitted = |at: u64| (0..100).filter(|_| bucket.admit(5, start + Duration::from_millis(at))).count();
        assert_eq!(admitted(0), 5);
        assert_eq!(admitted(0), 0);
        assert_eq!(admitted(400), 2);
        assert_eq!(admitted(5_000), 5, "what is not used is not saved up");
    }

    #[test]
    fn bytes_over_the_rate_are_waited_off() {
        let (bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.wait(1_000, start), Duration::ZERO);
        bucket.pay(1_000, 600, start);
        let wait = bucket.wait(1_000, start);
        assert!(wait > Duration::from_millis(490) && wait < Duration::from_millis(510), "{wait:?}");
        assert_eq!(bucket.wait(1_000, start + wait), Duration::ZERO);
    }
}
