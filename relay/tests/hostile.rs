//! A peer that breaks every rule costs only itself: its own connections end, other streams of the link go on, and what
//! is kept for it is bounded (faults F45, F47 and F56).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use securelink_pki::testing::Organization;
use securelink_relay::wire::{Code, Header, Kind, Message, Ping, Role};
use securelink_relay_config::{Cut, CutScope};
use support::intruder::{Caller, Heard, Intruder, data, encoded, head_of, open};
use support::{PATIENCE, Pair, Side, endpoint, export, import, link_cut, read_to_end, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A path that takes nothing for so long is full.
const FULL_AFTER: Duration = Duration::from_millis(500);
/// What a cut is given (promise P4).
const A_SECOND: Duration = Duration::from_secs(1);

/// `a` dials `b` and has one stream to it, which must go on.
struct Link {
    pair: Pair,
    caller: Caller,
    client: TcpStream,
    service: TcpStream,
}

impl Link {
    async fn ready() -> Self {
        Self::with(Pair::ready().await).await
    }

    async fn with(pair: Pair) -> Self {
        let (client, service) = pair.stream_to_b().await;
        let caller = Caller::new(&pair);
        Self { pair, caller, client, service }
    }

    async fn goes_on(&mut self, what: &str) {
        let (client, service) = (&mut self.client, &mut self.service);
        let echo = async {
            client.write_all(what.as_bytes()).await.unwrap();
            let mut bytes = vec![0; what.len()];
            service.read_exact(&mut bytes).await.unwrap();
            service.write_all(&bytes).await.unwrap();
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, what.as_bytes());
        };
        timeout(PATIENCE, echo).await.unwrap_or_else(|_| panic!("{what}: the honest stream goes on"));
    }

    /// Cuts at `b`, which must be done within the promise's second.
    async fn cut(&self, what: &str) {
        let start = Instant::now();
        let receipt = self.pair.b.relay.cut(link_cut("LinkCut/1", 1)).await;
        assert!(start.elapsed() <= A_SECOND, "{what}: the acknowledgement took {:?}", start.elapsed());
        assert!(receipt.fresh && self.pair.b.relay.report().streams.live == 0, "{what}: {receipt:?}");
    }
}

