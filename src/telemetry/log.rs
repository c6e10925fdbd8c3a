//! Sets up the log: `tracing` to standard output, as text or JSON, with a level that can be changed while the process runs.

use std::{
    io::{IsTerminal, stdout},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogSettings};

/// The level of the whole process, which has one log.
static LEVEL: OnceLock<LogLevel> = OnceLock::new();

/// The level in force. Cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    text: Arc<Mutex<String>>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// The level of this process; `None` where [`start`] was not called: an embedding program has a log of its own.
    pub fn of_process() -> Option<&'static Self> {
        LEVEL.get()
    }

    /// As it was given.
    pub fn text(&self) -> String {
        self.text.lock().clone()
    }

    /// Changes it, until the process ends.
    ///
    /// # Errors
    /// A text that is no filter; the message says what is wrong with it.
    pub fn set(&self, text: &str) -> Result<(), String> {
        let filter = filter(text)?;
        let changed = self.filter.reload(filter);
        changed.map_err(|error| error.to_string())?;
        text.clone_into(&mut self.text.lock());
        tracing::warn!(level = text, "the log's level was changed");
        Ok(())
    }
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| format!("log.level = {text:?}: {error}"))
}

/// Starts logging for the whole process. A second call changes nothing, so that tests may call it too.
///
/// # Errors
/// A level that is no filter; the message says what is wrong with it.
pub fn start(settings: &LogSettings) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(filter(&settings.level)?);
    let subscriber = tracing_subscriber::registry().with(filter);
    let text = fmt::layer().with_writer(stdout);
    let started = match settings.format {
        LogFormat::Text => subscriber
            .with(text.with_ansi(stdout().is_terminal()).with_target(false))
            .try_init(),
        LogFormat::Json => subscriber.with(text.json().flatten_event(true)).try_init(),
    };
    if started.is_ok() {
        let _ = LEVEL.set(LogLevel {
            text: Arc::new(Mutex::new(settings.level.clone())),
            filter: handle,
        });
    }
    Ok(())
}
