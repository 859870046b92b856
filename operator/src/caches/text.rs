//! The text of an object, packed. Objects of a kind are much alike: each is packed by what it has in common with another of
//! its store, the pattern, so that little is left of most.

use std::borrow::Cow;
use std::sync::Arc;

use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// Longest pattern. A longer object is some other than most, and what is packed by a pattern keeps it in memory.
const LONGEST: usize = 16 * 1024;

/// By what texts are packed.
pub(super) type Pattern = Arc<[u8]>;

/// A packed text.
pub(super) struct Text {
    /// Absent where packing gained nothing: then `bytes` is the text.
    packed: Option<Packed>,
    bytes: Box<[u8]>,
}

struct Packed {
    length: usize,
    pattern: Option<Pattern>,
}

impl Text {
    /// Packs a text.
    pub(super) fn of(text: &[u8], pattern: Option<&Pattern>) -> Self {
        let bytes = compress_with_dict(text, pattern.map_or(&[], |pattern| pattern));
        if bytes.len() < text.len() {
            let packed = Some(Packed { length: text.len(), pattern: pattern.cloned() });
            Self { packed, bytes: bytes.into() }
        } else {
            Self { packed: None, bytes: text.into() }
        }
    }

    /// The text. What was packed here can be unpacked here: nothing comes of a fault of ours only.
    pub(super) fn read(&self) -> Option<Cow<'_, [u8]>> {
        let Some(Packed { length, pattern }) = &self.packed else { return Some(Cow::Borrowed(&self.bytes)) };
        let pattern = pattern.as_deref().unwrap_or_default();
        decompress_with_dict(&self.bytes, *length, pattern).ok().map(Cow::Owned)
    }

    /// How much it takes.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Whether a text makes a better pattern than the one there is: it shows more of what others may have. Patterns grow by an
/// eighth at least, so that few are ever in use.
pub(super) fn is_better(text: &[u8], pattern: Option<&Pattern>) -> bool {
    let known = pattern.map_or(0, |pattern| pattern.len());
    text.len() <= LONGEST && text.len() > known + known / 8
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(name: &str) -> Vec<u8> {
        let ports = (0..50).map(|port| format!("{{\"port\":{port},\"name\":\"{name}\"}}")).collect::<Vec<_>>();
        format!("{{\"metadata\":{{\"name\":\"{name}\"}},\"ports\":[{}]}}", ports.join(",")).into_bytes()
    }

    #[test]
    fn a_text_is_read_as_it_was_and_takes_less_the_more_it_has_in_common() {
        let pattern: Pattern = text("partner-1").into();
        let one = text("partner-2");
        let (alone, alike) = (Text::of(&one, None), Text::of(&one, Some(&pattern)));
        assert_eq!((&*alone.read().unwrap(), &*alike.read().unwrap()), (&*one, &*one));
        assert!(alike.len() < alone.len() && alone.len() < one.len(), "{} {}", alike.len(), alone.len());
    }

    #[test]
    fn a_text_that_does_not_pack_is_kept_as_it_is() {
        let odd: Vec<u8> = (0..=255).collect();
        for text in [&odd[..], b"", b"{}"] {
            let kept = Text::of(text, Some(&odd[..10].into()));
            assert_eq!((&*kept.read().unwrap(), kept.len() <= text.len()), (text, true));
        }
    }

    #[test]
    fn a_pattern_gives_way_to_a_text_that_is_a_good_deal_longer_and_not_too_long() {
        let pattern: Pattern = vec![0; 800].into();
        assert!(is_better(&[0], None) && !is_better(&[], None));
        assert!(!is_better(&[0; 900], Some(&pattern)) && is_better(&[0; 901], Some(&pattern)));
        assert!(is_better(&vec![0; LONGEST], Some(&pattern)) && !is_better(&vec![0; LONGEST + 1], None));
    }
}