/// Writes `chunk` again and again, until `most` bytes or until the path is full.
async fn flood(writer: &mut (impl tokio::io::AsyncWrite + Unpin), chunk: &[u8], most: usize) -> usize {
    let mut written = 0;
    while written < most {
        match timeout(FULL_AFTER, writer.write(&chunk[written % chunk.len()..])).await {
            Ok(Ok(count)) => written += count,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_whoever_breaks_the_protocol_is_told_so_and_left() {
    let mut link = Link::ready().await;
    let too_long = |kind, length| Header { kind, length }.encode().to_vec();
    let early = [encoded(&open("unknown")), data(&vec![1; 65_536]), data(b"x")].concat();
    let twice = [encoded(&open("_probe")), encoded(&Message::Fin), encoded(&Message::Fin)].concat();
    let rows: Vec<(&str, Role, Vec<u8>)> = vec![
        ("DATA before OPEN", Role::Forward, data(b"x")),
        ("FIN before OPEN", Role::Forward, encoded(&Message::Fin)),
        ("DATA over the early budget", Role::Forward, early),
        ("FIN twice", Role::Forward, twice),
        ("OPEN on a control connection", Role::Control, encoded(&open("at-b"))),
        ("DATA on a control connection", Role::Control, data(b"x")),
        ("OPEN by the wrong side", Role::Reverse, encoded(&open("at-b"))),
        ("a frame of no known type", Role::Forward, vec![0x7f, 0, 0, 0]),
        ("a frame of no known type on a control connection", Role::Control, vec![0x00, 0, 0, 0]),
        ("an OPEN that is too long", Role::Forward, too_long(Kind::Open, 16_385)),
        ("DATA that is too long", Role::Forward, too_long(Kind::Data, 262_141)),
        ("DATA without a byte", Role::Forward, too_long(Kind::Data, 0)),
        ("a DECLARE that is too long", Role::Control, too_long(Kind::Declare, 65_537)),
        ("HELLO again", Role::Forward, too_long(Kind::Hello, 16_385)),
        ("an OPEN that is no OPEN", Role::Forward, too_long(Kind::Open, 0)),
    ];
    for (what, role, bytes) in rows {
        let before = link.pair.b.relay.report().peer.refused.get("ProtocolError").copied().unwrap_or(0);
        let mut intruder = link.caller.connect(role).await;
        intruder.send(&bytes).await;
        assert_eq!(intruder.hear_goodbye().await, Some(Code::Protocol), "{what}");
        link.pair
            .b
            .until(what, |report| report.peer.refused.get("ProtocolError").is_some_and(|count| *count == before + 1))
            .await;
        link.goes_on(what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_record_that_does_not_open_is_answered_by_its_alert() {
    let mut link = Link::ready().await;
    let mut intruder = link.caller.connect(Role::Forward).await;
    // Long enough for a tag, and sealed by nobody.
    let record = [[23, 3, 3, 0, 32].as_slice(), &[7; 32]].concat();
    intruder.stream.get_mut().0.write_all(&record).await.unwrap();
    let end = timeout(PATIENCE, intruder.stream.read_to_end(&mut Vec::new())).await.expect("the relay hangs up");
    let error = end.unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
    link.goes_on("a record that does not open").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f56_what_is_not_exported_is_not_reached_and_early_data_for_it_goes_nowhere() {
    let mut link = Link::ready().await;
    let mut intruder = link.caller.connect(Role::Forward).await;
    // Also what `b` itself imports, and what would be a service of its own.
    for service in ["unknown", "at-a", "_metrics"] {
        intruder.send(&[encoded(&open(service)), data(&vec![1; 65_536])].concat()).await;
        let answer = intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Reject(_)))).await;
        let Heard::Message(Message::Reject(reject)) = answer else { unreachable!() };
        assert_eq!(reject.code, Code::UnknownExport, "{service}");
        intruder.say_idle(65_536, 0).await;
        intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Idle(_)))).await;
    }
    assert_eq!(link.pair.b.relay.report().streams.live, 1);
    for service in [&link.pair.at_a, &link.pair.at_b] {
        assert!(futures_util::FutureExt::now_or_never(service.accept()).is_none(), "a service was dialed");
    }
    link.goes_on("what is not exported").await;
}

/// An OPEN as no relay of ours would write it: a stream's number, the name whatever it is, and the client.
fn open_raw(name: &str) -> Vec<u8> {
    let right = encoded(&open("x"));
    let (name_type, client) = (&right[Header::LEN + 16..][..2], &right[Header::LEN + 16 + 4 + 1..]);
    let length = u16::try_from(name.len()).unwrap().to_be_bytes();
    let payload = [&right[Header::LEN..][..16], name_type, &length, name.as_bytes(), client].concat();
    [&Header { kind: Kind::Open, length: payload.len() }.encode()[..], &payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f45_a_name_that_is_no_service_is_a_broken_frame_and_the_longest_one_is_only_unknown() {
    let mut link = Link::ready().await;
    let long = ["a".repeat(64), "a".repeat(253), "a".repeat(2_000)];
    let odd = [
        "",
        "at-b.",
        "..",
        "../at-b",
        "at-b/..",
        "at-b\n",
        "at-b\0",
        "AT-B",
        "-at-b",
        "at-b-",
        "at b",
        "{{.Values.x}}",
        "${HOME}",
        "%61t-b",
        "\u{430}t-b",
        "\u{202e}b-ta",
        "at\u{200b}-b",
        "__probe",
    ];
    for name in odd.iter().map(|name| (*name).to_owned()).chain(long) {
        let mut intruder = link.caller.connect(Role::Forward).await;
        intruder.send(&open_raw(&name)).await;
        assert_eq!(intruder.hear_goodbye().await, Some(Code::Protocol), "{name:?}");
    }
    assert_eq!(open_raw("at-b"), encoded(&open("at-b")));
    let mut intruder = link.caller.connect(Role::Forward).await;
    for name in ["a".repeat(63), format!("_{}", "a".repeat(63)), "xn--at-b".to_owned()] {
        intruder.say(&open(&name)).await;
        let answer = intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Reject(_)))).await;
        let Heard::Message(Message::Reject(reject)) = answer else { unreachable!() };
        assert_eq!(reject.code, Code::UnknownExport, "{name}");
        intruder.say_idle(0, 0).await;
        intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Idle(_)))).await;
    }
    link.goes_on("names").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_flood_of_open_costs_the_flooder_its_own_connections_only() {
    const ROUNDS: usize = 200;
    let mut link = Link::ready().await;
    let mut floods = JoinSet::new();
    for _ in 0..16 {
        let caller = link.caller.clone();
        floods.spawn(async move {
            let mut intruder = caller.connect(Role::Forward).await;
            for _ in 0..ROUNDS {
                intruder.say(&open("unknown")).await;
                intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Reject(_)))).await;
                intruder.say_idle(0, 0).await;
                intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Idle(_)))).await;
            }
            // More without waiting for what is said to the first.
            intruder.send(&encoded(&open("unknown")).repeat(3)).await;
            intruder.hear_goodbye().await
        });
    }
    while !floods.is_empty() {
        link.goes_on("a flood of OPEN").await;
        if let Some(ended) = futures_util::FutureExt::now_or_never(floods.join_next()).flatten() {
            assert_eq!(ended.unwrap(), Some(Code::Protocol));
        }
    }
    assert_eq!(link.pair.b.relay.report().streams.live, 1);
}

