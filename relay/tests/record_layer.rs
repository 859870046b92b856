//! What the relay's own record layer takes over of RFC 8446, rule by rule (docs/records.md). Its sameness with rustls is
//! the fuzz target `records`.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::{AlertDescription as Alert, ClientConnection, Error, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use securelink_relay::fuzzing::records::{End, Read, Shaking};
use targets::records::{SUITES, Side, configs, pair, pair_with_rustls};

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CONTENT: u8 = 23;
const HEARTBEAT: u8 = 24;

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];
/// Lifetime, age, a nonce of one byte, a ticket of one byte, no extensions.
const TICKET: [u8; 19] = [4, 0, 0, 15, 0, 0, 0, 9, 0, 0, 0, 9, 1, 7, 0, 1, 7, 0, 0];

/// A record: its type, what it carries, how many zeros behind that.
type Said<'a> = (u8, &'a [u8], usize);

const NOTHING: Said<'static> = (CONTENT, b"", 0);
const CANCELED: Said<'static> = (ALERT, &[1, 90], 0);

/// What came of reading until nothing more is there.
fn hear(end: &mut End) -> (Vec<u8>, Result<Read, Error>) {
    let mut content = Vec::new();
    loop {
        match end.read(1 << 17) {
            Ok(Read::Content(more)) => content.extend(more),
            other => return (content, other),
        }
    }
}

/// Sends a record of each, as it is.
fn records(end: &mut End, records: &[Said<'_>]) -> Vec<Vec<u8>> {
    let seal = |(kind, content, padding): &Said<'_>| {
        end.seal(*kind, content, *padding).unwrap();
        end.depart()
    };
    records.iter().map(seal).collect()
}

/// How `bytes` of a peer that means no good are answered: by this alert, after this content; and nothing more is said.
fn answer(side: Side, bytes: impl FnOnce(&mut End) -> Vec<u8>) -> (Vec<u8>, Option<Alert>) {
    let (mut ours, mut theirs) = pair(SUITES[0], side);
    hear(&mut ours).1.unwrap();
    let bytes = bytes(&mut theirs);
    ours.arrive(&bytes);
    let (content, end) = hear(&mut ours);
    let Err(error) = end else { return (content, None) };
    theirs.arrive(&ours.depart());
    // Behind the tickets of the handshake.
    let mut records = std::iter::from_fn(|| theirs.record().ok());
    let said = records.find_map(|(kind, said)| (kind == ALERT).then_some(said));
    let [2, alert] = said.unwrap_or_default()[..] else { panic!("no fatal alert says {error}") };
    assert_eq!(ours.read(1), Err(error.clone()), "goes on reading");
    assert_eq!(ours.send(b"more"), Err(error), "goes on sending");
    ours.close().unwrap();
    assert_eq!(ours.depart(), b"", "says more after a fatal alert");
    (content, Some(alert.into()))
}

#[test]
fn what_breaks_a_record_is_answered_by_its_alert() {
    let altered = |edit: fn(&mut Vec<Vec<u8>>)| {
        answer(Side::Server, |end| {
            let mut sent = records(end, &[(CONTENT, b"one", 0), (CONTENT, b"two", 0), (CONTENT, b"three", 0)]);
            edit(&mut sent);
            sent.concat()
        })
    };
    let broken = |content: &[u8], alert| (content.to_vec(), Some(alert));
    assert_eq!(altered(|_| ()), (b"onetwothree".to_vec(), None));
    assert_eq!(altered(|sent| *sent[1].last_mut().unwrap() ^= 1), broken(b"one", Alert::BadRecordMac), "the tag");
    assert_eq!(altered(|sent| sent[1][5] ^= 1), broken(b"one", Alert::BadRecordMac), "the content");
    assert_eq!(altered(|sent| sent[1][1] = 2), broken(b"one", Alert::DecodeError), "the version");
    assert_eq!(altered(|sent| sent.swap(0, 1)), broken(b"", Alert::BadRecordMac), "the order");
    assert_eq!(altered(|sent| sent[1] = sent[0].clone()), broken(b"one", Alert::BadRecordMac), "sent again");
    assert_eq!(altered(|sent| drop(sent.remove(0))), broken(b"", Alert::BadRecordMac), "left out");
    assert_eq!(altered(|sent| sent[1][4] -= 1), broken(b"one", Alert::BadRecordMac), "the length");
    assert_eq!(altered(|sent| sent[1][3..5].fill(0)), broken(b"one", Alert::BadRecordMac), "too short for a tag");
    assert_eq!(altered(|sent| sent[1][0] = HANDSHAKE), broken(b"one", Alert::UnexpectedMessage), "the type");
    assert_eq!(altered(|sent| sent[1][3..5].copy_from_slice(&[0x41, 0x01])), broken(b"one", Alert::RecordOverflow));
    let clear = |bytes: &'static [u8]| answer(Side::Server, |_| bytes.to_vec()).1.unwrap();
    assert_eq!(clear(&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]), Alert::UnexpectedMessage, "what middleboxes like");
    assert_eq!(clear(&[ALERT, 3, 3, 0, 2, 1, 0]), Alert::UnexpectedMessage, "close_notify by anybody");
    // From the header alone: another version, and 2^14 + 257.
    assert_eq!(clear(&[CONTENT, 3, 4, 0, 30]), Alert::DecodeError);
    assert_eq!(clear(&[CONTENT, 3, 3, 0x41, 0x01]), Alert::RecordOverflow);
}

