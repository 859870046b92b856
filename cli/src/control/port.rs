//! The control port of a relay process: mutual TLS, for who has a certificate under a control CA of `relay.json`.
//!
//! Whoever has none is refused in the handshake, before HTTP. Strangers cannot keep a controller out: their handshakes have
//! places of their own, and of too many the oldest is dropped.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::error::ControlError;
use super::http::{self, Admission, Patience};
use super::verbs::{Holder, answer};

/// How long a handshake may take: that of a controller in the same cluster takes milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once. One more drops the oldest: to keep a controller out, strangers would have to begin so many within
/// the milliseconds that its handshake takes.
const HANDSHAKES: usize = 128;
/// A controller keeps its connection and asks when it has something to ask; within the hour it proves itself again.
const KEPT: Patience = Patience { head: Duration::from_mins(5), whole: Duration::from_hours(1) };
/// Between two lines of the log about callers who were refused: anybody can call.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Who may ask, and as whom this side presents itself.
#[derive(Clone)]
pub(crate) struct Guard {
    /// The handshake.
    pub(crate) tls: Arc<ServerConfig>,
    /// Ends the connections of those who were let in when others were trusted.
    pub(crate) ended: CancellationToken,
}

/// The bound port.
pub(crate) struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Opens the port.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Port { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`. While there is no guard, nobody is let in.
    pub(crate) async fn run(self, holder: impl Holder, guard: watch::Receiver<Option<Guard>>, stop: CancellationToken) {
        let door = Arc::new(Door { holder, places: Semaphore::new(http::CONNECTIONS).into(), said: Mutex::default() });
        let mut shaking: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(http::ACCEPT_PAUSE).await;
                continue;
            };
            let Some(guard) = guard.borrow().clone() else { continue };
            shaking.retain(|handshake| !handshake.is_finished());
            if shaking.len() >= HANDSHAKES
                && let Some(oldest) = shaking.pop_front()
            {
                oldest.abort();
            }
            shaking.push_back(tokio::spawn(Arc::clone(&door).enter(stream, guard)).abort_handle());
        }
    }
}

/// What every caller comes through.
struct Door<H> {
    holder: H,
    /// For those who were let in.
    places: Arc<Semaphore>,
    said: Mutex<Option<Instant>>,
}

impl<H: Holder> Door<H> {
    async fn enter(self: Arc<Self>, stream: TcpStream, guard: Guard) {
        let _ = stream.set_nodelay(true);
        let shaken = timeout(HANDSHAKE, TlsAcceptor::from(guard.tls).accept(stream)).await;
        match shaken {
            Ok(Ok(stream)) => drop(tokio::spawn(self.serve(stream, guard.ended))),
            Ok(Err(error)) => self.say(&error),
            Err(late) => self.say(&late),
        }
    }

    async fn serve(self: Arc<Self>, stream: TlsStream<TcpStream>, ended: CancellationToken) {
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.say(&"as many controllers are connected as there are places for");
        };
        // What was asked in full before the withdrawal is answered, and nothing is done for who asks after it.
        let asked = |mut request: Request<Incoming>| {
            let (holder, admission) = (self.holder.clone(), Admission(ended.clone()));
            let judged = admission.judge();
            request.extensions_mut().insert(admission);
            async move {
                match judged {
                    Ok(()) => answer(holder, request).await,
                    Err(refused) => http::refused(&refused),
                }
            }
        };
        http::serve(stream, KEPT, &ended, asked).await;
    }

    fn say(&self, why: &dyn std::fmt::Display) {
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY) {
            *said = Some(now);
            tracing::info!(%why, "a caller of the control port was refused");
        }
    }
}
