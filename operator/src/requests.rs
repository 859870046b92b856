//! `greet` and `doctor` by annotation: a relay does it, the answer goes into `status.lastRequest`.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
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

/// Most characters of a request in status (its schema's bound).
const REQUEST_CHARS: usize = 128;
/// Requests under way at once: each holds a relay and the peer for up to a minute, and whoever may annotate links can ask.
const AT_ONCE: usize = 16;

/// Requests under way, and answers until the status shows them. One of a link at a time.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<HashMap<LinkRef, Asked>>>);

#[derive(Clone, Debug)]
struct Asked {
    request: String,
    came: Came,
}

#[derive(Clone, Debug)]
enum Came {
    /// There was no place.
    Waiting,
    /// A relay is at it.
    Running,
    /// The answer, and when it came.
    Answer { good: bool, said: String, at: Timestamp },
}

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: it is answered, or another one is under way.
    Leave,
    /// A relay is to be asked.
    Begin(Verb),
    /// Nobody is asked yet, or somebody is at it.
    Show,
    /// It has ended.
    End { good: bool, said: String, at: Timestamp },
}

/// Begins what is asked for and was not answered yet; puts an answer that came into the status.
pub fn answer(world: &World, known: &Known, status: &mut SecureLinkStatus, now: Timestamp) {
    let link = &known.gathered.link;
    let annotations = known.declared.object.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(REQUEST));
    let Some(text) = text else { return world.requests.settle(link) };
    let shown: String = text.chars().take(REQUEST_CHARS).collect();
    let last = status.last_request.as_ref().filter(|last| last.request == shown);
    // What stands in the object itself has been written, what stands in the status to be written may not have been.
    let written = known.status.last_request.as_ref().is_some_and(|last| last.request == shown && is_over(last));
    let step = world.requests.step(link, text, written, now);
    let (state, answer, at) = match step {
        Step::Leave => return,
        Step::Begin(verb) => {
            begin(world, link, verb, text);
            (RequestState::Running, None, now)
        }
        Step::Show => (RequestState::Running, None, now),
        Step::End { good, said, at } => {
            (if good { RequestState::Succeeded } else { RequestState::Failed }, Some(said), at)
        }
    };
    if state == RequestState::Running && last.is_some_and(|last| last.state == state) {
        return;
    }
    status.last_request = Some(LastRequest { request: shown, state, time: Time(whole_second(at)), answer });
}

fn is_over(last: &LastRequest) -> bool {
    last.state != RequestState::Running
}

impl Requests {
    /// Forgets a link that is gone.
    pub fn forget(&self, link: &LinkRef) {
        self.lock().remove(link);
    }

    /// Nothing is asked any more: what is under way goes on until it ends.
    fn settle(&self, link: &LinkRef) {
        let mut asked = self.lock();
        if asked.get(link).is_some_and(|asked| !matches!(asked.came, Came::Running)) {
            asked.remove(link);
        }
    }

    /// What is to be done about the request that a link has now. An answer stays until it was seen to be `written`.
    fn step(&self, link: &LinkRef, text: &str, written: bool, now: Timestamp) -> Step {
        let mut asked = self.lock();
        let places = AT_ONCE.saturating_sub(asked.values().filter(|it| matches!(it.came, Came::Running)).count());
        match asked.get(link).cloned() {
            Some(Asked { came: Came::Running, request }) if request == text => return Step::Show,
            // The one before has to end first; its end is a change of its own.
            Some(Asked { came: Came::Running, .. }) => return Step::Leave,
            Some(Asked { came: Came::Answer { good, said, at }, request }) if request == text && !written => {
                return Step::End { good, said, at };
            }
            _ => {}
        }
        if written {
            asked.remove(link);
            return Step::Leave;
        }
        let refused = |said: &str| Step::End { good: false, said: said.to_owned(), at: now };
        let step = match request(text) {
            _ if text.chars().count() > REQUEST_CHARS => {
                refused("the request is longer than 128 characters; write greet/NONCE or doctor/NONCE")
            }
            None => refused("not a request; write greet/NONCE or doctor/NONCE, as `kubectl securelink` does"),
            Some(_) if places == 0 => Step::Show,
            Some((verb, _)) => Step::Begin(verb),
        };
        let came = match &step {
            Step::Begin(_) => Came::Running,
            Step::End { good, said, at } => Came::Answer { good: *good, said: said.clone(), at: *at },
            _ => Came::Waiting,
        };
        asked.insert(link.clone(), Asked { request: text.to_owned(), came });
        step
    }

