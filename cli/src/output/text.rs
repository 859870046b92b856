//! Texts and figures as people read them. What comes from elsewhere is made harmless for a terminal.

use std::time::Duration;

/// Makes a text from elsewhere harmless: what a terminal would obey, what is invisible and what turns the direction of
/// writing around is shown escaped, so that no text can forge a line.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => clean.push(c),
            _ => clean.extend(c.escape_debug()),
        }
    }
    clean
}

/// A number of bytes.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let step = (u64::BITS - 1 - count.leading_zeros()) / 10;
    let unit = UNITS.get(step as usize - 1).copied().unwrap_or("EiB");
    // Tenths, in whole numbers: no float is exact beyond 2^53.
    let tenths = (count >> (10 * (step - 1))).saturating_mul(10) / 1024;
    if tenths.is_multiple_of(10) {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// A short length of time: the two largest units that matter.
pub fn span(length: Duration) -> String {
    let (micros, seconds) = (length.as_micros(), length.as_secs());
    match seconds {
        0 if micros < 10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        0 => format!("{} ms", micros / 1000),
        1..=9 => format!("{seconds}.{} s", length.subsec_millis() / 100),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        // A leaf lives for 72 hours: days would be too coarse for it.
        7200..=345_599 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Breaks a text into lines of at most `width` characters, between words where it can.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').flat_map(|word| broken(word, width.max(1))) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A word that fits no line, such as a fingerprint, in parts that do.
fn broken(word: &str, width: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = word;
    while let Some((end, _)) = rest.char_indices().nth(width) {
        let (part, more) = rest.split_at(end);
        parts.push(part);
        rest = more;
    }
    parts.push(rest);
    parts
}

/// `1 link`, `2 links`.
pub fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// `a`, `a and b`, `a, b and c`.
pub fn in_words<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_move_the_cursor_or_turn_the_line_around() {
        assert_eq!(clean("a\x1b[2Jb\nc\r\u{202e}d\u{200b}"), r"a\u{1b}[2Jb\nc\r\u{202e}d\u{200b}");
        assert_eq!(clean("it's \"Übung\" №7 – ok"), "it's \"Übung\" №7 – ok");
    }

    #[test]
    fn sizes_and_spans_read_well() {
        let shown: Vec<_> = [0, 1023, 1024, 1536, 256 << 20, (1 << 30) - 1, u64::MAX].map(bytes).to_vec();
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "256 MiB", "1023.9 MiB", "15.9 EiB"]);
        let spans: Vec<_> =
            [1_250, 12_000, 1_500_000, 60_000_000, 600_000_000].map(|us| span(Duration::from_micros(us))).to_vec();
        assert_eq!(spans, ["1.2 ms", "12 ms", "1.5 s", "60 s", "10 min"]);
    }

    #[test]
    fn text_breaks_between_words_and_a_long_word_where_it_must() {
        assert_eq!(wrap("a bc def ghij", 6), ["a bc", "def", "ghij"]);
        assert_eq!(wrap("overlöng x", 5), ["overl", "öng x"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn lists_read_as_people_write_them() {
        assert_eq!(in_words::<&str>(&[]), "");
        assert_eq!(in_words(&["a"]), "a");
        assert_eq!(in_words(&["a", "b", "c"]), "a, b and c");
    }
}
