//! What an edit takes away, read from a value that may be invalid.
use std::collections::{BTreeMap, BTreeSet};

use securelink_id::Fingerprint;
use serde::{Deserialize, Serialize};

/// What is taken away from a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Narrowing {}
