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

/// The status of `cut`, which hits these relays. The first acknowledgement counts: a later one, such as after the operator
/// started anew, moves no time. Relays that are gone stay on record while there is room: they obeyed.
pub fn cut_status(cut: &LinkCut, relays: &[CutRelay], previous: &LinkCutStatus) -> LinkCutStatus {
    let pending = relays.iter().filter(|relay| relay.obeyed_at.is_none()).count();
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
        pending: Some(u32::try_from(pending).unwrap_or(u32::MAX).min(u32::from(u16::MAX))),
        relays: obeyed.into_iter().map(record).collect(),
    }
}
