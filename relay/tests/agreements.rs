//! Nothing flows until both agree, and no longer than both agree (promise P3, faults F44, F57 and F85).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use securelink_relay::Memory;
use securelink_relay::wire::{Code, Message, Ping, Role};
use securelink_relay_config::{Agreement, AgreementTerm, Agreements, Digest, Head, Latch, LinkState, Millis};
use support::intruder::{Caller, Heard, head_of, open};
use support::{Pair, Side, agreement, credentials, read_to_end, turned_away};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn named(text: &str) -> Agreement {
    let term = AgreementTerm { digest: Digest::of(text.as_bytes()), from: Millis(0), until: None };
    Agreement { reference: text.to_owned(), term }
}

fn only(agreement: Agreement) -> Agreements {
    Agreements { current: Some(agreement), next: None }
}

/// A client is turned away, and the service behind the link hears nothing of it.
async fn assert_closed(pair: &Pair) {
    for address in [pair.a.import_address("at-b"), pair.b.import_address("at-a")] {
        turned_away(address).await;
    }
    for service in [&pair.at_a, &pair.at_b] {
        let accepted = futures_util::FutureExt::now_or_never(service.accept());
        assert!(accepted.is_none(), "a service was dialed");
    }
    let carried = pair.a.relay.report().streams;
    assert_eq!((carried.live, carried.bytes_sent, carried.bytes_received), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_another_text_on_each_side_no_byte_passes() {
    let pair = Pair::dialing(|_, b| b.agreements = only(named("another text"))).await;
    pair.a.until_disagreed("DigestDiffers").await;
    pair.b.until_disagreed("DigestDiffers").await;
    assert_closed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_on_one_side_only_is_none() {
    let pair = Pair::dialing(|a, _| a.agreements = Agreements::default()).await;
    pair.a.until_disagreed("DigestDiffers").await;
    pair.b.until_disagreed("DigestDiffers").await;
    assert_closed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sides_without_agreement_agree() {
    let pair = Pair::dialing(|a, b| (a.agreements, b.agreements) = Default::default()).await;
    pair.a.until_ready().await;
    pair.stream_to_b().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_changes_on_one_side_ends_live_streams() {
    let mut pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    pair.a.adopt(|snapshot| snapshot.agreements = only(named("amended"))).await;
    assert!(read_to_end(&mut client).await.1.is_err());
    assert!(read_to_end(&mut service).await.1.is_err());
    pair.b.until_disagreed("DigestDiffers").await;
    pair.b.adopt(|snapshot| snapshot.agreements = only(named("amended"))).await;
    pair.a.until_ready().await;
    pair.stream_to_b().await;
}

/// The later start of the two counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_later_start_no_byte_passes() {
    let hour = Duration::from_hours(1);
    let start = support::TestClock::new().millis().plus(hour);
    let pair = Pair::dialing(|a, _| {
        let mut later = agreement();
        later.term.from = start;
        a.agreements = only(later);
    })
    .await;
    pair.a.until_disagreed("NotYetEffective").await;
    let report = pair.b.until_disagreed("NotYetEffective").await;
    assert_eq!(report.agreed.recheck, Some(start), "the side that set no start knows when to look again");
    assert_closed(&pair).await;
    for side in [&pair.a, &pair.b] {
        side.clock.step(3_600_000);
    }
    pair.a.until_ready().await;
    pair.b.until_ready().await;
    pair.stream_to_b().await;
}

/// The earlier end of the two counts; a clock that is stepped back does not bring the agreement back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f85_after_the_earlier_end_no_byte_passes_within_a_second_nor_when_the_clock_steps_back() {
    let pair = Pair::dialing(|_, b| {
        let mut ending = agreement();
        ending.term.until = Some(support::TestClock::new().millis().plus(Duration::from_hours(1)));
        b.agreements = only(ending);
    })
    .await;
    pair.a.until_ready().await;
    pair.b.until_ready().await;
    let (mut client, mut service) = pair.stream_to_b().await;
    let pumping = tokio::spawn(async move {
        let block = [7; 4096];
        while client.write_all(&block).await.is_ok() {}
        Instant::now()
    });
    let draining = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            match service.read(&mut buffer).await {
                Ok(0) => panic!("a cut looked like an end"),
                Ok(_) => {}
                Err(_) => return Instant::now(),
            }
        }
    });
    let ended = Instant::now();
    for side in [&pair.a, &pair.b] {
        side.clock.step(3_600_001);
    }
    let promise = Duration::from_secs(1);
    assert!(pumping.await.unwrap() - ended <= promise, "the client was cut late");
    assert!(draining.await.unwrap() - ended <= promise, "the service was cut late");
    pair.a.until_disagreed("Expired").await;
    pair.b.until_disagreed("Expired").await;
    for side in [&pair.a, &pair.b] {
        side.clock.step(-7_200_000);
    }
    // A tick of the clock's watch at the earlier time, then the verdict is what it was.
    pair.a.until("the peer stays authenticated", |report| report.peer.control_connections == 2).await;
    assert!(pair.a.relay.greet("still there?").await.is_err());
    pair.a.until_disagreed("Expired").await;
    pair.b.until_disagreed("Expired").await;
}

