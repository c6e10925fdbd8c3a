//! Why a command failed, and the exit code that says so.

use crate::config::ConfigError;
use gaocache_core::error::{Error, ErrorKind};

/// Why a command failed, with its exit code.
#[derive(Debug)]
pub(super) enum Failure {
    /// Exit code 64.
    Configuration(String),
    /// Exit code 2.
    Usage(String),
    /// Exit code 3.
    NotFound(String),
    /// An error of the cache, with the name of its kind. Exit code 1.
    Answered(&'static str, String),
    /// Exit code 1.
    Failed(String),
    /// The reader of our output has closed the pipe: it has read enough. Exit code 0.
    NobodyReads,
}

impl Failure {
    /// The message.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Configuration(message)
            | Self::Usage(message)
            | Self::NotFound(message)
            | Self::Answered(_, message)
            | Self::Failed(message) => message,
            Self::NobodyReads => "nobody reads what is printed",
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            // The settings may be right, and another process in the way.
            _ if is_in_use(&error) => Self::Failed(error.to_string()),
            ErrorKind::NotFound => Self::NotFound(error.to_string()),
            ErrorKind::Configuration => Self::Configuration(error.to_string()),
            kind => Self::Answered(kind.name(), error.to_string()),
        }
    }
}

/// Whether a port is in use.
pub(super) fn is_in_use(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}
