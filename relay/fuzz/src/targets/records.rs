//! The relay's own records beside rustls': what one seals the other opens, whatever is sent, however it arrives and whoever
//! changes keys; and of records that no honest end sends, both make the same.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, InvalidMessage, PeerMisbehaved, ServerConfig, ServerConnection,
    SupportedCipherSuite, version,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use securelink_pki::testing::{Anyone, Organization};
use securelink_relay::fuzzing::records::{End, Read, Shaking};

use super::script::Script;

/// All that a link negotiates.
pub const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];
/// Around every bound: a record, the batch that is sealed together, which has two sizes.
const SIZES: [usize; 12] = [1, 2, 100, 1000, 16_383, 16_384, 16_385, 32_768, 65_536, 65_537, 262_144, 262_145];
/// Room that what is read has, likewise.
const ROOMS: [usize; 6] = [1, 7, 1000, 16_384, 16_385, 300_000];
/// Most updates in a row that are asked for: both sides take 32.
const UPDATES: usize = 30;

/// Content says where in the stream it belongs.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(251 + 262_145).collect());

/// Which side of the connection the relay's own records are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Plays the script.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let settings = script.byte();
    let suite = SUITES[usize::from(settings >> 2) % SUITES.len()];
    let side = if settings & 1 == 0 { Side::Client } else { Side::Server };
    if settings & 2 == 0 {
        honest(suite, side, &mut script);
    } else {
        hostile(suite, side, &mut script);
    }
}

/// A direction of an honest connection: what was sent, what has come out, and what is between.
#[derive(Default)]
struct Way {
    sent: Vec<u8>,
    closed: bool,
    wire: Vec<u8>,
    received: Vec<u8>,
    saw_close: bool,
    updates: usize,
}

impl Way {
    fn content(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let size = SIZES[script.below(SIZES.len())];
        let start = self.sent.len();
        let content = PATTERN[start % 251..][..size].to_vec();
        self.sent.extend_from_slice(&content);
        self.updates = 0;
        content
    }

    /// The next piece of what is under way.
    fn piece(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let size = (1 << (script.byte() % 18)).min(self.wire.len());
        self.wire.drain(..size).collect()
    }
}

fn honest(suite: SupportedCipherSuite, side: Side, script: &mut Script<'_>) {
    let (mut ours, mut theirs) = pair_with_rustls(suite, side);
    let [mut up, mut down] = [Way::default(), Way::default()];
    while !script.is_empty() {
        match script.byte() % 8 {
            0 if !up.closed => ours.send(&up.content(script)).expect("sealed"),
            1 if !down.closed => theirs.writer().write_all(&down.content(script)).expect("sealed by rustls"),
            2 if up.updates < UPDATES => {
                up.updates += 1;
                ours.update_key();
            }
            3 if down.updates < UPDATES && !down.closed => {
                down.updates += 1;
                theirs.refresh_traffic_keys().expect("updated by rustls");
            }
            4 => give_rustls(&mut theirs, &mut up, script),
            5 => give_ours(&mut ours, &mut down, script),
            6 => {
                up.closed = true;
                ours.close().expect("closed");
            }
            7 if !down.closed => {
                down.closed = true;
                theirs.send_close_notify();
            }
            _ => {}
        }
        up.wire.extend(ours.depart());
        while theirs.wants_write() {
            theirs.write_tls(&mut down.wire).expect("memory");
        }
    }
    // What is still under way, in pieces as large as they come.
    while !up.wire.is_empty() {
        give_rustls(&mut theirs, &mut up, &mut Script(&[17]));
    }
    while !down.wire.is_empty() {
        give_ours(&mut ours, &mut down, &mut Script(&[17, 0, 5]));
    }
    for way in [up, down] {
        assert!(way.received == way.sent, "{} bytes were sent, {} others received", way.sent.len(), way.received.len());
        assert_eq!(way.saw_close, way.closed);
    }
}

fn give_rustls(theirs: &mut Connection, up: &mut Way, script: &mut Script<'_>) {
    let piece = up.piece(script);
    let mut rest = piece.as_slice();
    while !rest.is_empty() && !up.saw_close {
        theirs.read_tls(&mut rest).expect("memory");
        let state = theirs.process_new_packets().expect("rustls opens what we seal");
        let mut content = vec![0; state.plaintext_bytes_to_read()];
        theirs.reader().read_exact(&mut content).expect("it said so");
        up.received.extend(content);
        up.saw_close |= state.peer_has_closed();
    }
}