/// The end is stored, so that a restart with a clock that is wrong again does not bring it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f85_an_end_that_was_seen_stays_one_over_a_restart() {
    let mut ending = agreement();
    ending.term.until = Some(support::TestClock::new().millis().plus(Duration::from_hours(1)));
    let pair = Pair::dialing(|a, b| {
        a.agreements = only(ending.clone());
        b.agreements = only(ending.clone());
    })
    .await;
    pair.a.until_ready().await;
    pair.a.clock.step(3_600_001);
    pair.a.until_disagreed("Expired").await;
    let kept = || pair.a.store.latch.lock().unwrap().clone();
    pair.a.until("the end is stored", |_| kept() != Latch::default()).await;
    let ours = credentials(pair.org_a.leaf_to(&pair.org_b.domain), &pair.org_a.transitions);
    let (memory, snapshot) = (Memory { latch: kept(), ..Memory::default() }, pair.a.snapshot.clone());
    pair.a.relay.drain(Duration::ZERO).await;
    let early = support::TestClock::new();
    let restarted = Side::start_with(ours, snapshot, early, memory).await;
    restarted.until("the peer is there", |report| report.peer.control_connections > 0).await;
    restarted.until_disagreed("Expired").await;
    assert!(pair.b.relay.report().agreed.disagreement.is_none(), "whose clock has seen no end");
    turned_away(restarted.import_address("at-b")).await;
}

/// Ends that the peer names and that have passed are stored, but not each at the peer's pace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f47_a_flood_of_ends_that_have_passed_is_not_stored_one_by_one() {
    const HEADS: u64 = 2_000;
    let pair = Pair::ready().await;
    let (start, now) = (Instant::now(), pair.b.clock.millis().0);
    let caller = Caller::new(&pair);
    let mut intruder = caller.connect(Role::Control).await;
    let mut head = caller.head.clone();
    for number in 1..=HEADS {
        head.sequence += 1;
        head.current.as_mut().unwrap().until = Some(Millis(now - HEADS + number - 1));
        intruder.say(&Message::Head(head.clone())).await;
        if number % 20 == 0 {
            intruder.say(&Message::Ping(Ping { nonce: number })).await;
            intruder.hear_until(|heard| matches!(heard, Heard::Message(Message::Pong(_)))).await;
        }
    }
    let digest = head.current.unwrap().digest;
    let stored = || pair.b.store.latch.lock().unwrap().holds(digest, Millis(now - 1));
    pair.b.until("the last is stored", |_| stored()).await;
    let times = pair.b.store.latch_saved.load(Ordering::SeqCst);
    assert!(times <= 2 + usize::try_from(start.elapsed().as_secs()).unwrap(), "{times} in {:?}", start.elapsed());
}

/// What the peer said before it narrowed, said again by whoever recorded it or by a replica that lags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f44_an_older_or_equal_declaration_that_is_played_again_widens_nothing() {
    let mut pair = Pair::ready().await;
    let (old, declared) = (head_of(&pair.a.snapshot), pair.a.snapshot.declaration(None).to_bytes());
    pair.a
        .adopt(|snapshot| {
            snapshot.state = LinkState::Suspended;
            snapshot.imports.clear();
        })
        .await;
    let narrowed = pair.a.snapshot.version;
    pair.b.until_disagreed("SuspendedByPeer").await;
    let mut replayed = Caller::new(&pair);
    for sequence in [old.sequence, narrowed] {
        replayed.head = Head { sequence, ..old.clone() };
        let mut control = replayed.connect(Role::Control).await;
        control.say(&Message::Declare(declared.clone())).await;
        control.say(&Message::Head(replayed.head.clone())).await;
        control.say(&Message::Ping(Ping { nonce: sequence })).await;
        control.hear_until(|heard| matches!(heard, Heard::Message(Message::Pong(_)))).await;
        let mut forward = replayed.connect(Role::Forward).await;
        forward.say(&open("at-b")).await;
        let answer = forward.hear_until(|heard| matches!(heard, Heard::Message(Message::Reject(_)))).await;
        let Heard::Message(Message::Reject(reject)) = answer else { unreachable!() };
        assert_eq!(reject.code, Code::Suspended, "sequence {sequence}");
        let report = pair.b.until_disagreed("SuspendedByPeer").await;
        assert_eq!(report.agreed.peer.unwrap().sequence, narrowed);
    }
    assert!(futures_util::FutureExt::now_or_never(pair.at_b.accept()).is_none(), "the service was dialed");
    // Active again, and with what it imported: said with a higher number.
    pair.a.adopt(|snapshot| snapshot.state = LinkState::Active).await;
    pair.b.until_ready().await;
}