/// FIN twice and DATA behind FIN inside a stream that is carried: the service sees a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_stream_that_breaks_the_protocol_is_a_reset_for_the_service() {
    let mut link = Link::ready().await;
    for (what, bytes) in [("FIN twice", encoded(&Message::Fin)), ("DATA behind FIN", data(b"x"))] {
        let mut intruder = link.caller.connect(Role::Forward).await;
        intruder.opened("at-b").await;
        let (mut service, _) = link.pair.at_b.accept().await.unwrap();
        intruder.send(&[encoded(&Message::Fin), bytes].concat()).await;
        assert_eq!(intruder.hear_goodbye().await, Some(Code::Protocol), "{what}");
        // The end of input it saw was right; what it writes meets the reset.
        while timeout(PATIENCE, service.write_all(b"x")).await.expect("the reset comes").is_ok() {
            tokio::task::yield_now().await;
        }
        link.goes_on(what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_flood_of_heads_does_not_judge_every_stream_each_time() {
    const HEADS: u64 = 20_000;
    let mut link = Link::ready().await;
    for role in [Role::Control, Role::Forward] {
        let mut intruder = link.caller.connect(role).await;
        let changes = link.pair.b.relay.changes();
        let before = *changes.borrow();
        let mut head = link.caller.head.clone();
        for round in 0..HEADS / 100 {
            let mut heads = Vec::new();
            for _ in 0..100 {
                head.sequence += 1;
                heads.extend(encoded(&Message::Head(head.clone())));
            }
            intruder.send(&heads).await;
            if round % 20 == 0 {
                link.goes_on("a flood of HEAD").await;
            }
        }
        let last = head.sequence;
        link.pair
            .b
            .until("the last head is heard", |report| report.agreed.peer.as_ref().is_some_and(|p| p.sequence == last))
            .await;
        link.goes_on("after the flood").await;
        let rounds = *changes.borrow() - before;
        assert!(rounds < HEADS / 10, "{role:?}: {rounds} rounds of judgments for {HEADS} heads");
        link.caller.head = head;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_peer_that_sends_pings_and_reads_nothing_is_held_back() {
    const MOST: usize = 64 << 20;
    let mut link = Link::ready().await;
    let pings: Vec<u8> = (0..1000).flat_map(|nonce| encoded(&Message::Ping(Ping { nonce }))).collect();
    for role in [Role::Forward, Role::Control] {
        let mut intruder = link.caller.connect(role).await;
        let written = flood(&mut intruder.stream, &pings, MOST).await;
        assert!(written < MOST, "{role:?}: the relay took {written} bytes of PINGs");
        if role == Role::Forward {
            // A machine with much to do takes nothing for a while, too: full is what stays full.
            let (mut total, mut more) = (written, written);
            while more > 0 {
                more = flood(&mut intruder.stream, &pings[total % pings.len()..], MOST - total).await;
                total += more;
                assert!(total < MOST, "it goes on taking them, and keeps the PONGs");
            }
        } else {
            // Nothing of it is heard any more: it counts as dead.
            timeout(PATIENCE, intruder.stream.read_to_end(&mut Vec::new())).await.expect("it is left").ok();
        }
        link.goes_on("a flood of PING").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f56_a_peer_that_never_reads_holds_its_own_stream_only_and_a_cut_does_not_wait_for_it() {
    const MOST: usize = 64 << 20;
    let mut link = Link::ready().await;
    let mut intruder = link.caller.connect(Role::Forward).await;
    intruder.opened("at-b").await;
    let (mut service, _) = link.pair.at_b.accept().await.unwrap();
    let written = flood(&mut service, &vec![7; 65_536], MOST).await;
    assert!(written < MOST, "the relay took {written} bytes that nobody reads");
    link.goes_on("a peer that never reads").await;
    link.cut("a peer that never reads").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_half_a_frame_and_silence_holds_nobody_up() {
    let mut link = Link::ready().await;
    let whole = encoded(&open("at-b"));
    let mut halves = Vec::new();
    for role in [Role::Forward, Role::Reverse, Role::Control] {
        let mut intruder = link.caller.connect(role).await;
        let half = if role == Role::Forward { whole[..7].to_vec() } else { vec![0x12, 0, 0] };
        intruder.send(&half).await;
        halves.push(intruder);
    }
    let mut in_stream = link.caller.connect(Role::Forward).await;
    in_stream.opened("at-b").await;
    let (mut service, _) = link.pair.at_b.accept().await.unwrap();
    in_stream.send(&data(b"0123456789")[..9]).await;
    let mut first = [0; 5];
    timeout(PATIENCE, service.read_exact(&mut first)).await.expect("what has come is handed on").unwrap();
    assert_eq!(&first, b"01234");
    link.goes_on("half a frame").await;
    // A control connection that says nothing whole is dead.
    let mut control = halves.pop().unwrap();
    control.hear_goodbye().await;
    link.goes_on("a dead control connection").await;
    link.cut("half a frame").await;
    assert!(read_to_end(&mut service).await.1.is_err(), "a reset");
}

/// The rest of a message longer than the first window, behind a stream that had made the window wide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_beginning_of_a_long_message_behind_a_stream_breaks_nothing() {
    let mut link = Link::ready().await;
    let mut long = encoded(&open("at-b"));
    let filler = 16_384 - (long.len() - Header::LEN) - 4;
    long.extend([0x7f, 0xff]);
    long.extend(u16::try_from(filler).unwrap().to_be_bytes());
    long.resize(long.len() + filler, 0);
    long[1..4].copy_from_slice(&[0, 0x40, 0]);
    let mut intruder = link.caller.connect(Role::Forward).await;
    intruder.opened("at-b").await;
    for round in 0..5 {
        let (mut service, _) = link.pair.at_b.accept().await.unwrap();
        let reading = tokio::spawn(async move {
            service.read_to_end(&mut Vec::new()).await.unwrap();
        });
        for _ in 0..16 {
            intruder.send(&data(&vec![1; 262_140])).await;
        }
        intruder.say(&Message::Fin).await;
        intruder.hear_until(|heard| *heard == Heard::Message(Message::Fin)).await;
        reading.await.unwrap();
        let mut idle_and_more = encoded(&Message::Idle(securelink_relay::wire::Idle { sent: 0, received: 0 }));
        idle_and_more.extend(&long[..long.len() - 1]);
        intruder.send(&idle_and_more).await;
        intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Idle(_)))).await;
        intruder.send(&long[long.len() - 1..]).await;
        let answer = intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Accept) | Heard::End)).await;
        assert_eq!(answer, Heard::Message(Message::Accept), "round {round}");
    }
    link.goes_on("a long message").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_two_thousand_connections_without_a_stream_are_not_kept() {
    let mut link = Link::ready().await;
    // Those that rest share their places, whoever opens on them.
    for (role, calls, most) in [(Role::Forward, 2_000, 1024), (Role::Control, 200, 64)] {
        let (kept, refused) = call_often(&link.caller, role, calls).await;
        // A control connection that keeps silent is left, and its place is taken again.
        let live = link.pair.b.relay.report().peer.control_connections as usize;
        let held = if role == Role::Control { live - 1 } else { kept.len() };
        assert!(held <= most && refused > 0, "{role:?}: {held} are kept, {refused} refused");
        assert_eq!(kept.len() + refused, calls, "{role:?}: all are answered");
        link.goes_on("many connections").await;
        if role == Role::Forward {
            let (parked, refused) = call_often(&link.caller, Role::Reverse, 8).await;
            assert_eq!((parked.len(), refused), (0, 8));
        }
        drop(kept);
        // Whoever lets go may come again.
        let freed = async { while !matches!(link.caller.call(role).await.1, Heard::Message(Message::Hello(_))) {} };
        timeout(PATIENCE, freed).await.expect("places are free again");
    }
    link.pair.a.until_ready().await;
    link.pair.stream_to_b().await;
}

/// Calls so often, some at a time: who is kept, and how many are told that there is no place.
async fn call_often(caller: &Caller, role: Role, times: usize) -> (Vec<Intruder>, usize) {
    let (mut kept, mut refused) = (Vec::new(), 0);
    let mut calls = JoinSet::new();
    for call in 0..times {
        let caller = caller.clone();
        calls.spawn(async move { caller.call(role).await });
        while calls.len() == 32 || (call + 1 == times && !calls.is_empty()) {
            match calls.join_next().await.unwrap().unwrap() {
                (_, Heard::Message(Message::Bye(bye))) if bye.code == Code::Overloaded => refused += 1,
                (intruder, Heard::Message(Message::Hello(_))) => kept.push(intruder),
                (_, other) => panic!("{other:?}"),
            }
        }
    }
    (kept, refused)
}

/// An address that takes no connection and refuses none: its queue is full.
async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(client)) = timeout(FULL_AFTER, TcpStream::connect(listener.local_addr().unwrap())).await {
        waiting.push(client);
    }
    (listener, waiting)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_waits_for_no_stream_that_is_still_dialing_its_target() {
    let (hole, _waiting) = black_hole().await;
    let target = hole.local_addr().unwrap();
    let mut link = Link::with({
        let pair = Pair::dialing(|_, b| b.exports.push(export("hole", target))).await;
        pair.a.until_ready().await;
        pair
    })
    .await;
    link.pair.a.adopt(|snapshot| snapshot.imports.push(import("hole", 1))).await;
    link.pair.b.until("hole is wanted", |report| report.exports.iter().all(|entry| entry.unusable.is_none())).await;
    let mut client = TcpStream::connect(link.pair.a.import_address("hole")).await.unwrap();
    client.write_all(b"x").await.unwrap();
    link.pair.b.until("the target is dialed", |report| report.streams.live == 2).await;
    link.goes_on("a target that does not answer").await;
    link.cut("a target that does not answer").await;
    assert!(read_to_end(&mut client).await.1.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_waits_for_no_peer_that_keeps_back_its_last_word() {
    // After both FINs the opener owes an IDLE; after an abort of the service it owes the end of the connection.
    for aborted in [false, true] {
        let link = Link::ready().await;
        let mut intruder = link.caller.connect(Role::Forward).await;
        intruder.opened("at-b").await;
        let (mut service, _) = link.pair.at_b.accept().await.unwrap();
        if aborted {
            socket2::SockRef::from(&service).set_linger(Some(Duration::ZERO)).unwrap();
            drop(service);
            intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Rst(_)))).await;
        } else {
            intruder.say(&Message::Fin).await;
            service.read_to_end(&mut Vec::new()).await.unwrap();
            drop(service);
            intruder.hear_until(|heard| *heard == Heard::Message(Message::Fin)).await;
            // The server's comes unasked.
            intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Idle(_)))).await;
        }
        link.cut(if aborted { "an abort" } else { "no IDLE" }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserved_service_ends_with_the_gate_too() {
    let link = Link::ready().await;
    let mut intruder = link.caller.connect(Role::Forward).await;
    intruder.opened("_probe").await;
    intruder.send(&data(b"before")).await;
    link.cut("a probe under way").await;
    intruder.send(&[data(b"after"), encoded(&Message::Fin)].concat()).await;
    loop {
        match intruder.hear().await {
            Heard::End => break,
            Heard::Data(bytes) => panic!("{bytes:?} after the cut was acknowledged"),
            Heard::Message(_) => {}
        }
    }
}

/// Two controllers send the same order: whoever is answered, nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_equal_cuts_is_acknowledged_no_sooner_than_it_holds() {
    let pair = Pair::ready().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(pair.stream_to_b().await);
    }
    let mut cuts = JoinSet::new();
    for _ in 0..8 {
        let relay = pair.a.relay.clone();
        cuts.spawn(async move {
            relay.cut(link_cut("LinkCut/1", 1)).await;
            relay.report().streams.live
        });
    }
    while let Some(left) = cuts.join_next().await {
        assert_eq!(left.unwrap(), 0, "streams are left after an acknowledgement");
    }
}

