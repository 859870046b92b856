//! Quantities as Kubernetes writes them, compared by what they amount to: an API server stores `1000m` as `1`.

use serde_json::Value;

/// Decimal places that Kubernetes keeps.
const PLACES: i32 = 9;
/// Most digits and the highest power worth reading: what is larger is compared as it is written.
const MOST: usize = 24;

/// Suffixes with a power of two.
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// Suffixes with a power of ten.
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Whether two values are the same quantity.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    matches!((billionths(a), billionths(b)), (Some(a), Some(b)) if a == b)
}

/// How many billionths it amounts to, rounded up; nothing where it is no quantity.
fn billionths(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (number, two, ten) = unit(&text)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    let unsigned = digits.trim_start_matches(['+', '-']);
    if unsigned.is_empty() || unsigned.len() > MOST || !unsigned.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse::<i128>().ok()?.checked_mul(1_i128.checked_shl(two)?)?;
    let power = ten + PLACES - i32::try_from(part.len()).ok()?;
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    if power >= 0 {
        amount.checked_mul(scale)
    } else {
        Some(amount.div_euclid(scale) + i128::from(amount % scale != 0))
    }
}

/// The number in front of a suffix, and the powers of two and of ten that it stands for.
fn unit(text: &str) -> Option<(&str, u32, i32)> {
    if let Some((number, two)) = BINARY.iter().find_map(|(suffix, two)| Some((text.strip_suffix(suffix)?, *two))) {
        return Some((number, two, 0));
    }
    if let Some((number, ten)) = DECIMAL.iter().find_map(|(suffix, ten)| Some((text.strip_suffix(suffix)?, *ten))) {
        return Some((number, 0, ten));
    }
    match text.split_once(['e', 'E']) {
        Some((number, exponent)) => Some((number, 0, i32::from(exponent.parse::<i16>().ok()?))),
        None => Some((text, 0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_the_same_by_what_they_amount_to() {
        for (a, b) in [
            ("1000m", "1"),
            ("1Gi", "1073741824"),
            ("1.5Gi", "1536Mi"),
            ("0.1", "100m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1e3", "1k"),
            ("12E2", "1200"),
            ("1E", "1000P"),
            ("+5", "5"),
            ("0", "0Mi"),
            ("1000000n", "1m"),
            ("0.1n", "1n"),
        ] {
            assert!(is_same(&a.into(), &b.into()), "{a} {b}");
        }
        assert!(is_same(&1.into(), &"1".into()) && is_same(&serde_json::json!(0.5), &"500m".into()));
        for (a, b) in [("1", "1m"), ("1G", "1Gi"), ("128Mi", "256Mi"), ("-1", "1"), ("", ""), ("Mi", "Mi"), ("x", "x")]
        {
            assert!(!is_same(&a.into(), &b.into()), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_quantity_or_too_large_is_none_and_overflows_nothing() {
        for text in ["1e999999", "1e-999999", "1e", "--1", "1-1", "1.2.3", "999999999999999999999999Ei", "1 Gi", "1KiB"]
        {
            assert_eq!(billionths(&text.into()), None, "{text}");
        }
        assert_eq!(billionths(&Value::Null), None);
    }
}
