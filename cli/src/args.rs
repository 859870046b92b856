//! The command line as a whole, and arguments that several commands share. Does nothing itself.

#![allow(clippy::doc_markdown, reason = "a doc comment here is help on a terminal: names need no backticks")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use securelink_relay_config::RecordLayer;

use crate::commands;
use crate::output::{Colour, Failure, Format};
use crate::state;

/// The end of a command's help: how to use it, what its exit codes mean, and what a program gets.
macro_rules! teach {
    ($examples:literal, $codes:literal) => {
        concat!(
            "\u{1b}[1m\u{1b}[4mExamples:\u{1b}[0m\n",
            $examples,
            "\n\n\u{1b}[1m\u{1b}[4mExit codes:\u{1b}[0m\n",
            $codes
        )
    };
    ($examples:literal, $codes:literal, $json:literal) => {
        concat!($crate::args::teach!($examples, $codes), "\n\n\u{1b}[1m\u{1b}[4mWith -o json:\u{1b}[0m\n", $json)
    };
}
pub(crate) use teach;

/// Links two organizations over mutual TLS, while both declare it and their agreement holds.
#[derive(Debug, Parser)]
#[command(
    name = "securelink",
    version,
    arg_required_else_help = true,
    after_help = teach!(
        "  See two organizations link up on this machine, in under a minute:
    securelink demo

  Run one organization's half; the first start makes its root:
    securelink run -f link/ --state-dir ./state --init

  The two lines the partner needs, for the agreement's annex:
    securelink fingerprint --state-dir ./state

  The links of a cluster; as a kubectl plugin it speaks to the cluster without being told:
    securelink -n liaison status
    kubectl securelink status -A",
        "  0  done, or true
  1  what was asked is false or failed
  2  the command line is wrong
  3  there is no running process, no state, or no cluster"
    )
)]
pub struct Cli {
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Everywhere")]
    pub color: Colour,

    #[command(flatten)]
    #[allow(missing_docs, reason = "its help stands with its arguments")]
    pub cluster: ClusterArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help of a command stands with its arguments")]
pub enum Command {
    Demo(commands::demo::DemoArgs),
    Run(commands::run::RunArgs),
    Status(commands::status::StatusArgs),
    Doctor(commands::doctor::DoctorArgs),
    Greet(commands::greet::GreetArgs),
    Cut(commands::cut::CutArgs),
    Resume(commands::resume::ResumeArgs),
    Fingerprint(commands::fingerprint::FingerprintArgs),
    Digest(commands::digest::DigestArgs),
    Check(commands::check::CheckArgs),
    Render(commands::render::RenderArgs),
    Relay(commands::relay::RelayArgs),
    Grant(commands::in_cluster::grant::GrantArgs),
    Completion(commands::completion::CompletionArgs),
}

/// How to answer.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// How to answer: for people, or as one JSON object
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

impl OutputArgs {
    /// Whether a program reads the answer.
    pub fn is_json(self) -> bool {
        self.output == Format::Json
    }
}

/// Which cluster. Any of these, or the name `kubectl-securelink`, makes a verb speak to the cluster.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Speak to the cluster of this kubeconfig [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Speak to the cluster of this context [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Speak to the cluster about this namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Whether kubectl called.
    #[arg(skip)]
    pub plugin: bool,

    /// Whether a state folder was given, which no cluster has.
    #[arg(skip)]
    pub state_dir: bool,
}

impl ClusterArgs {
    /// Whether a cluster was named.
    pub fn named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some() || self.namespace.is_some()
    }

    /// Whether the cluster is meant, and not a process on this machine.
    pub fn meant(&self) -> bool {
        self.plugin || self.named()
    }
}

/// How long to wait for a cluster.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitArgs {
    /// In a cluster: how long to wait for the answer [default: 10 for cut, else 60]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u16>,
}

impl WaitArgs {
    /// That long, or `default` seconds.
    pub fn limit(self, default: u16) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(default).into())
    }
}

/// Where the state is.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// The state folder: keys, certificates, cuts [default: $XDG_STATE_HOME/securelink]
    #[arg(long, value_name = "DIR", env = "SECURELINK_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The folder given, or the user's own.
    pub fn dir(&self) -> Result<PathBuf, Failure> {
        let dir = self.state_dir.clone().or_else(state::default_dir);
        dir.ok_or_else(|| Failure::usage("there is no home folder to keep state in; say where with --state-dir DIR"))
    }
}

/// YAML to read.
#[derive(Clone, Debug, Args)]
pub struct FilesArgs {
    /// YAML file, or folder of *.yaml and *.yml; repeat for several
    #[arg(short = 'f', long = "filename", value_name = "FILE_OR_FOLDER", required = true)]
    pub files: Vec<PathBuf>,
}

/// How a machine differs from what the YAML says.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Where the peer's listener binds, instead of expose.port on all addresses; repeat for several links
    #[arg(long, value_name = "LINK=ADDR:PORT", value_parser = listen)]
    pub listen: Vec<(String, SocketAddr)>,

    /// Dial peers on this very machine too; for trying out
    #[arg(long)]
    pub allow_loopback_peers: bool,

    /// Who makes the records of TLS; in-place is faster and younger, and the peer cannot tell
    #[arg(long, value_enum, default_value_t)]
    pub records: Records,
}

/// Who makes the records of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Records {
    /// rustls, as it makes handshakes.
    #[default]
    Rustls,
    /// The relay's own code.
    InPlace,
}

impl From<Records> for RecordLayer {
    fn from(records: Records) -> Self {
        match records {
            Records::Rustls => Self::Rustls,
            Records::InPlace => Self::InPlace,
        }
    }
}

fn listen(text: &str) -> Result<(String, SocketAddr), String> {
    let wrong = || "is not LINK=ADDR:PORT; write for example europol=0.0.0.0:443".to_owned();
    let (link, address) = text.split_once('=').ok_or_else(wrong)?;
    let link: LinkName = link.parse()?;
    Ok((link.to_string(), address.parse().map_err(|_| wrong())?))
}

/// A link as a person names it: `NAME`, or `NAMESPACE/NAME` where two have that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkName {
    /// Its namespace, if given.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl FromStr for LinkName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let plain = |part: &str| {
            let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
            !part.is_empty() && part.bytes().all(known)
        };
        if !plain(name) || !namespace.is_none_or(plain) {
            return Err("a link is NAME or NAMESPACE/NAME; `securelink status` lists them".to_owned());
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
