//! Which requests go wrong, and how. Decides; the proxy does it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::request::{Call, Verb};

/// Which requests a rule is about. What is not said does not matter.
#[derive(Clone, Debug, Default)]
pub struct On {
    verbs: Vec<Verb>,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    writes: bool,
    first: bool,
    after: usize,
    times: Option<usize>,
}

impl On {
    /// All.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those with one of these verbs.
    pub fn verbs(verbs: impl Into<Vec<Verb>>) -> Self {
        Self { verbs: verbs.into(), ..Self::default() }
    }

    /// Those that change anything but a lease.
    pub fn writes() -> Self {
        Self { writes: true, ..Self::default() }
    }

    /// Only of this resource, as `pods` or `pods/status`.
    pub fn of(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// Only in this namespace.
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// Only the object of this name.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only the first with the same verb on the same object.
    pub fn first_of_each(self) -> Self {
        Self { first: true, ..self }
    }

    /// Not the first `count`.
    pub fn after(self, count: usize) -> Self {
        Self { after: count, ..self }
    }

    /// At most so many.
    pub fn times(self, count: usize) -> Self {
        Self { times: Some(count), ..self }
    }

    fn is_about(&self, call: &Call) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&call.verb))
            && (!self.writes || call.is_write())
            && self.resource.as_ref().is_none_or(|resource| *resource == call.resource)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == call.namespace)
            && self.name.as_ref().is_none_or(|name| *name == call.name)
    }
}

/// What an API server says when it does not do what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// Kubernetes' word for it.
    pub reason: &'static str,
    /// What it says to people.
    pub message: String,
    /// In how many seconds to ask again.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// With the reason and message that an API server has for that code.
    pub fn code(code: u16) -> Self {
        let (reason, message) = match code {
            403 => ("Forbidden", "forbidden by the test"),
            404 => ("NotFound", "not found, says the test"),
            409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
            410 => ("Expired", "too old resource version"),
            429 => ("TooManyRequests", "too many requests, please try again later"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the server was unable to return a response in the time allotted"),
            _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
        };
        Self { code, reason, message: message.to_owned(), retry_after: None }
    }

    /// And asks for that many seconds of patience.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered so, and not passed on.
    Refuse(Refusal),
    /// Never answered, and not passed on.
    Hang,
    /// Passed on when the rule ends.
    Hold,
    /// Passed on; answered when the rule ends.
    HoldAnswer,
    /// Passed on; the connection breaks before the answer.
    LoseAnswer,
    /// Passed on; answered so all the same.
    AnswerInstead(Refusal),
    /// Passed on; the connection breaks in the middle of the answer.
    Truncate,
    /// Answered by what is no JSON, and not passed on.
    Garbage,
    /// A watch that begins with an `ERROR` event of this code, and ends.
    WatchError(Refusal),
    /// A watch whose events come so much later.
    Delay(Duration),
}

/// A rule in force until it is dropped.
#[derive(Debug)]
pub struct Rule {
    inner: Arc<Inner>,
    all: Rules,
}

impl Rule {
    /// How often it was met.
    pub fn hits(&self) -> usize {
        *self.inner.hits.borrow()
    }

    /// Returns when it has been met that often.
    pub async fn met(&self, times: usize, limit: Duration) -> Result<()> {
        let mut hits = self.inner.hits.subscribe();
        let met = tokio::time::timeout(limit, hits.wait_for(|hits| *hits >= times)).await;
        match met {
            Ok(Ok(_)) => Ok(()),
            _ => bail!("{:?} was met {} times within {} s, not {times}", self.inner.on, self.hits(), limit.as_secs()),
        }
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.all.lock().retain(|rule| !Arc::ptr_eq(rule, &self.inner));
        self.inner.ended.send_replace(true);
    }
}

#[derive(Debug)]
struct Inner {
    on: On,
    fault: Fault,
    seen: Mutex<Counted>,
    hits: watch::Sender<usize>,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Counted {
    about: usize,
    objects: HashSet<Call>,
}

/// The rules of one proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Arc<Mutex<Vec<Arc<Inner>>>>);

/// What is to happen to one request, and what tells that the rule has ended.
pub(super) type Fate = (Fault, watch::Receiver<bool>);

impl Rules {
    /// Adds one, behind those that are there.
    pub(super) fn add(&self, on: On, fault: Fault) -> Rule {
        let (hits, ended) = (watch::Sender::new(0), watch::Sender::new(false));
        let inner = Arc::new(Inner { on, fault, seen: Mutex::default(), hits, ended });
        self.lock().push(Arc::clone(&inner));
        Rule { inner, all: self.clone() }
    }

    /// What the first rule says that is about a request.
    pub(super) fn judge(&self, call: &Call) -> Option<Fate> {
        let rules = self.lock().clone();
        let rule = rules.into_iter().find(|rule| rule.takes(call))?;
        rule.hits.send_modify(|hits| *hits += 1);
        Some((rule.fault.clone(), rule.ended.subscribe()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Inner>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn takes(&self, call: &Call) -> bool {
        if !self.on.is_about(call) || self.on.times.is_some_and(|times| *self.hits.borrow() >= times) {
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if self.on.first && !seen.objects.insert(call.clone()) {
            return false;
        }
        seen.about += 1;
        seen.about > self.on.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb, resource: &str, name: &str) -> Call {
        Call {
            verb,
            group: String::new(),
            resource: resource.to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_rule_takes_what_it_is_about_as_often_as_it_says_until_it_is_dropped() {
        let rules = Rules::default();
        let rule = rules.add(On::verbs([Verb::Create]).of("secrets").after(1).times(1), Fault::Hang);
        let met = |call: &Call| rules.judge(call).is_some();
        assert!(!met(&call(Verb::Patch, "secrets", "a")), "another verb");
        assert!(!met(&call(Verb::Create, "pods", "a")), "another resource");
        assert!(!met(&call(Verb::Create, "secrets", "a")), "the first is not meant");
        assert!(met(&call(Verb::Create, "secrets", "a")));
        assert!(!met(&call(Verb::Create, "secrets", "a")), "once only");
        assert_eq!(rule.hits(), 1);
        drop(rule);
        let _each = rules.add(On::writes().first_of_each(), Fault::Hang);
        let met: Vec<bool> =
            ["a", "a", "b"].map(|name| rules.judge(&call(Verb::Update, "secrets", name)).is_some()).into();
        assert_eq!(met, [true, false, true]);
        assert!(rules.judge(&call(Verb::Update, "leases", "l")).is_none(), "a lease is no write");
    }
}
