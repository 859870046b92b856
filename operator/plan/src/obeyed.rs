//! The status of a `LinkCut`: which relay obeyed when, and how many have not yet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use securelink_crds::conditions::Time;
use securelink_crds::{LinkCut, LinkCutStatus, RelayCut};

use crate::status::seconds;

/// Most relays in status (its schema's bound).
const MAX_RELAYS: usize = 256;

/// A relay that a cut hits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutRelay {
    /// Name of the link it carries.
    pub link: String,
    /// Name of its pod.
    pub relay: String,
    /// When it acknowledged that no stream is left; absent: it has not, or does no longer hold the cut.
    pub obeyed_at: Option<Timestamp>,
}

/// What a cut hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutHits {
    /// The relays that run, whether or not they can be reached.
    pub relays: Vec<CutRelay>,
    /// Names of links whose relays cannot be listed: how many have not obeyed is not known.
    pub unlisted: Vec<String>,
}

/// The status of `cut`. The first acknowledgement counts: a later one, such as after the operator started anew, moves no
/// time. Relays that are gone stay on record while there is room: they obeyed. Where relays cannot be listed no number is
/// given: none that could be read as success.
pub fn cut_status(cut: &LinkCut, hits: &CutHits, previous: &LinkCutStatus) -> LinkCutStatus {
    let relays = &hits.relays;
    let pending = relays.iter().filter(|relay| relay.obeyed_at.is_none()).count();
    let pending = u32::try_from(pending).unwrap_or(u32::MAX).min(u32::from(u16::MAX));
    let before: BTreeMap<(&str, &str), Timestamp> =
        previous.relays.iter().map(|known| ((known.link.as_str(), known.relay.as_str()), known.obeyed_at.0)).collect();
    let mut here = BTreeMap::new();
    for relay in relays {
        let key = (relay.link.as_str(), relay.relay.as_str());
        let told = relay.obeyed_at.map(seconds);
        here.insert(key, told.map(|told| before.get(&key).map_or(told, |first| told.min(*first))));
    }
    let mut gone: Vec<_> = before.into_iter().filter(|(key, _)| !here.contains_key(key)).collect();
    gone.sort_by_key(|(key, at)| (std::cmp::Reverse(*at), *key));
    let obeyed = here.into_iter().filter_map(|(key, at)| Some((key, at?))).chain(gone).take(MAX_RELAYS);
    let obeyed: BTreeMap<_, _> = obeyed.collect();
    let record = |((link, relay), at): ((&str, &str), Timestamp)| RelayCut {
        link: link.to_owned(),
        relay: relay.to_owned(),
        obeyed_at: Time(at),
    };
    LinkCutStatus {
        observed_generation: cut.metadata.generation,
        pending: hits.unlisted.is_empty().then_some(pending),
        unknown: unknown(&hits.unlisted),
        relays: obeyed.into_iter().map(record).collect(),
    }
}

/// Why there is no number.
fn unknown(unlisted: &[String]) -> Option<String> {
    let first = unlisted.iter().min()?;
    let others = match unlisted.len() {
        1 => String::new(),
        2 => " and of one other link".to_owned(),
        count => format!(" and of {} other links", count - 1),
    };
    Some(format!(
        "the relays of {first}{others} cannot be listed, so how many have not obeyed is not known; let the operator list pods"
    ))
}
