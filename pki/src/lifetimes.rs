//! How long certificates live and when they are renewed. Pure: the clock and the jitter are arguments.
//!
//! The law: `notAfter - renewAt >= 24 h + margin`, so that a link survives a day without its operator from any moment.
//! Only an issuer that ends earlier may break it, and then the schedule says so.

use jiff::{SignedDuration, Timestamp};

use crate::certificate::sha256;

/// How far back every certificate is dated, for peers whose clocks are behind (product, "Trust in two lines").
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// How long a link must survive without its operator, counted from any moment (promise P6).
pub const SURVIVAL: SignedDuration = SignedDuration::from_hours(24);
/// Time on top of [`SURVIVAL`] for an operator that comes back to find a queue: restart, election, issuing, rollout.
pub const MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// The part of a renewal period, as a divisor, by which jitter may bring a renewal forward (fault F40).
const JITTER_DIVISOR: i32 = 10;

const DAY: i64 = 24;

/// Which certificate a lifetime is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A relay's own certificate: 72 h, renewed after 24 h.
    Leaf,
    /// The online issuer: 90 days, renewed after 30.
    Intermediate,
    /// The pinned root: 10 years, followed by a new one after 9.
    Root,
}

impl Role {
    /// From issue to end, without back-dating.
    pub const fn lifetime(self) -> SignedDuration {
        match self {
            Self::Leaf => SignedDuration::from_hours(72),
            Self::Intermediate => SignedDuration::from_hours(90 * DAY),
            Self::Root => SignedDuration::from_hours(3652 * DAY),
        }
    }

    /// From issue to renewal, at the latest.
    pub const fn renewal(self) -> SignedDuration {
        match self {
            Self::Leaf => SignedDuration::from_hours(24),
            Self::Intermediate => SignedDuration::from_hours(30 * DAY),
            Self::Root => SignedDuration::from_hours(9 * 365 * DAY),
        }
    }
}

/// From when until when a certificate holds; both ends included, whole seconds (RFC 5280 section 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether `now` lies within.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// `now`, or where that lies without, the end that is nearer to it.
    pub fn nearest(&self, now: Timestamp) -> Timestamp {
        now.clamp(self.not_before, self.not_after.max(self.not_before))
    }
}

/// What to issue now, and when to do it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The certificate's dates.
    pub validity: Validity,
    /// When to issue the next one.
    pub renew_at: Timestamp,
    /// The issuer's end, if that cut the lifetime short: the link may then not survive a day without its operator.
    pub clipped_to: Option<Timestamp>,
}

impl Schedule {
    /// Dates for a certificate issued at `now` by an issuer that ends at `issuer_not_after` (the earliest end of the
    /// whole chain). `jitter` in 0..=1 brings the renewal forward by up to a tenth of its period, never later.
    /// `None` if the issuer has ended: nothing it signs could be valid.
    pub fn new(role: Role, now: Timestamp, issuer_not_after: Timestamp, jitter: f64) -> Option<Self> {
        let now = whole_second(now);
        let issuer_not_after = whole_second(issuer_not_after);
        if issuer_not_after <= now {
            return None;
        }
        let wished = shift(now, role.lifetime());
        let validity = Validity { not_before: shift(now, -BACKDATE), not_after: wished.min(issuer_not_after) };
        let clipped_to = (issuer_not_after < wished).then_some(issuer_not_after);
        Some(Self { validity, renew_at: renew_at(role, &validity, jitter), clipped_to })
    }

    /// Whether the law holds: a day and a margin are left at the moment of renewal.
    pub fn survives_a_day(&self) -> bool {
        self.validity.not_after.duration_since(self.renew_at) >= SURVIVAL + MARGIN
    }
}

/// When a certificate with these dates is to be renewed: at its role's period, earlier by `jitter` in 0..=1, earlier
/// still if a day and a margin would not be left, and after a third of what it has if it never had that much.
pub fn renew_at(role: Role, validity: &Validity, jitter: f64) -> Timestamp {
    let issued = shift(validity.not_before, BACKDATE).min(validity.not_after);
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
    let period = role.renewal() - (role.renewal() / JITTER_DIVISOR).mul_f64(jitter);
    let lawful = shift(validity.not_after, -(SURVIVAL + MARGIN));
    let third = shift(issued, validity.not_after.duration_since(issued) / 3);
    shift(issued, period).min(lawful.max(third))
}

/// When `certificate` with these dates is renewed. The jitter comes from the certificate itself, so that every look gives
/// one answer and a thousand of one date give a thousand (fault F40).
pub fn due(role: Role, validity: &Validity, certificate: &[u8]) -> Timestamp {
    let random = sha256(certificate);
    let share = f64::from(u16::from_be_bytes([random[0], random[1]])) / f64::from(u16::MAX);
    // Status shows it, and holds whole seconds: with a fraction every one would differ from the stored one.
    whole_second(renew_at(role, validity, share))
}

/// `from` moved by `by`, stopping at the ends of time.
pub(crate) fn shift(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// Certificates hold no fractions of a second: rounded down.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
