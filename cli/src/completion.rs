//! `braid completion`: a script that completes commands and options in a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Result;
use crate::output;

/// Print a script that completes commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid completion bash > ~/.local/share/bash-completion/completions/braid
  braid completion zsh > ~/.zfunc/_braid
  braid completion fish > ~/.config/fish/completions/braid.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "braid", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
