//! Buffers that the streams of a thread share: whoever has bytes under way holds one, whoever rests has given it back, so
//! that a stream at rest owns none. What an earlier holder wrote is still in them: a holder reads only what it wrote itself.

use std::cell::RefCell;

use crate::capacity;

/// A TLS record: what a stream begins with, and all it gets where memory is short.
pub(crate) const SMALL: usize = 16 * 1024;
/// A whole DATA frame with its header, exactly 16 records (relay, "The wire").
pub(crate) const LARGE: usize = 256 * 1024;
/// Sizes from the one to the other, each twice the one before: as batches grow.
const SIZES: usize = (LARGE / SMALL).ilog2() as usize + 1;
/// Spare ones a thread keeps of each size, 2 MiB in all, or less where memory is limited ([`capacity::spare`]): a poll holds
/// two at most, the rest is for streams that are slow to finish.
const SPARE: usize = 4;

thread_local! {
    static SHELVES: RefCell<Shelves> = const { RefCell::new(Shelves { sizes: [const { Vec::new() }; SIZES], bytes: 0 }) };
}

/// What a thread keeps.
struct Shelves {
    sizes: [Vec<Vec<u8>>; SIZES],
    bytes: usize,
}

impl Shelves {
    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        let buffer = self.sizes[size].pop()?;
        self.bytes -= buffer.len();
        Some(buffer)
    }

    /// Up to `most` bytes in all.
    fn give(&mut self, size: usize, buffer: Vec<u8>, most: usize) {
        if self.sizes[size].len() < SPARE && self.bytes + buffer.len() <= most {
            self.bytes += buffer.len();
            self.sizes[size].push(buffer);
        }
    }
}

/// The shelf for buffers of `length`, if there is one.
fn shelf(length: usize) -> Option<usize> {
    (0..SIZES).find(|shelf| SMALL << shelf == length)
}

/// A buffer of at least `size` bytes, and less than twice as many but for the smallest.
pub(crate) fn take(size: usize) -> Vec<u8> {
    let length = size.next_power_of_two().max(SMALL);
    match shelf(length) {
        Some(shelf) => SHELVES.with_borrow_mut(|shelves| shelves.take(shelf)).unwrap_or_else(|| vec![0; length]),
        // A message that is longer: its buffer is nobody else's.
        None => vec![0; size],
    }
}

/// Gives a buffer back.
pub(crate) fn give(buffer: Vec<u8>) {
    let Some(shelf) = shelf(buffer.len()) else { return };
    SHELVES.with_borrow_mut(|shelves| shelves.give(shelf, buffer, capacity::spare()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> usize {
        SHELVES.with_borrow(|shelves| shelves.sizes.iter().map(Vec::len).sum())
    }

    #[test]
    fn a_buffer_given_back_is_taken_again_and_only_so_many_are_kept() {
        for (size, length) in [(1, SMALL), (SMALL, SMALL), (SMALL + 1, 2 * SMALL), (LARGE, LARGE)] {
            let taken: Vec<_> = (0..=SPARE).map(|_| take(size)).collect();
            assert!(taken.iter().all(|buffer| buffer.len() == length));
            let first = taken[0].as_ptr();
            taken.into_iter().for_each(give);
            assert_eq!(spare(), SPARE);
            let again: Vec<_> = (0..SPARE).map(|_| take(size)).collect();
            assert!(again.iter().any(|buffer| buffer.as_ptr() == first));
            assert_eq!(spare(), 0);
        }
    }

    #[test]
    fn no_more_is_kept_than_memory_allows() {
        let mut shelves = Shelves { sizes: Default::default(), bytes: 0 };
        for _ in 0..SPARE {
            shelves.give(0, vec![0; SMALL], 3 * SMALL - 1);
        }
        assert_eq!((shelves.bytes, shelves.sizes[0].len()), (2 * SMALL, 2));
        shelves.take(0).unwrap();
        shelves.give(1, vec![0; 2 * SMALL], 3 * SMALL - 1);
        assert_eq!((shelves.bytes, shelves.sizes[1].len()), (SMALL, 0), "one byte too many");
        shelves.give(1, vec![0; 2 * SMALL], 3 * SMALL);
        assert_eq!(shelves.bytes, 3 * SMALL);
    }

    #[test]
    fn what_is_longer_than_a_frame_is_kept_by_nobody() {
        let long = take(LARGE + 1);
        assert_eq!(long.len(), LARGE + 1);
        give(long);
        assert_eq!(spare(), 0);
    }
}
