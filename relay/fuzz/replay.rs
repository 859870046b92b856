//! A fuzz target on stable, without a fuzzer: its seeds, and with proptest bytes like them and bytes out of nothing.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

/// Runs `target` on every seed in `folder`, on seeds with some bytes changed, removed or added, and on arbitrary bytes.
#[allow(clippy::print_stdout, reason = "a failing test shows which seed it was")]
pub fn holds(target: fn(&[u8]), folder: &Path, cases: u32) {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no seed in {}", folder.display());
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for (file, seed) in files.iter().zip(&seeds) {
        println!("{}", file.display());
        target(seed);
    }
    let edits = prop::collection::vec((any::<Index>(), 0..3, any::<u8>()), 1..12);
    let mutated = (select(seeds), edits).prop_map(|(mut bytes, edits)| {
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len() + 1);
            match (edit, bytes.get_mut(at)) {
                (0, Some(old)) => *old = byte,
                (1, Some(_)) => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    });
    let arbitrary = prop::collection::vec(any::<u8>(), 0..400);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let run = |bytes: Vec<u8>| {
        target(&bytes);
        Ok(())
    };
    TestRunner::new(config).run(&prop_oneof![2 => mutated, 1 => arbitrary], run).unwrap();
}