/// The root that is cut has an older one that vouches for it and is pinned as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_pin_ends_its_streams_also_where_another_pin_would_admit_the_peer() {
    let (org_a, mut org_b) = (Organization::new("a.example"), Organization::new("b.example"));
    let old = org_b.root.fingerprint();
    org_b.rotate_root();
    let at_b = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut for_a, mut for_b) = (snapshot(&org_a, &org_b), snapshot(&org_b, &org_a));
    for_b.exports.push(export("at-b", at_b.local_addr().unwrap()));
    let b = Side::start(&org_b, &org_a.domain, for_b).await;
    for_a.imports.push(import("at-b", 0));
    for_a.peer.fingerprints.push(old);
    for_a.peer.endpoints = vec![endpoint(b.listens_on())];
    let a = Side::start(&org_a, &org_b.domain, for_a).await;
    a.until_ready().await;
    let (mut client, mut service) = support::open(a.import_address("at-b"), &at_b).await;
    let scope = CutScope::Pin(org_b.root.fingerprint());
    let cut = Cut { id: "SecureLink/1".to_owned(), revision: 2, scope, reason: "withdrawn".to_owned() };
    let receipt = timeout(A_SECOND, a.relay.cut(cut)).await.expect("the cut is acknowledged");
    assert_eq!(receipt.ended, 1);
    assert!(read_to_end(&mut client).await.1.is_err());
    assert!(read_to_end(&mut service).await.1.is_err());
}

