//! Half-close and abort cross the link exactly: what both applications see through two relays is what they see over one
//! TCP connection; and a cut is never a clean end (promise P8, fault F63).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, join};
use securelink_pki::testing::Organization;
use support::{PATIENCE, Side, endpoint, export, import, open, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const MEBIBYTE: usize = 1 << 20;
/// A path that takes nothing for so long is full.
const FULL_AFTER: Duration = Duration::from_millis(300);

/// What an application can tell of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    /// So many bytes, then a clean end.
    Ended(usize),
    /// So many bytes, then an error.
    Reset(usize),
    /// Some bytes, how many is chance, then an error.
    Broken,
    /// So many bytes, and it goes on.
    Received(usize),
    /// Writing fails in the end.
    Unwritable,
    /// Without reading, an error is noticed.
    Noticed,
}

type Facts = Vec<(&'static str, Fact)>;

/// Byte `at` of every transfer.
fn byte(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap()
}

fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(byte).collect()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes longer than {PATIENCE:?}"))
}

/// Sends the first `length` bytes.
async fn send(socket: &mut TcpStream, length: usize) {
    within("sending", socket.write_all(&pattern(0, length))).await.expect("the socket takes bytes");
}

/// Receives the first `length` bytes.
async fn receive(socket: &mut TcpStream, length: usize) -> Fact {
    let mut bytes = vec![0; length];
    within("receiving", socket.read_exact(&mut bytes)).await.expect("bytes come");
    assert!(bytes == pattern(0, length), "the bytes are the sender's");
    Fact::Received(length)
}

/// Receives from byte `start` to the end.
async fn receive_all(socket: &mut TcpStream, start: usize) -> Fact {
    let (mut received, mut buffer) = (start, vec![0; 64 * 1024]);
    loop {
        match within("the end of a socket", socket.read(&mut buffer)).await {
            Ok(0) => return Fact::Ended(received),
            Ok(count) => {
                assert!(buffer[..count] == pattern(received, count), "the bytes are the sender's");
                received += count;
            }
            Err(_) => return Fact::Reset(received),
        }
    }
}

/// Receives from byte `start` to an end whose place is chance.
async fn receive_to_break(socket: &mut TcpStream, start: usize) -> Fact {
    match receive_all(socket, start).await {
        Fact::Reset(_) => Fact::Broken,
        other => other,
    }
}

/// Sends from byte `start` until that fails.
async fn send_until_failure(socket: &mut TcpStream, start: usize) -> Fact {
    let mut sent = start;
    // In turn over one period of the pattern, so that any prefix is right.
    while within("the failure of a write", socket.write_all(&pattern(sent, 4 * 251))).await.is_ok() {
        sent += 4 * 251;
    }
    Fact::Unwritable
}

/// Sends until the path takes no more: nobody reads at its other end.
async fn fill(socket: &mut TcpStream) {
    let block = pattern(0, 64 * 251);
    // Where the next write begins does not matter: nobody compares.
    while let Ok(written) = timeout(FULL_AFTER, socket.write(&block)).await {
        written.expect("the socket takes bytes");
    }
}

/// Waits until `socket` knows of an error, without reading.
async fn notice(socket: &TcpStream) -> Fact {
    within("noticing an error", socket.ready(Interest::ERROR)).await.unwrap();
    Fact::Noticed
}

