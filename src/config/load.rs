//! Merges the sources and validates the result against the schema, value by value.
//!
//! figment merges the sources and tracks the origin of each value. Its own extraction stops at the
//! first error and has no notion of allowed values, so this module walks the schema itself.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};
use serde::Deserialize;

pub use super::walk::InForce;
use super::{
    check, header_files,
    numbered::Numbered,
    problem::{ConfigError, Problem, toml_problem},
    schema::{self, Applies, VARIABLE_PREFIX},
    settings::{Config, LimitSettings, LogSettings},
    suggest,
    walk::Walk,
};

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
    pub platform: Vec<(String, String, String)>,
}

/// The settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Config,
    /// Each setting with its source, in the order of the schema, group after group.
    pub in_force: Vec<InForce>,
    /// The list of groups that the numbers in names such as `groups[0].ttl_seconds` are about.
    pub numbered: Numbered,
    /// About settings that are valid, but have no effect or make no sense together with others.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// What is effective once a running node has read the settings `after`: those where they apply
    /// live, the others as they are.
    #[must_use]
    pub fn reloaded(&self, after: Self) -> Self {
        let is_live = |it: &InForce| it.applies() == Applies::Live;
        let stay = self.in_force.iter().filter(|it| !is_live(it));
        let come = after.in_force.iter().filter(|it| is_live(it));
        let mut in_force: Vec<InForce> = stay.chain(come).cloned().collect();
        in_force.sort_by_key(InForce::place);
        let before = self.settings.clone();
        let (numbered, warnings) = (after.numbered, after.warnings);
        let after = after.settings;
        // A test holds this against the table.
        let settings = Config {
            groups: after.groups,
            auth: after.auth,
            limits: LimitSettings {
                max_admin_connections: before.limits.max_admin_connections,
                max_admin_connections_per_address: before.limits.max_admin_connections_per_address,
                ..after.limits
            },
            log: LogSettings {
                format: before.log.format,
                audit: before.log.audit,
                ..after.log
            },
            ..before
        };
        Self {
            settings,
            in_force,
            numbered,
            warnings,
        }
    }
}

/// All sources as they are, right or wrong.
#[derive(Debug)]
pub struct Reading {
    /// The settings; `None` if there are none to speak of.
    pub(super) settings: Option<Config>,
    /// Each setting that has a valid value of its own, in the order of the reference.
    pub in_force: Vec<InForce>,
    pub(super) numbered: Numbered,
    problems: Vec<Problem>,
}

impl Reading {
    /// The settings, where nothing is wrong.
    ///
    /// # Errors
    /// All problems together: unknown names, invalid values, and inconsistent settings.
    pub fn checked(self) -> Result<Loaded, ConfigError> {
        match self.settings {
            Some(settings) if self.problems.is_empty() => Ok(Loaded {
                warnings: check::warnings(&settings, &self.in_force)
                    .into_iter()
                    .map(|warning| with_source(warning, &self.in_force))
                    .collect(),
                settings,
                in_force: self.in_force,
                numbered: self.numbered,
            }),
            _ => Err(ConfigError(self.problems)),
        }
    }
}

/// Reads all sources, validates them, and returns the settings.
///
/// # Errors
/// As [`Reading::checked`].
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    read_all(sources).checked()
}

/// Reads and validates all sources. What is wrong with some settings hides none of the others.
pub fn read_all(sources: &Sources) -> Reading {
    let mut problems = Vec::new();
    let Some(stack) = gather(sources, &mut problems) else {
        return Reading {
            settings: None,
            in_force: Vec::new(),
            numbered: Numbered::default(),
            problems,
        };
    };
    let numbered = Numbered::of(&stack.0, stack.1.iter().map(|it| (&it.dict, &*it.source)));
    let figment = stack.merged();
    // Only a provider that fails can fail here, and `Given` doesn't.
    let merged = figment
        .data()
        .map(|mut profiles| profiles.remove(&Profile::Default));
    let merged = merged.ok().flatten().unwrap_or_default();
    let mut walk = Walk::new(&figment, problems);
    let checked = walk.all(merged);
    let Walk {
        mut problems,
        mut in_force,
        unsure,
        ..
    } = walk;
    in_force.sort_by_key(InForce::place);
    let settings = match Config::deserialize(checked) {
        Ok(mut settings) => {
            let mut together = header_files::fill(&mut settings, &mut in_force);
            together.extend(check::together(&settings, &unsure));
            together.extend(check::leftovers(&settings, &in_force));
            let together = together.into_iter();
            problems.extend(together.map(|problem| with_source(problem, &in_force)));
            Some(settings)
        }
        Err(error) => {
            // The walk has checked every value, and has put one where there is none.
            problems.push(Problem {
                name: "settings".into(),
                value: None,
                source: None,
                reason: error.to_string(),
            });
            None
        }
    };
    Reading {
        settings,
        in_force,
        numbered,
        problems,
    }
}

