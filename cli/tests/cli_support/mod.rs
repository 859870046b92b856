//! Runs the real binary, away from the environment of whoever runs the tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command did.
pub(crate) struct Ran {
    pub(crate) line: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary with `arguments`, not started yet.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_securelink"));
    command.args(arguments);
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "SECURELINK_STATE_DIR", "SECURELINK_LOG"] {
        command.env_remove(name);
    }
    command
}

/// Runs the binary.
pub(crate) fn securelink(arguments: &[&str]) -> Ran {
    Ran::with_input(arguments, "")
}

/// A path below the examples.
pub(crate) fn examples(below: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/examples").join(below).display().to_string()
}

impl Ran {
    /// Runs the binary with something on standard input.
    pub(crate) fn with_input(arguments: &[&str], input: &str) -> Self {
        Self::of(&mut command(arguments), input)
    }

    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command, input: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its input may be gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let done = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let line = format!("{command:?}");
        Self { line, code: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr) }
    }

    /// Fails unless the exit code is this one.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nout: {}\nerr: {}", self.line, self.out, self.err);
        self
    }

    /// The one JSON object it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{}: {error}\n{}", self.line, self.out))
    }
}
