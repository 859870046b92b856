//! `greet`: a message the peer signs for.

use clap::Args;
use securelink_relay_config::Digest;
use serde::Serialize;

use super::process::{only_in_cluster, running, wait};
use crate::args::{LinkName, OutputArgs, StateArgs, WaitArgs, teach};
use crate::output::{Cell, Failure, Out, Table, Tone, clean};

/// Longest message (contracts 1).
const MAX_TEXT: usize = 4096;
/// The message where none is given.
const GREETING: &str = "Greetings over SecureLink";

/// Send the peer a message and get its signature for it
///
/// The first thing to do on a new link, as the heads of the two organizations did: the peer's relay answers with the
/// message's SHA-256, signed with its certificate's key. The signature was verified when the answer is shown.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  The first message:
    securelink greet europol \"INTERPOL to Europol: the line is open\"

  In a cluster, where the operator chooses the message:
    kubectl securelink -n liaison greet europol

  Where two links have the name:
    securelink greet liaison/europol

  Keep the proof:
    securelink greet -o json europol \"…\" > first-message.json",
    "  0  the peer signed for the message
  1  the link is down, or not agreed, or the peer did not answer
  2  the command line is wrong
  3  there is no running process, or no cluster",
    "  {link, peer, text, digest, signature, roundTripMicros}
  in a cluster {links: [{link, state, time, answer}]}"
))]
pub struct GreetArgs {
    /// The link, as NAME or NAMESPACE/NAME
    pub(super) link: LinkName,

    /// The message, up to 4096 bytes [default: Greetings over SecureLink]
    pub(super) text: Option<String>,

    #[command(flatten)]
    pub(super) wait: WaitArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    link: String,
    peer: String,
    text: String,
    digest: Digest,
    signature: String,
    round_trip_micros: u64,
}

/// Sends the message and prints the proof.
pub fn run(args: &GreetArgs, out: Out) -> Result<(), Failure> {
    only_in_cluster(args.wait.timeout.is_some(), "--timeout")?;
    let text = args.text.as_deref().unwrap_or(GREETING);
    if text.len() > MAX_TEXT {
        return Err(Failure::usage(format!("the message has {} bytes, more than {MAX_TEXT}; shorten it", text.len())));
    }
    let answer = wait(async {
        let (client, link) = running(&args.state, &args.link).await?;
        let reply = client.greet(&link, text).await?;
        Ok(Answer {
            link: link.to_string(),
            peer: reply.peer,
            text: text.to_owned(),
            digest: reply.digest,
            signature: reply.signature,
            round_trip_micros: reply.round_trip_micros,
        })
    })?;
    if answer.digest != Digest::of(answer.text.as_bytes()) {
        return Err(Failure::failed(
            "the peer signed for another message than was sent; do not trust this link, and tell the peer",
        ));
    }
    if args.output.is_json() {
        return out.json(&answer);
    }
    let millis = std::time::Duration::from_micros(answer.round_trip_micros);
    let bytes = answer.text.len();
    let style = out.style();
    let (peer, took) = (clean(&answer.peer), crate::output::span(millis));
    out.line(format!("{} {peer} signed for {bytes} bytes in {took}", style.paint(Tone::Good, "✓")))?;
    let mut table = Table::new(&[]).indented(2);
    table.row(["digest".into(), Cell::new(Tone::Value, answer.digest.to_string())]);
    table.row(["signature".into(), Cell::new(Tone::Dim, clean(&answer.signature))]);
    out.table(&table)
}
