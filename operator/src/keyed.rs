//! Hashes that stand for what others choose: by a key of this process, so that nobody prepares two values that collide.

use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::io::{Result, Write};
use std::sync::LazyLock;

use serde::Serialize;

/// A hash of a value as JSON, without a copy of it.
pub(crate) fn hash(value: &(impl Serialize + ?Sized)) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut into = Into(KEY.build_hasher());
    // Plain values: they always serialize, and a hasher takes all.
    let _ = serde_json::to_writer(&mut into, value);
    into.0.finish()
}

struct Into(DefaultHasher);

impl Write for Into {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_hash_and_it_is_by_a_key_that_nobody_knows() {
        assert_eq!(hash("text"), hash("text"));
        assert_ne!(hash("text"), hash("text "));
        let mut known = DefaultHasher::new();
        known.write(br#""text""#);
        assert_ne!(hash("text"), known.finish());
    }
}
