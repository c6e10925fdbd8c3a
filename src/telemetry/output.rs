//! The log's way to standard output.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::line_writer::LineWriter;
use gaocache_core::error::Result;

/// Lines that may wait.
const MAX_LINES: usize = 8192;

/// Lines of this process that were never written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of this process' log were never written.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Standard output. Clones share its queue.
#[derive(Clone)]
pub(super) struct Output(LineWriter);

impl Output {
    /// The one of this process.
    ///
    /// # Errors
    /// As [`LineWriter::start`].
    pub(super) fn of_the_process() -> Result<Self> {
        static OUTPUT: OnceLock<Output> = OnceLock::new();
        if let Some(output) = OUTPUT.get() {
            return Ok(output.clone());
        }
        let count = || {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        };
        let output = Self(LineWriter::start("log", MAX_LINES, io::stdout(), count)?);
        Ok(OUTPUT.get_or_init(|| output).clone())
    }

    /// As [`LineWriter::flush`].
    pub(super) fn flush(&self) {
        self.0.flush();
    }
}

/// Takes a whole line at a time, which is how `tracing_subscriber` writes.
impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
