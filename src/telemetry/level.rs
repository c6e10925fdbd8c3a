//! The level of the process' log, which the admin listener shows and changes.

use std::sync::OnceLock;

use parking_lot::Mutex;

use gaocache_core::error::Result;

/// The level of the process's only log.
static LEVEL: OnceLock<LogLevel> = OnceLock::new();

/// The current level.
pub(crate) struct LogLevel {
    text: Mutex<String>,
    change: Box<Change>,
}

/// Sets a level, or says what is wrong with it.
type Change = dyn Fn(&str) -> Result<()> + Send + Sync;

impl LogLevel {
    /// The level of this process; `None` where the program did not start the log: one that embeds a
    /// node has a log of its own.
    pub(crate) fn of_process() -> Option<&'static Self> {
        LEVEL.get()
    }

    /// As it was given.
    pub(crate) fn text(&self) -> String {
        self.text.lock().clone()
    }

    /// Changes the level until the process ends.
    ///
    /// # Errors
    /// [`Configuration`](gaocache_core::ErrorKind::Configuration) for a text that is no filter; the
    /// message says what is wrong with it.
    pub(crate) fn set(&self, text: &str) -> Result<()> {
        (self.change)(text)?;
        text.clone_into(&mut self.text.lock());
        tracing::warn!(level = text, "the log's level was changed");
        Ok(())
    }
}

/// For the program, which sets up the log.
#[cfg(feature = "cli")]
impl LogLevel {
    /// This level now, and a way to change it.
    pub(super) fn new(
        text: &str,
        change: impl Fn(&str) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            text: Mutex::new(text.to_owned()),
            change: Box::new(change),
        }
    }

    pub(super) fn becomes_that_of_the_process(self) {
        let _ = LEVEL.set(self);
    }
}