/// Whatever a peer or a client holds back, a drained relay leaves no task behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_drain() {
    let (hole, _waiting) = black_hole().await;
    let target = hole.local_addr().unwrap();
    let pair = Pair::dialing(|_, b| b.exports.push(export("hole", target))).await;
    pair.a.until_ready().await;
    let link = Link::with(pair).await;
    let mut held = Vec::new();
    for service in ["hole", "_probe", "unknown"] {
        let mut intruder = link.caller.connect(Role::Forward).await;
        intruder.say(&open(service)).await;
        if service != "hole" {
            intruder.hear().await;
        }
        held.push(intruder);
    }
    let mut silent = link.caller.connect(Role::Forward).await;
    silent.send(&[0x02]).await;
    // Its own dials hang, too: for its control connection and for a client.
    let Link { pair: Pair { mut b, at_b: _at_b, a: _a, .. }, .. } = link;
    b.adopt(|snapshot| {
        snapshot.peer.endpoints = vec![endpoint(target)];
        snapshot.imports = vec![import("at-a", 0)];
    })
    .await;
    let _client = TcpStream::connect(b.import_address("at-a")).await.unwrap();
    b.relay.drain(Duration::ZERO).await;
    let store = b.store;
    drop(b.relay);
    assert_eq!(std::sync::Arc::strong_count(&store), 1, "tasks that still hold the link");
}

