//! `gaocache completions` and `gaocache man`: what packages install beside the program.

use std::{io::Write, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, output::print_bytes};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// An existing directory; one page for each command is written there
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gaocache", &mut script);
    print_bytes(&script)
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let written = clap_mangen::generate_to(Cli::command(), &args.directory);
    written.map_err(|error| Failure::Failed(format!("{}: {error}", args.directory.display())))?;
    let mut errors = std::io::stderr();
    // Nothing is lost if nobody reads it.
    let _ = writeln!(errors, "man pages are in {}", args.directory.display());
    Ok(())
}
