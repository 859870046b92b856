//! Status from the verdict and what the relays report: for every false condition whose fault it is and what to do.
//!
//! Values that move by themselves stay out: the same inputs give the same status, and a quiet link writes nothing.

mod conditions;
mod entries;
pub(crate) mod words;

use jiff::{SignedDuration, Timestamp};
use securelink_crds::conditions::{Reason, Time};
use securelink_crds::{AgreementStatus, CertificateStatus, PeerStatus, SecureLinkStatus};
use securelink_id::Fingerprint;
use securelink_relay_config::{LinkReport, Millis, Snapshot};

use crate::validated::ValidatedLink;
use crate::verdict::Verdict;

/// How long a round trip over the data path keeps a link Ready (product: "Status that tells the truth").
pub const PROBE_FRESH: SignedDuration = SignedDuration::from_secs(30);

/// Longest sentence in status outside of conditions, in characters (its schema's bound).
pub(crate) const SENTENCE: usize = 1024;
/// Longest word in status, in characters (the narrowest of its schemas' bounds).
const WORD: usize = 32;
/// Longest name of an object, in characters (RFC 1123).
const NAME: usize = 253;
/// Most relays of a peer that status counts (its schema's bound).
const MAX_REPLICAS: usize = 1024;

/// What is known about our certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Our current root: what the peer pins.
    pub root: Option<Fingerprint>,
    /// The leaf our relays present.
    pub leaf: Option<LeafInUse>,
    /// Why there is no new one, and for a person what to do: `IssuerFailed`, `RootMissing` or `RootConflict`.
    pub failure: Option<(Reason, String)>,
}

/// The leaf our relays present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafInUse {
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// When it expires.
    pub not_after: Timestamp,
    /// When it will be renewed.
    pub renew_at: Timestamp,
}

/// What was observed, beside the verdict.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Our certificate.
    pub certificate: &'a Certificate,
    /// The snapshot the relays should run; absent before the first.
    pub snapshot: Option<&'a Snapshot>,
    /// What a relay reports; absent while none answers.
    pub report: Option<&'a LinkReport>,
    /// While none answers: what keeps the relays from it, a reason of `RelayAvailable` and a sentence.
    pub hindrance: Option<&'a (Reason, String)>,
    /// Names of somebody else's `NetworkPolicies` that select the relays and allow more.
    pub widened: &'a [String],
}

/// The status at `now`. Times of transition, and what others write, are kept from `previous`.
pub fn status(
    verdict: &Verdict,
    observed: Observed<'_>,
    previous: &SecureLinkStatus,
    now: Timestamp,
) -> SecureLinkStatus {
    let findings = conditions::findings(verdict, observed, now);
    let link = verdict.validated();
    SecureLinkStatus {
        observed_generation: verdict.generation,
        endpoint: link.and_then(|link| link.endpoint.as_ref()).map(ToString::to_string),
        fingerprint: observed.certificate.root.map(|root| root.to_string()),
        peer: observed.report.map(|report| peer(verdict, report, now)),
        certificate: observed.certificate.leaf.as_ref().map(|leaf| CertificateStatus {
            not_after: Time(leaf.not_after),
            renew_at: Time(leaf.renew_at),
            serial: leaf.serial.clone(),
        }),
        agreement: agreement(verdict, observed.report),
        exports: entries::exports(verdict, observed, &findings),
        imports: entries::imports(verdict, observed, &findings),
        conditions: conditions::list(&findings, verdict.generation, &previous.conditions, now),
        last_request: previous.last_request.clone(),
    }
}

