//! The running process a command speaks to, and the link it speaks of.

use std::future::Future;
use std::io;
use std::time::Duration;

use securelink_relay_config::LinkRef;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::LinkName;
use crate::control::{Client, ControlError};
use crate::output::{Failure, clean, in_words};
use crate::state::StateDir;

/// Whom a verb is for.
pub(super) enum Process {
    /// The one that runs.
    Running(Client),
    /// Nobody; what is written down holds from the next start.
    None(StateDir),
}

/// Refuses what only a cluster can do, where a process on this machine is meant.
pub(super) fn only_in_cluster(given: bool, what: &str) -> Result<(), Failure> {
    let how = "call it as `kubectl securelink`, or name the cluster by --context, --kubeconfig or -n";
    if given { Err(Failure::usage(format!("{what} is for a cluster; {how}"))) } else { Ok(()) }
}

/// Runs a command that waits for others.
pub(super) fn wait<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(|error| no_threads(&error))?.block_on(work)
}

/// The system gives neither threads nor events.
pub(super) fn no_threads(error: &io::Error) -> Failure {
    Failure::failed(format!("the program cannot run: {error}; look at the limits of this user (ulimit -a)"))
}

/// The signals that tell a process to stop.
pub(super) struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    /// Catches them from now on.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("signals cannot be caught: {error}; report it"));
        let catch = |kind| signal(kind).map_err(failed);
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// The next one's name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! { _ = self.terminate.recv() => "SIGTERM", _ = self.interrupt.recv() => "SIGINT" }
    }

    /// Waits for one, and for the end that follows; a second one does not wait.
    pub(super) async fn drain(&mut self, deadline: Duration, shutdown: impl Future<Output = ()>) {
        let signal = self.next().await;
        tracing::info!(signal, seconds = deadline.as_secs(), "draining; another signal ends it at once");
        tokio::select! {
            () = shutdown => {}
            _ = self.next() => tracing::warn!("ended before every stream had finished"),
        }
    }
}

impl Process {
    /// Finds the process, or the state it would work on.
    pub(super) async fn find(state: &crate::args::StateArgs) -> Result<Self, Failure> {
        let dir = state.dir()?;
        match Client::connect(&dir).await {
            Ok(client) => Ok(Self::Running(client)),
            Err(ControlError::NotRunning(_)) => Ok(Self::None(StateDir::open(&dir, false)?)),
            Err(error) => Err(error.into()),
        }
    }

    /// The link meant. A link given with its namespace need not be known to a folder nobody works on.
    pub(super) async fn link(&self, name: &LinkName) -> Result<LinkRef, Failure> {
        let known = match (self, &name.namespace) {
            (Self::Running(client), _) => known(client).await?,
            (Self::None(_), Some(namespace)) => {
                return Ok(LinkRef { namespace: namespace.clone(), name: name.name.clone() });
            }
            (Self::None(state), None) => state.links()?,
        };
        choose(&known, name)
    }
}

/// The process that has to run, and the link meant.
pub(super) async fn running(state: &crate::args::StateArgs, name: &LinkName) -> Result<(Client, LinkRef), Failure> {
    let client = Client::connect(&state.dir()?).await?;
    let link = choose(&known(&client).await?, name)?;
    Ok((client, link))
}

async fn known(client: &Client) -> Result<Vec<LinkRef>, Failure> {
    Ok(client.status().await?.into_iter().map(|link| link.link).collect())
}

/// The one link among `known` that `name` means.
pub(super) fn choose(known: &[LinkRef], name: &LinkName) -> Result<LinkRef, Failure> {
    let meant = |link: &&LinkRef| {
        link.name == name.name && name.namespace.as_ref().is_none_or(|namespace| *namespace == link.namespace)
    };
    let found: Vec<_> = known.iter().filter(meant).collect();
    let list = |links: &[&LinkRef]| {
        let names: Vec<_> = links.iter().map(|link| clean(&link.to_string())).collect();
        in_words(&names)
    };
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] if known.is_empty() => Err(Failure::failed(format!("there is no link {name}; none is declared"))),
        [] => {
            let all: Vec<_> = known.iter().collect();
            Err(Failure::failed(format!("there is no link {name}; there are: {}", list(&all))))
        }
        several => Err(Failure::usage(format!("{name} may be {}; write the namespace too", list(several)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(names: &[(&str, &str)]) -> Vec<LinkRef> {
        let link = |(namespace, name): &(&str, &str)| LinkRef { namespace: (*namespace).into(), name: (*name).into() };
        names.iter().map(link).collect()
    }

    #[test]
    fn a_name_is_enough_where_it_is_unique_and_an_unknown_one_is_answered_with_what_there_is() {
        let known = links(&[("a", "x"), ("b", "x"), ("b", "y")]);
        let ask = |name: &str| choose(&known, &name.parse().unwrap()).map(|link| link.to_string());
        assert_eq!(ask("y").unwrap(), "b/y");
        assert_eq!(ask("a/x").unwrap(), "a/x");
        assert!(ask("x").unwrap_err().message().unwrap().contains("a/x and b/x"));
        assert!(ask("z").unwrap_err().message().unwrap().contains("a/x, b/x and b/y"));
        assert!("a/b/c".parse::<LinkName>().is_err() && "".parse::<LinkName>().is_err());
    }
}
