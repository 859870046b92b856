//! Partners without our software: one CONNECT is one stream, under the same gate, limits, cuts and ends as every other.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use securelink_pki::testing::Organization;
use securelink_relay_config::{
    Agreement, AgreementTerm, CutScope, Digest, Disagreement, Limits, LinkState, Millis, Protocol, Snapshot,
};
use support::partner::{Host, answer, naming, request};
use support::{PATIENCE, Side, agreement, endpoint, link_cut, read_to_end, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

type Tunnel = TlsStream<TcpStream>;
type Edit = fn(&mut Snapshot);

/// One byte each way.
async fn works(tunnel: &mut Tunnel, service: &mut TcpStream) {
    let working = async {
        tunnel.write_all(b"?").await.unwrap();
        tunnel.flush().await.unwrap();
        assert_eq!(service.read_u8().await.unwrap(), b'?');
        service.write_all(b"!").await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), b'!');
    };
    timeout(PATIENCE, working).await.expect("the tunnel carries bytes");
}

/// The bytes up to the end, and whether it was a clean one.
async fn rest(tunnel: &mut Tunnel) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, tunnel.read_to_end(&mut bytes)).await.expect("the tunnel ends");
    (bytes, end.map(drop))
}

/// Both ends were broken off, and no byte was left.
async fn is_reset(mut tunnel: Tunnel, mut service: TcpStream) {
    let (bytes, end) = rest(&mut tunnel).await;
    assert!(bytes.is_empty() && end.is_err(), "no clean end for the partner: {bytes:?} {end:?}");
    let (bytes, end) = read_to_end(&mut service).await;
    assert!(bytes.is_empty() && end.is_err(), "no clean end for the service: {bytes:?} {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_cross_whole_both_ways_and_each_direction_ends_by_itself() {
    let host = Host::new().await;
    let (tunnel, service) = host.tunnel().await;
    let bytes: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let (mut from_partner, mut to_partner) = tokio::io::split(tunnel);
    let (mut from_relay, mut to_relay) = service.into_split();
    let sent = bytes.clone();
    let up = async {
        to_partner.write_all(&sent).await.unwrap();
        // `close_notify`: the end of one direction.
        to_partner.shutdown().await.unwrap();
    };
    let there = async {
        let mut come = Vec::new();
        from_relay.read_to_end(&mut come).await.expect("a clean end");
        // Only now, behind the other direction's end.
        to_relay.write_all(&come).await.unwrap();
        to_relay.shutdown().await.unwrap();
    };
    let back = async {
        let mut come = Vec::new();
        from_partner.read_to_end(&mut come).await.expect("a clean end");
        come
    };
    let ((), (), back) = timeout(PATIENCE, async { tokio::join!(up, there, back) }).await.expect("it crosses");
    assert!(back == bytes, "{} bytes came back of {}", back.len(), bytes.len());
    let report = host.side.until("the stream is over", |report| report.streams.live == 0).await;
    assert_eq!((report.streams.bytes_sent, report.streams.bytes_received), (8 << 20, 8 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_may_end_its_direction_first() {
    let host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    service.write_all(b"short").await.unwrap();
    service.shutdown().await.unwrap();
    let (bytes, end) = rest(&mut tunnel).await;
    assert_eq!((bytes.as_slice(), end.is_ok()), (&b"short"[..], true));
    tunnel.write_all(b"long after").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let (bytes, end) = read_to_end(&mut service).await;
    assert_eq!((bytes.as_slice(), end.is_ok()), (&b"long after"[..], true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_without_close_notify_is_a_reset_for_the_service() {
    let host = Host::new().await;
    for linger in [None, Some(Duration::ZERO)] {
        let (mut tunnel, mut service) = host.tunnel().await;
        tunnel.write_all(b"half of it").await.unwrap();
        tunnel.flush().await.unwrap();
        let mut half = [0; 10];
        service.read_exact(&mut half).await.unwrap();
        // FIN at first, then RST, and no `close_notify` either time.
        let (socket, _) = tunnel.into_inner();
        socket2::SockRef::from(&socket).set_linger(linger).unwrap();
        drop(socket);
        let (bytes, end) = read_to_end(&mut service).await;
        assert!(bytes.is_empty() && end.is_err(), "{linger:?}: {bytes:?} {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_service_is_never_a_clean_end_for_the_partner() {
    let host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    service.write_all(b"half of it").await.unwrap();
    let mut half = [0; 10];
    timeout(PATIENCE, tunnel.read_exact(&mut half)).await.expect("bytes come").unwrap();
    socket2::SockRef::from(&service).set_linger(Some(Duration::ZERO)).unwrap();
    drop(service);
    let (bytes, end) = rest(&mut tunnel).await;
    assert!(bytes.is_empty() && end.is_err(), "{bytes:?} {end:?}");
    assert_eq!(
        end.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset,
        "at once and by the socket, not after a while"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_dies_after_its_end_is_noticed_though_nothing_is_sent_to_it() {
    let host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    tunnel.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, service.read(&mut [0])).await.unwrap().unwrap(), 0, "a clean end of that direction");
    let (socket, _) = tunnel.into_inner();
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    host.side.until("the stream is over", |report| report.streams.live == 0).await;
    // Its socket is gone: what it writes now fails in the end.
    let writing = async { while service.write_all(b"?").await.is_ok() {} };
    timeout(PATIENCE, writing).await.expect("the service learns it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_its_status_its_code_and_a_remedy() {
    let host = Host::new().await;
    let other = Digest::of(b"another text").to_string();
    let without = |field: &str| request("notices").replace(field, "X-Other");
    let twice = request("notices").replace("Securelink", "Securelink-Agreement: sha256:00\r\nSecurelink");
    let old = request("notices").replace("HTTP/1.1", "HTTP/1.0");
    let many = request("notices").replace("Host", &("X: y\r\n".repeat(80) + "Host"));
    let body = request("notices").replace("Host", "Content-Length: 0\r\nHost");
    let get = request("notices").replace("CONNECT notices:443", "GET /");
    let cases: [(&str, String, (u16, &str)); 14] = [
        ("another agreement", naming("notices", &other), (403, "NOT_AGREED")),
        ("no agreement", without("Securelink-Agreement"), (403, "NOT_AGREED")),
        ("no digest", naming("notices", "MoU-2011"), (403, "NOT_AGREED")),
        ("a digest in capitals", naming("notices", &other.to_uppercase()), (403, "NOT_AGREED")),
        ("no such export", request("siena"), (404, "UNKNOWN_EXPORT")),
        ("no name of an export", request("www.example.com"), (404, "UNKNOWN_EXPORT")),
        ("what only relays have", request("_probe"), (404, "UNKNOWN_EXPORT")),
        ("two agreements", twice, (400, "PROTOCOL")),
        ("no host", without("Host"), (400, "PROTOCOL")),
        ("a body", body, (400, "PROTOCOL")),
        ("another method", get, (405, "PROTOCOL")),
        ("too many fields", many, (431, "LIMIT")),
        ("an older HTTP", old, (505, "VERSION")),
        ("something with its request", request("notices") + "and more", (400, "PROTOCOL")),
    ];
    for (what, head, wanted) in cases {
        let answer = host.refusal(&head).await;
        assert_eq!(answer.refusal(), wanted, "{what}: {answer:?}");
        assert_eq!(answer.field("Connection"), Some("close"), "{what}");
        assert!(answer.body.starts_with(&format!("{}: ", wanted.1)), "{what}: {answer:?}");
        assert_eq!(answer.body.lines().count(), 2, "a reason and a remedy: {answer:?}");
    }
    let untouched = timeout(Duration::from_millis(1), host.target.accept()).await;
    assert!(untouched.is_err(), "no service was dialed for any of them");
    assert_eq!(host.side.relay.report().streams.opened, 0);
    let (mut tunnel, mut service) = host.tunnel().await;
    works(&mut tunnel, &mut service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_side_decides_is_told_with_its_reason() {
    let mut host = Host::new().await;
    let now = host.side.clock.millis().0;
    let during = |from: u64, until: Option<u64>| {
        let term = AgreementTerm { from: Millis(from), until: until.map(Millis), ..agreement().term };
        Some(Agreement { term, ..agreement() })
    };
    host.side.adopt(|snapshot| snapshot.state = LinkState::Suspended).await;
    assert_eq!(host.refusal(&request("notices")).await.refusal(), (403, "SUSPENDED"));
    host.side.adopt(|snapshot| snapshot.state = LinkState::Active).await;

    host.side.adopt(|snapshot| snapshot.agreements.current = during(now + 3_600_000, None)).await;
    let early = host.refusal(&request("notices")).await;
    assert_eq!(early.refusal(), (403, "NOT_AGREED"));
    assert!(early.body.contains("NotYetEffective"), "{early:?}");
    host.side.adopt(|snapshot| snapshot.agreements.current = during(0, Some(now))).await;
    assert_eq!(host.refusal(&request("notices")).await.refusal(), (403, "EXPIRED"));
    host.side.adopt(|snapshot| snapshot.agreements.current = Some(agreement())).await;

    // A port that nobody listens on.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    host.side.adopt(|snapshot| snapshot.exports[0].target = endpoint(nobody)).await;
    let down = host.refusal(&request("notices")).await;
    assert_eq!((down.refusal(), down.field("Retry-After")), ((502, "UNAVAILABLE"), Some("1")));
    assert!(!down.body.contains(&nobody.to_string()), "how this side is built is nobody's business: {down:?}");
    let target = host.target.local_addr().unwrap();
    host.side.adopt(|snapshot| snapshot.exports[0].target = endpoint(target)).await;

    let mut of_export = link_cut("LinkCut/1", 1);
    of_export.scope = CutScope::Export("notices".to_owned());
    host.side.relay.cut(of_export).await;
    assert_eq!(host.refusal(&request("notices")).await.refusal(), (404, "UNKNOWN_EXPORT"));
    host.side.relay.cut(link_cut("LinkCut/2", 1)).await;
    let cut = host.refusal(&request("notices")).await;
    assert_eq!(cut.refusal(), (403, "CUT"));
    assert!(cut.body.contains("incident 114"), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_for_tunnels_as_for_streams() {
    let mut host = Host::with(|snapshot| {
        snapshot.exports[0].limits = Limits { connections: Some(1), ..Limits::default() };
    })
    .await;
    let (tunnel, service) = host.tunnel().await;
    let over = host.refusal(&request("notices")).await;
    assert_eq!((over.refusal(), over.field("Retry-After")), ((429, "LIMIT"), Some("1")));
    drop((tunnel, service));
    host.side.until("the first is over", |report| report.streams.live == 0).await;
    drop(host.tunnel().await);
    host.side
        .adopt(|snapshot| {
            snapshot.exports[0].limits = Limits { new_connections_per_second: Some(1), ..Limits::default() };
        })
        .await;
    let mut refused = 0;
    for _ in 0..8 {
        let (answer, _) = host.caller().ask(&request("notices")).await;
        refused += usize::from(answer.status == 429);
    }
    assert!(refused > 0, "eight at once are more than one a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_come_whole_is_answered_408() {
    let host = Host::new().await;
    let mut tunnel = host.caller().call().await.unwrap();
    tunnel.write_all(b"CONNECT notices:443 HTTP/1.1\r\nHost: not").await.unwrap();
    tunnel.flush().await.unwrap();
    assert_eq!(answer(&mut tunnel).await.refusal(), (408, "TIMEOUT"));
    host.side.until_refused("BadRequest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_before_the_answer_are_refused_and_reach_nobody() {
    let host = Host::new().await;
    // A service whose queue is full takes a connection only when somebody accepts.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let slow = TcpListener::from_std(socket.into()).unwrap();
    let address = slow.local_addr().unwrap();
    let _first = TcpStream::connect(address).await.unwrap();
    let mut host = host;
    host.side.adopt(|snapshot| snapshot.exports[0].target = endpoint(address)).await;
    let mut tunnel = host.caller().call().await.unwrap();
    tunnel.write_all(request("notices").as_bytes()).await.unwrap();
    tunnel.flush().await.unwrap();
    host.side.until("it is being dialed", |report| report.streams.live == 1).await;
    tunnel.write_all(b"too early").await.unwrap();
    tunnel.flush().await.unwrap();
    let (_first, _) = slow.accept().await.unwrap();
    let (mut service, _) = timeout(PATIENCE, slow.accept()).await.expect("the service is dialed").unwrap();
    assert_eq!(answer(&mut tunnel).await.refusal(), (400, "PROTOCOL"));
    let (bytes, end) = read_to_end(&mut service).await;
    assert!(bytes.is_empty() && end.is_err(), "{bytes:?} {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_carries_one_tunnel() {
    let host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    // What follows 200 is the service's, also if it looks like a request.
    tunnel.write_all(request("notices").as_bytes()).await.unwrap();
    tunnel.flush().await.unwrap();
    let mut come = vec![0; request("notices").len()];
    timeout(PATIENCE, service.read_exact(&mut come)).await.unwrap().unwrap();
    assert_eq!(come, request("notices").as_bytes());
    service.shutdown().await.unwrap();
    tunnel.shutdown().await.unwrap();
    let (bytes, end) = rest(&mut tunnel).await;
    assert!(bytes.is_empty() && end.is_ok(), "{bytes:?} {end:?}");
    host.side.until("nothing is left", |report| report.peer.control_connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_forbids_a_tunnel_ends_it_and_both_ends_see_a_reset() {
    let ends: [(&str, Edit); 5] = [
        ("suspended", |snapshot| snapshot.state = LinkState::Suspended),
        ("another agreement", |snapshot| {
            let digest = Digest::of(b"another text");
            snapshot.agreements.current.as_mut().unwrap().term.digest = digest;
        }),
        ("the export removed", |snapshot| snapshot.exports.clear()),
        ("the export moved", |snapshot| snapshot.exports[0].target.port ^= 1),
        ("the pin removed", |snapshot| {
            snapshot.peer.fingerprints = vec![Organization::new("c.example").root.fingerprint()];
        }),
    ];
    for (what, edit) in ends {
        let mut host = Host::new().await;
        let (mut tunnel, mut service) = host.tunnel().await;
        works(&mut tunnel, &mut service).await;
        host.side.adopt(edit).await;
        is_reset(tunnel, service).await;
        println!("{what}: reset");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_five_hundred_tunnels_within_a_second_though_their_partner_does_not_read() {
    let host = Host::new().await;
    let mut open = Vec::new();
    for _ in 0..500 {
        open.push(host.tunnel().await);
    }
    // Some have the path full of bytes that the partner does not take.
    let block = vec![7; 64 * 1024];
    for (_, service) in open.iter_mut().take(8) {
        while let Ok(written) = timeout(Duration::from_millis(50), service.write(&block)).await {
            written.unwrap();
        }
    }
    let receipt = timeout(Duration::from_secs(1), host.side.relay.cut(link_cut("LinkCut/1", 1))).await;
    assert_eq!(receipt.expect("within a second (promise P4)").ended, 500);
    assert_eq!(host.side.relay.report().streams.live, 0);
    for (tunnel, service) in open.into_iter().skip(8) {
        is_reset(tunnel, service).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_ends_with_its_agreement_and_a_clock_that_steps_back_revives_none() {
    let mut host = Host::new().await;
    let end = Millis(host.side.clock.millis().0 + 3_600_000);
    let until = |snapshot: &mut Snapshot| {
        snapshot.agreements.current.as_mut().unwrap().term.until = Some(end);
    };
    host.side.adopt(until).await;
    let (mut tunnel, mut service) = host.tunnel().await;
    works(&mut tunnel, &mut service).await;
    host.side.clock.step(3_600_000);
    is_reset(tunnel, service).await;
    host.side.until_disagreed("Expired").await;
    host.side.clock.step(-3_600_000);
    assert_eq!(host.refusal(&request("notices")).await.refusal(), (403, "EXPIRED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_outlives_its_partners_certificate_by_five_minutes() {
    let host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    // A leaf of these tests lives three days.
    host.side.clock.step(3 * 24 * 3_600_000 + 60_000);
    works(&mut tunnel, &mut service).await;
    host.side.clock.step(5 * 60_000);
    is_reset(tunnel, service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_agreement_of_a_renewal_may_be_named_and_each_tunnel_has_its_own() {
    let next = Digest::of(b"the renewal");
    let mut host = Host::with(|snapshot| {
        let term = AgreementTerm { digest: next, from: Millis(0), until: None };
        snapshot.agreements.next = Some(Agreement { term, ..agreement() });
    })
    .await;
    let (mut old, mut old_service) = host.tunnel().await;
    let (answer, mut new) = host.caller().ask(&naming("notices", &next.to_string())).await;
    assert_eq!(answer.status, 200);
    let (mut new_service, _) = host.target.accept().await.unwrap();
    // A client of the partner's that is wrong speaks for none of the others.
    let wrong = Digest::of(b"another text").to_string();
    assert_eq!(host.refusal(&naming("notices", &wrong)).await.refusal(), (403, "NOT_AGREED"));
    works(&mut old, &mut old_service).await;
    works(&mut new, &mut new_service).await;
    assert!(host.side.relay.report().agreed.disagreement.is_none(), "bytes flow, so it is agreed");
    host.side.adopt(|snapshot| snapshot.agreements.current = snapshot.agreements.next.take()).await;
    is_reset(old, old_service).await;
    works(&mut new, &mut new_service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_without_an_agreement_wants_none_named() {
    let host = Host::with(|snapshot| snapshot.agreements.current = None).await;
    let (answer, _) = host.caller().ask("CONNECT notices HTTP/1.1\r\nHost: notices\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert_eq!(host.refusal(&request("notices")).await.refusal(), (403, "NOT_AGREED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_says_whether_the_partner_has_called_and_what_it_named() {
    let host = Host::with(|snapshot| snapshot.max_staleness_seconds = 0).await;
    let report = host.side.relay.report();
    assert_eq!(report.agreed.disagreement.map(Disagreement::reason), Some("AwaitingDeclaration"));
    assert!(report.peer.last_seen.is_none() && host.side.relay.is_ready(), "ready to be called");
    let wrong = Digest::of(b"another text");
    host.refusal(&naming("notices", &wrong.to_string())).await;
    let report = host.side.until_disagreed("DigestDiffers").await;
    assert_eq!(report.agreed.peer.and_then(|side| side.current).map(|term| term.digest), Some(wrong));
    let (tunnel, service) = host.tunnel().await;
    let report = host.side.relay.report();
    assert_eq!((report.agreed.disagreement, report.peer.control_connections), (None, 1));
    assert!(report.peer.last_seen.is_some() && report.exports[0].unusable.is_none(), "{report:#?}");
    assert_eq!(report.peer.tls_group.as_deref(), Some("X25519MLKEM768"));
    // A greeting has nowhere to go, and says so at once.
    let error = host.side.relay.greet("hello").await.unwrap_err().to_string();
    assert!(error.contains("only calls"), "{error}");
    // The last word of a partner that has no tunnel holds for maxStaleness, here not a moment.
    drop((tunnel, service));
    host.side.until_disagreed("Stale").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_the_partner_does_not_get_as_far_as_http() {
    let host = Host::new().await;
    let stranger = Organization::new("b.example");
    let mut impostor = host.caller_as(&stranger, &[b"http/1.1"]).call().await.expect("a client finishes first");
    assert!(rest(&mut impostor).await.1.is_err());
    host.side.until_refused("WrongRoot").await;
    for alpn in [&[b"securelink/1" as &[u8]][..], &[b"h2"]] {
        assert!(host.caller_as(&host.partner, alpn).call().await.is_err(), "the link speaks one protocol");
    }
    // Who names no protocol speaks HTTP/1.1, as curl does to a proxy.
    let (answer, _) = host.caller_as(&host.partner, &[]).ask(&request("notices")).await;
    assert_eq!(answer.status, 200);
    // And a link between relays takes no CONNECT, by whatever name.
    let relays = Side::start(&host.own, &host.partner.domain, snapshot(&host.own, &host.partner)).await;
    let relays = Host { side: relays, ..host };
    assert!(relays.caller().call().await.is_err());
    let mut unnamed = relays.caller_as(&relays.partner, &[]).call().await.unwrap();
    let _ = unnamed.write_all(request("notices").as_bytes()).await;
    assert_eq!(rest(&mut unnamed).await.0, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_may_change_to_connect_and_what_spoke_before_ends() {
    let mut host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    works(&mut tunnel, &mut service).await;
    host.side.adopt(|snapshot| snapshot.peer.protocol = Protocol::SecureLink).await;
    is_reset(tunnel, service).await;
    host.side.until_disagreed("AwaitingDeclaration").await;
    host.side.adopt(|snapshot| snapshot.peer.protocol = Protocol::Connect).await;
    let (mut tunnel, mut service) = host.tunnel().await;
    works(&mut tunnel, &mut service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_drains_says_so_and_lets_tunnels_finish() {
    let host = Host::new().await;
    let (mut tunnel, mut service) = host.tunnel().await;
    let relay = host.side.relay.clone();
    let draining = tokio::spawn(async move { relay.drain(PATIENCE).await });
    host.side.until("it drains", |_| !host.side.relay.is_ready()).await;
    let mut changes = host.side.relay.changes();
    let refused = async {
        loop {
            let (answer, _) = host.caller().ask(&request("notices")).await;
            if answer.status != 200 {
                return answer;
            }
            // For a moment it goes on taking what is under way.
            changes.changed().await.unwrap();
        }
    };
    let answer = timeout(PATIENCE, refused).await.expect("then it takes no more");
    assert_eq!(answer.refusal(), (503, "DRAINING"));
    assert!(answer.field("Retry-After").is_some(), "{answer:?}");
    works(&mut tunnel, &mut service).await;
    service.shutdown().await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert!(rest(&mut tunnel).await.1.is_ok());
    timeout(PATIENCE, draining).await.expect("no stream is left to wait for").unwrap();
}
