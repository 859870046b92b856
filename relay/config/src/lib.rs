//! What a relay and its controller share: snapshots, cuts, declarations, the agreement gate, status.
//!
//! Plain values and pure functions. No sockets, no clock, no files: time is an argument, bytes come from the caller.

pub mod control;
mod cut;
mod declaration;
mod doctor;
mod gate;
mod snapshot;
mod status;
mod time;

pub use cut::{Cut, CutBook, CutScope};
pub use declaration::{
    AgreementTerm, Contact, DataClass, Declaration, DeclarationError, DeclaredService, Digest, DigestError, Head,
    LinkState, MAX_DECLARATION_BYTES,
};
pub use doctor::{DoctorReport, Finding, Outcome, Probe};
pub use gate::{Disagreement, GateOpinion, Latch, PeerHeads, Refusal, agree, ended, judge_service, successor};
pub use snapshot::{
    Agreement, Agreements, DialRules, Endpoint, Export, FORMAT, Import, Limits, LinkRef, MAX_CONTROL_CAS,
    MAX_SNAPSHOT_BYTES, Peer, Protocol, RecordLayer, Snapshot, SnapshotError,
};
pub use status::{
    AgreedReport, CertificateReport, EntryReport, ErrorReport, GreetReply, LinkReport, ListenerReport, PeerReport,
    ProbeReport, SideReport, StreamReport,
};
pub use time::Millis;
