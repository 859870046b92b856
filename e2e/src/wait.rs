//! Waiting for a state, by watch, until a deadline. Who gives up says what was seen last.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{StreamExt, pin_mut};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use serde::Serialize;

use crate::cluster::Kind;

/// Returns the object (or its absence) as soon as `holds` is true of it; `wanted` completes the sentence "X did not …".
pub async fn until<K: Kind>(
    api: &Api<K>,
    name: &str,
    wanted: &str,
    limit: Duration,
    holds: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>> {
    let (mut last, mut trouble) = (None, None);
    let watched = async {
        let seen = watch_object(api.clone(), name).default_backoff();
        pin_mut!(seen);
        while let Some(event) = seen.next().await {
            match event {
                Ok(object) if holds(object.as_ref()) => return Some(object),
                Ok(object) => last = Some(object),
                Err(error) => trouble = Some(error),
            }
        }
        None
    };
    if let Ok(Some(object)) = tokio::time::timeout(limit, watched).await {
        return Ok(object);
    }
    let trouble = trouble.map(|error| format!("; the watch failed at times, at last: {error}")).unwrap_or_default();
    bail!(
        "{} {name} did not {wanted} within {} s{trouble}; last seen: {}",
        K::kind(&()),
        limit.as_secs(),
        last.map_or_else(|| "nothing, the watch never answered".to_owned(), |object| dump(object.as_ref()))
    )
}

/// Asks again, at once, until the answer is the wanted one: for what cannot be watched, as a policy coming into force.
/// `ask` must take its time by itself, as a dial does.
pub async fn asking<T>(
    what: &str,
    limit: Duration,
    wanted: impl Fn(&T) -> bool,
    ask: impl AsyncFn() -> Result<T>,
) -> Result<T>
where
    T: Debug,
{
    let mut last = None;
    let asked = async {
        loop {
            let answer = ask().await?;
            if wanted(&answer) {
                return Ok(answer);
            }
            last = Some(answer);
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_) => bail!("{what}: not so within {} s; the last answer: {last:?}", limit.as_secs()),
    }
}

/// An object as JSON, without what nobody reads.
fn dump<K: Serialize>(object: Option<&K>) -> String {
    let Some(object) = object else { return "it is not there".to_owned() };
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    serde_json::to_string_pretty(&value).unwrap_or_default()
}
