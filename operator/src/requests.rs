//! `greet` and `doctor` by annotation: a relay does it, the answer goes into `status.lastRequest`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use securelink_crds::conditions::Time;
use securelink_crds::keys::{REQUEST, Verb, request};
use securelink_crds::{LastRequest, RequestState, SecureLinkStatus};
use securelink_relay_config::{DoctorReport, Finding, GreetReply, LinkRef};

use crate::gather::Known;
use crate::hub::Change;
use crate::relays::AskFailed;
use crate::world::World;

/// Most bytes of an answer in status (its schema's bound).
const ANSWER: usize = 4096;

/// Answers that came and were not written yet.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<HashMap<LinkRef, Asked>>>);

#[derive(Debug)]
struct Asked {
    request: String,
    answer: Option<(bool, String)>,
}

/// Begins what is asked for and was not answered yet; puts an answer that came into the status.
pub fn answer(world: &World, known: &Known, status: &mut SecureLinkStatus, now: Timestamp) {
    let link = &known.gathered.link;
    let annotations = known.declared.object.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(REQUEST)) else { return };
    let last = status.last_request.as_ref().filter(|last| last.request == *text);
    if last.is_some_and(|last| last.state != RequestState::Running) {
        return;
    }
    let mut asked = world.requests.0.lock().unwrap_or_else(PoisonError::into_inner);
    let came = asked.get(link).filter(|asked| asked.request == *text).map(|asked| asked.answer.clone());
    let (state, answer) = match (came, request(text)) {
        (Some(Some((good, said))), _) => {
            asked.remove(link);
            (if good { RequestState::Succeeded } else { RequestState::Failed }, Some(said))
        }
        (Some(None), _) => return,
        (None, Some((verb, _))) => {
            asked.insert(link.clone(), Asked { request: text.clone(), answer: None });
            begin(world, link, verb, text);
            (RequestState::Running, None)
        }
        (None, None) => {
            let how = "not a request; write greet/NONCE or doctor/NONCE, as `kubectl securelink` does";
            (RequestState::Failed, Some(how.to_owned()))
        }
    };
    let request = text.chars().take(128).collect();
    status.last_request = Some(LastRequest { request, state, time: Time(whole_second(now)), answer });
}

fn begin(world: &World, link: &LinkRef, verb: Verb, text: &str) {
    let (relays, hub, link, text) = (Arc::clone(&world.relays), world.hub.clone(), link.clone(), text.to_owned());
    let requests = world.requests.clone();
    tokio::spawn(async move {
        let answer = match verb {
            Verb::Greet => said(relays.greet(&link, &format!("{link} says hello")).await.map(|reply| greeting(&reply))),
            Verb::Doctor => said(relays.doctor(&link).await.map(|report| diagnosis(&report))),
        };
        if let Some(asked) = requests.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&link)
            && asked.request == text
        {
            asked.answer = Some(answer);
        }
        hub.tell(Change::Link(link));
    });
}

fn said(result: Result<(bool, String), AskFailed>) -> (bool, String) {
    let (good, mut text) = result.unwrap_or_else(|error| (false, error.to_string()));
    text.truncate(text.floor_char_boundary(ANSWER));
    (good, text)
}

fn greeting(reply: &GreetReply) -> (bool, String) {
    let text = format!(
        "{} received {} and signed for it: {} (round trip {:.1} ms)",
        reply.peer,
        reply.digest,
        reply.signature,
        f64::from(u32::try_from(reply.round_trip_micros).unwrap_or(u32::MAX)) / 1000.0
    );
    (true, text)
}

fn diagnosis(report: &DoctorReport) -> (bool, String) {
    let line = |finding: &Finding| {
        let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        format!("{} {} {}: {}{remedy}", finding.probe, finding.subject, finding.outcome, finding.message)
    };
    (report.is_well(), report.findings.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// As an API server keeps it.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
