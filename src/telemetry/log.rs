//! Sets up the log: `tracing` to standard output, as text or JSON.

use std::io::{IsTerminal, stdout};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, LogSettings};

/// Starts logging for the whole process. A second call changes nothing, so that tests may call it too.
///
/// # Errors
/// A level that is no filter; the message says what is wrong with it.
pub fn start(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(&settings.level)
        .map_err(|error| format!("log.level = {:?}: {error}", settings.level))?;
    let builder = fmt().with_env_filter(filter).with_writer(stdout);
    let _ = match settings.format {
        LogFormat::Text => builder
            .with_ansi(stdout().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
