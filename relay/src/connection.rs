//! One authenticated connection: who is at the other end, what it last said, and whether it may stay.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rustls_pki_types::CertificateDer;
use securelink_id::Fingerprint;
use securelink_pki::{PeerTrust, VerifiedPeer};
use securelink_relay_config::{Head, Peer, Protocol, Snapshot};

use crate::failure::Failure;
use crate::frames::{Fault, Frames};
use crate::judge::Direction;
use crate::link::Link;
use crate::places::Place;
use crate::stream::Counted;
use crate::streams::StreamGuard;
use crate::view::{Tls, View};
use crate::wire::{Bye, Code, Message, ReplicaId, Role, Side};

/// Time a peer has to take our last words: a stream counts until then, and a cut waits for it (promise P4: a second).
const FAREWELL: Duration = Duration::from_millis(500);

/// What others may know of a connection while its task owns the frames.
pub(crate) struct Facts {
    pub(crate) id: u64,
    pub(crate) side: Side,
    pub(crate) role: Role,
    pub(crate) replica: ReplicaId,
    pub(crate) peer: VerifiedPeer,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) tls_group: Option<&'static str>,
    pub(crate) version: u16,
    /// Which of our root keys the peer pinned.
    pub(crate) pinned_us_by: Option<Fingerprint>,
    /// The trust that admitted it.
    pub(crate) trust: Arc<PeerTrust>,
    /// The TLS it was made with.
    pub(crate) tls: Arc<Tls>,
    /// The snapshot it was made under.
    snapshot: Arc<Snapshot>,
    head: Mutex<Head>,
    gauge: Gauge,
}

/// What a handshake found out.
pub(crate) struct Proved {
    pub(crate) peer: VerifiedPeer,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) tls_group: Option<&'static str>,
    pub(crate) trust: Arc<PeerTrust>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// A connection after both HELLOs: its owner drives it. It passes through many hands, and is boxed for that.
pub(crate) struct Connection {
    pub(crate) frames: Frames,
    pub(crate) facts: Arc<Facts>,
    /// The head we last sent on it.
    told: Head,
    link: Arc<Link>,
    /// The stream it carries. Behind the frames: the socket is closed before the stream counts as ended.
    carried: Option<Counted>,
    /// An accepted one's place among those without a stream.
    place: Option<Place>,
}

impl Connection {
    /// Lists it on its link; `told` is the head our HELLO carried, `place` an accepted one's.
    pub(crate) fn new(
        link: &Arc<Link>,
        frames: Frames,
        proved: Proved,
        told: Head,
        place: Option<Place>,
    ) -> Option<Box<Self>> {
        let facts = Arc::new(Facts::new(link, proved, &frames)?);
        link.admit(&facts);
        Some(Box::new(Self { frames, facts, told, link: Arc::clone(link), carried: None, place }))
    }

    /// It carries a stream from now on, until it is unloaded or gone. `service` is a name of our own configuration.
    pub(crate) fn carry(&mut self, direction: Direction, service: &Arc<str>) {
        self.carried = Some(Counted::new(&self.link, &self.facts, direction, service));
        self.place = None;
    }

    /// The same for a stream from the peer that was admitted.
    pub(crate) fn carry_admitted(&mut self, guard: StreamGuard, service: &Arc<str>) {
        self.carried = Some(Counted::admitted(&self.link, guard, Direction::Incoming, service));
        self.place = None;
    }

    /// The same for a reserved service, which is nobody's stream and keeps the connection's place.
    pub(crate) fn carry_reserved(&mut self, direction: Direction, service: &str) {
        self.carried = Some(Counted::reserved(&self.link, &self.facts, direction, service));
    }

    /// It carries no stream any more. False where the peer has too many such connections here.
    pub(crate) fn unload(&mut self) -> bool {
        self.carried = None;
        if self.facts.side == Side::Dialer {
            return true;
        }
        if self.place.is_none() {
            self.place = self.link.places.take(self.facts.role);
        }
        self.place.is_some()
    }

    /// Queues our head if it is another than the one last sent; true where it was.
    pub(crate) fn tell_head(&mut self, view: &View) -> Result<bool, Fault> {
        if self.told == view.head {
            return Ok(false);
        }
        self.frames.queue(&Message::Head(view.head.clone()))?;
        self.told = view.head.clone();
        Ok(true)
    }

    /// Whether it should be made anew: our trust, our certificate or, if we dialed it, the way to the peer changed since.
    pub(crate) fn is_outdated(&self, view: &View) -> bool {
        let way = |peer: &Peer| (peer.endpoints.clone(), peer.proxy.clone());
        let (then, now) = (&self.facts.snapshot, &view.snapshot);
        !Arc::ptr_eq(&self.facts.tls, &view.tls)
            || (self.facts.side == Side::Dialer && !Arc::ptr_eq(then, now) && way(&then.peer) != way(&now.peer))
    }

    /// Says why and closes.
    pub(crate) async fn bye(&mut self, code: Code, text: &str) {
        let farewell = async {
            if self.frames.send(&Message::Bye(Bye { code, text: text.to_owned() })).await.is_ok() {
                self.frames.close().await;
            }
        };
        // A peer that takes nothing is not waited for.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// Tells a peer that broke the protocol so, and counts it.
    pub(crate) async fn end(&mut self, failure: &Failure) {
        if let Failure::Fault(Fault::Wire(_) | Fault::Violation(_)) = failure {
            // Our own control connection is an attempt, which its supervisor counts.
            if self.facts.side == Side::Acceptor || self.facts.role != Role::Control {
                self.link.refused(failure);
            }
            self.bye(Code::Protocol, &failure.to_string()).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.forget(self.facts.id);
    }
}

impl Facts {
    fn new(link: &Link, proved: Proved, frames: &Frames) -> Option<Self> {
        let hello = frames.session.peer()?;
        let (side, role) = (frames.session.side(), frames.session.role()?);
        let gauge = link.metrics.connections(role_label(role), side_label(side));
        gauge.inc();
        Some(Self {
            id: link.next_connection(),
            side,
            role,
            replica: hello.replica,
            version: frames.session.version()?,
            head: Mutex::new(hello.head.clone()),
            pinned_us_by: hello.pin,
            peer: proved.peer,
            chain: proved.chain,
            tls_group: proved.tls_group,
            trust: proved.trust,
            tls: proved.tls,
            snapshot: proved.snapshot,
            gauge,
        })
    }

    /// Whether it is the tunnel of a partner without our software.
    pub(crate) fn is_connect(&self) -> bool {
        self.snapshot.peer.protocol == Protocol::Connect
    }

    /// Whether it shows that the peer is there: a control connection or, of a partner that has none, a tunnel.
    pub(crate) fn is_witness(&self) -> bool {
        self.role == Role::Control || self.is_connect()
    }

    /// The head last heard on it.
    pub(crate) fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

const fn role_label(role: Role) -> &'static str {
    match role {
        Role::Control => "control",
        Role::Forward => "forward",
        Role::Reverse => "reverse",
    }
}

const fn side_label(side: Side) -> &'static str {
    match side {
        Side::Dialer => "dialer",
        Side::Acceptor => "acceptor",
    }
}
