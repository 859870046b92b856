//! Conditions and their reasons: the words automation depends on (contracts 7), and how a list of them changes.

use std::fmt;

use jiff::Timestamp;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Longest message of a condition, in bytes: well under the 32768 of `metav1.Condition`, so that all fit one object.
const MAX_MESSAGE: usize = 4096;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word as it stands in status.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The variant with that word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// An aspect of a link's state.
    ConditionType {
        /// The spec is valid and allowed.
        Accepted,
        /// Our relays have a certificate that is valid now.
        CertificateReady,
        /// At least one relay answers and runs this generation.
        RelayAvailable,
        /// A control connection to the peer is up.
        PeerConnected,
        /// Both declarations match and are in force.
        Agreed,
        /// All of these, and a round trip over the data path in the last 30 s.
        Ready,
        /// Present while work is going on.
        Reconciling,
        /// Present while nothing will change without a person.
        Stalled,
        /// Present while the peer's pin in our spec is of an older root.
        PinOutdated,
        /// Present while somebody else's NetworkPolicy selects our relays.
        PolicyWidened,
        /// Present while no `LinkPolicy` applies.
        NoPolicy,
        /// Present while a `LinkIdentity` has no `expectedFingerprint`.
        FingerprintNotPinned,
        /// Present while a reconcile failed by a fault of our own.
        InternalError,
    }
}

words! {
    /// Why a condition is as it is.
    Reason {
        /// Accepted: valid and allowed.
        Accepted,
        /// Accepted: does not parse or validate; what was last accepted goes on.
        Invalid,
        /// Accepted: a `LinkPolicy` or a withdrawn consent forbids the link.
        Forbidden,
        /// Accepted: an older link to the same peer exists in this cluster.
        DuplicatePeer,
        /// Accepted: the operator may not work in this namespace.
        NamespaceNotGranted,
        /// Accepted: an object we did not make has the name of one of ours.
        NameTaken,
        /// Accepted: the `LinkIdentity` is missing or not ready.
        IdentityNotReady,
        /// CertificateReady: there is one and it is valid.
        Issued,
        /// CertificateReady: asked for, not there yet.
        Issuing,
        /// CertificateReady: the issuer refused or answered with something unusable.
        IssuerFailed,
        /// CertificateReady: the root's key is gone; nothing new is minted.
        RootMissing,
        /// CertificateReady: another root exists than the one expected.
        RootConflict,
        /// CertificateReady, Agreed: the time is over.
        Expired,
        /// RelayAvailable: a relay answers and runs this generation.
        Running,
        /// RelayAvailable: not started yet.
        Pending,
        /// RelayAvailable: the image cannot be pulled.
        ImagePull,
        /// RelayAvailable: no node fits.
        Unschedulable,
        /// RelayAvailable: a quota is exhausted.
        Quota,
        /// RelayAvailable: it starts and dies.
        Crashing,
        /// RelayAvailable: an older generation is still running.
        Updating,
        /// RelayAvailable: the relay is too old for what the link requires.
        UnsupportedSnapshot,
        /// PeerConnected: a control connection is up.
        Connected,
        /// PeerConnected: not since the link exists.
        NeverConnected,
        /// PeerConnected: the peer's name does not resolve.
        DnsFailed,
        /// PeerConnected: the peer's port is closed.
        Refused,
        /// PeerConnected: no answer.
        TimedOut,
        /// PeerConnected: the peer's root is not pinned.
        WrongRoot,
        /// PeerConnected: the certificate is of another organization.
        WrongTrustDomain,
        /// PeerConnected: the certificate was made for another of its partners.
        WrongAudience,
        /// PeerConnected: the peer's certificate has expired.
        CertificateExpired,
        /// PeerConnected: the peer's certificate is not valid yet: one clock is wrong.
        CertificateNotYetValid,
        /// PeerConnected: no post-quantum key exchange in common.
        ClassicalKeyExchange,
        /// PeerConnected: the peer refused us and says why.
        RefusedByPeer,
        /// PeerConnected: no protocol version in common.
        VersionMismatch,
        /// Agreed: both declarations match.
        Matched,
        /// Agreed: a Connect partner named our agreement.
        PeerAsserted,
        /// Agreed: the two sides name different texts.
        DigestDiffers,
        /// Agreed: the agreement begins later.
        NotYetEffective,
        /// Agreed: our side is suspended.
        SuspendedHere,
        /// Agreed: the peer's side is suspended.
        SuspendedByPeer,
        /// Agreed: a `LinkCut` is in force here.
        CutHere,
        /// Agreed: a cut is in force on the peer's side.
        CutByPeer,
        /// Agreed: no fresh word from the peer for `maxStaleness`.
        Stale,
        /// Agreed: the peer has not declared anything yet.
        AwaitingDeclaration,
        /// Ready: everything but the round trip.
        ProbeFailed,
        /// Ready: bytes make the round trip.
        Ready,
    }
}

/// Sets one condition in a list. The time of transition is kept while the status stays, so that a quiet link writes
/// nothing; a message beyond 4096 bytes is cut at a character. `status` of `None` means Unknown.
pub fn set(conditions: &mut Vec<Condition>, new: NewCondition, now: Timestamp) {
    let status = match new.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let kind = new.kind.as_str();
    let kept = conditions.iter().position(|old| old.type_ == kind);
    let since = kept.map(|at| &conditions[at]).filter(|old| old.status == status);
    let mut message = new.message;
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: new.reason.to_owned(),
        message,
        observed_generation: new.generation,
        last_transition_time: since.map_or(Time(now), |old| old.last_transition_time.clone()),
    };
    match kept {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// Takes a condition that is present only while true out of a list.
pub fn clear(conditions: &mut Vec<Condition>, kind: ConditionType) {
    conditions.retain(|condition| condition.type_ != kind.as_str());
}

/// The condition of that type in a list.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition of that type is present and true.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// A condition as it is now, before [`set`] knows since when.
#[derive(Clone, Debug)]
pub struct NewCondition {
    /// The aspect.
    pub kind: ConditionType,
    /// Whether it holds; `None` is Unknown.
    pub status: Option<bool>,
    /// Why, in one word: a [`Reason`]'s, or the type's own for those present only while true.
    pub reason: &'static str,
    /// Why, for a person: whose fault it is and what to do.
    pub message: String,
    /// `metadata.generation` of the object it speaks of.
    pub generation: Option<i64>,
}
