//! The agreement gate: whether bytes may flow, judged from both sides' heads. Pure; the caller passes the time.
//!
//! The rule is contracts 2: both active, some digest in both sides' {current, next}, and now inside the intersection
//! of that pair's windows. An end, once seen, latches: a clock that steps back does not revive an agreement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::declaration::{AgreementTerm, DataClass, Declaration, Digest, Head, LinkState};
use crate::time::Millis;

/// What the gate says, and until when it will say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateOpinion {
    /// Open under this agreement (none where neither side declares one), or why not.
    pub verdict: Result<Option<Digest>, Disagreement>,
    /// The next instant at which the verdict can change by itself.
    pub recheck: Option<Millis>,
}

/// Why nothing flows. The names are the `Agreed` condition's reasons (contracts 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason")]
pub enum Disagreement {
    /// A `LinkCut` or `securelink cut` on our side.
    CutHere,
    /// Our specification says `Suspended`.
    SuspendedHere,
    /// The peer cut the link.
    CutByPeer,
    /// The peer suspended the link.
    SuspendedByPeer,
    /// No head of the peer has been seen yet.
    AwaitingDeclaration,
    /// The peer's word is older than `maxStaleness`.
    Stale,
    /// No agreement is named by both sides.
    DigestDiffers,
    /// A common agreement starts later.
    NotYetEffective {
        /// When.
        at: Millis,
    },
    /// The common agreement has ended.
    Expired {
        /// When.
        at: Millis,
    },
}

impl Disagreement {
    /// The reason's name, as conditions and metrics carry it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::CutHere => "CutHere",
            Self::SuspendedHere => "SuspendedHere",
            Self::CutByPeer => "CutByPeer",
            Self::SuspendedByPeer => "SuspendedByPeer",
            Self::AwaitingDeclaration => "AwaitingDeclaration",
            Self::Stale => "Stale",
            Self::DigestDiffers => "DigestDiffers",
            Self::NotYetEffective { .. } => "NotYetEffective",
            Self::Expired { .. } => "Expired",
        }
    }
}

/// Ends of agreements that have been seen, kept across restarts in scratch or state folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latch {
    ends: BTreeMap<Digest, Millis>,
}

impl Latch {
    /// Whether the agreement `digest` is known to have ended at `end` or later. A later end than the one seen clears it.
    pub fn holds(&self, digest: Digest, end: Millis) -> bool {
        self.ends.get(&digest).is_some_and(|seen| *seen >= end)
    }

    /// Records an end that was seen; true where that is news worth storing.
    pub fn record(&mut self, digest: Digest, end: Millis) -> bool {
        let news = !self.holds(digest, end);
        if news {
            self.ends.insert(digest, end);
        }
        news
    }

    /// Forgets agreements that neither side names any more.
    pub fn retain(&mut self, named: impl Fn(Digest) -> bool) {
        self.ends.retain(|digest, _| named(*digest));
    }
}

/// Judges one of the peer's heads against ours.
pub fn agree(own: &Head, peer: &Head, latch: &Latch, now: Millis) -> GateOpinion {
    let closed = |why| GateOpinion { verdict: Err(why), recheck: None };
    match (own.state, peer.state) {
        (LinkState::Cut, _) => return closed(Disagreement::CutHere),
        (LinkState::Suspended, _) => return closed(Disagreement::SuspendedHere),
        (_, LinkState::Cut) => return closed(Disagreement::CutByPeer),
        (_, LinkState::Suspended) => return closed(Disagreement::SuspendedByPeer),
        (LinkState::Active, LinkState::Active) => {}
    }
    let mut best = Disagreement::DigestDiffers;
    let mut recheck: Option<Millis> = None;
    for (ours, theirs) in own.terms().flat_map(|ours| peer.terms().map(move |theirs| (ours, theirs))) {
        let Some(window) = common_window(ours, theirs) else { continue };
        match window.judge(latch, now) {
            Ok(()) => return GateOpinion { verdict: Ok(window.digest), recheck: window.until },
            Err(Disagreement::NotYetEffective { at }) => {
                recheck = Some(recheck.map_or(at, |soonest| soonest.min(at)));
                best = Disagreement::NotYetEffective { at: recheck.unwrap_or(at) };
            }
            Err(ended) if best == Disagreement::DigestDiffers => best = ended,
            Err(_) => {}
        }
    }
    GateOpinion { verdict: Err(best), recheck }
}

/// The overlap of two sides' windows for one agreement.
struct Window {
    digest: Option<Digest>,
    from: Millis,
    until: Option<Millis>,
}

