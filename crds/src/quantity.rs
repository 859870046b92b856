//! Byte rates as people write them: `100Mi`, `1G`, `250000`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Slowest rate that can be written, in bytes per second: below it a relay's first batch would wait for minutes.
pub const MIN: u64 = 1_000;
/// Fastest rate that can be written, in bytes per second: 1Ti, far above any relay.
pub const MAX: u64 = 1 << 40;
/// Longest text worth reading: the largest bare number has 13 digits.
const MAX_LENGTH: usize = 16;

/// Suffixes of a Kubernetes quantity that a whole number of bytes can carry.
const SUFFIXES: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Bytes per second in each direction, as it was written; [`ByteRate::parse`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ByteRate {
    /// A bare number.
    Number(i64),
    /// A number with a suffix.
    Text(String),
}

/// Why a value is not a byte rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ByteRateError {
    /// Not a whole number with a suffix.
    #[error("`{}` is not a byte rate; write a whole number with Ki, Mi, Gi, Ti, k, M, G or T, such as 100Mi", .0.escape_debug())]
    Form(String),
    /// Outside of [`MIN`] to [`MAX`].
    #[error("`{0}` is out of bounds; write a byte rate from 1k to 1Ti")]
    Bounds(String),
}

impl ByteRate {
    /// Bytes per second. Refuses fractions, other suffixes, and everything outside of [`MIN`] to [`MAX`].
    pub fn parse(&self) -> Result<u64, ByteRateError> {
        let bytes = match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Text(text) => {
                let form = || ByteRateError::Form(text.chars().take(MAX_LENGTH).collect());
                if text.len() > MAX_LENGTH {
                    return Err(form());
                }
                let (digits, unit) = SUFFIXES
                    .iter()
                    .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, *unit)))
                    .unwrap_or((text, 1));
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(form());
                }
                digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit))
            }
        };
        bytes.filter(|bytes| (MIN..=MAX).contains(bytes)).ok_or_else(|| ByteRateError::Bounds(self.to_string()))
    }
}

impl From<u64> for ByteRate {
    /// With the largest binary suffix that loses nothing.
    fn from(bytes: u64) -> Self {
        let exact = SUFFIXES[..4].iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
        Self::Text(exact.map_or_else(|| bytes.to_string(), |(suffix, unit)| format!("{}{suffix}", bytes / unit)))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for ByteRate {
    fn schema_name() -> Cow<'static, str> {
        "ByteRate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": MAX_LENGTH,
            "example": "100Mi",
            "x-kubernetes-validations": [
                {
                    "rule": "string(self).matches('^[0-9]+([kMGT]|[KMGT]i)?$')",
                    "message": "is not a byte rate; write a whole number with Ki, Mi, Gi, Ti, k, M, G or T, such as 100Mi",
                },
                {
                    "rule": "!string(self).matches('^[0-9]+([kMGT]|[KMGT]i)?$') || \
                             (quantity(string(self)).compareTo(quantity('1k')) >= 0 && \
                             quantity(string(self)).compareTo(quantity('1Ti')) <= 0)",
                    "message": "is out of bounds; write a byte rate from 1k to 1Ti",
                },
            ],
        })
    }
}
