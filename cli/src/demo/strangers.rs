//! Who is refused: an organization nobody agreed with, and a certificate that was made for somebody else.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use securelink_crds::conditions::ConditionType;
use securelink_id::{SpiffeId, TrustDomain};
use securelink_pki::Transitions;
use securelink_relay::{Capacity, Clock, Credentials, Memory, Metrics, Relay, Setup, Store};
use securelink_relay_config::{CutBook, Latch, LinkReport};
use serde_json::json;

use super::organization::Organization;
use super::show::Told;
use super::yaml::{OTHER_PARTNER, STRANGER};
use super::{Pair, SOON, until};
use crate::output::clean;

/// A third organization, with its own YAML, state and valid root, calls itself Europol and dials INTERPOL. Under a name of
/// its own it would not come so far: INTERPOL's certificate is made for Europol, and its own software would stop.
pub(super) async fn third(pair: &Pair) -> anyhow::Result<((), Told)> {
    let before = count(&pair.interpol, "WrongRoot");
    let folder = pair.interpol.dir().parent().context("the demo has no folder")?;
    let stranger = Organization::found(folder, STRANGER).await?;
    let agreement = pair.interpol.declared()?.spec.agreement.context("there is no agreement")?;
    let mut link = stranger.draft(&pair.interpol, &agreement.digest)?;
    link.spec.expose = None;
    stranger.declare(&link).await?;
    let refused = refused(&pair.interpol, "WrongRoot", before).await;
    let seen = until(SOON, "word of the refusal at the stranger", async || {
        let connected = stranger.condition(ConditionType::PeerConnected).ok_or("there is no status")?;
        let told = connected.status == "False" && connected.reason == "RefusedByPeer";
        if told {
            Ok(clean(&connected.message))
        } else {
            Err(format!("{}: {}", connected.reason, clean(&connected.message)))
        }
    });
    let seen = seen.await;
    stranger.close().await;
    let (refused, seen) = (refused?, seen?);
    let figures = json!({"reason": "WrongRoot", "message": refused, "seenByStranger": seen});
    let told = Told::new("refused: WrongRoot", figures)
        .row([
            "stranger".to_owned(),
            "dials".to_owned(),
            format!("as {}, root {}", stranger.trust_domain, stranger.fingerprint),
        ])
        .row(["INTERPOL".to_owned(), "WrongRoot".to_owned(), refused])
        .row(["stranger".to_owned(), "RefusedByPeer".to_owned(), seen]);
    Ok(((), still_ready(pair, told).await?))
}

/// Europol's relay of its link to somebody else dials INTERPOL: the right organization, the right root, another audience.
pub(super) async fn other_audience(pair: &Pair) -> anyhow::Result<((), Told)> {
    let before = count(&pair.interpol, "WrongAudience");
    let europol = &pair.europol;
    let state = europol.state()?;
    let identity = state.identity(&europol.link.namespace, "default")?;
    let issuer = identity.intermediate()?.context("Europol has no intermediate")?;
    let (own, other): (TrustDomain, TrustDomain) = (europol.trust_domain.parse()?, OTHER_PARTNER.parse()?);
    let leaf = issuer.issue_leaf(&SpiffeId::link(own, other), &[], Timestamp::now())?;
    let presented = leaf.identity().to_string();
    let mut snapshot = state.link(&europol.link)?.snapshot()?.context("Europol's link has no relay.json")?;
    snapshot.listen = None;
    snapshot.imports.clear();
    snapshot.exports.clear();
    let relay = Relay::start(Setup {
        snapshot,
        credentials: Credentials { leaf: Arc::new(leaf), transitions: Transitions::none() },
        memory: Memory::default(),
        store: Arc::new(Forgetful),
        clock: Clock::system(),
        metrics: Metrics::register(&mut Registry::default()),
        capacity: Capacity::of_process(),
    })
    .await?;
    let refused = refused(&pair.interpol, "WrongAudience", before).await;
    relay.drain(std::time::Duration::ZERO).await;
    let refused = refused?;
    let figures = json!({"reason": "WrongAudience", "message": refused, "identity": presented});
    let told = Told::new("refused: WrongAudience", figures)
        .row(["Europol".to_owned(), "dials".to_owned(), format!("as {}", clean(&presented))])
        .row(["INTERPOL".to_owned(), "WrongAudience".to_owned(), refused]);
    Ok(((), still_ready(pair, told).await?))
}

/// Waits until `own` counts one more refusal for `reason`; returns what it says of it.
async fn refused(own: &Organization, reason: &str, before: u64) -> anyhow::Result<String> {
    let what = format!("a refusal for {reason} at {}", own.name);
    until(SOON, &what, async || {
        let report = own.report().ok_or("there is no report")?;
        if report.peer.refused.get(reason).is_none_or(|count| *count <= before) {
            return Err(format!("refused so far: {:?}", report.peer.refused));
        }
        let last = report.peer.last_refused.filter(|last| last.reason == reason);
        last.map(|last| clean(&last.message)).ok_or_else(|| "counted, but not described".to_owned())
    })
    .await
}

fn count(own: &Organization, reason: &str) -> u64 {
    let counted = |report: LinkReport| report.peer.refused.get(reason).copied();
    own.report().and_then(counted).unwrap_or(0)
}

/// A stranger at the door is none of the partners' business.
async fn still_ready(pair: &Pair, told: Told) -> anyhow::Result<Told> {
    tokio::try_join!(pair.interpol.ready(SOON), pair.europol.ready(SOON))?;
    Ok(told.row(["both".to_owned(), "Ready".to_owned(), "the link between the two did not notice".to_owned()]))
}

/// A relay that lives for a second has nothing to remember.
struct Forgetful;

impl Store for Forgetful {
    fn save_latch(&self, _: &Latch) -> io::Result<()> {
        Ok(())
    }

    fn save_cuts(&self, _: &CutBook) -> io::Result<()> {
        Ok(())
    }
}
