//! What was accepted last, read at each look and judged only when it is another text: judging a spec costs a hundred times
//! what reading it does (docs/scale.md).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use securelink_plan::{Accepted, AcceptedError};
use securelink_relay_config::LinkRef;

use crate::keyed;

/// Of each link a hash of the text that was judged sound, where a judgment adds nothing to it.
#[derive(Debug, Default)]
pub struct Sound(Mutex<HashMap<LinkRef, u64>>);

impl Sound {
    /// Reads an `accepted.json`, as [`Accepted::from_bytes`] does.
    pub fn read(&self, text: &str, link: &LinkRef) -> Result<Accepted, AcceptedError> {
        let hash = keyed::hash(text);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(link) == Some(&hash);
        if known {
            return Accepted::from_judged(text.as_bytes());
        }
        let accepted = Accepted::from_bytes(text.as_bytes(), link)?;
        if Accepted::from_judged(text.as_bytes()).is_ok_and(|read| read == accepted) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(link.clone(), hash);
        }
        Ok(accepted)
    }

    /// Forgets a link that is gone.
    pub fn forget(&self, link: &LinkRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(link);
    }
}