/// Each side uses its own clock: the one that is behind opens, the other refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f57_a_relay_of_an_agreement_that_has_expired_here_connects_and_gets_no_stream() {
    let mut ending = agreement();
    ending.term.until = Some(support::TestClock::new().millis().plus(Duration::from_hours(1)));
    let pair = Pair::dialing(|a, b| {
        a.agreements = only(ending.clone());
        b.agreements = only(ending);
    })
    .await;
    pair.a.until_ready().await;
    pair.b.clock.step(3_600_001);
    pair.b.until_disagreed("Expired").await;
    assert!(pair.a.relay.report().agreed.disagreement.is_none(), "here it is still in force");
    turned_away(pair.a.import_address("at-b")).await;
    assert!(futures_util::FutureExt::now_or_never(pair.at_b.accept()).is_none());
}

/// A renewal: both name `next`, then each moves it to `current` in its own time; a transfer across all of it is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_moved_first_by_one_side_and_then_the_other_loses_nothing() {
    for a_first in [true, false] {
        let mut pair = Pair::ready().await;
        let (mut client, mut service) = pair.stream_to_b().await;
        let Pair { a, b, .. } = &mut pair;
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        let renewal = || Agreements { current: Some(agreement()), next: Some(named("renewed")) };
        let mut sent = Vec::new();
        for step in 0..4_u8 {
            match step {
                0 => first.adopt(|snapshot| snapshot.agreements = renewal()).await,
                1 => second.adopt(|snapshot| snapshot.agreements = renewal()).await,
                2 => first.adopt(|snapshot| snapshot.agreements = only(named("renewed"))).await,
                _ => second.adopt(|snapshot| snapshot.agreements = only(named("renewed"))).await,
            }
            let sequence = first.snapshot.version;
            second
                .until("the other side heard of it", |report| {
                    report.agreed.peer.as_ref().is_some_and(|peer| peer.sequence >= sequence)
                })
                .await;
            let block = vec![step; 100_000];
            client.write_all(&block).await.expect("the stream lives");
            sent.extend(block);
            let mut echo = vec![0; 100_000];
            service.read_exact(&mut echo).await.expect("the stream lives");
            assert_eq!(echo, vec![step; 100_000]);
        }
        assert_eq!(first.relay.report().agreed.digest, Some(Digest::of(b"renewed")));
        client.shutdown().await.unwrap();
        assert!(read_to_end(&mut service).await.1.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspending_ends_streams_on_both_sides_and_resuming_brings_the_link_back() {
    let mut pair = Pair::ready().await;
    let (mut client, mut service) = pair.stream_to_a().await;
    pair.a.adopt(|snapshot| snapshot.state = LinkState::Suspended).await;
    pair.a.until_disagreed("SuspendedHere").await;
    pair.b.until_disagreed("SuspendedByPeer").await;
    pair.b.until("the peer stays authenticated", |report| report.peer.control_connections == 2).await;
    assert!(read_to_end(&mut client).await.1.is_err());
    assert!(read_to_end(&mut service).await.1.is_err());
    pair.a.adopt(|snapshot| snapshot.state = LinkState::Active).await;
    pair.b.until_ready().await;
    pair.stream_to_a().await;
}

/// What the other side does not offer, does not want, or marks too sensitive is refused on its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_must_be_offered_wanted_and_of_an_admitted_class() {
    let pair = Pair::dialing(|a, b| {
        a.imports.push(support::import("not-offered", 1));
        b.exports.push(support::export("not-wanted", "127.0.0.1:9".parse().unwrap()));
        a.imports[0].data_class = securelink_relay_config::DataClass::Strategic;
    })
    .await;
    pair.b.until_ready().await;
    let report = pair.a.until("declared", |report| report.imports.iter().all(|entry| entry.unusable.is_some())).await;
    assert!(report.imports[0].unusable.as_deref().unwrap().contains("operational"), "{report:#?}");
    assert!(report.imports[1].unusable.as_deref().unwrap().contains("does not offer"), "{report:#?}");
    for name in ["at-b", "not-offered"] {
        turned_away(pair.a.import_address(name)).await;
    }
    pair.stream_to_a().await;
}

/// A peer that went silent is held to its last word for `maxStaleness` and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_is_too_old_is_stale() {
    let pair = Pair::dialing(|a, _| a.max_staleness_seconds = 1).await;
    pair.a.until_ready().await;
    pair.b.relay.drain(Duration::ZERO).await;
    pair.a.until_disagreed("Stale").await;
    turned_away(pair.a.import_address("at-b")).await;
}