/// Both name the same agreement, or both name none; the later start and the earlier end win.
fn common_window(ours: Option<&AgreementTerm>, theirs: Option<&AgreementTerm>) -> Option<Window> {
    match (ours, theirs) {
        (None, None) => Some(Window { digest: None, from: Millis(0), until: None }),
        (Some(a), Some(b)) if a.digest == b.digest => Some(Window {
            digest: Some(a.digest),
            from: a.from.max(b.from),
            until: [a.until, b.until].into_iter().flatten().min(),
        }),
        _ => None,
    }
}

impl Window {
    fn judge(&self, latch: &Latch, now: Millis) -> Result<(), Disagreement> {
        match (self.digest, self.until) {
            (_, Some(end)) if now >= end => Err(Disagreement::Expired { at: end }),
            (Some(digest), Some(end)) if latch.holds(digest, end) => Err(Disagreement::Expired { at: end }),
            _ if now < self.from => Err(Disagreement::NotYetEffective { at: self.from }),
            _ => Ok(()),
        }
    }
}

/// Every end of a common agreement that has passed, for the [`Latch`].
pub fn ended(own: &Head, peer: &Head, now: Millis) -> Vec<(Digest, Millis)> {
    let pairs = own.terms().flat_map(|ours| peer.terms().map(move |theirs| (ours, theirs)));
    pairs
        .filter_map(|(ours, theirs)| common_window(ours, theirs))
        .filter_map(|window| Some((window.digest?, window.until.filter(|end| now >= *end)?)))
        .collect()
}

/// The heads of one peer: the highest sequence seen over all its replicas (contracts 2), kept in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerHeads {
    highest: Option<Head>,
}

impl PeerHeads {
    /// The highest-sequence head, narrowed by whatever arrived at that sequence.
    pub fn highest(&self) -> Option<&Head> {
        self.highest.as_ref()
    }

    /// Takes in a head from any connection; true where the picture changed.
    ///
    /// A higher sequence replaces. The same one may only narrow. A lower one comes from a replica that lags or is
    /// replayed: it narrows its own connection (see `narrowed`) and nothing else, or a rolling change would shut
    /// the link until the next one.
    pub fn observe(&mut self, head: &Head) -> bool {
        let updated = match &self.highest {
            None => head.clone(),
            Some(known) if head.sequence > known.sequence => head.clone(),
            Some(known) if head.sequence == known.sequence => narrowed(known, head),
            Some(_) => return false,
        };
        let changed = self.highest.as_ref() != Some(&updated);
        self.highest = Some(updated);
        changed
    }
}

/// What a connection's latest head becomes when `new` arrives after `old` on it.
pub fn successor(old: &Head, new: &Head) -> Head {
    if new.sequence > old.sequence { new.clone() } else { narrowed(old, new) }
}

/// `old` reduced to what `new` still grants: the narrower state, only agreements both name, in both windows.
fn narrowed(old: &Head, new: &Head) -> Head {
    let keep = |term: &Option<AgreementTerm>| {
        let term = term.as_ref()?;
        let again = new.terms().flatten().find(|other| other.digest == term.digest)?;
        Some(AgreementTerm {
            digest: term.digest,
            from: term.from.max(again.from),
            until: [term.until, again.until].into_iter().flatten().min(),
        })
    };
    let (current, next) = (keep(&old.current), keep(&old.next));
    let had = old.current.is_some() || old.next.is_some();
    let lost_all = had != (current.is_some() || next.is_some()) || had != (new.current.is_some() || new.next.is_some());
    // Without any common agreement left, "none" would read as "no agreement needed": suspended is the safe reading.
    let floor = if lost_all { LinkState::Suspended } else { LinkState::Active };
    Head {
        sequence: old.sequence,
        current,
        next,
        state: old.state.max(new.state).max(floor),
        hash: if old.hash == new.hash { old.hash } else { new.hash },
    }
}

/// Why a stream for a service is refused although the link is agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The exporting side does not offer it.
    NotOffered,
    /// The importing side does not want it.
    NotWanted,
    /// The import accepts no data as sensitive as the export carries.
    DataClass {
        /// What the export carries.
        carries: DataClass,
        /// The widest the import accepts.
        accepts: DataClass,
    },
}

/// Whether `exporter` offers `service` and `importer` wants it, with a data class the import admits.
pub fn judge_service(exporter: &Declaration, importer: &Declaration, service: &str) -> Result<(), Refusal> {
    let find = |list: &[crate::DeclaredService]| list.iter().find(|s| s.name == service).map(|s| s.data_class);
    let carries = find(&exporter.exports).ok_or(Refusal::NotOffered)?;
    let accepts = find(&importer.imports).ok_or(Refusal::NotWanted)?;
    if carries <= accepts { Ok(()) } else { Err(Refusal::DataClass { carries, accepts }) }
}
