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