/// When status or certificate can change without an event: the time to look again.
pub fn next_deadline(verdict: &Verdict, observed: Observed<'_>, now: Timestamp) -> Option<Timestamp> {
    let leaf = observed.certificate.leaf.iter().flat_map(|leaf| [leaf.renew_at, leaf.not_after]);
    let report = observed.report.into_iter();
    let visit = |report| verdict.validated().and_then(|link| visit_ends(link, report));
    let relay = report.flat_map(|report| [report.agreed.recheck.map(timestamp), probe_ends(report), visit(report)]);
    let relay = relay.flatten();
    let agreements = verdict.validated().map(|link| &link.agreements).into_iter();
    let terms = agreements.flat_map(|both| [&both.current, &both.next]).flatten().map(|agreement| agreement.term);
    let windows = terms.flat_map(|term| [Some(term.from), term.until]).flatten().map(timestamp);
    leaf.chain(relay).chain(windows).filter(|at| *at > now).min()
}

/// Until when the last round trip counts.
fn probe_ends(report: &LinkReport) -> Option<Timestamp> {
    let success = timestamp(report.probe.last_success?);
    Some(success.checked_add(PROBE_FRESH).unwrap_or(Timestamp::MAX))
}

/// Until when a partner without our software, which has no connection that stays, counts as connected after it was here.
fn visit_ends(link: &ValidatedLink, report: &LinkReport) -> Option<Timestamp> {
    let seen = timestamp(report.peer.last_seen.filter(|_| link.is_connect())?);
    Some(seen.checked_add(link.max_staleness).unwrap_or(Timestamp::MAX))
}

/// Whether the peer is there.
fn is_connected(link: &ValidatedLink, report: &LinkReport, now: Timestamp) -> bool {
    report.peer.control_connections > 0 || visit_ends(link, report).is_some_and(|end| now < end)
}

fn peer(verdict: &Verdict, report: &LinkReport, now: Timestamp) -> PeerStatus {
    let (peer, link) = (&report.peer, verdict.validated());
    let connected = link.is_some_and(|link| is_connected(link, report, now));
    PeerStatus {
        // A connection has proved it: the verifier takes no other name.
        trust_domain: link.filter(|_| connected).map(|link| link.peer.trust_domain.to_string()),
        replicas: u32::try_from(peer.replicas.len().min(MAX_REPLICAS)).unwrap_or_default(),
        protocol_version: match link {
            Some(link) if link.is_connect() => connected.then(|| "http/1.1".to_owned()),
            _ => peer.protocol.map(|version| format!("securelink/{version}")),
        },
        tls_group: peer.tls_group.as_deref().map(|group| words::clean(group, WORD)),
        pinned_fingerprint: peer.pinned_us_by.as_deref().map(|pin| words::clean(pin, 71)),
        last_error: peer.last_error.as_ref().filter(|_| !connected).map(|error| words::clean(&error.message, SENTENCE)),
    }
}

/// The agreement both sides are in: the later start and the earlier end.
fn agreement(verdict: &Verdict, report: Option<&LinkReport>) -> Option<AgreementStatus> {
    let (link, agreed) = (verdict.validated()?, &report?.agreed);
    let digest = agreed.digest?;
    let declared = [&link.agreements.current, &link.agreements.next].into_iter().flatten();
    let ours = declared.into_iter().find(|agreement| agreement.term.digest == digest)?;
    let sides = [Some(&agreed.own), agreed.peer.as_ref()].into_iter().flatten();
    let terms = sides.flat_map(|side| [side.current, side.next]).flatten().filter(|term| term.digest == digest);
    let (mut from, mut until) = (ours.term.from, ours.term.until);
    for term in terms {
        from = from.max(term.from);
        until = [until, term.until].into_iter().flatten().min();
    }
    Some(AgreementStatus {
        reference: ours.reference.clone(),
        digest: digest.to_string(),
        effective_from: Time(whole_second(from)),
        expires: Time(whole_second(until?)),
    })
}

fn timestamp(at: Millis) -> Timestamp {
    i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// As an API server keeps it: with a fraction, every status would differ from the stored one.
fn whole_second(at: Millis) -> Timestamp {
    seconds(timestamp(at))
}

/// The whole second that `at` is in.
pub(crate) fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
