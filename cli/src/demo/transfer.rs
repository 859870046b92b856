//! A real file from one side's exported service through the other side's imported port, compared by its hash.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_lc_rs::digest::{Context, SHA256};
use securelink_relay_config::Digest;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::launch::millis;
use super::service::{CHUNK, ask_for_file};
use super::show::{Progress, Told};
use super::{Pair, SOON};
use crate::output::{bytes, span};

/// Of a digest, for people; a program gets all of it.
const SHOWN: usize = "sha256:".len() + 16;
/// Longest silence before the transfer counts as stuck.
const SILENCE: Duration = SOON;

/// Makes the file, carries it, compares.
pub(super) async fn carry(pair: &Pair, size: u64, progress: Progress) -> anyhow::Result<((), Told)> {
    let path = pair.europol.service.file().to_owned();
    progress.note(&format!("making {}", bytes(size)));
    let sent = tokio::task::spawn_blocking(move || make(&path, size)).await?.context("the file cannot be made")?;
    let bar = progress.bytes(size);
    let mut stream = ask_for_file(pair.interpol.import).await.context("the import does not take connections")?;
    let began = Instant::now();
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut taken: u64 = 0;
    loop {
        let read = tokio::time::timeout(SILENCE, stream.read(&mut chunk)).await;
        let read = read.with_context(|| format!("no byte for {} s after {}", SILENCE.as_secs(), bytes(taken)))?;
        let read = read.with_context(|| format!("the stream broke after {}", bytes(taken)))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        taken += read as u64;
        bar.at(taken);
    }
    let took = began.elapsed();
    bar.done();
    anyhow::ensure!(taken == size, "{} of {} arrived, and the stream ended as if complete", bytes(taken), bytes(size));
    let received = finish(hash);
    anyhow::ensure!(received == sent, "the hashes differ: {sent} was sent, {received} arrived");
    let rate = u64::try_from(u128::from(size) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX);
    let figures = json!({"bytes": size, "millis": millis(took), "bytesPerSecond": rate, "digest": sent.to_string()});
    let short: String = sent.to_string().chars().take(SHOWN).collect();
    let from = format!("by Europol's service on port {}", pair.europol.service.port());
    let to = format!("on INTERPOL's imported port {}, in {}", pair.interpol.import, span(took));
    let told = Told::new(format!("{} at {}/s, same SHA-256", bytes(size), bytes(rate)), figures)
        .row(["sent".to_owned(), format!("{short}…"), from])
        .row(["arrived".to_owned(), format!("{short}…"), to]);
    Ok(((), told))
}

/// Writes `size` pseudo-random bytes; returns their hash.
fn make(path: &Path, size: u64) -> std::io::Result<Digest> {
    let mut file = File::create(path)?;
    let mut random = fastrand::Rng::new();
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        random.fill(&mut chunk[..part]);
        hash.update(&chunk[..part]);
        file.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    Ok(finish(hash))
}

fn finish(hash: Context) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Digest(digest)
}
