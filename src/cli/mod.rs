//! The command line.
//!
//! Exit codes are part of the interface: 0 success, 1 failure, 2 usage error, 3 key not found, 64
//! invalid configuration.

mod access;
mod address;
mod admin;
mod administration;
mod calls;
mod check;
mod cluster;
mod config;
mod context;
mod dev;
mod examples;
mod explain;
mod failure;
mod members;
mod output;
mod pages;
mod patience;
mod reload;
mod ring;
mod serve;
mod shown;
mod signals;
mod sources;
mod tls;
mod watched;
mod zone;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;

use failure::Failure;
use output::{tell, tell_json};
use patience::patiently;
use sources::ConfigArgs;

/// A distributed read-through cache.
#[derive(Debug, Parser)]
#[command(name = "gaocache", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or Ctrl-C
    #[command(after_long_help = examples::SERVE)]
    Serve(ConfigArgs),
    /// Run several nodes in one process on the loopback interface, to try things out
    #[command(after_long_help = examples::DEV)]
    Dev(dev::DevArgs),
    /// Print the value of a key
    #[command(after_long_help = examples::GET)]
    Get(calls::GetArgs),
    /// Remove a key from all nodes
    #[command(after_long_help = examples::REMOVE)]
    Remove(calls::RemoveArgs),
    /// Remove all keys of a group, or those with a tag, from all nodes
    #[command(after_long_help = examples::PURGE)]
    Purge(calls::PurgeArgs),
    /// Show the ring as a node sees it
    #[command(after_long_help = examples::RING)]
    Ring(ring::RingArgs),
    /// Explain where a key is, where it belongs, and why it was missed
    #[command(after_long_help = examples::EXPLAIN)]
    Explain(explain::ExplainArgs),
    /// Have a node read its settings again
    #[command(after_long_help = examples::RELOAD)]
    Reload(administration::ReloadArgs),
    /// Print the log level of a node, or change it
    #[command(after_long_help = examples::LOG)]
    Log(administration::LogArgs),
    /// List the members as etcd has them, including those that vanished
    #[command(after_long_help = examples::MEMBERS)]
    Members(members::MembersArgs),
    /// Take a member that will never come back off the list, so that removals no longer wait for it
    #[command(after_long_help = examples::FORGET)]
    Forget(members::ForgetArgs),
    /// Check that every node registered in etcd has the same ring and answers a get
    #[command(after_long_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Print the effective settings and the source of each
    #[command(after_long_help = examples::CONFIG)]
    Config(config::ShowArgs),
    /// Write the zone of a Kubernetes node into a file, for node.zone_file
    #[command(after_long_help = examples::ZONE)]
    Zone(zone::ZoneArgs),
    /// Print a script that completes commands and flags in a shell
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions(pages::CompletionsArgs),
    /// Write man pages into a directory
    #[command(after_long_help = examples::MAN)]
    Man(pages::ManArgs),
}

/// Runs the command given by the arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Each command that prints JSON has the flag; what comes after `--` is none.
    let mut flags = std::env::args_os().take_while(|it| it != "--");
    let json = flags.any(|it| it == "--json");
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, kind, message) = match failure {
                Failure::NobodyReads => return ExitCode::SUCCESS,
                Failure::Answered(kind, message) => (1, kind, message),
                Failure::Failed(message) => (1, "failed", message),
                Failure::Usage(message) => (2, "usage", message),
                Failure::NotFound(message) => (3, "not_found", message),
                Failure::Configuration(message) => (64, "configuration", message),
            };
            if json {
                tell_json(&json!({ "error": kind, "message": message, "exit_code": code }));
            } else {
                tell(&format!("gaocache: {message}"));
            }
            ExitCode::from(code)
        }
    }
}

/// What a removal waits for.
const MEMBERS: &str = "every member to confirm the removal";

fn run(command: Command) -> Result<(), Failure> {
    // One thread: reads have their own threads, and this one runs membership, admin and probes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("could not start the runtime: {error}")))?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::serve(&args).await,
            Command::Dev(args) => dev::dev(&args).await,
            Command::Get(args) => patiently("the value", calls::get(&args)).await,
            Command::Remove(args) => patiently(MEMBERS, calls::remove(&args)).await,
            Command::Purge(args) => patiently(MEMBERS, calls::purge(&args)).await,
            Command::Ring(args) => ring::ring(&args).await,
            Command::Explain(args) => patiently("the nodes", explain::explain(&args)).await,
            Command::Reload(args) => patiently("the node", administration::reload(&args)).await,
            Command::Log(args) => administration::log(&args).await,
            Command::Members(args) => patiently("etcd", members::members(&args)).await,
            Command::Forget(args) => members::forget(&args).await,
            Command::Check(args) => patiently("etcd and the nodes", check::check(&args)).await,
            Command::Config(args) => config::show(&args),
            Command::Zone(args) => zone::zone(&args).await,
            Command::Completions(args) => pages::completions(&args, Cli::command()),
            Command::Man(args) => pages::man(&args, Cli::command()),
        }
    });
    runtime.shutdown_background();
    result
}
