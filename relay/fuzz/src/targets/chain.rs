//! The peer verifier: of a genuine chain that was mutated, and of certificates out of nothing, only what was issued to
//! this peer for this link is ever accepted.

use std::sync::OnceLock;

use jiff::SignedDuration;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use securelink_id::Fingerprint;
use securelink_pki::certificate::{MAX_PRESENTED, MAX_PRESENTED_BYTES};
use securelink_pki::testing::now;
use securelink_pki::verify::chain_hash;
use securelink_pki::{PeerTrust, Refusal, fingerprint_of, verify};

use super::script::Script;

/// Longest message about a refusal: it goes to a log and to a status.
const MAX_WORDS: usize = 2048;

/// Certificates made once, whose keys nobody has. `relay/tests/fuzz_targets.rs` says how.
struct Material {
    /// `peer.example` to `own.example`: leaf, intermediate, current root, oldest root, two transitions.
    genuine: Vec<CertificateDer<'static>>,
    /// What else is at hand: the peer's leaf for somebody else, and `other.example`'s chain with a leaf in the peer's name.
    strange: Vec<CertificateDer<'static>>,
    /// The peer's roots, oldest first.
    roots: [Fingerprint; 3],
}

fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| {
        let read = |pem: &str| -> Vec<_> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.expect("a certificate")).collect()
        };
        let genuine = read(include_str!("../../material/genuine.pem"));
        let key = |at: usize| fingerprint_of(&genuine[at]).expect("a certificate");
        let roots = [key(3), key(4), key(2)];
        Material { strange: read(include_str!("../../material/strange.pem")), roots, genuine }
    })
}

/// How `own.example` trusts `peer.example`, by the pins whose bits are set, the oldest root's lowest.
pub fn trust(pins: u8) -> PeerTrust {
    let pins = material().roots.iter().enumerate().filter(|(at, _)| pins >> at & 1 == 1).map(|(_, pin)| *pin);
    PeerTrust {
        own: "own.example".parse().expect("a trust domain"),
        peer: "peer.example".parse().expect("a trust domain"),
        pins: pins.collect(),
    }
}

/// The chain as it was issued.
pub fn genuine() -> &'static [CertificateDer<'static>] {
    &material().genuine
}

/// Verifies a chain made by the script.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let settings = script.byte();
    let trust = trust(settings & 7);
    let days = [0, 0, 0, 2, -1, 10_000, 1, -10_000][usize::from(settings >> 3 & 7)];
    let now = now() + SignedDuration::from_hours(24 * days);
    let mut chain: Vec<Vec<u8>> = match settings >> 6 {
        0 => Vec::new(),
        _ => genuine().iter().map(|der| der.to_vec()).collect(),
    };
    while !script.is_empty() && chain.len() <= 2 * MAX_PRESENTED {
        mutate(&mut chain, &mut script);
    }
    let presented: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let verdict = verify(&presented, &trust, now);
    match &verdict {
        Ok(peer) => {
            let genuine = verify(genuine(), &trust, now).expect("the genuine chain is as good");
            assert_eq!(presented[0], self::genuine()[0], "a leaf was accepted that nobody issued");
            // Transitions in front of an older root lead there as well: which of its roots counts, the peer may choose.
            assert!(trust.pins.contains(&peer.pin) && material().roots.contains(&peer.root), "{peer:?}");
            assert_eq!(peer.chain_hash, chain_hash(&presented));
            assert_eq!(
                (&peer.trust_domain, &peer.serial, &peer.leaf_key, peer.not_after),
                (&genuine.trust_domain, &genuine.serial, &genuine.leaf_key, genuine.not_after),
                "the same leaf, and another verdict on it"
            );
        }
        Err(refusal) => {
            let words = refusal.to_string();
            assert!(words.len() <= MAX_WORDS && !words.contains(char::is_control), "{words:?}");
        }
    }
    let bytes: usize = chain.iter().map(Vec::len).sum();
    if chain.len() > MAX_PRESENTED || bytes > MAX_PRESENTED_BYTES {
        assert_eq!(verdict.err(), Some(Refusal::TooLarge));
    }
}

/// Changes one thing.
fn mutate(chain: &mut Vec<Vec<u8>>, script: &mut Script<'_>) {
    let what = script.byte() % 10;
    if chain.is_empty() || what == 0 {
        // A certificate of the script's own, or one that belongs elsewhere.
        let length = script.word();
        let der = match length {
            0..256 => script.take(length).to_vec(),
            _ => material().strange[length % material().strange.len()].to_vec(),
        };
        let at = script.below(chain.len() + 1);
        return chain.insert(at, der);
    }
    let (which, other) = (script.below(chain.len()), script.below(chain.len()));
    let at = script.below(chain[which].len() + 1);
    match what {
        1 => chain.swap(which, other),
        2 => drop(chain.remove(which)),
        3 => chain.insert(which, chain[other].clone()),
        4 => {
            let end = (at + usize::from(script.byte())).min(chain[which].len());
            drop(chain[which].drain(at..end));
        }
        5 => {
            let length = usize::from(script.byte());
            let bytes = script.take(length);
            drop(chain[which].splice(at..at, bytes.iter().copied()));
        }
        6 => {
            let end = (at + script.word()).min(chain[other].len());
            let part = chain[other].get(at..end).unwrap_or_default().to_vec();
            let end = (at + part.len()).min(chain[which].len());
            drop(chain[which].splice(at..end, part));
        }
        7 => {
            let strange = &material().strange;
            chain[which] = strange[other % strange.len()].to_vec();
        }
        _ => {
            if let Some(byte) = chain[which].get_mut(at) {
                *byte ^= script.byte();
            }
        }
    }
}
