//! Puts the sources together and checks the result against the schema, value by value.
//!
//! figment merges and remembers where each value came from. Its own extraction would stop at the
//! first error and knows no allowed values, so the walk over the schema is ours.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};
use serde::Deserialize;

use super::{Config, check, schema, walk::Walk};

/// Begins the environment variables that set something. Two underscores, so that the
/// `GAOCACHE_PORT=tcp://…` that Kubernetes adds for a service named gaocache never counts.
pub const VARIABLE_PREFIX: &str = "GAOCACHE__";

/// Where settings may come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment, name and value.
    pub environment: Vec<(String, String)>,
    /// `section.name=value`, from flags.
    pub overrides: Vec<String>,
    /// What the platform tells, such as the host name: setting, value, where from.
    pub platform: Vec<(&'static str, String, String)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full name of the setting.
    pub name: String,
    /// What was given, if anything was.
    pub value: Option<String>,
    /// The file, variable or flag.
    pub source: Option<String>,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

/// All that is wrong with the settings, at once.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(
            f,
            "{count} wrong setting{}:",
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.0 {
            write!(f, "\n  {}", problem.name)?;
            if let Some(value) = &problem.value {
                write!(f, " = {value}")?;
            }
            if let Some(source) = &problem.source {
                write!(f, "  [{source}]")?;
            }
            write!(f, "\n    {}", problem.reason)?;
        }
        Ok(())
    }
}

/// A setting in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Full name, with the number of the group where there is one.
    pub name: String,
    /// As TOML; secrets are masked.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// The settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Config,
    /// Each of them with its source, in the order of the schema.
    pub in_force: Vec<InForce>,
}

/// Reads all sources, checks, and returns the settings.
///
/// # Errors
/// Everything that is wrong, at once: unknown names, wrong values, and what doesn't fit together.
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
            // A required setting is missing; the schema's own walk has seen every value that is
            // there.
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

/// A provider of values that all come as text, from one place.
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

pub(super) fn show_path(path: &Path) -> String {
    path.display().to_string()
}
