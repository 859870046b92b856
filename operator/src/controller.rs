//! The driver: every stage of a link on one screen. Only the replica that holds the lease drives.
//!
//! `gather -> validate -> decide and issue -> build -> apply -> push -> update_status -> again at the next deadline`

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::ObjectRef;
use securelink_crds::conditions::Reason;
use securelink_crds::keys::LINK;
use securelink_plan::names::{relay, selector};
use securelink_plan::objects::{Inputs, Objects};
use securelink_plan::relays::{combine, hindrance};
use securelink_plan::{Certificate, Observed, Orders, Verdict, above, next_deadline, validate, widened_by};
use securelink_relay_config::control::Push;
use securelink_relay_config::{LinkRef, Millis, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::apply::{Applied, Applier, ApplyError, LAG};
use crate::caches::{Held, Names, named};
use crate::cut::{pods, relay_pods};
use crate::gather::{Known, NotYet, gather};
use crate::hub::{Change, Gone, Listener};
use crate::issue::{self, Issued, Issuer};
use crate::metrics::Ended;
use crate::relays::Word;
use crate::update_status::{Finding, StatusError};
use crate::withdrawn::{self, Withdrawn};
use crate::world::World;
use crate::{cut_status, identity, requests, update_status};

/// Reconciles at once: the API server's client speaks HTTP/1.1, one request a connection.
const AT_ONCE: u16 = 32;
/// The longest that one reconcile may take: a dozen writes of a few seconds each.
const LONGEST: Duration = Duration::from_mins(2);
/// A machine that slept, or whose clock was set, is noticed after this at the latest.
const LATEST: Duration = Duration::from_mins(10);
/// Between two questions whether a cut that relays hold was withdrawn, while the answer is no, or none comes.
const WITHDRAWN: Duration = Duration::from_secs(30);
/// For a deadline that has passed and could not be met.
const OVERDUE: Duration = Duration::from_secs(5);

/// Why a link or an identity was not brought to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Applying.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// An identity.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The status of a cut.
    #[error(transparent)]
    Cut(#[from] cut_status::CutStatusError),
    /// A fault of ours.
    #[error("a fault of the operator itself; report it with the log: {0}")]
    Panic(String),
    /// The API server, or something on the way to it, hangs.
    #[error("it took longer than {LONGEST:?}")]
    TooLong,
}

impl ReconcileError {
    /// Whether nothing is wrong but that another replica may lead.
    fn is_not_leading(&self) -> bool {
        matches!(self, Self::Apply(ApplyError::NotLeading) | Self::Status(StatusError::NotLeading))
    }

    /// Whether the status tells of it already, as far as it can be written.
    fn is_told(&self) -> bool {
        matches!(self, Self::Apply(_) | Self::Status(_))
    }
}

/// Drives links and identities until `stop`, while this replica leads.
pub async fn run(world: Arc<World>, stop: CancellationToken) {
    let declared = &world.sources.caches.declared;
    let links = Way {
        kind: "SecureLink",
        requests: link_requests,
        work: |link, world| Box::pin(reconcile(link, world)) as Work,
    };
    let identities = Way {
        kind: "LinkIdentity",
        requests: identity_requests,
        work: |at: LinkRef, world: Arc<World>| {
            Box::pin(async move { Ok(identity::reconcile(&at, &world).await?) }) as Work
        },
    };
    let cuts = Way {
        kind: "LinkCut",
        requests: cut_requests,
        work: |at: LinkRef, world: Arc<World>| {
            Box::pin(async move { Ok(cut_status::reconcile(&at, &world).await?) }) as Work
        },
    };
    tokio::join!(
        drive(&world, declared.link_names(), &stop, links),
        drive(&world, declared.identity_names(), &stop, identities),
        drive(&world, declared.cut_names(), &stop, cuts),
    );
}

/// How objects of a kind are driven.
struct Way<F> {
    kind: &'static str,
    /// Which of them a change concerns.
    requests: fn(&World, Change) -> Vec<LinkRef>,
    /// One look at one of them.
    work: F,
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<Action, ReconcileError>> + Send>>;

async fn drive<K, F>(world: &Arc<World>, names: Names<K>, stop: &CancellationToken, way: Way<F>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Fn(LinkRef, Arc<World>) -> Work + Clone + Send + Sync + 'static,
{
    let Way { kind, requests, work } = way;
    let queue = queue::<K>(Arc::clone(world), world.hub.listen(), requests).take_until(stop.clone().cancelled_owned());
    let reconciler = move |object: Arc<PartialObjectMeta<K>>, world: Arc<World>| {
        let work = work.clone();
        Box::pin(async move {
            let Some(at) = named(object.as_ref()) else { return Ok(Action::await_change()) };
            attempt(kind, &at, &world, work(at.clone(), Arc::clone(&world))).await
        })
    };
    let policy = move |object: Arc<PartialObjectMeta<K>>, error: &ReconcileError, world: Arc<World>| {
        let Some(at) = named(object.as_ref()) else { return Action::await_change() };
        tracing::warn!(kind, object = %at, %error, "not reconciled");
        Action::requeue(world.failures.failed(kind, &at))
    };
    let config = Config::default().concurrency(AT_ONCE);
    let done = applier(reconciler, policy, Arc::clone(world), names, queue, config);
    // What was queued and is gone by now, and errors that were told already.
    done.for_each(|_| async {}).await;
}

/// One attempt: bounded in time, and a fault in it ends nothing else.
async fn attempt(kind: &'static str, at: &LinkRef, world: &World, work: Work) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let result = match tokio::time::timeout(LONGEST, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            world.metrics.panics.inc();
            let said = panic.downcast_ref::<String>().cloned();
            let why = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(ReconcileError::Panic(why.unwrap_or_default()))
        }
        Err(_) => Err(ReconcileError::TooLong),
    };
    world.metrics.duration.observe(began.elapsed().as_secs_f64());
    let ended = if result.is_ok() { "ok" } else { "error" };
    world.metrics.reconciles.get_or_create(&Ended { result: ended }).inc();
    match &result {
        Ok(_) => world.failures.succeeded(kind, at),
        // A lease that is late is not lost: nothing else may wake the object again.
        Err(error) if error.is_not_leading() => return Ok(Action::requeue(OVERDUE)),
        Err(error) if kind == "SecureLink" && !error.is_told() => update_status::fault(world, at, error).await,
        Err(_) => {}
    }
    result
}

/// What is to be looked at: everything first, then what changes.
fn queue<K: kube::Resource<DynamicType = ()>>(
    world: Arc<World>,
    changes: Listener,
    requests: fn(&World, Change) -> Vec<LinkRef>,
) -> impl Stream<Item = Result<ObjectRef<PartialObjectMeta<K>>, std::convert::Infallible>> {
    let first = stream::iter([Change::Everything]);
    let later = stream::unfold(changes, |mut changes| async move {
        let change = changes.next().await?;
        Some((change, changes))
    });
    first.chain(later).flat_map(move |change| {
        let wanted = requests(&world, change).into_iter();
        stream::iter(wanted.map(|at| Ok(ObjectRef::new(&at.name).within(&at.namespace))).collect::<Vec<_>>())
    })
}

fn link_requests(world: &World, change: Change) -> Vec<LinkRef> {
    let declared = &world.sources.caches.declared;
    let all = || declared.all_links();
    let within = |namespace: String| all().into_iter().filter(|link| link.namespace == namespace).collect();
    match change {
        Change::Link(link) | Change::Cut(link) => vec![link],
        Change::Declared(link) => {
            let Some(found) = declared.link(&link) else { return Vec::new() };
            // Which of several links to one organization is accepted depends on what the others have come to.
            let mut wanted: Vec<LinkRef> =
                declared.rivals(&found.object).iter().filter_map(|other| named(other.as_ref())).collect();
            if !world.written.is_echo(&link, &found.object) {
                wanted.push(link);
            }
            wanted
        }
        Change::Brake { namespace, link: Some(name) } => vec![LinkRef { namespace, name }],
        Change::Brake { namespace, link: None } | Change::Namespace(namespace) => within(namespace),
        Change::Identity(identity) => within(identity.namespace),
        // A younger one to the same organization may be accepted now.
        Change::Gone(gone) => declared.links_to(&gone.peer),
        Change::Everything => all(),
    }
}

fn identity_requests(world: &World, change: Change) -> Vec<LinkRef> {
    let all = || world.sources.caches.declared.all_identities();
    match change {
        Change::Identity(identity) => vec![identity],
        Change::Everything => all(),
        // A root is made only when all is seen that may tell of another. One that is being deleted waits for its links.
        Change::Namespace(namespace) | Change::Gone(Gone { link: LinkRef { namespace, .. }, .. }) => {
            all().into_iter().filter(|at| at.namespace == namespace).collect()
        }
        _ => Vec::new(),
    }
}

fn cut_requests(world: &World, change: Change) -> Vec<LinkRef> {
    let all = || world.sources.caches.declared.all_cuts();
    match change {
        Change::Brake { namespace, .. }
        | Change::Namespace(namespace)
        | Change::Cut(LinkRef { namespace, .. })
        | Change::Link(LinkRef { namespace, .. })
        | Change::Declared(LinkRef { namespace, .. }) => {
            all().into_iter().filter(|at| at.namespace == namespace).collect()
        }
        Change::Everything => all(),
        _ => Vec::new(),
    }
}

/// The way of one link.
async fn reconcile(link: LinkRef, world: Arc<World>) -> Result<Action, ReconcileError> {
    let known = match gather(&world.sources, &link) {
        Ok(Some(known)) => known,
        // What is missing comes with a change of its own.
        Ok(None) | Err(NotYet::Starting(_)) => return Ok(Action::await_change()),
    };
    // Kubernetes removes what is the link's. Its relays are cut, and are given nothing that could undo that.
    if known.declared.object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let verdict = validate(&known.gathered);
    let Ok(keys) = issuer(&world, &known, now) else { return Ok(Action::await_change()) };
    let issued = leaf(keys.as_deref(), &verdict, &known, now);
    let withdrawn = withdrawn::find(&world, &known, &verdict).await;
    let snapshot = snapshot(&world, &verdict, (&known, &withdrawn), now);
    let mut applied = apply(&world, &known, (&verdict, snapshot.as_ref(), &issued)).await;
    let failure = applied.failures.pop();
    if matches!(failure, Some(ApplyError::NotLeading)) {
        return Err(ApplyError::NotLeading.into());
    }
    let words = world.relays.words(&link);
    if is_unheard(&world, &known, &words) && known.status.observed_generation == verdict.generation {
        // An operator that has just started: what stands in the status holds until a relay says something else, or nothing.
        return failure.map_or(Ok(Action::requeue(LAG)), |failure| Err(failure.into()));
    }
    let reports: Vec<_> = words.iter().filter_map(|word| Some(word.status.as_ref()?.report.clone())).collect();
    let report = combine(&reports, snapshot.as_ref());
    let (hindrance, widened) = (silent(&known, &link), widening(&known, &link));
    let observed = Observed {
        certificate: &issued.certificate,
        snapshot: snapshot.as_ref(),
        report: report.as_ref(),
        hindrance: hindrance.as_ref(),
        widened: &widened,
    };
    let finding = Finding { known: &known, applied: &applied, failure: failure.as_ref(), fresh: issued.fresh };
    let mut status = update_status::compute(&world, finding, &verdict, observed, now);
    requests::answer(&world, &known, &mut status, now);
    update_status::write(&world, finding, status).await?;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    let sooner = applied.again.into_iter().chain(withdrawn.open.then_some(WITHDRAWN)).min();
    Ok(again(next_deadline(&verdict, observed, now), sooner, now))
}

/// The keys of the identity that a link names.
fn issuer(world: &World, known: &Known, now: Timestamp) -> Result<Option<Arc<Issuer>>, NotYet> {
    let Some(declared) = known.identity.as_ref() else { return Ok(None) };
    let name = declared.object.metadata.name.clone().unwrap_or_default();
    identity::issuer(&LinkRef { namespace: known.gathered.link.namespace.clone(), name }, world, declared, now)
}

/// The leaf to present, and what is known of it.
fn leaf(issuer: Option<&Issuer>, verdict: &Verdict, known: &Known, now: Timestamp) -> Issued {
    let recorded = known.status.fingerprint.as_ref().and_then(|text| text.parse().ok());
    let why = "the LinkIdentity is missing or invalid; see the condition Accepted".to_owned();
    let nothing = Issuer::failed(recorded, (Reason::IssuerFailed, why));
    match verdict.validated() {
        Some(link) => issue::leaf(issuer.unwrap_or(&nothing), known.leaf.as_deref(), link, now),
        None => Issued {
            certificate: Certificate { root: issuer.and_then(|issuer| issuer.root), ..Certificate::default() },
            ..Issued::default()
        },
    }
}

/// The next configuration.
fn snapshot(
    world: &World,
    verdict: &Verdict,
    (known, withdrawn): (&Known, &Withdrawn),
    now: Timestamp,
) -> Option<Snapshot> {
    let (link, now) = (verdict.validated()?, Millis::from(now));
    let orders = Orders { withdrawn: &withdrawn.ids, ..verdict.orders() };
    let next = securelink_plan::snapshot(link, orders, known.snapshot.as_ref(), now);
    let words = world.relays.words(&verdict.link);
    Some(above(next, words.iter().filter_map(|word| Some(word.status.as_ref()?.report.version)), now))
}

/// Brings the link's objects to what was built, and its relays to the configuration as soon as that is stored. Without
/// anything to build nothing is removed: what runs was accepted once.
async fn apply(
    world: &World,
    known: &Known,
    (verdict, snapshot, issued): (&Verdict, Option<&Snapshot>, &Issued),
) -> Applied {
    let accepted = verdict.accepted.as_ref().or(known.gathered.last_accepted.as_ref());
    let (Some(space), Some(link), Some(snapshot), Some(accepted)) =
        (&known.space, verdict.validated(), snapshot, accepted)
    else {
        return Applied::default();
    };
    let applier = Applier {
        client: &world.client,
        lease: &world.lease,
        memory: &world.sources.memory,
        taken: &world.sources.taken,
        metrics: &world.metrics,
        link: &verdict.link,
        uid: &known.uid,
        space,
        stored: known.stored.as_deref(),
    };
    let installation = world.sources.installation.now();
    let inputs =
        Inputs { uid: &known.uid, link, accepted, snapshot, leaf: issued.files.as_ref(), installation: &installation };
    let push = || {
        let push = Push { snapshot: serde_json::to_value(snapshot).ok(), leaf: issued.files.clone() };
        world.relays.push(&verdict.link, &push);
    };
    applier.apply(Objects::build(&inputs), push).await
}

/// Whether there is a relay of which it is not known yet whether it answers.
fn is_unheard(world: &World, known: &Known, words: &[Word]) -> bool {
    let link = &known.gathered.link;
    let found = known.space.as_ref().and_then(|space| pods(space, link)).map_or(0, |pods| pods.len());
    let relays = found.saturating_sub(world.relays.parted(link).len());
    relays > words.iter().filter(|word| word.status.is_some() || word.error.is_some()).count()
}

/// What keeps the relays from answering.
fn silent(known: &Known, link: &LinkRef) -> Option<(Reason, String)> {
    let space = known.space.as_ref()?;
    let name = relay(&link.name);
    let deployment = space.deployments.get(&link.namespace, &name).and_then(|held| held.read());
    let found = relay_pods(space, link);
    hindrance(deployment.as_deref(), &found.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// Somebody else's policies that select the relays.
fn widening(known: &Known, link: &LinkRef) -> Vec<String> {
    let Some(space) = &known.space else { return Vec::new() };
    let (selector, found) = (selector(&link.name), relay_pods(space, link));
    let mut held = space.network_policies.concerning(selector.get(LINK).map(String::as_str));
    held.extend(space.network_policies.concerning(None));
    let read: Vec<_> = held.iter().filter_map(Held::read).collect();
    let policies: Vec<_> = read.iter().map(AsRef::as_ref).collect();
    let labels: Vec<_> = found.iter().map(|pod| pod.labels()).collect();
    widened_by(link, &known.uid, &policies, &labels)
}

/// When to look again.
fn again(deadline: Option<Timestamp>, sooner: Option<Duration>, now: Timestamp) -> Action {
    let left = deadline.map(|deadline| {
        Duration::try_from(deadline.duration_since(now)).ok().filter(|left| !left.is_zero()).unwrap_or(OVERDUE)
    });
    Action::requeue([left, sooner, Some(LATEST)].into_iter().flatten().min().unwrap_or(LATEST))
}