fn give_ours(ours: &mut End, down: &mut Way, script: &mut Script<'_>) {
    ours.arrive(&down.piece(script));
    let room = ROOMS[script.below(ROOMS.len())];
    loop {
        match ours.read(room).expect("we open what rustls seals") {
            Read::Content(content) => down.received.extend(content),
            Read::Waiting => return,
            Read::Closed => {
                down.saw_close = true;
                return;
            }
        }
    }
}

/// The same records, whatever they are, given to our own end and to rustls.
fn hostile(suite: SupportedCipherSuite, side: Side, script: &mut Script<'_>) {
    let (mut ours, mut one) = pair(suite, side);
    let other_side = if side == Side::Client { Side::Server } else { Side::Client };
    let (mut other, mut theirs) = pair_with_rustls(suite, other_side);
    let mut wires: [Vec<Vec<u8>>; 2] = [vec![], vec![]];
    while !script.is_empty() {
        let (what, detail) = (script.byte(), script.byte());
        let count = wires[0].len();
        match what % 12 {
            0..=5 => {
                let kind = [23, 22, 21, 23, 20, 24][usize::from(what % 12)];
                let content = if detail & 0x80 == 0 {
                    script.take(usize::from(detail & 0x0f)).to_vec()
                } else {
                    vec![detail; SIZES[usize::from(detail) % 7]]
                };
                let padding = [0, 0, 1, 30, 255, 300][script.below(6)];
                for end in [&mut one, &mut other] {
                    end.seal(kind, &content, padding).expect("sealed");
                }
            }
            6 | 7 => {
                // Says that keys change, and changes them, or not.
                for end in [&mut one, &mut other] {
                    end.seal(22, &[24, 0, 0, 1, detail & 3], 0).expect("sealed");
                    if detail & 4 == 0 {
                        end.change_key().expect("changed");
                    }
                }
            }
            8 if count > 0 => {
                let (record, at, flip) = (script.below(count), script.below(70), script.byte());
                for wire in &mut wires {
                    if let Some(byte) = wire[record].get_mut(at) {
                        *byte ^= flip;
                    }
                }
            }
            9 if count > 1 => wires.iter_mut().for_each(|wire| wire.swap(usize::from(detail) % count, count - 1)),
            10 if count > 0 => wires.iter_mut().for_each(|wire| wire.push(wire[usize::from(detail) % count].clone())),
            11 if count > 0 => wires.iter_mut().for_each(|wire| {
                let record = &mut wire[count - 1];
                record.truncate(record.len().saturating_sub(usize::from(detail)));
            }),
            _ => {}
        }
        for (end, wire) in [&mut one, &mut other].into_iter().zip(&mut wires) {
            let record = end.depart();
            if !record.is_empty() {
                wire.push(record);
            }
        }
    }
    let room = ROOMS[usize::from(script.byte()) % ROOMS.len()].max(1000);
    judge(&hear_ours(&mut ours, &wires[0].concat(), room), &hear_rustls(&mut theirs, &wires[1].concat()));
}

/// What came out, and how it ended.
type Verdict = (Vec<u8>, Result<bool, Error>);

fn hear_ours(ours: &mut End, bytes: &[u8], room: usize) -> Verdict {
    ours.arrive(bytes);
    let mut content = Vec::new();
    loop {
        match ours.read(room) {
            Ok(Read::Content(more)) => content.extend(more),
            Ok(Read::Waiting) => return (content, Ok(false)),
            Ok(Read::Closed) => return (content, Ok(true)),
            Err(error) => {
                assert_eq!(ours.read(room), Err(error.clone()), "what failed goes on");
                assert_eq!(ours.send(b"more"), Err(error.clone()), "what failed goes on");
                return (content, Err(error));
            }
        }
    }
}

fn hear_rustls(theirs: &mut Connection, mut bytes: &[u8]) -> Verdict {
    let (mut content, mut closed) = (Vec::new(), false);
    while !bytes.is_empty() && !closed {
        theirs.read_tls(&mut bytes).expect("memory");
        let processed = theirs.process_new_packets();
        // An error does not take back what came before it; that nothing more is there is one too.
        let _ = theirs.reader().read_to_end(&mut content);
        match processed {
            Ok(state) => closed |= state.peer_has_closed(),
            Err(error) => return (content, Err(error)),
        }
    }
    (content, Ok(closed))
}

/// Ours may refuse more, or sooner, for the reasons of [`is_ours_alone`]; but for that both hear the same.
fn judge((heard, verdict): &Verdict, (theirs_heard, theirs): &Verdict) {
    let is_ours_alone = verdict.as_ref().is_err_and(is_ours_alone);
    if is_ours_alone {
        assert!(theirs_heard.starts_with(heard), "ours heard something else");
        return;
    }
    assert!(heard == theirs_heard, "{} and {} bytes were heard", heard.len(), theirs_heard.len());
    match (verdict, theirs) {
        (Ok(closed), Ok(theirs_closed)) => assert_eq!(closed, theirs_closed),
        (Err(_), Err(_)) => {}
        (verdict, theirs) => panic!("ours: {verdict:?}, rustls: {theirs:?}"),
    }
}