#[test]
fn what_no_honest_peer_says_is_answered_by_its_alert() {
    let said = |side: Side, say: &[Said<'_>]| answer(side, |end| records(end, say).concat()).1.unwrap();
    let full = vec![7; 16_385];
    let cases: &[(&str, Alert, &[Said<'_>])] = &[
        ("more than 2^14 bytes", Alert::RecordOverflow, &[(CONTENT, &full, 0)]),
        ("as much with its padding", Alert::RecordOverflow, &[(CONTENT, &full[1..], 1)]),
        ("no type at all", Alert::UnexpectedMessage, &[(0, b"", 9)]),
        ("change_cipher_spec", Alert::UnexpectedMessage, &[(CHANGE_CIPHER_SPEC, &[1], 0)]),
        ("another type", Alert::UnexpectedMessage, &[(HEARTBEAT, b"x", 0)]),
        ("an empty message", Alert::UnexpectedMessage, &[(HANDSHAKE, b"", 0)]),
        ("half an alert", Alert::DecodeError, &[(ALERT, &[2], 0)]),
        ("two alerts", Alert::DecodeError, &[(ALERT, &[1, 90, 1, 90], 0)]),
        ("an alert of no level", Alert::DecodeError, &[(ALERT, &[3, 0], 0)]),
        ("a message of the handshake", Alert::UnexpectedMessage, &[(HANDSHAKE, &[20, 0, 0, 1, 0], 0)]),
        ("a new handshake", Alert::UnexpectedMessage, &[(HANDSHAKE, &[1, 0, 0, 1, 0], 0)]),
        ("a key_update of two bytes", Alert::DecodeError, &[(HANDSHAKE, &[24, 0, 0, 2, 0, 0], 0)]),
        ("a key_update of none", Alert::DecodeError, &[(HANDSHAKE, &[24, 0, 0, 0], 0)]),
        ("a key_update that asks for 2", Alert::IllegalParameter, &[(HANDSHAKE, &[24, 0, 0, 1, 2], 0)]),
        ("more behind a key_update", Alert::UnexpectedMessage, &[(HANDSHAKE, &[24, 0, 0, 1, 0, 24], 0)]),
        ("content within a message", Alert::UnexpectedMessage, &[(HANDSHAKE, &[24, 0], 0), (CONTENT, b"x", 0)]),
        ("an alert within a message", Alert::UnexpectedMessage, &[(HANDSHAKE, &[24], 0), (ALERT, &[1, 0], 0)]),
        ("33 times nothing", Alert::UnexpectedMessage, &[NOTHING; 33]),
        ("user_canceled five times", Alert::UnexpectedMessage, &[CANCELED; 5]),
    ];
    for (what, alert, say) in cases {
        for side in [Side::Client, Side::Server] {
            assert_eq!(said(side, say), *alert, "{what}");
        }
    }
    assert_eq!(said(Side::Server, &[(HANDSHAKE, &TICKET, 0)]), Alert::UnexpectedMessage, "a ticket for a server");
    assert_eq!(
        said(Side::Client, &[(HANDSHAKE, &[13, 0, 0, 1, 0], 0)]),
        Alert::UnexpectedMessage,
        "who are you, again"
    );
    let tickets = [(HANDSHAKE, TICKET.as_slice(), 0), (CONTENT, b"x", 0)].repeat(31);
    assert_eq!(said(Side::Client, &tickets), Alert::UnexpectedMessage, "33 tickets");
    let long = [4, 1, 0, 0];
    assert_eq!(said(Side::Client, &[(HANDSHAKE, &long, 0)]), Alert::DecodeError, "a ticket of 64 KiB");
    assert_eq!(said(Side::Client, &[(HANDSHAKE, &[4, 0, 0, 1, 0], 0)]), Alert::DecodeError, "a ticket that is none");
}

#[test]
fn what_is_just_within_the_bounds_passes() {
    let taken = |side: Side, say: &[Said<'_>]| {
        let (content, alert) = answer(side, |end| records(end, say).concat());
        assert_eq!(alert, None);
        content.len()
    };
    let full = vec![7; 16_384];
    for side in [Side::Client, Side::Server] {
        assert_eq!(taken(side, &[(CONTENT, &full, 0), (CONTENT, &full[1..], 1), (CONTENT, b"", 16_384)]), 32_767);
        assert_eq!(taken(side, &[NOTHING; 32]), 0);
        assert_eq!(taken(side, &[CANCELED; 4]), 0);
        let nothing_but_content = [[NOTHING; 32].as_slice(), &[(CONTENT, b"x", 0)]].concat();
        assert_eq!(taken(side, &nothing_but_content.repeat(3)), 3);
    }
    let in_pieces: Vec<_> = TICKET.chunks(1).map(|byte| (HANDSHAKE, byte, 0)).collect();
    assert_eq!(taken(Side::Client, &in_pieces), 0);
    assert_eq!(taken(Side::Client, &[(HANDSHAKE, &[TICKET, TICKET].concat(), 200)]), 0);
    // With the two of its handshake.
    assert_eq!(taken(Side::Client, &[(HANDSHAKE, &TICKET.repeat(15), 0), (HANDSHAKE, &TICKET.repeat(15), 0)]), 0);
}

#[test]
fn a_peer_changes_its_key_as_often_as_it_says_something_and_32_times_in_between() {
    let updates = |end: &mut End, count: usize| {
        let update = |_| {
            let record = records(end, &[(HANDSHAKE, &KEY_UPDATE, 0)]).concat();
            end.change_key().unwrap();
            record
        };
        (0..count).flat_map(update).collect::<Vec<u8>>()
    };
    for suite in SUITES {
        for side in [Side::Client, Side::Server] {
            let (mut ours, mut theirs) = pair(suite, side);
            for _ in 0..3 {
                ours.arrive(&updates(&mut theirs, 32));
                theirs.send(b"said").unwrap();
                ours.arrive(&theirs.depart());
                assert_eq!(hear(&mut ours), (b"said".to_vec(), Ok(Read::Waiting)));
            }
        }
    }
    assert_eq!(answer(Side::Server, |end| updates(end, 33)).1, Some(Alert::UnexpectedMessage));
    let with_nothing_between = |end: &mut End| {
        let nothing = |end: &mut End| records(end, &[NOTHING]).concat();
        [updates(end, 20), nothing(end), updates(end, 20)].concat()
    };
    assert_eq!(answer(Side::Server, with_nothing_between).1, Some(Alert::UnexpectedMessage));
    // The old key opens nothing any more.
    let (_, alert) =
        answer(Side::Server, |end| records(end, &[(HANDSHAKE, &KEY_UPDATE, 0), (CONTENT, b"x", 0)]).concat());
    assert_eq!(alert, Some(Alert::BadRecordMac));
}

#[test]
fn a_new_key_that_is_asked_for_comes_once_and_before_anything_else() {
    let (mut ours, mut theirs) = pair(SUITES[0], Side::Server);
    for _ in 0..3 {
        ours.arrive(&records(&mut theirs, &[(HANDSHAKE, &KEY_UPDATE_REQUESTED, 0)]).concat());
        theirs.change_key().unwrap();
    }
    assert_eq!(hear(&mut ours).1, Ok(Read::Waiting));
    assert_eq!(ours.depart(), b"", "it says nothing, so it changes nothing");
    for lengths in [[27, 25].as_slice(), &[25]] {
        ours.send(b"say").unwrap();
        let sent = ours.depart();
        assert_eq!(lengths_of(&sent), lengths);
        theirs.arrive(&sent);
        assert_eq!(hear(&mut theirs), (b"say".to_vec(), Ok(Read::Waiting)));
    }
}

/// Of the records in `bytes`.
fn lengths_of(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let length = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        lengths.push(length);
        bytes = &bytes[length..];
    }
    lengths
}

#[test]
fn a_key_seals_no_more_records_than_its_limit_even_within_a_batch() {
    for suite in SUITES {
        let (mut ours, mut theirs) = pair_with_rustls(suite, Side::Client);
        ours.limit_key(4);
        let content = vec![5; 10 * 16_384];
        ours.send(&content).unwrap();
        let sent = ours.depart();
        // Three and an update by each of the first three keys, and the last of ten.
        let full = 16_384 + 22;
        let expected = [full, full, full, 27, full, full, full, 27, full, full, full, 27, full];
        assert_eq!(lengths_of(&sent), expected);
        let (mut bytes, mut received) = (sent.as_slice(), Vec::new());
        while !bytes.is_empty() {
            theirs.read_tls(&mut bytes).unwrap();
            theirs.process_new_packets().unwrap();
            let _ = theirs.reader().read_to_end(&mut received);
        }
        assert!(received == content);
    }
}

#[test]
fn a_full_batch_is_full_records_and_room_of_any_size_reads_it_whole() {
    let content: Vec<u8> = (0..=255).cycle().take(262_144).collect();
    for room in [1, 100, 16_383, 16_384, 16_385, 40_000, 300_000] {
        let (mut ours, mut theirs) = pair(SUITES[0], Side::Client);
        theirs.send(&content).unwrap();
        let sent = theirs.depart();
        assert_eq!(lengths_of(&sent), vec![16_384 + 22; 16]);
        ours.arrive(&sent);
        let mut received = Vec::new();
        while let Read::Content(more) = ours.read(room).unwrap() {
            received.extend(more);
        }
        assert!(received == content, "room for {room}");
    }
}

#[test]
fn an_alert_that_is_fatal_ends_both_ways_and_is_not_answered() {
    // Whatever it says of its level, and whether it is known.
    for (level, alert) in [(2, 40), (1, 40), (2, 90), (2, 255)] {
        let (mut ours, mut theirs) = pair(SUITES[0], Side::Client);
        let said = records(&mut theirs, &[(CONTENT, b"said", 0), (ALERT, &[level, alert], 0), (CONTENT, b"more", 0)]);
        ours.arrive(&said.concat());
        let (content, end) = hear(&mut ours);
        assert_eq!((content.as_slice(), &end), (b"said".as_slice(), &Err(Error::AlertReceived(alert.into()))));
        assert_eq!(ours.send(b"more"), Err(Error::AlertReceived(alert.into())));
        ours.close().unwrap();
        assert_eq!(ours.depart(), b"");
    }
}

#[test]
fn close_notify_ends_one_way_and_nothing_behind_it_is_heard() {
    let (mut ours, mut theirs) = pair(SUITES[0], Side::Client);
    theirs.send(b"last words").unwrap();
    theirs.close().unwrap();
    theirs.close().unwrap();
    let mut said = theirs.depart();
    let (mut raw, mut speaker) = pair(SUITES[0], Side::Server);
    speaker.close().unwrap();
    raw.arrive(&speaker.depart());
    assert_eq!(raw.record(), Ok((ALERT, vec![1, 0])), "a warning");
    said.extend(b"anything at all");
    ours.arrive(&said);
    assert_eq!(hear(&mut ours), (b"last words".to_vec(), Ok(Read::Closed)));
    assert!(theirs.send(b"more").is_err());
    ours.send(b"an answer").unwrap();
    theirs.arrive(&ours.depart());
    assert_eq!(hear(&mut theirs), (b"an answer".to_vec(), Ok(Read::Waiting)));
    // Somebody who has said goodbye does not complain any more.
    let mut broken = records(&mut ours, &[(CONTENT, b"x", 0)]).concat();
    broken[6] ^= 1;
    theirs.arrive(&broken);
    assert_eq!(hear(&mut theirs).1, Err(Error::DecryptError));
    assert_eq!(theirs.depart(), b"");
}

#[test]
fn what_is_cut_off_is_no_end() {
    let (mut ours, mut theirs) = pair(SUITES[0], Side::Client);
    theirs.send(&[1; 100]).unwrap();
    theirs.close().unwrap();
    let said = theirs.depart();
    ours.arrive(&said[..said.len() - 1]);
    assert_eq!(hear(&mut ours), (vec![1; 100], Ok(Read::Waiting)));
}

/// A client sends its first content with its last message of the handshake, in pieces of any size, and a server before the client
/// has finished.
#[test]
fn what_arrives_with_the_handshake_is_not_lost_however_it_arrives() {
    let name = || ServerName::try_from("peer.example").unwrap();
    for suite in SUITES {
        let (client, server) = configs(suite);
        for piece in [1, 1000, usize::MAX] {
            let arrive = |shaking: &mut Shaking, bytes: &[u8]| {
                // What follows the end is handed on by whoever reads a socket.
                let mut pieces = bytes.chunks(piece.min(bytes.len())).enumerate();
                pieces.find_map(|(at, bytes)| shaking.arrive(bytes).unwrap().then_some(piece.saturating_mul(at + 1)))
            };
            let mut theirs = ClientConnection::new(Arc::clone(&client), name()).unwrap();
            let mut ours = Shaking::server(&server).unwrap();
            let mut bytes = Vec::new();
            theirs.write_tls(&mut bytes).unwrap();
            assert_eq!(arrive(&mut ours, &bytes), None);
            theirs.read_tls(&mut ours.depart().as_slice()).unwrap();
            theirs.process_new_packets().unwrap();
            theirs.writer().write_all(b"early").unwrap();
            bytes.clear();
            while theirs.wants_write() {
                theirs.write_tls(&mut bytes).unwrap();
            }
            let taken = arrive(&mut ours, &bytes).unwrap().min(bytes.len());
            let mut ours = ours.finish().unwrap();
            ours.arrive(&bytes[taken..]);
            assert_eq!(hear(&mut ours), (b"early".to_vec(), Ok(Read::Waiting)));
        }
        let mut eager = ServerConfig::clone(&server);
        eager.send_half_rtt_data = true;
        let mut theirs = ServerConnection::new(Arc::new(eager)).unwrap();
        let mut ours = Shaking::client(&client, name()).unwrap();
        assert_eq!(ours.arrive(&[]), Ok(false));
        theirs.read_tls(&mut ours.depart().as_slice()).unwrap();
        theirs.process_new_packets().unwrap();
        // Before the client has finished.
        theirs.writer().write_all(b"early").unwrap();
        let mut bytes = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut bytes).unwrap();
        }
        assert_eq!(ours.arrive(&bytes), Ok(true));
        let mut ours = ours.finish().unwrap();
        assert_eq!(hear(&mut ours), (b"early".to_vec(), Ok(Read::Waiting)));
    }
}

#[test]
fn a_handshake_that_fails_says_why() {
    let (client, server) = configs(SUITES[0]);
    let mut stranger = Shaking::server(&server).unwrap();
    assert!(stranger.arrive(b"GET / HTTP/1.1\r\n\r\n").is_err());
    assert_eq!(stranger.depart(), [ALERT, 3, 3, 0, 2, 2, 50], "decode_error, in the clear");
    let mut ours = Shaking::client(&client, ServerName::try_from("peer.example").unwrap()).unwrap();
    assert_eq!(ours.arrive(&[]), Ok(false));
    ours.depart();
    let refused = ours.arrive(&[ALERT, 3, 3, 0, 2, 2, 40]);
    assert_eq!(refused, Err(Error::AlertReceived(Alert::HandshakeFailure)));
    assert_eq!(ours.depart(), b"");
}
