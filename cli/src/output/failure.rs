//! Why a command ends with another exit code than 0, and which one.

use std::io;
use std::process::ExitCode;

use crate::cluster::ClusterError;
use crate::control::ControlError;
use crate::runtime::RuntimeError;
use crate::state::StateError;

/// Exit codes; the help of every command repeats those that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked is false or failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no running process, no state, or no cluster.
    Absent = 3,
}

/// A command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Option<Exit>,
    message: Option<String>,
}

impl Failure {
    /// What was asked is false or failed; `message` reads `what is wrong; what to do`.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Some(Exit::Failed), message: Some(message.into()) }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Some(Exit::Usage), message: Some(message.into()) }
    }

    /// No process runs, or there is no state.
    pub fn absent(message: impl Into<String>) -> Self {
        Self { exit: Some(Exit::Absent), message: Some(message.into()) }
    }

    /// What was asked is false, and the command has said so itself.
    pub fn told() -> Self {
        Self { exit: Some(Exit::Failed), message: None }
    }

    /// Standard output failed. A reader that has seen enough is no failure.
    pub(super) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: None, message: None };
        }
        Self::failed(format!("standard output cannot be written: {error}; check where it goes"))
    }

    /// What to tell the person, if it was not told yet.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.exit.map_or(0, |exit| exit as u8))
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::NoState(_) => Self::absent(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotRunning(_) => Self::absent(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::NoKubeconfig | ClusterError::Unreachable { .. } => Self::absent(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::State(error) => error.into(),
            RuntimeError::Control(error) => error.into(),
            RuntimeError::Path { .. } | RuntimeError::NoFile(_) => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