/// Closes with RST.
fn abort(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

/// One way to end a stream, played by the application that acts and the one that suffers it.
struct Case {
    name: &'static str,
    play: fn(TcpStream, TcpStream) -> BoxFuture<'static, Facts>,
}

macro_rules! cases {
    ($($name:literal: |$actor:ident, $other:ident| $body:block)*) => {
        [$(Case { name: $name, play: |mut $actor, mut $other| async move {
            // Not every case reads or writes with both.
            let (_, _) = (&mut $actor, &mut $other);
            $body
        }.boxed() }),*]
    };
}

#[allow(clippy::too_many_lines)] // A table.
fn cases() -> impl IntoIterator<Item = Case> {
    cases! {
        "closes": |actor, other| {
            send(&mut actor, 1000).await;
            drop(actor);
            let end = receive_all(&mut other, 0).await;
            vec![("other receives", end), ("other sends", send_until_failure(&mut other, 0).await)]
        }
        "half-closes, and the other then closes": |actor, other| {
            send(&mut actor, 1000).await;
            actor.shutdown().await.unwrap();
            let end = receive_all(&mut other, 0).await;
            drop(other);
            vec![("other receives", end), ("actor receives", receive_all(&mut actor, 0).await)]
        }
        "half-closes, and the other sends a mebibyte": |actor, other| {
            send(&mut actor, 1000).await;
            actor.shutdown().await.unwrap();
            let end = receive_all(&mut other, 0).await;
            let sending = async {
                send(&mut other, MEBIBYTE).await;
                other.shutdown().await.unwrap();
            };
            let (back, ()) = join(receive_all(&mut actor, 0), sending).await;
            vec![("other receives", end), ("actor receives", back)]
        }
        "half-closes at once with the other": |actor, other| {
            send(&mut actor, 100_000).await;
            send(&mut other, 50_000).await;
            actor.shutdown().await.unwrap();
            other.shutdown().await.unwrap();
            let (at_actor, at_other) = join(receive_all(&mut actor, 0), receive_all(&mut other, 0)).await;
            vec![("actor receives", at_actor), ("other receives", at_other)]
        }
        "closes at once with the other": |actor, other| {
            actor.shutdown().await.unwrap();
            drop(other);
            vec![("actor receives", receive_all(&mut actor, 0).await)]
        }
        "half-closes without a byte": |actor, other| {
            actor.shutdown().await.unwrap();
            let end = receive_all(&mut other, 0).await;
            send(&mut other, 1).await;
            vec![("other receives", end), ("actor receives", receive(&mut actor, 1).await)]
        }
        "half-closes, then closes with the answer unread": |actor, other| {
            actor.shutdown().await.unwrap();
            let end = receive_all(&mut other, 0).await;
            send(&mut other, 1000).await;
            within("the answer", actor.peek(&mut [0])).await.unwrap();
            drop(actor);
            vec![("other receives", end), ("other", notice(&other).await)]
        }
        "half-closes, then aborts while the other sends": |actor, other| {
            actor.shutdown().await.unwrap();
            let end = receive_all(&mut other, 0).await;
            let acting = async {
                let received = receive(&mut actor, MEBIBYTE).await;
                abort(actor);
                received
            };
            let (received, sends) = join(acting, send_until_failure(&mut other, 0)).await;
            vec![("other receives", end), ("actor receives", received), ("other sends", sends)]
        }
        "closes with data unread": |actor, other| {
            send(&mut other, 1000).await;
            within("the data", actor.peek(&mut [0])).await.unwrap();
            drop(actor);
            vec![("other receives", receive_all(&mut other, 0).await)]
        }
        "answers and closes with the rest of the request unread": |actor, other| {
            send(&mut other, 1000).await;
            receive(&mut actor, 10).await;
            within("the rest", actor.peek(&mut [0])).await.unwrap();
            send(&mut actor, 500).await;
            drop(actor);
            vec![("other receives", receive_all(&mut other, 0).await)]
        }
        "answers and closes while the other sends": |actor, other| {
            let acting = async {
                receive(&mut actor, MEBIBYTE).await;
                send(&mut actor, 500).await;
                drop(actor);
            };
            let ((), sends) = join(acting, send_until_failure(&mut other, 0)).await;
            // Its write has told of the error: what is left is the answer.
            vec![("other sends", sends), ("other receives", receive(&mut other, 500).await)]
        }
        "aborts while nothing moves": |actor, other| {
            abort(actor);
            vec![("other receives", receive_all(&mut other, 0).await)]
        }
        "aborts after some bytes": |actor, other| {
            send(&mut actor, 1000).await;
            let some = receive(&mut other, 1000).await;
            abort(actor);
            vec![("other receives", some), ("other then receives", receive_all(&mut other, 1000).await)]
        }
        "aborts after the other half-closed": |actor, other| {
            other.shutdown().await.unwrap();
            let end = receive_all(&mut actor, 0).await;
            abort(actor);
            vec![("actor receives", end), ("other receives", receive_all(&mut other, 0).await)]
        }
        "aborts while it sends": |actor, other| {
            let sending = tokio::spawn(async move {
                send_until_failure_or_forever(actor).await;
            });
            let some = receive(&mut other, MEBIBYTE).await;
            sending.abort();
            vec![("other receives", some), ("other then receives", receive_to_break(&mut other, MEBIBYTE).await)]
        }
        "aborts while the other sends": |actor, other| {
            let acting = async {
                let received = receive(&mut actor, MEBIBYTE).await;
                abort(actor);
                received
            };
            let (received, sends) = join(acting, send_until_failure(&mut other, 0)).await;
            vec![("actor receives", received), ("other sends", sends)]
        }
        "aborts while the other does not read": |actor, other| {
            fill(&mut actor).await;
            abort(actor);
            vec![("other", notice(&other).await)]
        }
        "aborts without reading what the other sends": |actor, other| {
            fill(&mut other).await;
            abort(actor);
            vec![("other", notice(&other).await), ("other sends", send_until_failure(&mut other, 0).await)]
        }
        "aborts while neither reads and both have sent": |actor, other| {
            join(fill(&mut actor), fill(&mut other)).await;
            abort(actor);
            vec![("other", notice(&other).await)]
        }
    }
}

/// Sends from the beginning and aborts when dropped.
async fn send_until_failure_or_forever(mut socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    send_until_failure(&mut socket, 0).await;
}

/// How a proxy cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutBy {
    Rst,
    Fin,
}

