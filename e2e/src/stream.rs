//! A stream that is kept busy from a probe's pod, so that a test can say when its last byte came and how it ended.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};

use crate::probe::Probe;

/// How long a stream may take to be there, and its end to be told.
const LIMIT: Duration = Duration::from_secs(30);

/// A stream through which a byte goes every few milliseconds, and comes back.
pub struct Stream {
    process: AttachedProcess,
    lines: Lines<BufReader<Box<dyn AsyncRead + Unpin + Send>>>,
    place: String,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// In one word: `finished` if it was ended here and every byte came back, `reset`, or `short`, a clean end too early.
    pub how: String,
    /// How many bytes came back.
    pub back: u64,
    /// How many were sent.
    pub sent: u64,
    /// When the last one came back, by the clock of the machine that clusters and tests share.
    pub last: SystemTime,
}

impl Stream {
    /// Opens one to an echo, and returns when it is there.
    pub async fn open(probe: &Probe, target: &str) -> Result<Self> {
        let place = format!("{} holds a stream to {target}", probe.name);
        let how = AttachParams::default().stdin(true).stderr(false);
        let command = ["/lab-probe", "hold", target];
        let exec = async { probe.namespace().api::<Pod>().exec(&probe.name, command, &how).await };
        let mut process = exec.await.with_context(|| place.clone())?;
        let stdout: Box<dyn AsyncRead + Unpin + Send> = Box::new(process.stdout().context("it has no output")?);
        let mut stream = Self { process, lines: BufReader::new(stdout).lines(), place };
        let first = stream.line().await?;
        ensure!(first == "connected", "{}: {first}", stream.place);
        Ok(stream)
    }

    /// Returns when it has ended without being told to.
    pub async fn ended(mut self) -> Result<End> {
        let line = self.line().await?;
        End::read(&line).with_context(|| format!("{}: {line}", self.place))
    }

    /// Ends it, and returns when every byte came back or it is clear that not all do.
    pub async fn finish(mut self) -> Result<End> {
        let mut stdin = self.process.stdin().context("it has no input")?;
        // A stream that has ended already takes no word.
        let _ = stdin.write_all(b"\n").await;
        let _ = stdin.flush().await;
        self.ended().await
    }

    async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
        let line = line.with_context(|| format!("{}: it said nothing for {} s", self.place, LIMIT.as_secs()))?;
        line.with_context(|| self.place.clone())?.with_context(|| format!("{}: it ended without a word", self.place))
    }
}

impl End {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let how = words.next()?.to_owned();
        let [back, sent, last] = [words.next()?, words.next()?, words.next()?].map(str::parse);
        Some(Self {
            how,
            back: back.ok()?,
            sent: sent.ok()?,
            last: SystemTime::UNIX_EPOCH + Duration::from_millis(last.ok()?),
        })
    }

    /// Whether it was ended here and every byte came back.
    pub fn is_whole(&self) -> bool {
        self.how == "finished" && self.back > 0
    }

    /// How long after `then` the last byte came; nothing if that was before.
    fn after(&self, then: SystemTime) -> Duration {
        self.last.duration_since(then).unwrap_or_default()
    }

    /// Fails unless it was broken off, without a clean end, and its last byte came within `limit` of `then`.
    pub fn is_broken_off(&self, then: SystemTime, limit: Duration) -> Result<()> {
        ensure!(self.how == "reset", "an end that nobody asked for is not a reset: {self:?}");
        let late = self.after(then);
        crate::harness::tell(&format!("the last byte came {} ms after", late.as_millis()));
        ensure!(late <= limit, "the last byte came {} ms after, more than {}", late.as_millis(), limit.as_millis());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_how_it_ended_and_when() {
        let end = End::read("reset 100 104 1795581592289").expect("a last line");
        assert_eq!((end.how.as_str(), end.back, end.sent), ("reset", 100, 104));
        assert_eq!(end.after(SystemTime::UNIX_EPOCH).as_millis(), 1_795_581_592_289);
        assert!(!end.is_whole() && End::read("finished 7 7 1").is_some_and(|end| end.is_whole()));
        assert_eq!(End::read("connected"), None);
    }
}
