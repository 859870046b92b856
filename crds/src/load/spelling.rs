//! Which known word a person meant.

/// What to do about an unknown word: the nearest known one, or all of them.
pub(super) fn remedy<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(found, &known) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("use one of {}, or remove it", known.join(", ")),
    }
}

fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    // Words of the API have at most 30 letters; a longer one is no slip.
    if found.len() > 40 {
        return None;
    }
    let lower = found.to_lowercase();
    let distance = |word: &str| edits(&lower, &word.to_lowercase());
    let best = known.iter().copied().map(|word| (distance(word), word)).min()?;
    (best.0 <= 1 + best.1.len() / 5).then_some(best.1)
}

/// Levenshtein's distance, with two neighbours swapped counted as one edit.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(x != y);
            let swap = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y;
            let swapped = if swap { rows[i - 1][j - 1] + 1 } else { usize::MAX };
            row.push(replaced.min(rows[i][j + 1] + 1).min(row[j] + 1).min(swapped));
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognized_and_another_word_is_not() {
        let known = ["fingerprints", "endpoints", "trustDomain"];
        assert_eq!(remedy("fingerprint", known.into_iter()), "did you mean `fingerprints`?");
        assert_eq!(remedy("trustdomain", known.into_iter()), "did you mean `trustDomain`?");
        assert_eq!(remedy("sepc", ["kind", "spec"].into_iter()), "did you mean `spec`?");
        assert_eq!(remedy("trsutDomain", known.into_iter()), "did you mean `trustDomain`?");
        assert_eq!(
            remedy("password", known.into_iter()),
            "use one of fingerprints, endpoints, trustDomain, or remove it"
        );
    }
}
