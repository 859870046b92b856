//! `completion`: the completion script of a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::{Cli, teach};
use crate::output::{Failure, Out};

/// Write the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  For the running bash:
    source <(securelink completion bash)

  For every zsh:
    securelink completion zsh > \"${fpath[1]}/_securelink\"

  For every fish:
    securelink completion fish > ~/.config/fish/completions/securelink.fish",
    "  0  written
  2  the command line is wrong"
))]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionArgs, out: Out) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "securelink", &mut script);
    out.raw(&String::from_utf8_lossy(&script))
}
