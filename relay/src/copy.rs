//! Carries one stream between an application's socket and a connection, half-close and abort included, and re-judges it
//! at every change. Opens and closes no connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep};

use crate::acknowledged::Watch;
use crate::connection::{Connection, Facts};
use crate::early::Early;
use crate::end::End;
use crate::frames::{Fault, Frames, Received};
use crate::judge::{Denial, Direction, Judgment};
use crate::lanes::{self, Lane, Tempo};
use crate::limits::Pace;
use crate::link::Link;
use crate::view::View;
use crate::wire::{Code, EARLY_DATA, Message};

/// Steps of one poll before other tasks get their turn: tokio's budget does not see `try_read` (relay, "Inside"). A short
/// message takes three, and is not to wait between them.
const QUANTUM: usize = 4;
/// Time for ACCEPT: the other side's own limits for authorizing (2 s) and dialing (5 s), and the way.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long ACCEPT waits for the service's first bytes, to go with them: a client has its connection without it, and a timer
/// of tokio is no finer. Not where it is the client that is answered, by CONNECT.
const ACCEPT_WAIT: Duration = Duration::from_millis(1);
/// A peer that sent so much before ACCEPT may soon have to stop.
const MUCH: u64 = EARLY_DATA as u64 / 2;
/// Time for the system to say what is in a socket that is watched from now on.
const SETTLE: Duration = Duration::from_millis(10);
/// While the application takes nothing, the connection is not read: looked at so often, it still cannot die unnoticed.
const GLANCE: Duration = Duration::from_secs(1);

/// One stream being carried.
pub(crate) struct Copy<'a> {
    pub(crate) link: &'a Arc<Link>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) direction: Direction,
    pub(crate) service: Arc<str>,
    /// Whether the service is still what it was when the stream was admitted: another target is another service.
    pub(crate) unchanged: &'a (dyn Fn(&View) -> bool + Send + Sync),
    pub(crate) paces: Paces,
    pub(crate) early: Early,
    state: State,
}

/// The byte limits a stream shares with others.
#[derive(Default)]
pub(crate) struct Paces {
    pub(crate) sent: Vec<Pace>,
    pub(crate) received: Vec<Pace>,
}

#[derive(Default)]
struct State {
    answered: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    /// ACCEPT waits for what may follow it until then.
    patience: Option<Pin<Box<Sleep>>>,
    /// The application broke off: what it sent before is still carried, nothing is written to it any more.
    broken: bool,
    /// Why nothing more can be sent. What the peer sent before, and its last word, are still heard.
    deaf: Option<Fault>,
    glance: Option<Pin<Box<Sleep>>>,
    watch: Watch,
    tempo: Tempo,
    /// Until then what is in the sockets may not show: other threads have just begun to watch them.
    fresh: Option<Pin<Box<Sleep>>>,
    sending: Pacer,
    receiving: Pacer,
}

/// What carrying in one lane came to.
enum Leg {
    Ended(End),
    To(Lane),
}

/// Waits off a debt.
#[derive(Default)]
struct Pacer(Option<Pin<Box<Sleep>>>);

impl Pacer {
    fn poll(&mut self, paces: &[Pace], cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.0 {
                ready!(sleep.as_mut().poll(cx));
                self.0 = None;
            }
            let now = Instant::now();
            match paces.iter().map(|pace| pace.bucket.wait(pace.per_second, now)).max() {
                Some(wait) if !wait.is_zero() => self.0 = Some(Box::pin(sleep(wait))),
                _ => return Poll::Ready(()),
            }
        }
    }
}

fn pay(paces: &[Pace], bytes: usize) {
    for pace in paces {
        pace.bucket.pay(pace.per_second, bytes, Instant::now());
    }
}

