//! Emergency cuts: what is cut, and when a relay may forget that it was (contracts 4).

use std::collections::{BTreeMap, BTreeSet};

use securelink_id::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

/// How much a cut cuts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CutScope {
    /// Everything.
    Link,
    /// One export by name.
    Export(String),
    /// One import by name.
    Import(String),
    /// One pinned root of the peer.
    Pin(Fingerprint),
}

/// An order to stop something at once, live streams included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// `kind/uid` of the object that orders it; where it orders several, with `#` and the scope behind it.
    pub id: String,
    /// Raised when that object changes its mind; a revision once seen is never obeyed twice.
    pub revision: u64,
    /// What to stop.
    pub scope: CutScope,
    /// For people on both sides.
    pub reason: String,
}

/// The cuts a relay holds beside its snapshot. Stored in scratch, so that a restart does not resume what was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutBook {
    stored: BTreeMap<String, Cut>,
}

impl CutBook {
    /// Takes a pushed cut in, unless `snapshot` already knew that revision; true where something changed.
    pub fn admit(&mut self, cut: Cut, snapshot: &Snapshot) -> bool {
        let stale =
            acknowledged(snapshot, &cut) || self.stored.get(&cut.id).is_some_and(|held| held.revision >= cut.revision);
        if !stale {
            self.stored.insert(cut.id.clone(), cut);
        }
        !stale
    }

    /// Drops what a newer snapshot acknowledges: from then on the snapshot itself says whether it is still cut.
    pub fn reconcile(&mut self, snapshot: &Snapshot) -> bool {
        let before = self.stored.len();
        self.stored.retain(|_, cut| !acknowledged(snapshot, cut));
        self.stored.len() != before
    }

    /// Everything cut now: the snapshot's cuts in force and the stored ones.
    pub fn effective(&self, snapshot: &Snapshot) -> BTreeSet<Cut> {
        snapshot.cuts_in_force.iter().chain(self.stored.values()).cloned().collect()
    }

    /// Reads back one stored cut, at boot, before any snapshot judged it.
    pub fn restore(&mut self, cut: Cut) {
        self.stored.insert(cut.id.clone(), cut);
    }

    /// The cuts held, for storing.
    pub fn stored(&self) -> impl Iterator<Item = &Cut> {
        self.stored.values()
    }
}

/// One object may order several cuts, each with its scope behind the object's own id and a `#`: who has seen the object at a
/// revision has seen them all.
fn acknowledged(snapshot: &Snapshot, cut: &Cut) -> bool {
    let object = cut.id.split_once('#').map(|(object, _)| object);
    let seen = |id: &str| {
        let known = snapshot.seen.get(id).is_some_and(|seen| cut.revision <= *seen);
        known || snapshot.released.iter().any(|released| released == id)
    };
    seen(&cut.id) || object.is_some_and(seen)
}