/// A TCP proxy between the relays.
struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<Option<CutBy>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, heard) = watch::channel(None);
        let serving = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(target).await.unwrap();
                let mut heard = heard.clone();
                heard.mark_unchanged();
                tokio::spawn(pass(near, far, heard));
            }
        });
        Self { address, cut, serving }
    }

    /// Cuts all connections of now.
    fn cut(&self, how: CutBy) {
        self.cut.send_replace(Some(how));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(mut near: TcpStream, mut far: TcpStream, mut cut: watch::Receiver<Option<CutBy>>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        _ = cut.changed() => {}
    }
    let how = *cut.borrow();
    if how == Some(CutBy::Rst) {
        abort(near);
        abort(far);
        return;
    }
    // A FIN, and no RST behind it for want of reading.
    for mut socket in [near, far] {
        tokio::spawn(async move {
            let _ = socket.shutdown().await;
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        });
    }
}

/// `a` imports what `b` exports, maybe by way of a proxy; each relay on a runtime of its own, to be killed with it.
struct Linked {
    a: Side,
    b: Side,
    service: TcpListener,
    proxy: Option<Proxy>,
    runtimes: Option<(Runtime, Runtime)>,
}

impl Linked {
    async fn ready() -> Self {
        Self::by(false).await
    }

    async fn ready_by_proxy() -> Self {
        Self::by(true).await
    }

