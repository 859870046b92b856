//! P3: nothing flows until both agree; when they do not any more, what flows ends within a second.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use securelink_crds::conditions::ConditionType;
use securelink_e2e::organization::{IDENTITIES, LINK};
use securelink_e2e::pair::{OTHER, SIGNED, import};
use securelink_e2e::stream::Stream;
use securelink_e2e::{Pair, World};
use serde_json::json;

/// Within what time the last byte passes (P3).
const SILENT: Duration = Duration::from_secs(1);
/// A text that one side alone has signed.
const ANOTHER: &str = "sha256:00ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667";

/// A stream of each side's client by a link.
async fn streams(pair: &Pair, link: &str) -> Result<[Stream; 2]> {
    let target = import(link);
    let (a, b) =
        futures_util::future::try_join(Stream::open(&pair.a.client, &target), Stream::open(&pair.b.client, &target))
            .await?;
    Ok([a, b])
}

/// Both streams end without a clean end, their last byte within a second of `then`.
async fn end_within_a_second(streams: [Stream; 2], then: SystemTime) -> Result<()> {
    for stream in streams {
        stream.ended().await?.is_broken_off(then, SILENT)?;
    }
    Ok(())
}

/// Nothing passes by the first link, and the second one felt nothing.
async fn only_that_one(pair: &Pair, others: [Stream; 2]) -> Result<()> {
    for side in pair.sides() {
        let answer = side.client.dial(&import(LINK), true).await?;
        ensure!(!answer.connected(), "a new stream passes: {answer:?}");
    }
    for other in others {
        let end = other.finish().await?;
        ensure!(end.is_whole(), "a stream of the other link: {end:?}");
    }
    Ok(())
}

pub(crate) async fn p03_digests_that_differ_end_streams_within_a_second(_: &World, pair: &Pair) -> Result<()> {
    for changed in pair.sides() {
        pair.restore().await?;
        let (held, others) = (streams(pair, LINK).await?, streams(pair, OTHER).await?);
        changed.organization.patch(&json!({ "spec": { "agreement": { "digest": ANOTHER } } })).await?;
        end_within_a_second(held, SystemTime::now()).await?;
        for (side, peer) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            let said = side.organization.until_says(ConditionType::Agreed, "DigestDiffers").await?;
            let named = [ANOTHER, SIGNED, &peer.organization.domain(IDENTITIES[0])];
            ensure!(named.iter().all(|it| said.message.contains(*it)), "both texts are not named: {}", said.message);
        }
        only_that_one(pair, others).await?;
    }
    Ok(())
}

pub(crate) async fn p03_the_end_of_the_agreement_ends_streams_within_a_second(_: &World, pair: &Pair) -> Result<()> {
    let (held, others) = (streams(pair, LINK).await?, streams(pair, OTHER).await?);
    // One side brings the end forward: the earlier one counts, on both sides.
    let end = Timestamp::now().checked_add(SignedDuration::from_secs(6))?;
    let end = Timestamp::from_second(end.as_second())?;
    pair.b.organization.patch(&json!({ "spec": { "agreement": { "expires": end.to_string() } } })).await?;
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end.as_second()).context("before 1970")?);
    end_within_a_second(held, then).await?;
    for side in pair.sides() {
        let said = side.organization.until_says(ConditionType::Agreed, "Expired").await?;
        ensure!(said.message.contains(&end.to_string()), "the end is not named: {}", said.message);
    }
    only_that_one(pair, others).await
}
