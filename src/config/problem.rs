//! What is wrong with the settings, for people.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full name of the setting.
    pub name: String,
    /// The given value, if any.
    pub value: Option<String>,
    /// The file, variable or flag.
    pub source: Option<String>,
    /// What is wrong, and which values are allowed.
    pub reason: String,
}

impl Problem {
    /// What is wrong with a setting, whatever its value and source.
    pub(super) fn of(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: None,
            source: None,
            reason: reason.into(),
        }
    }
}

/// All problems with the settings, reported together.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed("wrong setting", &self.0))
    }
}

/// What is wrong with a text in TOML, and where. The error's own words would quote the line, and a
/// password with it.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("line {line}, column {column}: {}", error.message())
}

/// All problems of a kind, such as `wrong setting`, for a person.
pub fn listed(kind: &str, problems: &[Problem]) -> String {
    let count = problems.len();
    let plural = if count == 1 { "" } else { "s" };
    let lines = problems.iter().map(Problem::to_string);
    let lines = lines.collect::<String>();
    format!("{count} {kind}{plural}:{lines}")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  {}", self.name)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(source) = &self.source {
            write!(f, "  [{source}]")?;
        }
        write!(f, "\n    {}", self.reason)
    }
}
