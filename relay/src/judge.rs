//! Whether one stream may be: the gate of its connection, the services both sides declare, and what is cut here.
//! Pure; the clock and everything known are arguments.

use securelink_relay_config::{
    Declaration, Digest, Disagreement, GateOpinion, Head, Latch, Millis, Refusal, agree, judge_service,
};

use crate::view::View;
use crate::wire::{Code, GREET, PROBE};

/// Which way a stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// By the peer, to an export of ours.
    Incoming,
    /// By us, to an export of the peer's.
    Outgoing,
}

impl Direction {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }
}

/// Why a stream may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// For the peer.
    pub(crate) code: Code,
    /// For people on both sides.
    pub(crate) text: String,
}

impl Denial {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The judgment on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgment {
    /// It may be.
    Admit,
    /// The peer's declaration is on its way.
    Await,
    /// It may not.
    Deny(Denial),
}

/// What is known of the peer when a stream is judged.
pub(crate) struct PeerView<'a> {
    /// The head last heard on the stream's connection.
    pub(crate) connection: &'a Head,
    /// The head of the highest sequence heard at all.
    pub(crate) highest: Option<&'a Head>,
    /// The declaration a hash stands for, if it was received.
    pub(crate) declaration: &'a dyn Fn(Digest) -> Option<&'a Declaration>,
    /// The peer's word is older than `maxStaleness`.
    pub(crate) stale: bool,
    /// It is a partner without our software, which declares nothing: it names an agreement and what it wants.
    pub(crate) asserts: bool,
}

/// The gate of one connection: its own latest head and the highest head both open it (contracts 2).
pub(crate) fn gate(own: &Head, peer: &PeerView<'_>, latch: &Latch, now: Millis) -> GateOpinion {
    let first = agree(own, peer.connection, latch, now);
    if first.verdict.is_err() {
        return first;
    }
    let second = match peer.highest {
        Some(highest) => agree(own, highest, latch, now),
        None => GateOpinion { verdict: Err(Disagreement::AwaitingDeclaration), recheck: None },
    };
    let verdict = if peer.stale { second.verdict.and(Err(Disagreement::Stale)) } else { second.verdict };
    GateOpinion { verdict, recheck: [first.recheck, second.recheck].into_iter().flatten().min() }
}

/// Judges a stream to `service`.
pub(crate) fn judge(
    view: &View,
    peer: &PeerView<'_>,
    (direction, service): (Direction, &str),
    latch: &Latch,
    now: Millis,
) -> Judgment {
    if let Err(disagreement) = gate(&view.head, peer, latch, now).verdict {
        return Judgment::Deny(of_disagreement(disagreement, view));
    }
    if peer.asserts {
        let known = view.export(service).is_some();
        return if known { Judgment::Admit } else { Judgment::Deny(of_refusal(Refusal::NotOffered)) };
    }
    if service == PROBE || service == GREET {
        return Judgment::Admit;
    }
    let highest = peer.highest.unwrap_or(peer.connection);
    let Some(declaration) = (peer.declaration)(highest.hash) else { return Judgment::Await };
    if peer.connection.sequence >= highest.sequence && (peer.declaration)(peer.connection.hash).is_none() {
        return Judgment::Await;
    }
    let (exporter, importer, known) = match direction {
        Direction::Incoming => (&view.declaration, declaration, view.export(service).is_some()),
        Direction::Outgoing => (declaration, &view.declaration, view.import(service).is_some()),
    };
    if !known {
        return Judgment::Deny(Denial::new(Code::UnknownExport, "this side does not declare that service"));
    }
    match judge_service(exporter, importer, service) {
        Ok(()) => Judgment::Admit,
        Err(refusal) => Judgment::Deny(of_refusal(refusal)),
    }
}

fn of_disagreement(why: Disagreement, view: &View) -> Denial {
    let code = match why {
        Disagreement::CutHere | Disagreement::CutByPeer => Code::Cut,
        Disagreement::SuspendedHere | Disagreement::SuspendedByPeer => Code::Suspended,
        Disagreement::Expired { .. } => Code::Expired,
        Disagreement::AwaitingDeclaration
        | Disagreement::Stale
        | Disagreement::DigestDiffers
        | Disagreement::NotYetEffective { .. } => Code::NotAgreed,
    };
    let reason = view.cut_reason().filter(|_| why == Disagreement::CutHere);
    Denial::new(code, reason.map_or_else(|| why.reason().to_owned(), |text| format!("{}: {text}", why.reason())))
}

pub(crate) fn of_refusal(refusal: Refusal) -> Denial {
    match refusal {
        Refusal::NotOffered => Denial::new(Code::UnknownExport, "the exporting side does not offer this service"),
        Refusal::NotWanted => Denial::new(Code::Denied, "the importing side does not declare an import of this name"),
        Refusal::DataClass { carries, accepts } => Denial::new(
            Code::Denied,
            format!("the service carries {carries} data, the import accepts {accepts} at most"),
        ),
    }
}
