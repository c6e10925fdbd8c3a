//! `gaocache completions` and `gaocache man`: what packages install along with the program.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{failure::Failure, output::print_bytes};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory; one page for each command is written there
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut program: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "gaocache", &mut script);
    print_bytes(&script)
}

/// The files of a command and of those below it.
fn pages(command: &Command, name: &str) -> Vec<String> {
    let below = command.get_subcommands();
    let below = below.flat_map(|it| pages(it, &format!("{name}-{}", it.get_name())));
    std::iter::once(format!("{name}.1")).chain(below).collect()
}

/// clap_mangen puts what follows the flags under EXTRA, and lets its lines flow together.
fn name_examples(page: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let Some((before, examples)) = text.split_once(".SH EXTRA\nExamples:\n") else {
        return Ok(());
    };
    let (examples, after) = match examples.find(".SH ") {
        Some(at) => examples.split_at(at),
        None => (examples, ""),
    };
    let examples = examples.trim_end();
    std::fs::write(
        page,
        format!("{before}.SH EXAMPLES\n.nf\n{examples}\n.fi\n{after}"),
    )
}

pub(super) fn man(args: &ManArgs, program: Command) -> Result<(), Failure> {
    let names = pages(&program, "gaocache");
    if std::fs::metadata(&args.directory).is_ok_and(|it| !it.is_dir()) {
        let what = format!("{}: not a directory", args.directory.display());
        return Err(Failure::Failed(what));
    }
    let written = std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(program, &args.directory));
    let failed = |error| Failure::Failed(format!("{}: {error}", args.directory.display()));
    written.map_err(failed)?;
    for page in names {
        name_examples(&args.directory.join(page)).map_err(failed)?;
    }
    let mut errors = std::io::stderr();
    // Nothing is lost if it can't be written.
    let _ = writeln!(errors, "man pages are in {}", args.directory.display());
    Ok(())
}