    async fn by(proxy: bool) -> Self {
        let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut for_a, mut for_b) = (snapshot(&org_a, &org_b), snapshot(&org_b, &org_a));
        for_b.exports.push(export("at-b", service.local_addr().unwrap()));
        for_a.imports.push(import("at-b", 0));
        let (on_a, on_b) = (runtime(), runtime());
        let domain = org_a.domain.clone();
        let b = on_b.spawn(async move { Side::start(&org_b, &domain, for_b).await }).await.unwrap();
        let proxy = if proxy { Some(Proxy::to(b.listens_on()).await) } else { None };
        for_a.peer.endpoints = vec![endpoint(proxy.as_ref().map_or(b.listens_on(), |proxy| proxy.address))];
        let peer = for_a.peer.trust_domain.clone();
        let a = on_a.spawn(async move { Side::start(&org_a, &peer, for_a).await }).await.unwrap();
        a.until_ready().await;
        Self { a, b, service, proxy, runtimes: Some((on_a, on_b)) }
    }

    async fn stream(&self) -> (TcpStream, TcpStream) {
        open(self.a.import_address("at-b"), &self.service).await
    }

    async fn until_empty(&self) {
        self.a.until("no stream is left at the importer", |report| report.streams.live == 0).await;
        self.b.until("no stream is left at the exporter", |report| report.streams.live == 0).await;
    }

    /// Ends a relay as a kill does: no task of it runs again, the system closes its sockets.
    fn kill(&mut self, importer: bool) {
        let (a, b) = self.runtimes.take().unwrap();
        let (killed, left) = if importer { (a, b) } else { (b, a) };
        killed.shutdown_background();
        // The other one runs on until the test ends.
        std::mem::forget(left);
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // A runtime may not be dropped where it could block.
        if let Some((a, b)) = self.runtimes.take() {
            a.shutdown_background();
            b.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Two sockets of one TCP connection.
async fn direct() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    open(listener.local_addr().unwrap(), &listener).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_looks_through_two_relays_as_it_does_over_one_connection() {
    let linked = Linked::ready().await;
    let mut different = Vec::new();
    for case in cases() {
        for client_acts in [true, false] {
            let cast = |(client, server)| if client_acts { (client, server) } else { (server, client) };
            let who = if client_acts { "client" } else { "server" };
            let (actor, other) = cast(direct().await);
            let expected = (case.play)(actor, other).await;
            let (actor, other) = cast(linked.stream().await);
            let played = tokio::spawn((case.play)(actor, other)).await;
            match played {
                Ok(seen) if seen == expected => {}
                Ok(seen) => different.push(format!("the {who} {}: {seen:?}, not {expected:?}", case.name)),
                Err(error) => different.push(format!("the {who} {}: {error}, not {expected:?}", case.name)),
            }
            linked.until_empty().await;
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

/// What a stream is doing when it is cut, and which bytes its two ends have received then.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    SendingToServer,
    SendingToClient,
    /// The client has said all and waits for the answer.
    Answering,
    /// As before, the other way round.
    Uploading,
}

const ALL_DOING: [Doing; 5] =
    [Doing::Nothing, Doing::SendingToServer, Doing::SendingToClient, Doing::Answering, Doing::Uploading];

/// Cuts by `cut` while a stream does `doing`: no application sees a clean end that was not said.
async fn cut_while(doing: Doing, (mut client, mut server): (TcpStream, TcpStream), cut: impl FnOnce()) {
    if matches!(doing, Doing::Answering) {
        client.shutdown().await.unwrap();
        assert_eq!(receive_all(&mut server, 0).await, Fact::Ended(0));
    }
    if matches!(doing, Doing::Uploading) {
        server.shutdown().await.unwrap();
        assert_eq!(receive_all(&mut client, 0).await, Fact::Ended(0));
    }
    let (mut from, mut to) = match doing {
        Doing::Nothing | Doing::SendingToServer | Doing::Uploading => (client, server),
        Doing::SendingToClient | Doing::Answering => (server, client),
    };
    if matches!(doing, Doing::Nothing) {
        cut();
        let ends = join(receive_all(&mut from, 0), receive_all(&mut to, 0)).await;
        assert_eq!(ends, (Fact::Reset(0), Fact::Reset(0)), "{doing:?}");
        return;
    }
    let receiving = async {
        receive(&mut to, MEBIBYTE).await;
        cut();
        receive_to_break(&mut to, MEBIBYTE).await
    };
    let ends = join(send_until_failure(&mut from, 0), receiving).await;
    assert_eq!(ends, (Fact::Unwritable, Fact::Broken), "{doing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f63_a_connection_cut_between_the_relays_is_a_reset_for_both_applications() {
    for how in [CutBy::Rst, CutBy::Fin] {
        for doing in ALL_DOING {
            let linked = Linked::ready_by_proxy().await;
            let proxy = linked.proxy.as_ref().unwrap();
            cut_while(doing, linked.stream().await, || proxy.cut(how)).await;
            linked.until_empty().await;
            linked.a.until_ready().await;
            let (mut client, mut server) = linked.stream().await;
            send(&mut client, 1000).await;
            receive(&mut server, 1000).await;
            client.shutdown().await.unwrap();
            server.shutdown().await.unwrap();
            let ends = join(receive_all(&mut client, 0), receive_all(&mut server, 1000)).await;
            assert_eq!(ends, (Fact::Ended(0), Fact::Ended(1000)), "the next stream, after {how:?} {doing:?}");
            linked.until_empty().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f63_a_relay_that_is_killed_is_a_reset_for_both_applications() {
    for importer in [true, false] {
        for doing in ALL_DOING {
            let mut linked = Linked::ready().await;
            let streams = linked.stream().await;
            cut_while(doing, streams, || linked.kill(importer)).await;
            let left = if importer { &linked.b } else { &linked.a };
            left.until("no stream is left", |report| report.streams.live == 0).await;
        }
    }
}
