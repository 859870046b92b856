//! Buffers that the streams of a thread share: whoever has bytes under way holds one, whoever rests has given it back, so
//! that a stream at rest owns none. What an earlier holder wrote is still in them: a holder reads only what it wrote itself.

use std::cell::RefCell;

use crate::capacity;

/// A TLS record's plaintext: what a stream begins with, and all it gets where memory is short.
pub(crate) const SMALL: usize = 16 * 1024;
/// A whole DATA frame with its header, exactly 16 records (relay, "The wire").
pub(crate) const LARGE: usize = 256 * 1024;
/// Sizes from the one to the other, each twice the one before: as batches grow.
const SIZES: usize = (LARGE / SMALL).ilog2() as usize + 1;
/// What every buffer has room for beyond, for each [`SMALL`] of its size: the records that so many bytes are sealed in.
const SLACK: usize = 32;
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

/// What buffers of a shelf are long.
const fn length(shelf: usize) -> usize {
    (SMALL + SLACK) << shelf
}

/// A buffer of at least `size` bytes, and about twice as many at most but for the smallest.
pub(crate) fn take(size: usize) -> Vec<u8> {
    match (0..SIZES).find(|shelf| length(*shelf) >= size) {
        Some(shelf) => SHELVES.with_borrow_mut(|shelves| shelves.take(shelf)).unwrap_or_else(|| vec![0; length(shelf)]),
        // A message that is longer: its buffer is nobody else's.
        None => vec![0; size],
    }
}

/// Gives a buffer back.
pub(crate) fn give(buffer: Vec<u8>) {
    let Some(shelf) = (0..SIZES).find(|shelf| length(*shelf) == buffer.len()) else { return };
    SHELVES.with_borrow_mut(|shelves| shelves.give(shelf, buffer, capacity::spare()));
}

/// Bytes between `start` and `end` wait. While there are none it owns no memory.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        self.release();
    }

    pub(crate) fn waiting_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// `count` bytes were written into the room.
    pub(crate) fn advance(&mut self, count: usize) {
        self.end += count;
    }

    /// Bytes of memory it owns.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Room for `count` bytes behind those that wait.
    pub(crate) fn room(&mut self, count: usize) -> &mut [u8] {
        if self.start > 0 && self.end + count > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        if self.bytes.len() < self.end + count {
            let mut larger = take(self.end + count);
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            give(std::mem::replace(&mut self.bytes, larger));
        }
        &mut self.bytes[self.end..]
    }

    /// Gives the memory back where nothing waits.
    pub(crate) fn release(&mut self) {
        if self.len() == 0 {
            give(std::mem::take(self).bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> usize {
        SHELVES.with_borrow(|shelves| shelves.sizes.iter().map(Vec::len).sum())
    }

    #[test]
    fn a_buffer_given_back_is_taken_again_and_only_so_many_are_kept() {
        for (size, length) in
            [(1, length(0)), (SMALL, length(0)), (length(0) + 1, length(1)), (LARGE, length(SIZES - 1))]
        {
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
        let long = take(2 * LARGE);
        assert_eq!(long.len(), 2 * LARGE);
        give(long);
        assert_eq!(spare(), 0);
    }
}
