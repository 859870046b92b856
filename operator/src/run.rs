//! Starts everything, and ends it in order.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use securelink_crds::keys::MANAGER;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::control::{ControlError, Controller};
use crate::gather::{Sources, TakenNames};
use crate::http::{self, Shown};
use crate::hub::Hub;
use crate::issue::looked::Looked;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::newest::Newest;
use crate::relays::Relays;
use crate::requests::Requests;
use crate::settings::{Arguments, Config, Installed};
use crate::sound::Sound;
use crate::update_status::Written;
use crate::world::{Failures, World};
use crate::{control, controller, cut, update_status};

/// For one request that is no watch.
const REQUEST: Duration = Duration::from_secs(15);
/// For a watch between two bytes: an API server sends a bookmark each minute.
const SILENCE: Duration = Duration::from_secs(100);
/// For a connection to the API server.
const CONNECT: Duration = Duration::from_secs(5);

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server.
    #[error("no way to the API server: {0}; run in a pod with a ServiceAccount, or set KUBECONFIG")]
    Config(#[from] kube::config::InferConfigError),
    /// No client.
    #[error("no client for the API server: {0}")]
    Client(kube::Error),
    /// The control CA.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A fault of ours.
    #[error(
        "{0} has ended by a fault of the operator itself; report it with the log, Kubernetes starts the operator anew"
    )]
    Ended(&'static str),
    /// The port.
    #[error("cannot listen on {address}: {source}; choose another --listen")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs until `stop`, or until something ends that is to go on: a process that carries no cuts any more, or renews no lease,
/// is to be replaced, and a failed one Kubernetes starts anew sooner than one that fails `/livez`. Then ends what is under way
/// and gives the lease back.
///
/// Cuts are told on `cuts`, a runtime of their own: however many links are driven at once, a cut waits behind none of them.
pub async fn run(arguments: Arguments, config: Config, cuts: Handle, stop: CancellationToken) -> Result<(), RunError> {
    let main = Handle::current();
    let failed = |source| RunError::Listen { address: arguments.listen, source };
    let listener = http::bind(arguments.listen).await.map_err(failed)?;
    let (writes, watches) = clients().await?;
    let (metrics, registry) = Metrics::new();
    let (hub, namespace) = (Hub::default(), arguments.namespace.as_str());
    let ready = Arc::new(AtomicBool::new(false));

    let caches = Caches::start(&watches, namespace, &hub, &metrics, &stop);
    let controller =
        Arc::new(Controller::open(&Api::<Secret>::namespaced(writes.clone(), namespace), Timestamp::now()).await?);
    let installation = config.installation(namespace, api_servers(), controller.authorities());
    let lease = Arc::new(Lease::new(Api::<LeaseObject>::namespaced(writes.clone(), namespace), &arguments.name));
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(arguments.name.clone()) };
    let world = Arc::new(World {
        recorder: Recorder::new(writes.clone(), reporter),
        client: writes,
        namespace: namespace.to_owned(),
        listed: config.cert_manager.issuers,
        sources: Sources {
            caches,
            memory: crate::apply::Memory::default(),
            taken: TakenNames::default(),
            sound: Sound::default(),
            installation: Installed::new(installation),
        },
        relays: Arc::new(Relays::new(Arc::clone(&controller), hub.clone(), metrics.clone(), stop.clone())),
        hub,
        lease: Arc::clone(&lease),
        metrics,
        written: Written::default(),
        identities: Newest::default(),
        looked: Looked::default(),
        requests: Requests::default(),
        failures: Failures::default(),
    });
    let shown = Shown {
        registry,
        ready: Box::new({
            let ready = Arc::clone(&ready);
            move || ready.load(Ordering::Relaxed)
        }),
        refresh: Box::new({
            let world = Arc::clone(&world);
            move || {
                update_status::count(&world);
                world.relays.count();
            }
        }),
    };
    let mut tasks = JoinSet::new();
    start((&mut tasks, &main), "the port that shows", http::run(listener, Arc::new(shown), stop.clone()));
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = world.sources.caches.ready() => {}
    }
    ready.store(true, Ordering::Relaxed);
    tracing::info!(name = arguments.name, namespace, "everything that is watched has been seen");
    start((&mut tasks, &cuts), "the way of cuts", cut::run(Arc::clone(&world), stop.clone()));
    start((&mut tasks, &main), "the control CA", control::follow(Arc::clone(&world), controller, stop.clone()));
    start((&mut tasks, &main), "the driver", lead(Arc::clone(&world), stop.clone()));
    // The lease outlives what writes under it.
    let (mut holds, held) = (JoinSet::new(), CancellationToken::new());
    start((&mut holds, &main), "the lease", {
        let (lease, held) = (Arc::clone(&lease), held.clone());
        async move { lease.run(held).await }
    });
    let fault = tokio::select! {
        // What ends because it was asked to is no fault.
        biased;
        () = stop.cancelled() => None,
        ended = tasks.join_next() => ended,
        ended = holds.join_next() => ended,
    };
    tracing::info!("ending");
    stop.cancel();
    tasks.join_all().await;
    held.cancel();
    holds.join_all().await;
    fault.map_or(Ok(()), |what| Err(RunError::Ended(what.unwrap_or_default())))
}

/// Starts what is to go on until the end. A fault in it is told by its name, as an end that nobody asked for is.
fn start(
    (tasks, runtime): (&mut JoinSet<&'static str>, &Handle),
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let told = async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(name, "a fault of the operator itself; report it with the log");
        }
        name
    };
    tasks.spawn_on(told, runtime);
}

/// Drives while this replica leads.
async fn lead(world: Arc<World>, stop: CancellationToken) {
    let mut leads = world.lease.leads();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            led = leads.wait_for(|leads| *leads) => if led.is_err() { return },
        }
        tracing::info!("this replica leads");
        world.metrics.leader.set(1);
        let term = stop.child_token();
        let driven = controller::run(Arc::clone(&world), term.clone());
        let mut over = leads.clone();
        tokio::select! {
            () = driven => {}
            _ = async { over.wait_for(|leads| !*leads).await.map(drop) } => {
                tracing::warn!("this replica leads no more");
            }
        }
        term.cancel();
        world.relays.stop_pushing();
        world.metrics.leader.set(0);
        world.failures.clear();
        update_status::hand_over(&world);
    }
}

/// One client for requests, one for watches: a watch is silent for long, and a request must not be.
async fn clients() -> Result<(Client, Client), RunError> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(CONNECT);
    // Retries are this operator's own: with its deadlines, and never for as long as an answer asks (fault F3).
    config.default_retry = false;
    let with = |timeout| {
        let mut config = config.clone();
        config.read_timeout = Some(timeout);
        config.reset_reader_on_write = true;
        Client::try_from(config).map_err(RunError::Client)
    };
    Ok((with(REQUEST)?, with(SILENCE)?))
}

/// The API server's address as pods see it: no relay has any business there.
fn api_servers() -> Option<IpAddr> {
    std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_by_a_fault_is_told_by_its_name() {
        let (mut tasks, main) = (JoinSet::new(), Handle::current());
        start((&mut tasks, &main), "the way of cuts", std::future::pending());
        start((&mut tasks, &main), "the driver", async { std::panic::panic_any("a fault") });
        assert_eq!(tasks.join_next().await.and_then(Result::ok), Some("the driver"));
        start((&mut tasks, &main), "the lease", std::future::ready(()));
        assert_eq!(tasks.join_next().await.and_then(Result::ok), Some("the lease"));
    }
}
