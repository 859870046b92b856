//! The words automation depends on, and how conditions change.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::{SignedDuration, Timestamp};
use securelink_crds::conditions::{ConditionType, NewCondition, Reason, clear, find, is_true, set};

/// Contracts, section 7, in its order; `Expired` and the names shared by two conditions once.
const REASONS: &str = "\
Accepted Invalid Forbidden DuplicatePeer NamespaceNotGranted NameTaken IdentityNotReady \
Issued Issuing IssuerFailed RootMissing RootConflict Expired \
Running Pending ImagePull Unschedulable Quota Crashing Updating UnsupportedSnapshot \
Connected NeverConnected DnsFailed Refused TimedOut WrongRoot WrongTrustDomain WrongAudience CertificateExpired \
CertificateNotYetValid ClassicalKeyExchange RefusedByPeer VersionMismatch \
Matched PeerAsserted DigestDiffers NotYetEffective SuspendedHere SuspendedByPeer CutHere CutByPeer Stale \
AwaitingDeclaration ProbeFailed Ready";

const TYPES: &str = "Accepted CertificateReady RelayAvailable PeerConnected Agreed Ready \
Reconciling Stalled PinOutdated PolicyWidened NoPolicy FingerprintNotPinned InternalError";

#[test]
fn the_words_are_the_ones_of_the_contract() {
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(reasons.join(" "), REASONS);
    let types: Vec<&str> = ConditionType::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(types.join(" "), TYPES);
    assert!(Reason::ALL.iter().all(|reason| Reason::from_word(reason.as_str()) == Some(*reason)));
    assert_eq!(Reason::from_word("ready"), None);
}

fn ready(status: Option<bool>, message: &str) -> NewCondition {
    let reason = Reason::ProbeFailed.as_str();
    NewCondition { kind: ConditionType::Ready, status, reason, message: message.to_owned(), generation: Some(3) }
}

#[test]
fn the_time_of_transition_moves_only_with_the_status() {
    let (start, hour) = (Timestamp::UNIX_EPOCH, SignedDuration::from_hours(1));
    let mut conditions = Vec::new();
    set(&mut conditions, ready(Some(false), "first"), start);
    set(&mut conditions, ready(Some(false), "second"), start + hour);
    let found = find(&conditions, ConditionType::Ready).unwrap();
    assert_eq!((found.last_transition_time.0, found.message.as_str()), (start, "second"));
    assert!(!is_true(&conditions, ConditionType::Ready));

    set(&mut conditions, ready(Some(true), ""), start + hour);
    let found = find(&conditions, ConditionType::Ready).unwrap();
    assert_eq!((found.last_transition_time.0, found.observed_generation), (start + hour, Some(3)));
    assert!(is_true(&conditions, ConditionType::Ready) && conditions.len() == 1);

    clear(&mut conditions, ConditionType::Ready);
    assert!(conditions.is_empty());
}

#[test]
fn a_message_too_long_for_the_schema_is_cut_at_a_character() {
    let mut conditions = Vec::new();
    set(&mut conditions, ready(None, &"ü".repeat(5000)), Timestamp::UNIX_EPOCH);
    assert_eq!((conditions[0].status.as_str(), conditions[0].message.len()), ("Unknown", 4096));
}