    /// It has ended. Whoever waits for a place, in whatever order, is to look again.
    fn ended(&self, link: &LinkRef, (good, said): (bool, String), at: Timestamp) -> Vec<LinkRef> {
        let mut asked = self.lock();
        if let Some(asked) = asked.get_mut(link) {
            asked.came = Came::Answer { good, said, at };
        }
        let waiting = asked.iter().filter(|(_, asked)| matches!(asked.came, Came::Waiting));
        waiting.map(|(link, _)| link.clone()).chain([link.clone()]).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LinkRef, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(world: &World, link: &LinkRef, verb: Verb, text: &str) {
    let (relays, hub, link, text) = (Arc::clone(&world.relays), world.hub.clone(), link.clone(), text.to_owned());
    let requests = world.requests.clone();
    tokio::spawn(async move {
        let asked = async {
            match verb {
                Verb::Greet => {
                    said(relays.greet(&link, &format!("{link} says hello")).await.map(|reply| greeting(&reply)))
                }
                Verb::Doctor => said(relays.doctor(&link).await.map(|report| diagnosis(&report))),
            }
        };
        // A fault of ours must not keep the place for ever.
        let answer = AssertUnwindSafe(asked).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| (false, "a fault of the operator itself; see its log".to_owned()));
        tracing::debug!(%link, request = text, "a request has ended");
        for link in requests.ended(&link, answer, Timestamp::now()) {
            hub.tell(Change::Link(link));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> LinkRef {
        LinkRef { namespace: "n".to_owned(), name: name.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn end(good: bool, said: &str, second: i64) -> Step {
        Step::End { good, said: said.to_owned(), at: at(second) }
    }

    #[test]
    fn an_answer_stays_until_it_is_seen_to_be_written() {
        let (requests, link) = (Requests::default(), link("l"));
        assert_eq!(requests.step(&link, "greet/1", false, at(1)), Step::Begin(Verb::Greet));
        assert_eq!(requests.step(&link, "greet/1", false, at(2)), Step::Show);
        assert_eq!(requests.ended(&link, (true, "hello".to_owned()), at(3)), vec![link.clone()]);
        // The first writing failed: the second says the same.
        for now in [4, 5] {
            assert_eq!(requests.step(&link, "greet/1", false, at(now)), end(true, "hello", 3));
        }
        assert_eq!(requests.step(&link, "greet/1", true, at(6)), Step::Leave);
        assert_eq!(requests.lock().len(), 0);
        assert_eq!(requests.step(&link, "greet/1", true, at(7)), Step::Leave, "after a change of leaders");
    }

    #[test]
    fn one_request_of_a_link_runs_at_a_time_and_the_next_begins_when_it_has_ended() {
        let (requests, link) = (Requests::default(), link("l"));
        assert_eq!(requests.step(&link, "doctor/1", false, at(1)), Step::Begin(Verb::Doctor));
        assert_eq!(requests.step(&link, "greet/2", false, at(2)), Step::Leave);
        requests.settle(&link);
        assert_eq!(requests.step(&link, "greet/2", false, at(2)), Step::Leave, "it goes on");
        requests.ended(&link, (false, "late".to_owned()), at(3));
        assert_eq!(requests.step(&link, "greet/2", false, at(4)), Step::Begin(Verb::Greet));
    }

    #[test]
    fn what_is_no_request_is_answered_once_and_settles() {
        for text in ["x".repeat(129), "greet/".to_owned() + &"1".repeat(200), "dance/1".to_owned(), String::new()] {
            let (requests, link) = (Requests::default(), link("l"));
            let Step::End { good, said, at: when } = requests.step(&link, &text, false, at(1)) else {
                panic!("{text}")
            };
            assert!(!good && said.contains("; write greet/NONCE"), "{said}");
            assert_eq!(requests.step(&link, &text, false, at(9)), end(false, &said, when.as_second()));
            assert_eq!(requests.step(&link, &text, true, at(9)), Step::Leave);
        }
    }

    #[test]
    fn requests_under_way_are_bounded_and_those_that_wait_are_woken() {
        let requests = Requests::default();
        for n in 0..AT_ONCE {
            assert_eq!(requests.step(&link(&n.to_string()), "greet/1", false, at(1)), Step::Begin(Verb::Greet));
        }
        let late = link("late");
        assert_eq!(requests.step(&late, "greet/1", false, at(1)), Step::Show);
        let woken = requests.ended(&link("3"), (true, "hello".to_owned()), at(2));
        assert_eq!(woken, [late.clone(), link("3")]);
        assert_eq!(requests.step(&late, "greet/1", false, at(3)), Step::Begin(Verb::Greet));
        requests.forget(&late);
        assert_eq!(requests.lock().len(), AT_ONCE);
    }
}
