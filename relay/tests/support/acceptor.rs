//! A peer with the right credentials and bad manners that is called: TLS and HELLO by hand, the rest is the test's.

use std::future::Future;
use std::sync::Arc;

use securelink_pki::testing::Organization;
use securelink_pki::tls::{Credentials, Options, server_config};
use securelink_relay::wire::{ALPN, Hello, Message, ReplicaId, Role};
use securelink_relay_config::{Endpoint, Snapshot};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::intruder::{Heard, Intruder, head_of, hello};
use super::{TestClock, endpoint};

/// Serves until it is dropped.
pub struct Acceptor {
    pub endpoint: Endpoint,
    _serving: JoinSet<()>,
}

impl Acceptor {
    /// Stands where `own` listens for `peer`, says the HELLO of `snapshot`, and leaves each connection to `serve`.
    pub async fn start<F>(
        (own, peer): (&Organization, &Organization),
        snapshot: &Snapshot,
        serve: impl Fn(Role, Intruder) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::replica(ReplicaId([7; 16]), (own, peer), snapshot, serve).await
    }

    /// The same as the replica of that name.
    pub async fn replica<F>(
        replica: ReplicaId,
        (own, peer): (&Organization, &Organization),
        snapshot: &Snapshot,
        serve: impl Fn(Role, Intruder) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ours = Credentials::new(&own.leaf_to(&peer.domain), &own.transitions, None).unwrap();
        let options = Options {
            alpn: vec![ALPN.to_vec()],
            allow_classical: false,
            extract_secrets: false,
            clock: TestClock::new().clock(),
        };
        let tls = TlsAcceptor::from(server_config(&ours, &own.trusts(peer), &options).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap());
        let (domain, head) = (own.domain.clone(), head_of(snapshot));
        let serve = Arc::new(serve);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, domain, head, serve) = (tls.clone(), domain.clone(), head.clone(), Arc::clone(&serve));
                served.spawn(async move {
                    let Ok(stream) = tls.accept(socket).await else { return };
                    let mut caller = Intruder { stream: stream.into() };
                    let Heard::Message(Message::Hello(said)) = caller.hear().await else { return };
                    let Message::Hello(answer) = hello(said.role, &domain, &head) else { return };
                    caller.say(&Message::Hello(Hello { replica, ..answer })).await;
                    serve(said.role, caller).await;
                });
            }
        });
        Self { endpoint, _serving: serving }
    }
}

/// Keeps a control connection: declares `snapshot` and answers every PING, until the end.
pub async fn control(mut caller: Intruder, snapshot: Snapshot) {
    caller.say(&Message::Declare(snapshot.declaration(None).to_bytes())).await;
    loop {
        match caller.hear_for_ever().await {
            Heard::Message(Message::Ping(ping)) => caller.say(&Message::Pong(ping)).await,
            Heard::End => return,
            _ => {}
        }
    }
}