/// What rustls takes, or waits with (docs/records.md, "Stricter than rustls").
fn is_ours_alone(error: &Error) -> bool {
    matches!(
        error,
        // By a header alone, before the rest is there; of a record's version there is one; no handshake message is empty.
        Error::InvalidMessage(
            InvalidMessage::MissingData("KeyUpdate")
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::UnknownProtocolVersion,
        ) | Error::PeerSentOversizedRecord
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            // Empty content between two updates does not excuse them.
            | Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)
    )
}

/// An end of ours on `side` after its handshake with rustls.
pub fn pair_with_rustls(suite: SupportedCipherSuite, side: Side) -> (End, Connection) {
    let configs = configs(suite);
    let name = ServerName::try_from("peer.example").expect("a name");
    let (mut ours, mut theirs): (_, Connection) = match side {
        Side::Client => {
            let theirs = ServerConnection::new(Arc::clone(&configs.1)).expect("rustls");
            (Shaking::client(&configs.0, name).expect("rustls"), theirs.into())
        }
        Side::Server => {
            let theirs = ClientConnection::new(Arc::clone(&configs.0), name).expect("rustls");
            (Shaking::server(&configs.1).expect("rustls"), theirs.into())
        }
    };
    theirs.set_buffer_limit(None);
    let mut arriving = Vec::new();
    while !ours.arrive(&std::mem::take(&mut arriving)).expect("a handshake") {
        shake(&mut theirs, &ours.depart(), &mut arriving);
    }
    shake(&mut theirs, &ours.depart(), &mut arriving);
    let mut ours = ours.finish().expect("keys");
    ours.arrive(&arriving);
    (ours, theirs)
}

fn shake(theirs: &mut Connection, mut bytes: &[u8], arriving: &mut Vec<u8>) {
    while !bytes.is_empty() {
        theirs.read_tls(&mut bytes).expect("memory");
        theirs.process_new_packets().expect("a handshake");
    }
    while theirs.wants_write() {
        theirs.write_tls(arriving).expect("memory");
    }
}

/// Two ends of ours after their handshake, the one on `side` first.
pub fn pair(suite: SupportedCipherSuite, side: Side) -> (End, End) {
    let configs = configs(suite);
    let name = ServerName::try_from("peer.example").expect("a name");
    let mut client = Shaking::client(&configs.0, name).expect("rustls");
    let mut server = Shaking::server(&configs.1).expect("rustls");
    assert_eq!(client.arrive(&[]), Ok(false));
    assert_eq!(server.arrive(&client.depart()), Ok(false));
    assert_eq!(client.arrive(&server.depart()), Ok(true));
    assert_eq!(server.arrive(&client.depart()), Ok(true));
    let tickets = server.depart();
    let (mut client, server) = (client.finish().expect("keys"), server.finish().expect("keys"));
    client.arrive(&tickets);
    if side == Side::Client { (client, server) } else { (server, client) }
}

pub type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);

/// Whoever is there: that is not what is tested.
pub fn configs(suite: SupportedCipherSuite) -> Configs {
    static CONFIGS: LazyLock<Vec<(SupportedCipherSuite, Configs)>> = LazyLock::new(|| {
        let [own, peer] = ["own.example", "peer.example"].map(Organization::new);
        let leaf = own.leaf_to(&peer.domain);
        let key = PrivateKeyDer::from_pem_slice(leaf.key().to_pem().as_bytes()).expect("a key");
        SUITES.into_iter().map(|suite| (suite, configs_for(suite, leaf.chain().to_vec(), key.clone_key()))).collect()
    });
    let of_suite = CONFIGS.iter().find(|(one, _)| *one == suite);
    of_suite.map(|(_, configs)| configs.clone()).expect("one of the three")
}

fn configs_for(
    suite: SupportedCipherSuite,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Configs {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_protocol_versions(&[&version::TLS13]).expect("a version").with_no_client_auth();
    let mut server = server.with_single_cert(chain, key).expect("a key that fits");
    let client = ClientConfig::builder_with_provider(provider);
    let client = client.with_protocol_versions(&[&version::TLS13]).expect("a version").dangerous();
    let mut client = client.with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    client.resumption = Resumption::disabled();
    (client.enable_secret_extraction, server.enable_secret_extraction) = (true, true);
    (Arc::new(client), Arc::new(server))
}
