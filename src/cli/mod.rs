//! The command line.
//!
//! Exit codes are part of the interface: 0 success, 1 failure, 2 usage error, 3 key not found, 64
//! invalid configuration.

mod calls;
mod check;
mod dev;
mod ring;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{self, ConfigError, Sources};
use gaocache_core::error::{Error, ErrorKind};

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
    Serve(ConfigArgs),
    /// Run several nodes in one process on the loopback interface, to try things out
    Dev(dev::DevArgs),
    /// Print the value of a key
    Get(calls::KeyArgs),
    /// Remove a key from all nodes
    Remove(calls::KeyArgs),
    /// Remove all keys of a group from all nodes
    Purge(calls::GroupArgs),
    /// Show the ring as a node sees it
    Ring(ring::RingArgs),
    /// Check that every node registered in etcd has the same ring and answers a get
    Check(check::CheckArgs),
    /// Print the effective settings and the source of each
    Config(ConfigArgs),
}

/// The sources of the settings.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "GAOCACHE_CONFIG_FILE")]
    config: Option<PathBuf>,
    /// Set one setting, such as --set node.zone=a; overrides the file and the environment
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<config::Loaded, Failure> {
        let sources = Sources {
            file: self.config.clone(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            overrides: self.overrides.clone(),
            platform: platform(),
        };
        Ok(config::load(&sources)?)
    }
}

/// Settings that Kubernetes or the machine supplies.
fn platform() -> Vec<(&'static str, String, String)> {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let mut told = vec![("node.id", host, "host name".to_owned())];
    for (setting, variable) in [("node.id", "POD_NAME"), ("node.advertise_host", "POD_IP")] {
        if let Ok(value) = std::env::var(variable)
            && !value.is_empty()
        {
            told.push((setting, value, format!("environment variable {variable}")));
        }
    }
    told.extend(opentelemetry(|name| std::env::var(name).ok()));
    told
}

/// OpenTelemetry's standard variables, as settings. An empty variable counts as unset, as the
/// standard requires.
fn opentelemetry(variable: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String, String)> {
    /// A later entry overrides an earlier one.
    const SETTINGS: [(&str, &str); 9] = [
        ("trace.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("trace.endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("trace.ca", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("trace.sampler", "OTEL_TRACES_SAMPLER"),
        ("trace.sample_ratio", "OTEL_TRACES_SAMPLER_ARG"),
        ("trace.service_name", "OTEL_SERVICE_NAME"),
        ("trace.max_queue", "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("trace.timeout_seconds", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ("trace.timeout_seconds", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"),
    ];
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let source = |name: &str| format!("environment variable {name}");
    let mut told: Vec<_> = SETTINGS
        .into_iter()
        .filter_map(|(setting, name)| {
            let value = set(name)?;
            let value = match (setting, value.parse::<f64>()) {
                ("trace.timeout_seconds", Ok(millis)) => (millis / 1000.0).to_string(),
                _ => value,
            };
            Some((setting, value, source(name)))
        })
        .collect();
    for (name, off) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        if set(name).is_some_and(|value| value.eq_ignore_ascii_case(off)) {
            told.push(("trace.enabled", "false".to_owned(), source(name)));
        }
    }
    told
}

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 64.
    Configuration(String),
    /// Exit code 3.
    NotFound(String),
    /// Exit code 1.
    Failed(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound(error.to_string()),
            ErrorKind::Configuration => Self::Configuration(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Runs the command given by the arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, message) = match failure {
                Failure::Failed(message) => (1, message),
                Failure::NotFound(message) => (3, message),
                Failure::Configuration(message) => (64, message),
            };
            eprintln!("gaocache: {message}");
            ExitCode::from(code)
        }
    }
}

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
            Command::Get(args) => calls::get(&args).await,
            Command::Remove(args) => calls::remove(&args).await,
            Command::Purge(args) => calls::purge(&args).await,
            Command::Ring(args) => ring::ring(&args).await,
            Command::Check(args) => check::check(&args).await,
            Command::Config(args) => show_config(&args),
        }
    });
    runtime.shutdown_background();
    result
}

fn show_config(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    let width = |of: fn(&config::InForce) -> usize| {
        loaded.in_force.iter().map(of).max().unwrap_or(0).min(60)
    };
    let (names, values) = (width(|it| it.name.len()), width(|it| it.value.len()));
    for setting in &loaded.in_force {
        println_or_stop(&format!(
            "{:names$} = {:values$}  # {}",
            setting.name, setting.value, setting.source
        ))?;
    }
    Ok(())
}

/// Prints a line. If the reader has closed the pipe (`gaocache config | head`), the error ends the
/// command.
fn println_or_stop(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")
        .map_err(|error| Failure::Failed(format!("standard output: {error}")))
}

/// A count with its noun: `1 member`, `2 members`.
fn counted(count: u64, singular: &str, plural: &str) -> String {
    let noun = if count == 1 { singular } else { plural };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let told = opentelemetry(variable).into_iter();
        told.map(|(name, value, _)| (name, value)).collect()
    }

    #[test]
    fn opentelemetry_s_variables_are_settings() {
        let value = |variables: &[(&str, &str)], wanted: &str| {
            let mut told = told(variables);
            told.retain(|(name, _)| *name == wanted);
            told.pop().map(|(_, value)| value)
        };
        let both = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_SERVICE_NAME", ""),
        ];
        assert_eq!(
            value(&both, "trace.endpoint").as_deref(),
            Some("http://traces:4317")
        );
        assert_eq!(
            value(&both, "trace.timeout_seconds").as_deref(),
            Some("1.5")
        );
        assert_eq!(value(&both, "trace.service_name"), None);
        assert_eq!(value(&both, "trace.enabled"), None);
        for off in [
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(value(&[off], "trace.enabled").as_deref(), Some("false"));
        }
    }
}