impl<'a> Copy<'a> {
    /// A stream on `connection`; an opener's waits for ACCEPT, a server has queued it.
    pub(crate) fn new(
        link: &'a Arc<Link>,
        connection: &Connection,
        (direction, service): (Direction, Arc<str>),
        unchanged: &'a (dyn Fn(&View) -> bool + Send + Sync),
    ) -> Self {
        let answered = direction == Direction::Incoming;
        let deadline = (!answered).then(|| Box::pin(sleep(OPEN_TIMEOUT)));
        let facts = Arc::clone(&connection.facts);
        let patience = (answered && !facts.is_connect()).then(|| Box::pin(sleep(ACCEPT_WAIT)));
        let state = State { answered, deadline, patience, ..State::default() };
        Self { link, facts, direction, service, unchanged, paces: Paces::default(), early: Early::default(), state }
    }

    /// Carries between `application` and the peer until the end. The caller has registered the stream: whatever changes
    /// after that is seen here.
    pub(crate) async fn run(&mut self, connection: &mut Connection, application: &mut TcpStream) -> End {
        let mut is_away = false;
        loop {
            let (lane, end) = match self.run_here(connection, application).await {
                // The connection may carry others. Of every other end nothing remains, and it waits for no thread.
                Leg::Ended(End::Finished) => (Lane::Short, Some(End::Finished)),
                Leg::Ended(end) => return end,
                Leg::To(lane) => (lane, None),
            };
            if is_away != (lane == Lane::Bulk) && lanes::change(lane).await {
                is_away = !is_away;
                lanes::replant(connection.frames.socket_mut());
                lanes::replant(application);
                self.state.fresh = Some(Box::pin(sleep(SETTLE)));
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The same until the end, or until another lane fits.
    async fn run_here(&mut self, connection: &mut Connection, application: &TcpStream) -> Leg {
        let error = application.ready(Interest::ERROR);
        tokio::pin!(error);
        let mut generation = self.link.generation();
        let stop = self.link.stop.clone();
        loop {
            if let Some(denial) = self.denial() {
                return Leg::Ended(End::Denied(denial));
            }
            if !self.state.answered && self.link.replicas.is_dead(self.facts.replica) {
                // No answer will come: another replica may give one.
                return Leg::Ended(End::Lost(Fault::Ended));
            }
            if let Err(fault) = connection.tell_head(&self.link.view()) {
                return Leg::Ended(End::Lost(fault));
            }
            tokio::select! {
                biased;
                _ = generation.changed() => {}
                () = stop.cancelled() => {
                    return Leg::Ended(End::Denied(Denial::new(Code::Draining, "this relay stops")));
                }
                leg = poll_fn(|cx| {
                    // Noticed also while neither reading nor writing.
                    self.state.broken = self.state.broken || error.as_mut().poll(cx).is_ready();
                    self.poll(cx, &mut connection.frames, application)
                }) => return leg,
            }
        }
    }

    fn denial(&self) -> Option<Denial> {
        match self.link.judge(&self.facts, self.direction, &self.service) {
            Judgment::Deny(denial) => Some(denial),
            // A live stream outlasts the moment between a new head and its declaration.
            Judgment::Admit | Judgment::Await => (!(self.unchanged)(&self.link.view()))
                .then(|| Denial::new(Code::UnknownExport, "the service was changed")),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, frames: &mut Frames, application: &TcpStream) -> Poll<Leg> {
        let counts = frames.session.counts();
        // What is broken stays where all that it still holds is known.
        if !self.state.broken
            && self.state.deaf.is_none()
            && let Some(lane) = self.state.tempo.look(counts.sent + counts.received, Instant::now)
        {
            return Poll::Ready(Leg::To(lane));
        }
        for _ in 0..QUANTUM {
            // First: of a connection that is known to be gone, nothing of the application's is to be lost.
            let down = self.poll_down(cx, frames, application);
            if let Poll::Ready(Err(end)) = down {
                return Poll::Ready(Leg::Ended(end));
            }
            let up = self.poll_up(cx, frames, application);
            match up {
                Poll::Ready(Err(end)) => return Poll::Ready(Leg::Ended(end)),
                Poll::Ready(Ok(())) => self.state.watch.sent(),
                Poll::Pending => {}
            }
            if frames.session.both_finished() && !self.state.broken && self.state.deaf.is_none() {
                return self.poll_finished(cx, frames).map(Leg::Ended);
            }
            if up.is_pending() && down.is_pending() {
                return self.poll_over(cx, frames).map(Leg::Ended);
            }
        }
        // Woken only after the runtime has looked at its sockets, which it does seldom while a task is ready: where one thread
        // has all streams, those of others would wait for a hundred MiB.
        if pin!(yield_now()).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Both sides have said FIN: ready when what still waits has left, and IDLE with it.
    fn poll_finished(&mut self, cx: &mut Context<'_>, frames: &mut Frames) -> Poll<End> {
        if frames.session.idle_due()
            && let Err(fault) = frames.queue(&Message::Idle(frames.session.counts()))
        {
            return Poll::Ready(End::Lost(fault));
        }
        match frames.poll_send(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(End::Finished),
            Poll::Ready(Err(error)) => Poll::Ready(End::Lost(error.into())),
            Poll::Pending => self.poll_over(cx, frames),
        }
    }

    /// Nothing moves: is it over, or too late?
    fn poll_over(&mut self, cx: &mut Context<'_>, frames: &mut Frames) -> Poll<End> {
        if (self.state.broken || self.state.deaf.is_some())
            && let Some(fresh) = &mut self.state.fresh
        {
            ready!(fresh.as_mut().poll(cx));
        }
        if self.state.broken {
            // All it sent is under way, or the peer takes no more of it.
            return Poll::Ready(End::Aborted);
        }
        if self.state.watch.poll(cx, frames.socket()).is_ready() {
            let swallowed = "nothing that is sent is acknowledged; the network drops it, or the other machine is gone";
            return Poll::Ready(End::Lost(io::Error::new(io::ErrorKind::TimedOut, swallowed).into()));
        }
        if frames.has_data() {
            ready!(self.poll_glance(cx, frames));
            return Poll::Ready(End::Lost(self.state.deaf.take().unwrap_or(Fault::Ended)));
        }
        if let Some(fault) = self.state.deaf.take() {
            return Poll::Ready(End::Lost(fault));
        }
        match &mut self.state.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| End::Unanswered),
            None => Poll::Pending,
        }
    }

    /// Ready once the connection is found dead while what it brought waits for the application.
    fn poll_glance(&mut self, cx: &mut Context<'_>, frames: &Frames) -> Poll<()> {
        loop {
            let glance = self.state.glance.get_or_insert_with(|| Box::pin(sleep(GLANCE)));
            ready!(glance.as_mut().poll(cx));
            self.state.glance = None;
            if self.state.deaf.is_some() || frames.is_dead() {
                return Poll::Ready(());
            }
        }
    }

    /// From the application to the peer.
    fn poll_up(&mut self, cx: &mut Context<'_>, frames: &mut Frames, application: &TcpStream) -> Poll<Result<(), End>> {
        if self.state.deaf.is_some() {
            return Poll::Pending;
        }
        if frames.gathers() {
            // What is there goes in one flight with OPEN or ACCEPT.
            if let Poll::Ready(gathered) = self.poll_application(cx, frames, application) {
                self.state.patience = None;
                return Poll::Ready(gathered);
            }
            if self.is_patient(cx, frames) {
                return Poll::Pending;
            }
        }
        if let Err(error) = ready!(frames.poll_send(cx)) {
            self.state.deaf = Some(error.into());
            // What the peer said last may have come meanwhile.
            return Poll::Ready(Ok(()));
        }
        self.poll_application(cx, frames, application)
    }

    /// Whether what waits still waits for more. A peer that has much to send waits for ACCEPT.
    fn is_patient(&mut self, cx: &mut Context<'_>, frames: &Frames) -> bool {
        let Some(patience) = &mut self.state.patience else { return false };
        let is_over = frames.session.counts().received >= MUCH || patience.as_mut().poll(cx).is_ready();
        if is_over {
            self.state.patience = None;
        }
        !is_over
    }

    /// What the application has for the peer, behind what waits to be sent.
    fn poll_application(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut Frames,
        application: &TcpStream,
    ) -> Poll<Result<(), End>> {
        let most = frames.session.early_left();
        if frames.session.finished_sending() || most == 0 {
            return Poll::Pending;
        }
        if !self.early.is_sent() {
            let early = &mut self.early;
            let resent = frames.queue_data(most, |buffer| Ok(early.resend(buffer)));
            return Poll::Ready(resent.map(drop).map_err(End::Lost));
        }
        if self.state.answered {
            self.early = Early::default();
        }
        ready!(self.state.sending.poll(&self.paces.sent, cx));
        loop {
            if ready!(application.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Err(End::Aborted));
            }
            let read = frames.queue_data(most, |buffer| {
                let count = application.try_read(buffer)?;
                if !self.state.answered {
                    self.early.keep(&buffer[..count]);
                }
                Ok(count)
            });
            return Poll::Ready(match read {
                // Its error was told before, to a write: this is no clean end.
                Ok(Ok(0)) if self.state.broken => Err(End::Aborted),
                Ok(Ok(0)) => frames.queue(&Message::Fin).map_err(End::Lost),
                Ok(Ok(count)) => {
                    pay(&self.paces.sent, count);
                    self.link.metrics.sent.inc_by(count as u64);
                    Ok(())
                }
                Ok(Err(error)) if is_transient(&error) => continue,
                Ok(Err(_)) => Err(End::Aborted),
                Err(fault) => Err(End::Lost(fault)),
            });
        }
    }

    /// From the peer to the application.
    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut Frames,
        application: &TcpStream,
    ) -> Poll<Result<(), End>> {
        if frames.session.both_finished() {
            // What comes now is no longer of this stream's bytes: the peer's IDLE, which `conclude` awaits.
            return Poll::Pending;
        }
        if !frames.has_data() {
            return match ready!(frames.poll_receive(cx)) {
                Ok(Received::Data) => Poll::Ready(Ok(())),
                Ok(Received::Message(message)) => Poll::Ready(self.hear(message, application)),
                Err(fault) => Poll::Ready(Err(End::Lost(fault))),
            };
        }
        if self.state.broken {
            return Poll::Pending;
        }
        ready!(self.state.receiving.poll(&self.paces.received, cx));
        if ready!(application.poll_write_ready(cx)).is_err() {
            return Poll::Ready(Err(End::Aborted));
        }
        Poll::Ready(match application.try_write(frames.data()) {
            Ok(count) => {
                self.state.glance = None;
                frames.consume(count);
                pay(&self.paces.received, count);
                self.link.metrics.received.inc_by(count as u64);
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(_) => {
                self.state.broken = true;
                Ok(())
            }
        })
    }

    fn hear(&mut self, message: Message, application: &TcpStream) -> Result<(), End> {
        match message {
            Message::Accept => {
                (self.state.answered, self.state.deadline) = (true, None);
                Ok(())
            }
            Message::Reject(reject) => Err(End::Rejected(reject)),
            Message::Fin => {
                // An application that is gone shows at the next read or write.
                let _ = socket2::SockRef::from(application).shutdown(std::net::Shutdown::Write);
                Ok(())
            }
            Message::Rst(rst) => Err(End::Reset(rst.code)),
            Message::Head(head) => {
                self.link.heard_head(&self.facts, &head);
                Ok(())
            }
            // BYE and DRAIN: this stream goes on, the connection is not used again; the session remembers.
            _ => Ok(()),
        }
    }

    /// Whether the peer took the stream.
    pub(crate) fn is_answered(&self) -> bool {
        self.state.answered
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
