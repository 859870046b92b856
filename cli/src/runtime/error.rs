//! Why the runtime could not start or did not do what it was asked.

use std::io;
use std::path::PathBuf;

use securelink_relay_config::LinkRef;

use crate::control::ControlError;
use crate::state::StateError;

/// Why the runtime could not start or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control socket or the local port.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file or folder given on the command line.
    #[error("{} cannot be read: {source}; check -f", .path.display())]
    Path {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that can be read once only.
    #[error("{} is neither a file nor a folder, and is to be read again when it changes; write it to a file", .0.display())]
    NoFile(PathBuf),
    /// The files declare nothing that could run, and nothing ran before.
    #[error("the files declare no LinkIdentity and no SecureLink that could run; {}", first(.0))]
    NothingToRun(Vec<String>),
    /// No such link.
    #[error("there is no link {link}; {}", list(.known))]
    UnknownLink {
        /// The one asked for.
        link: LinkRef,
        /// Those there are.
        known: Vec<LinkRef>,
    },
    /// The link has no relay at the moment.
    #[error("the link {0} is not running; `securelink status` says why")]
    NotRunning(LinkRef),
    /// Cut, but only until the process ends.
    #[error("the link is cut now, but the order could not be written down, so a restart would resume it: {0}")]
    CutNotKept(StateError),
    /// The peer did not answer a greeting.
    #[error("{0}")]
    Greet(String),
}

fn first(problems: &[String]) -> String {
    match problems {
        [] => "give -f a file or a folder with both".to_owned(),
        [only] => format!("mend this first: {only}"),
        [first, rest @ ..] => format!("mend this first (and {} more): {first}", rest.len()),
    }
}

fn list(links: &[LinkRef]) -> String {
    if links.is_empty() {
        return "none is declared".to_owned();
    }
    format!("there are {}", links.iter().map(LinkRef::to_string).collect::<Vec<_>>().join(", "))
}