/// The problem, with the source and the value of its setting.
fn with_source(mut problem: Problem, in_force: &[InForce]) -> Problem {
    let known = in_force.iter().find(|known| known.name == problem.name);
    problem.source = known.map(|known| known.source.clone());
    problem.value = known.map(|known| known.value.clone());
    problem
}

/// Settings of a node of a test: defaults, the memory registry, and all listeners on free ports of
/// the loopback interface. Each of `further` is a `section.name=value`.
///
/// # Errors
/// As `load`.
pub fn loopback(id: &str, further: &[&str]) -> Result<Config, ConfigError> {
    let listeners =
        ["grpc", "http", "peer", "admin"].map(|listener| format!("{listener}.listen=127.0.0.1:0"));
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

/// All sources, the later ones above the earlier. `None` if the file can't be read: nothing that
/// the other sources say can be judged then.
fn gather(sources: &Sources, problems: &mut Vec<Problem>) -> Option<Stack> {
    let mut stack = Stack(defaults(), Vec::new());
    for (name, value, source) in &sources.platform {
        stack.add(source, name, value);
    }
    if let Some(file) = &sources.file {
        match read(file) {
            Ok(given) => stack.0 = stack.0.merge(given),
            Err(reason) => {
                problems.push(Problem {
                    name: file.display().to_string(),
                    value: None,
                    source: None,
                    reason,
                });
                return None;
            }
        }
    }
    for (variable, value) in &sources.environment {
        let meant = suggest::variable(variable);
        let meant = meant.filter(|meant| !meant.eq_ignore_ascii_case(variable));
        let name = variable.strip_prefix(VARIABLE_PREFIX);
        if let Some(name) = name.filter(|_| meant.is_none()) {
            let name = name.to_lowercase().replace("__", ".");
            stack.add(&format!("environment variable {variable}"), &name, value);
        } else if let Some(meant) = meant {
            problems.push(Problem {
                source: Some(format!("environment variable {variable}")),
                ..Problem::of(
                    variable.clone(),
                    format!("not a setting; did you mean '{meant}'?"),
                )
            });
        }
    }
    for given in &sources.overrides {
        match given.split_once('=') {
            Some((name, value)) => stack.add("flag --set", name.trim(), value.trim()),
            None => problems.push(Problem {
                name: given.clone(),
                value: None,
                source: Some("flag --set".into()),
                reason: "write it as section.name=value".into(),
            }),
        }
    }
    Some(stack)
}

/// The sources so far, and the settings of single groups, which go on top of the list of groups.
struct Stack(Figment, Vec<Given>);

impl Stack {
    fn add(&mut self, source: &str, name: &str, value: &str) {
        let name = indexed(name);
        let given = Given::one(source, &name, value);
        if name.starts_with("groups[") {
            self.1.push(given);
            return;
        }
        if name == "groups" {
            // A new list: what was said of the old one is not about it.
            self.1.clear();
        }
        self.0 = std::mem::take(&mut self.0).merge(given);
    }

    fn merged(self) -> Figment {
        self.1.into_iter().fold(self.0, Figment::merge)
    }
}

/// `groups.0.name` as `groups[0].name`. A shell's variable can't have brackets in its name.
fn indexed(name: &str) -> String {
    let Some(rest) = name.strip_prefix("groups.") else {
        return name.to_owned();
    };
    let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
    if index.parse::<usize>().is_err() {
        return name.to_owned();
    }
    let dot = if rest.is_empty() { "" } else { "." };
    format!("groups[{index}]{dot}{rest}")
}

/// A settings file. figment's own reader would quote the line of an error, and a password with it.
fn read(file: &Path) -> Result<Given, String> {
    let text = std::fs::read_to_string(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => "the file is not text in UTF-8".to_owned(),
        _ => error.to_string(),
    })?;
    let table: toml::Table = text
        .parse()
        .map_err(|error| format!("not valid TOML: {}", toml_problem(&text, &error)))?;
    let value = Value::serialize(table).map_err(|error| error.kind.to_string())?;
    Ok(Given {
        source: format!("file {}", file.display()),
        dict: value.into_dict().unwrap_or_default(),
    })
}

/// The values of a single source.
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