/// Events at INFO or louder, on this thread.
#[derive(Clone, Default)]
struct Counting(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Counting {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::INFO && event.metadata().target().starts_with("securelink") {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn f47_neither_a_stranger_nor_the_peer_floods_the_log_or_those_who_watch() {
    use tracing_subscriber::layer::SubscriberExt as _;
    const CALLS: u64 = 500;
    let counting = Counting::default();
    let lines = std::sync::Arc::clone(&counting.0);
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(counting));
    let (org_a, org_b) = (Organization::new("a.example"), Organization::new("b.example"));
    let mut registry = Registry::default();
    let b = Side::start_counted(&org_b, &org_a.domain, snapshot(&org_b, &org_a), &mut registry).await;
    let mut news = b.relay.changes();
    let (before, start) = (*news.borrow_and_update(), Instant::now());
    for _ in 0..CALLS {
        let mut stranger = TcpStream::connect(b.listens_on()).await.unwrap();
        stranger.write_all(&[0xff; 64]).await.unwrap();
        // The relay hangs up as it likes.
        let _ = stranger.read_to_end(&mut Vec::new()).await;
    }
    b.until("all are counted", |report| report.peer.refused.get("BrokenTls") == Some(&CALLS)).await;
    // A second's worth at once, then as many each second.
    let (raised, took) = (*news.borrow_and_update() - before, start.elapsed());
    assert!(raised <= 20 * (2 + took.as_secs()), "{raised} news of {CALLS} strangers in {took:?}");
    let caller = Caller::by(&org_a, &org_b, b.listens_on(), head_of(&snapshot(&org_a, &org_b)));
    let mut intruder = caller.connect(Role::Control).await;
    let nonsense = encoded(&Message::Declare(b"{".to_vec()));
    for nonce in 0..CALLS {
        intruder.send(&[nonsense.clone(), encoded(&Message::Ping(Ping { nonce }))].concat()).await;
        intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Pong(_)))).await;
    }
    let lines = lines.load(std::sync::atomic::Ordering::SeqCst);
    let most = 20 * (2 + usize::try_from(start.elapsed().as_secs()).unwrap());
    assert!((1..=most).contains(&lines), "{lines} lines for {CALLS} strangers and as many bad declarations");
}
