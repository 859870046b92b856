//! A program that ends with the test, however the test ends.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// Becomes the program, and leaves a guard in its process group that ends it when nobody holds the other end of its input
/// any more: a test that was killed drops nothing.
const GUARD: &str = r#"exec 3<&0; { cat <&3; kill -KILL $$; } >/dev/null 2>&1 & exec "$@" </dev/null 3<&-"#;
/// How much of the end of a log an error repeats, in bytes.
const END_OF_LOG: i64 = 3000;

/// A running program with its log.
pub(super) struct Process {
    name: String,
    child: Child,
    pid: Option<Pid>,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes to the end of a file.
    pub(super) fn start(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        Self::spawn(name, guarded(program).args(arguments), log)
    }

    /// Starts a command made by [`guarded`].
    pub(super) fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(output.try_clone().context("a log")?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Self { name: name.to_owned(), child, pid, log: log.to_owned() })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().with_context(|| format!("cannot look at {}", self.name))?.is_none())
    }

    /// Sends it, and it alone, a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid.with_context(|| format!("{} has ended", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus> {
        // Its input stays open meanwhile, or the guard would end it.
        let input = self.child.stdin.take();
        let status = self.child.wait().await;
        self.child.stdin = input;
        status.with_context(|| format!("cannot wait for {}", self.name))
    }

    /// The memory that it has now, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that it has had, in bytes.
    pub(super) fn peak(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> Result<u64> {
        let status = self.says_kernel("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).context("the memory of a process")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("the memory of a process")?;
        Ok(kilobytes * 1024)
    }

    /// The processor time that it has used.
    pub(super) fn processor(&self) -> Result<Duration> {
        /// `USER_HZ`: a second in what the kernel tells, whatever its own clock.
        const HERTZ: u64 = 100;
        let stat = self.says_kernel("stat")?;
        // Behind its name, which may hold anything: the 14th and 15th field of all.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().skip(11));
        let ticks: Option<u64> = fields.and_then(|fields| fields.take(2).map(|it| it.parse::<u64>().ok()).sum());
        Ok(Duration::from_millis(ticks.context("the processor time of a process")? * 1000 / HERTZ))
    }

    fn says_kernel(&self, what: &str) -> Result<String> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        std::fs::read_to_string(format!("/proc/{pid}/{what}")).with_context(|| format!("what {} uses", self.name))
    }

    /// The end of its log.
    pub(super) fn last_lines(&self) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            let length = i64::try_from(file.metadata()?.len()).unwrap_or_default();
            file.seek(SeekFrom::End(-length.min(END_OF_LOG)))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
        };
        format!("the end of its log: {}", read().unwrap_or_else(|error| error.to_string()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard is in the group as long as anything is, so that the number is nobody else's.
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// A command that becomes `program`, in a process group of its own; arguments are its arguments.
pub(super) fn guarded(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "sh"]).arg(program).stdin(Stdio::piped()).process_group(0);
    command
}
