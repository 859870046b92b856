//! The launch: identities, the exchange of lines, the link coming up, the first messages.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use securelink_relay_config::Digest;
use serde_json::json;

use super::organization::Organization;
use super::show::Told;
use super::{Pair, UP};
use crate::output::{clean, span};

/// What both sides signed, for want of the real one.
const MEMORANDUM: &str = "Memorandum of Understanding on the establishment of a secure communication line\n\
    between the parties of this demo, under which each may reach what the other exports, and nothing else.\n";

/// What was founded.
pub(super) fn founded(pair: Pair, folder: &Path) -> (Pair, Told) {
    let line = |of: &Organization| {
        let dir = of.dir().strip_prefix(folder).unwrap_or(of.dir()).display().to_string();
        [of.name.to_owned(), of.trust_domain.clone(), format!("{dir}/identity.yaml, {dir}/state")]
    };
    let rows = [line(&pair.interpol), line(&pair.europol)];
    let mut told = Told::new("2 roots, P-384", json!({"roots": 2}));
    for row in rows {
        told = told.row(row);
    }
    (pair, told)
}

/// Each writes the other's two lines into its link.
pub(super) async fn exchange(pair: &Pair) -> anyhow::Result<((), Told)> {
    let digest = Digest::of(MEMORANDUM.as_bytes()).to_string();
    let mut told = Told::new("no secret crosses", json!({"agreementDigest": digest}));
    for (own, peer) in [(&pair.interpol, &pair.europol), (&pair.europol, &pair.interpol)] {
        fs::write(own.dir().join("memorandum.txt"), MEMORANDUM)?;
        own.declare(&own.draft(peer, &digest)?).await?;
        let [name, _, endpoint, fingerprint] = own.lines();
        told = told.row([name, "endpoint".to_owned(), endpoint]);
        told = told.row([String::new(), "fingerprint".to_owned(), fingerprint]);
    }
    Ok(((), told.row(["both".to_owned(), "agreement".to_owned(), digest])))
}

/// Waits for both to be Ready.
pub(super) async fn ready(pair: &Pair) -> anyhow::Result<((), Told)> {
    let began = Instant::now();
    tokio::try_join!(pair.interpol.ready(UP), pair.europol.ready(UP))?;
    let took = began.elapsed();
    let mut told = Told::new(format!("Ready after {}", span(took)), json!({"millis": millis(took)}));
    for own in [&pair.interpol, &pair.europol] {
        let report = own.report().context("the relay reports nothing")?;
        let group = report.peer.tls_group.as_deref().map_or_else(|| "unknown".to_owned(), clean);
        let probe = report.probe.round_trip_micros.map(Duration::from_micros).map_or("-".to_owned(), span);
        let line = format!("key exchange {group}, round trip {probe}");
        told = told.row([own.name.to_owned(), "Ready".to_owned(), line]);
    }
    Ok(((), told))
}

/// A message each way, each signed for.
pub(super) async fn greet(pair: &Pair) -> anyhow::Result<((), Told)> {
    let mut trips = Vec::new();
    let mut lines = Vec::new();
    for (own, peer) in [(&pair.interpol, &pair.europol), (&pair.europol, &pair.interpol)] {
        let text = format!("{} to {}: the line is open", own.name, peer.name);
        let reply = own.client().await?.greet(&own.link, &text).await?;
        anyhow::ensure!(reply.digest == Digest::of(text.as_bytes()), "{} signed for another message", peer.name);
        anyhow::ensure!(reply.peer == peer.trust_domain, "the answer came from {}", clean(&reply.peer));
        let trip = Duration::from_micros(reply.round_trip_micros);
        let signature: String = reply.signature.chars().take(16).collect();
        let signed = format!("\"{text}\", signed by {}: {}…", peer.trust_domain, clean(&signature));
        lines.push([own.name.to_owned(), span(trip), signed]);
        trips.push(trip);
    }
    let figures: Vec<_> = trips.iter().map(|trip| span(*trip)).collect();
    let micros: Vec<_> = trips.iter().map(|trip| u64::try_from(trip.as_micros()).unwrap_or(u64::MAX)).collect();
    let told = Told::new(format!("{} there, {} back", figures[0], figures[1]), json!({"roundTripMicros": micros}));
    Ok(((), lines.into_iter().fold(told, Told::row)))
}

/// For JSON.
pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
