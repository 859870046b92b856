//! The verdict on a link: on which base it runs, what is wrong, what is cut (contracts 6).
//!
//! An edit is judged three ways and the narrowest wins: invalid keeps what was accepted last, forbidden cuts, narrowing takes
//! effect even beside a mistake. Nothing here reads a clock or a cluster.

use std::collections::{BTreeMap, BTreeSet};

use securelink_crds::conditions::Reason;
use securelink_relay_config::{Cut, CutScope, LinkRef};

use crate::accepted::Accepted;
use crate::gathered::{Declared, Gathered};

use crate::snapshot::Orders;
use crate::validated::ValidatedLink;

/// The verdict on a link.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which link.
    pub link: LinkRef,
    /// The generation it speaks of; absent without a cluster.
    pub generation: Option<i64>,
    /// What runs.
    pub base: Base,
    /// Everything that has to be mended. Those about the whole link stand first.
    pub problems: Vec<Problem>,
    /// What is cut, over the base.
    pub cuts: BTreeSet<Cut>,
    /// Revisions of the objects that were looked at and can cut.
    pub seen: BTreeMap<String, u64>,
    /// What to store as `accepted.json`. Absent: leave what is stored, or remove it with a deleted link.
    pub accepted: Option<Accepted>,
    /// No policy applies: everything is allowed.
    pub no_policy: bool,
    /// What is declared but has no effect here, in words for a log.
    pub notes: Vec<String>,
}

/// What a link runs on.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// The spec as it is declared now.
    New(Box<ValidatedLink>),
    /// What was accepted last, with what the edit narrows.
    LastAccepted(Box<ValidatedLink>),
    /// Nothing.
    None,
}

/// Something to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why, in one word.
    pub reason: Reason,
    /// What it keeps from working.
    pub about: About,
    /// Which field, such as `spec.exports[0].port`; empty where it is not one field.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// What a problem, or a cut, is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The whole link: it is not Accepted.
    Link,
    /// One export: it cannot be used, the link is Accepted.
    Export(String),
    /// One import: it cannot be used, the link is Accepted.
    Import(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl Verdict {
    /// The link to build, if anything runs.
    pub fn validated(&self) -> Option<&ValidatedLink> {
        match &self.base {
            Base::New(link) | Base::LastAccepted(link) => Some(link),
            Base::None => None,
        }
    }

    /// The cuts, as [`snapshot`](crate::snapshot()) takes them.
    pub fn orders(&self) -> Orders<'_> {
        Orders { cuts: &self.cuts, seen: &self.seen }
    }

    /// Whether the link is Accepted: nothing is wrong with it as a whole.
    pub fn is_accepted(&self) -> bool {
        self.refusal().is_none() && self.base != Base::None
    }

    /// The first problem about the link as a whole.
    pub fn refusal(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.about == About::Link)
    }

    /// The cut of the whole link, if there is one.
    pub fn whole_cut(&self) -> Option<&Cut> {
        self.cuts.iter().find(|cut| cut.scope == CutScope::Link)
    }
}

/// Judges a link.
pub fn validate(gathered: &Gathered) -> Verdict {
    todo!("being written")
}
