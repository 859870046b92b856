//! How a stream ended, told in a log and as a metric's label.

use std::fmt;

use crate::frames::Fault;
use crate::judge::Denial;
use crate::wire::{Code, Reject};

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both directions said FIN.
    Finished,
    /// The peer refused it before it began.
    Rejected(Reject),
    /// Our application broke it off.
    Aborted,
    /// The peer broke it off.
    Reset(Code),
    /// The connection broke.
    Lost(Fault),
    /// It may no longer be.
    Denied(Denial),
    /// The peer neither took nor refused it in time.
    Unanswered,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.outcome())?;
        match self {
            Self::Rejected(reject) => write!(f, ": {}: {}", reject.code, reject.text.escape_debug()),
            Self::Reset(code) => write!(f, ": {code}"),
            Self::Lost(fault) => write!(f, ": {fault}"),
            Self::Denied(denial) => write!(f, ": {}: {}", denial.code, denial.text),
            Self::Finished | Self::Aborted | Self::Unanswered => Ok(()),
        }
    }
}

impl End {
    /// A metric's label.
    pub(crate) const fn outcome(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Rejected(_) => "rejected",
            Self::Aborted => "aborted",
            Self::Reset(_) => "reset",
            Self::Lost(_) => "lost",
            Self::Denied(_) => "denied",
            Self::Unanswered => "unanswered",
        }
    }
}
