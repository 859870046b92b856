//! The bench's other processes, and what the kernel says they cost.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A process that plays a role ([`crate::roles`]) until this is dropped.
pub struct Process {
    role: Child,
    /// The process that is measured: the role's own, or the one it holds.
    measured: u32,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub fn play(role: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg(format!("role:{role}")).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut role = command.spawn().unwrap();
        let (input, output) = (role.stdin.take(), BufReader::new(role.stdout.take().unwrap()));
        Self { measured: role.id(), role, input, output }
    }

    /// Another program, which gets SIGTERM at the end.
    pub fn hold(program: &str, arguments: &[&str]) -> Self {
        let mut process = Self::play("hold", &[&[program], arguments].concat());
        process.measured = process.line().parse().unwrap();
        process
    }

    /// The next line it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "a process of the bench ended");
        line.trim_end().to_owned()
    }

    /// Says a line, and hears one of JSON.
    pub fn ask(&mut self, line: &str) -> Value {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        input.write_all(b"\n").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Seconds of CPU it and its children have used so far.
    pub fn cpu(&self) -> f64 {
        let ticks = |pid: u32, fields: std::ops::Range<usize>| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name in parentheses: state is field 3; user and system time are 14 and 15, those of children that
            // ended 16 and 17.
            let after: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, after)| after).split_whitespace().collect();
            let ticks = after.get(fields).unwrap_or_default().iter();
            ticks.map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum::<f64>()
        };
        let children = self.children();
        // USER_HZ is 100 on every Linux that this runs on.
        (ticks(self.measured, 11..15) + children.iter().map(|child| ticks(*child, 11..13)).sum::<f64>()) / 100.0
    }

    /// Resident KiB of it and its children.
    pub fn resident(&self) -> f64 {
        let resident = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0)
        };
        resident(self.measured) + self.children().into_iter().map(resident).sum::<f64>()
    }

    fn children(&self) -> Vec<u32> {
        let pid = self.measured;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without input a role ends by itself.
        self.input = None;
        self.role.wait().unwrap();
    }
}
