//! Merges the sources and validates the result against the schema, value by value.
//!
//! figment merges the sources and tracks the origin of each value. Its own extraction stops at the
//! first error and has no notion of allowed values, so this module walks the schema itself.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};
use serde::Deserialize;

pub use super::walk::InForce;
use super::{
    check,
    problem::{ConfigError, Problem},
    schema,
    settings::Config,
    walk::{Walk, show_path},
};

/// Prefix of the environment variables that are settings. It ends with two underscores, so that the
/// variables that Kubernetes adds for a service named gaocache (`GAOCACHE_PORT=tcp://…`) are
/// ignored.
pub const VARIABLE_PREFIX: &str = "GAOCACHE__";

/// The sources of the settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment, as pairs of name and value.
    pub environment: Vec<(String, String)>,
    /// `section.name=value`, from flags.
    pub overrides: Vec<String>,
    /// What the platform supplies, such as the host name: setting, value, source.
    pub platform: Vec<(&'static str, String, String)>,
}

/// The settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Config,
    /// Each setting with its source, in the order of the schema.
    pub in_force: Vec<InForce>,
}

/// Reads all sources, validates them, and returns the settings.
///
/// # Errors
/// All problems together: unknown names, invalid values, and inconsistent settings.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let figment = gather(sources, &mut problems);
    let merged = match figment.data() {
        Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
        Err(errors) => {
            let file = sources.file.as_deref();
            problems.extend(errors.into_iter().map(|error| unreadable(&error, file)));
            return Err(ConfigError(problems));
        }
    };
    let mut walk = Walk {
        figment: &figment,
        problems,
        in_force: Vec::new(),
    };
    let checked = walk.section("", &merged);
    let Walk {
        mut problems,
        in_force,
        ..
    } = walk;
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    let settings = match Config::deserialize(checked) {
        Ok(settings) => settings,
        Err(error) => {
            // A required setting is missing. The walk has already checked every value that is
            // present.
            return Err(ConfigError(vec![Problem {
                name: "settings".into(),
                value: None,
                source: None,
                reason: error.to_string(),
            }]));
        }
    };
    problems.extend(check::together(&settings).into_iter().map(|mut problem| {
        let known = in_force.iter().find(|known| known.name == problem.name);
        problem.source = known.map(|known| known.source.clone());
        problem.value = problem.value.or(known.map(|known| known.value.clone()));
        problem
    }));
    if problems.is_empty() {
        Ok(Loaded { settings, in_force })
    } else {
        Err(ConfigError(problems))
    }
}

/// Config of a node that embeds itself into a program or a test: defaults, the memory registry,
/// and all listeners on free ports of the loopback interface. Each of `further` is a
/// `section.name=value`.
///
/// # Errors
/// As `load`.
pub fn loopback(id: &str, further: &[&str]) -> Result<Config, ConfigError> {
    let listeners =
        ["grpc", "http", "admin"].map(|listener| format!("{listener}.listen=127.0.0.1:0"));
    let mut overrides = Vec::from(listeners);
    overrides.push("registry.kind=memory".into());
    overrides.push(format!("node.id={id}"));
    overrides.extend(further.iter().map(|&setting| setting.into()));
    let sources = Sources {
        overrides,
        ..Sources::default()
    };
    Ok(load(&sources)?.settings)
}

fn gather(sources: &Sources, problems: &mut Vec<Problem>) -> Figment {
    let mut figment = Figment::new().merge(defaults());
    for (name, value, source) in &sources.platform {
        figment = figment.merge(Given::one(source, name, value));
    }
    if let Some(file) = &sources.file {
        figment = figment.merge(Toml::file_exact(file));
    }
    for (variable, value) in &sources.environment {
        if let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) {
            let name = name.to_lowercase().replace("__", ".");
            let source = format!("environment variable {variable}");
            figment = figment.merge(Given::one(&source, &name, value));
        }
    }
    for given in &sources.overrides {
        match given.split_once('=') {
            Some((name, value)) => {
                figment = figment.merge(Given::one("flag --set", name.trim(), value.trim()));
            }
            None => problems.push(Problem {
                name: given.clone(),
                value: None,
                source: Some("flag --set".into()),
                reason: "write it as section.name=value".into(),
            }),
        }
    }
    figment
}

fn unreadable(error: &figment::Error, file: Option<&Path>) -> Problem {
    Problem {
        name: file.map_or_else(|| "settings".into(), show_path),
        value: None,
        source: None,
        reason: error.kind.to_string(),
    }
}

/// A provider of string values from a single source.
struct Given {
    source: String,
    dict: Dict,
}

impl Given {
    fn one(source: &str, name: &str, value: &str) -> Self {
        Self {
            source: source.into(),
            dict: nested(name, Value::from(value)),
        }
    }
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn nested(name: &str, value: Value) -> Dict {
    match name.split_once('.') {
        Some((section, rest)) => Dict::from([(section.to_owned(), nested(rest, value).into())]),
        None => Dict::from([(name.to_owned(), value)]),
    }
}

fn defaults() -> Figment {
    let mut figment = Figment::new();
    for setting in schema::SETTINGS {
        if let Some(default) = setting.default
            && !setting.name.starts_with("groups[")
        {
            let default = default();
            let literal = default.trim_matches('"');
            figment = figment.merge(Given::one("default", setting.name, literal));
        }
    }
    figment
}
