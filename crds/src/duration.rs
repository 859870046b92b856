//! Durations as people write them: `1h`, `90s`, `1h30m`.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Shortest duration of the API: twice the 2.5 s after which a silent control connection is dead (contracts 1).
pub const MIN: Duration = Duration::from_secs(5);
/// Longest duration of the API: a year of 365 days.
pub const MAX: Duration = Duration::from_hours(365 * 24);
/// Longest text worth reading: `8760h525600m31536000s` fits.
const MAX_LENGTH: usize = 24;

/// A duration as it was written; [`LinkDuration::parse`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkDuration(pub String);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not hours, minutes and seconds in that order.
    #[error("`{}` is not a duration; write whole hours, minutes and seconds such as 1h, 90s or 1h30m", .0.escape_debug())]
    Form(String),
    /// Outside of [`MIN`] to [`MAX`].
    #[error("`{0}` is out of bounds; write a duration from 5s to 8760h (a year)")]
    Bounds(String),
}

impl LinkDuration {
    /// The duration meant. Refuses other forms, zero, and everything outside of [`MIN`] to [`MAX`].
    pub fn parse(&self) -> Result<Duration, DurationError> {
        let form = || DurationError::Form(self.0.chars().take(MAX_LENGTH).collect());
        if self.0.is_empty() || self.0.len() > MAX_LENGTH {
            return Err(form());
        }
        let (mut rest, mut seconds) = (self.0.as_str(), 0_u64);
        for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((digits, tail)) = rest.split_once(unit) else { continue };
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(form());
            }
            let part = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(length));
            seconds =
                part.and_then(|part| seconds.checked_add(part)).ok_or_else(|| DurationError::Bounds(self.0.clone()))?;
            rest = tail;
        }
        if !rest.is_empty() {
            return Err(form());
        }
        let duration = Duration::from_secs(seconds);
        if duration < MIN || duration > MAX {
            return Err(DurationError::Bounds(self.0.clone()));
        }
        Ok(duration)
    }
}

impl From<Duration> for LinkDuration {
    /// Whole seconds in the shortest form: `1h30m`.
    fn from(duration: Duration) -> Self {
        let total = duration.as_secs();
        let part = |count: u64, unit: char| if count > 0 { format!("{count}{unit}") } else { String::new() };
        let text = part(total / 3600, 'h') + &part(total / 60 % 60, 'm') + &part(total % 60, 's');
        Self(if text.is_empty() { "0s".to_owned() } else { text })
    }
}

impl fmt::Display for LinkDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for LinkDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LinkDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": MAX_LENGTH,
            "example": "1h",
            // The second rule's guard keeps `duration()` from failing on what the first one already refuses.
            "x-kubernetes-validations": [
                {
                    "rule": "self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$')",
                    "message": "is not a duration; write whole hours, minutes and seconds such as 1h, 90s or 1h30m",
                },
                {
                    "rule": "!self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || \
                             (self.matches('^(0*[0-9]{1,4}h)?(0*[0-9]{1,6}m)?(0*[0-9]{1,8}s)?$') && \
                             duration(self) >= duration('5s') && duration(self) <= duration('8760h'))",
                    "message": "is out of bounds; write a duration from 5s to 8760h (a year)",
                },
            ],
        })
    }
}
